package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever asks to quiesce and goes away before it is done has asked for nothing; later, it is done.

// lateListener accepts a connection when it is told to, and tells when that is closed.
type lateListener struct {
	net.Listener

	accept chan struct{}
	closed chan struct{}
}

func (l *lateListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	<-l.accept
	return &toldConn{TCPConn: conn.(*net.TCPConn), closed: l.closed}, nil
}

type toldConn struct {
	*net.TCPConn

	closed chan struct{}
}

func (c *toldConn) Close() error {
	err := c.TCPConn.Close()
	if !errors.Is(err, net.ErrClosed) {
		c.closed <- struct{}{}
	}
	return err
}

// awaits fails the test instead of waiting for ever.
func awaits[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(childPatience):
		t.Fatalf("waited %s for %s", childPatience, what)
		panic("unreachable")
	}
}

// quiesceAndHangUp sends a whole request, and hangs up before it returns. Each is another client.
func quiesceAndHangUp(t *testing.T, client byte, address string, before func()) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 1, client)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"epoch":1}`
	if _, err := fmt.Fprintf(conn, "POST /handoff/quiesce HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	before()
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// The request waits in the kernel until its client is gone, as it does for a process that was frozen or got no time. No
// iteration is in hand, so that there is nothing to wait for.
func TestQuiesceThatIsReadAfterItsClientIsGoneIsAbandoned(t *testing.T) {
	l := &lateListener{accept: make(chan struct{}), closed: make(chan struct{}, 1)}
	listen := func(s *settings) {
		s.listen = func(context.Context, string) (net.Listener, error) {
			l.Listener = listenOn(t, net.JoinHostPort(childAddress(), "0"))
			return l, nil
		}
	}
	worked := make(chan struct{}, 1)
	p := newProcessor(t, &memory{}, listen, environ("DORY_EPOCH", "1"), WithInterval(time.Hour))
	ended := make(chan error, 1)
	go func() {
		ended <- p.Run(t.Context(), func(context.Context) error {
			worked <- struct{}{}
			return nil
		})
	}()
	awaits(t, "the first iteration", worked)
	for round := range 200 {
		quiesceAndHangUp(t, byte(round), l.Addr().String(), func() {})
		l.accept <- struct{}{}
		awaits(t, "the end of the request", l.closed)
		if now := p.standing(); now.role != rolePrimary {
			t.Fatalf("round %d: the instance is %s, and nobody knows", round, now.role)
		}
	}
	p.stop("the test is over")
	close(l.accept)
	if err := awaits(t, "the end of Run", ended); err != nil {
		t.Error(err)
	}
}

// A real process, with an iteration in hand that the request waits for.
func TestProcessWorksOnWhenTheClientOfQuiesceIsGone(t *testing.T) {
	c := startChild(t, "waiting", filepath.Join(t.TempDir(), "state.json"))
	o := &operator{t: t}
	wants := func(want int64) {
		t.Helper()
		if n := c.read(); n != want {
			t.Fatalf("%d was printed, want %d", n, want)
		}
	}
	o.ready(c)
	for round := range int64(100) {
		wants(begun)
		quiesceAndHangUp(t, byte(round), c.host, func() { wants(waitedFor) })
		if _, err := c.gate.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		wants(round)
	}
	o.ask(http.MethodGet, c, "/handoff", "").wantSays(t, http.StatusOK, `"role":"primary","epoch":1,"sequence":100`)
	c.signal(syscall.SIGKILL)
	c.exitCode()
}

// leavingHandler is a client that goes away when the log says that the instance is quiesced.
type leavingHandler struct {
	slog.Handler

	leave context.CancelFunc
}

func (h leavingHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "quiesced" {
		h.leave()
	}
	return h.Handler.Handle(ctx, r)
}

func (h leavingHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func TestQuiesceStaysWhenTheClientGoesRightAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, leave := context.WithCancel(t.Context())
		log := slog.New(leavingHandler{slog.NewTextHandler(t.Output(), nil), leave})
		p := newProcessor(t, &memory{}, WithInterval(time.Second), WithLogger(log))
		n, iterate := counting(p)
		r := start(t, p, iterate)
		first := postAs(gone, p, "/handoff/quiesce", `{"epoch":7}`)
		if gone.Err() == nil {
			t.Fatal("the client did not go away")
		}
		time.Sleep(time.Hour)
		wantWhere(t, p, "quiesced 7 1")
		// Whoever comes next is told all that the client missed.
		if again := post(p, "/handoff/quiesce", `{"epoch":7}`); again.data(t) != `{"n":1}` || first.code == http.StatusOK && first.data(t) != again.data(t) {
			t.Errorf("%d %s, the first was %d %s", again.code, again.body, first.code, first.body)
		}
		post(p, "/handoff/resume", `{"epoch":7}`).wantSays(t, http.StatusOK, `"role":"primary"`)
		time.Sleep(10*time.Second + time.Second/2)
		synctest.Wait()
		if n.Get() != 12 {
			t.Errorf("n is %d: it does not work on", n.Get())
		}
		r.shutDown()
	})
}
