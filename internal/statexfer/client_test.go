package statexfer

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

const token = "s3cret"

// unknown is what a processor says to those whose token it does not know.
var unknown = http.StatusText(http.StatusUnauthorized)

// now is when every test of the client begins.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// recordingClock lets no pause last, but writes down how long it would be. The timeout of a request passes only when
// the clock is stepped; it is told from the pauses by its length, which none of them has with newTestClient.
type recordingClock struct {
	*clocktesting.FakeClock
	mu     sync.Mutex
	pauses []time.Duration
	held   func()
}

// holds lets the next pauses last for ever, and calls then when one has begun.
func (c *recordingClock) holds(then func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = then
}

func (c *recordingClock) NewTimer(d time.Duration) clock.Timer {
	if d == requestTimeout {
		return c.FakeClock.NewTimer(d)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pauses = append(c.pauses, d)
	if c.held != nil {
		defer c.held()
		return c.FakeClock.NewTimer(d)
	}
	return clock.RealClock{}.NewTimer(0)
}

func (c *recordingClock) recorded() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.pauses)
}

// received is a request as it came in.
type received struct {
	method, path, body string
	header             http.Header
	length             int64
}

// processor answers the requests with one handler after the other, and all further ones with the last.
type processor struct {
	*httptest.Server
	Endpoint
	clock *recordingClock

	mu       sync.Mutex
	handlers []http.HandlerFunc
	requests []received
	conns    int
}

func newProcessor(t *testing.T, handlers ...http.HandlerFunc) *processor {
	t.Helper()
	p := &processor{handlers: handlers, clock: &recordingClock{FakeClock: clocktesting.NewFakeClock(now)}}
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if state == http.StateNew {
			p.conns++
		}
	}
	p.Start()
	t.Cleanup(p.Close)
	p.Endpoint = Endpoint{URL: p.Server.URL, Token: token}
	return p
}

func (p *processor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.next(r)(w, r)
}

func (p *processor) next(r *http.Request) http.HandlerFunc {
	request := received{method: r.Method, path: r.URL.Path, header: r.Header, length: r.ContentLength}
	if r.ContentLength < 1<<20 { // The larger ones are left to the handlers.
		body, _ := io.ReadAll(r.Body)
		request.body = string(body)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, request)
	return p.handlers[min(len(p.requests), len(p.handlers))-1]
}

func (p *processor) got() []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

func (p *processor) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns
}

// newTestClient has the processor's clock and an average chance, which makes of each pause three quarters.
func newTestClient(t *testing.T, p *processor) *Client {
	t.Helper()
	transport := newTransport()
	t.Cleanup(transport.CloseIdleConnections)
	return NewClient(ClientConfig{Transport: transport, Clock: p.clock, Random: func() float64 { return 0.5 }})
}

// answer is the handler of a fixed answer; header is "Name: value".
func answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Set(name, value)
		}
		if w.Header().Get("Content-Length") == "" {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// chunked answers 200 without telling the size beforehand, and ends the answer properly.
func chunked(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, piece := range pieces {
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// cut sends what it is given and closes the connection.
func cut(raw string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, raw)
		_ = conn.Close()
	}
}

// hang answers nothing until the client gives up, for which it makes the clock pass the timeout.
func (p *processor) hang(w http.ResponseWriter, r *http.Request) {
	p.clock.Step(requestTimeout)
	<-r.Context().Done()
	_ = w
}
