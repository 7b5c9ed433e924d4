package processkubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// link is a cable: what is sent to its address goes to its target, until it is cut. A cut one swallows everything, as a
// broken network does: nobody is told.
type link struct {
	target   string
	listener net.Listener
	done     chan struct{}
	wg       sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

// newLink listens at address, which may have the port 0.
func newLink(ctx context.Context, address, target string, cut bool) (*link, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp4", address)
	if err != nil {
		return nil, fmt.Errorf("forwarding %s to %s: %w", address, target, err)
	}
	l := &link{target: target, listener: listener, done: make(chan struct{}), cut: cut, conns: map[net.Conn]struct{}{}}
	l.wg.Add(1)
	go l.accept(ctx)
	return l, nil
}

func (l *link) address() string { return l.listener.Addr().String() }

func (l *link) accept(ctx context.Context) {
	defer l.wg.Done()
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return // Closed.
		}
		if !l.add(conn) {
			continue
		}
		l.wg.Go(func() { l.carry(ctx, conn) })
	}
}

// add keeps the connection, and says whether to carry it.
func (l *link) add(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.done:
		resetConn(conn)
		return false
	default:
	}
	l.conns[conn] = struct{}{}
	return !l.cut
}

func (l *link) carry(ctx context.Context, near net.Conn) {
	dialer := net.Dialer{Timeout: time.Second}
	far, err := dialer.DialContext(ctx, "tcp4", l.target)
	if err != nil {
		l.reset(near)
		return
	}
	if !l.add(far) {
		return // The mend, or the end, resets both.
	}
	results := make(chan error, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		l.wg.Go(func() {
			err := l.copy(way[0], way[1])
			if err != nil {
				l.reset(near, far)
			}
			results <- err
		})
	}
	if err := errors.Join(<-results, <-results); err == nil {
		l.forget(near, far)
		_ = near.Close()
		_ = far.Close()
	}
}

// copy sends what comes from one to the other, and the orderly end of it.
func (l *link) copy(to, from net.Conn) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if done, cut := l.state(); cut {
			<-done // What came while it was cut is lost, and so is the connection.
			return net.ErrClosed
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			if tcp, ok := to.(*net.TCPConn); ok {
				return tcp.CloseWrite()
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// state answers whether it is cut, and what is closed by the mend or the end.
func (l *link) state() (done <-chan struct{}, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done, l.cut
}

func (l *link) forget(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range conns {
		delete(l.conns, conn)
	}
}

// reset ends connections so that nobody takes it for the orderly end of what was sent.
func (l *link) reset(conns ...net.Conn) {
	l.forget(conns...)
	for _, conn := range conns {
		resetConn(conn)
	}
}

func resetConn(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// setCut breaks the link, or mends it; connections that lived through a break are reset by the mend.
func (l *link) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut == cut {
		return
	}
	l.cut = cut
	if !cut {
		l.resetAllLocked()
		l.done = make(chan struct{})
	}
}

func (l *link) close() {
	l.mu.Lock()
	_ = l.listener.Close()
	l.resetAllLocked()
	l.mu.Unlock()
	l.wg.Wait()
}

func (l *link) resetAllLocked() {
	for conn := range l.conns {
		resetConn(conn)
	}
	clear(l.conns)
	close(l.done)
}
