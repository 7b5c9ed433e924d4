package store

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// proxy stands between a client and the server, and does what networks and poolers do.
type proxy struct {
	listener net.Listener
	// swallowNotifications drops NotificationResponse, as if LISTEN had been sent to another session.
	swallowNotifications atomic.Bool
	// frozen swallows everything in both directions, as a network that was cut without a word.
	frozen atomic.Bool
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			backend, err := new(net.Dialer).DialContext(t.Context(), "tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			go p.forward(backend, client)
			go p.answer(client, backend)
		}
	}()
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// forward copies bytes from the client to the server.
func (p *proxy) forward(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !p.frozen.Load() {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// answer copies messages from the server to the client: one type byte, the length, the rest.
func (p *proxy) answer(to, from net.Conn) {
	defer to.Close()
	header := make([]byte, 5)
	for {
		if _, err := io.ReadFull(from, header); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
		if _, err := io.ReadFull(from, body); err != nil {
			return
		}
		if p.frozen.Load() || header[0] == 'A' && p.swallowNotifications.Load() {
			continue
		}
		if _, err := to.Write(append(header[:5:5], body...)); err != nil {
			return
		}
	}
}
