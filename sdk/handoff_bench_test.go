package sdk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The budget of a handoff's pause is 20 ms at 64 KiB (p50) and 150 ms at 8 MiB (p99), with the operator and its write of
// the epoch in between. These measure the SDK's part over loopback TCP: the request, the role file, the whole answer.

// shapes are states of about size bytes. large changes what makes out most of the state, as an iteration may.
var shapes = map[string]func(p *Processor, size int) (large func(i int)){
	"text": func(p *Processor, size int) func(int) {
		v := Var(p, "payload", strings.Repeat("x", size))
		return func(i int) { v.Set(fmt.Sprintf("%08d", i) + strings.Repeat("x", size-8)) }
	},
	"sessions": func(p *Processor, size int) func(int) {
		fresh := func(i int) map[string]session {
			m := map[string]session{}
			for k := range size / 64 {
				m[fmt.Sprintf("session-%08d", k)] = session{User: fmt.Sprintf("user-%08d", k), Seen: map[string]int{"n": i}}
			}
			return m
		}
		v := Var(p, "sessions", fresh(0))
		return func(i int) { v.Set(fresh(i)) }
	},
}

// instance is a processor that serves on loopback, one iteration at a time.
type instance struct {
	b       *testing.B
	p       *Processor
	n       *Variable[int]
	large   func(int)
	address string
	client  *http.Client
}

func newInstance(b *testing.B, shape string, size int, r string) *instance {
	b.Helper()
	i := &instance{b: b, client: &http.Client{Transport: &http.Transport{}}}
	listening := make(chan string, 1)
	listenHere := func(s *settings) {
		s.listen = func(ctx context.Context, _ string) (net.Listener, error) {
			var config net.ListenConfig
			l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
			if err == nil {
				listening <- l.Addr().String()
			}
			return l, err
		}
	}
	p, err := New(environ("DORY_ROLE", r, "DORY_ROLE_FILE", filepath.Join(b.TempDir(), "role")), WithBackend(NoBackend()),
		WithLogger(slog.New(slog.DiscardHandler)), WithInterval(time.Hour), listenHere)
	if err != nil {
		b.Fatal(err)
	}
	i.p, i.n, i.large = p, Var(p, "n", 0), shapes[shape](p, size)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, nothing) }()
	b.Cleanup(func() { cancel(); <-ended })
	i.address = "http://" + <-listening
	for p.standing().phase != phaseRunning {
		time.Sleep(time.Millisecond)
	}
	p.limiter.counts = nil
	return i
}

func (i *instance) ask(method, path string, body []byte, header http.Header) ([]byte, http.Header) {
	i.b.Helper()
	i.p.limiter.mu.Lock()
	i.p.limiter.counts = map[string]int{}
	i.p.limiter.mu.Unlock()
	r, err := http.NewRequestWithContext(i.b.Context(), method, i.address+path, bytes.NewReader(body))
	if err != nil {
		i.b.Fatal(err)
	}
	for _, name := range []string{"X-Dory-Epoch", "X-Dory-Sequence"} {
		if value := header.Get(name); value != "" {
			r.Header.Set(name, value)
		}
	}
	response, err := i.client.Do(r)
	if err != nil {
		i.b.Fatal(err)
	}
	defer response.Body.Close()
	text := make([]byte, max(response.ContentLength, 0))
	if _, err := io.ReadFull(response.Body, text); err != nil || response.StatusCode != http.StatusOK {
		i.b.Fatalf("%s %s: %d %.200s %v", method, path, response.StatusCode, text, err)
	}
	return text, response.Header
}

// iterate makes an iteration by hand.
func (i *instance) iterate(n int, large bool) {
	i.b.Helper()
	if err := i.p.boundary.acquire(i.b.Context()); err != nil {
		i.b.Fatal(err)
	}
	defer i.p.boundary.release()
	err := i.p.iteration(i.b.Context(), func(context.Context) error {
		i.n.Set(n)
		if large {
			i.large(n)
		}
		return nil
	})
	if err != nil {
		i.b.Fatal(err)
	}
}

// eachState runs for 64 KiB and 8 MiB, of which either little or all changes between two copies.
func eachState(b *testing.B, run func(b *testing.B, shape string, size int, large bool)) {
	b.Helper()
	for _, size := range []int{64 << 10, 8 << 20} {
		for _, shape := range []string{"text", "sessions"} {
			for _, large := range []bool{false, true} {
				name := map[bool]string{false: "little-changed", true: "all-changed"}[large]
				b.Run(fmt.Sprintf("%dKiB/%s/%s", size>>10, shape, name), func(b *testing.B) { run(b, shape, size, large) })
			}
		}
	}
}

func BenchmarkQuiesce(b *testing.B) {
	eachState(b, func(b *testing.B, shape string, size int, large bool) {
		b.Helper()
		source := newInstance(b, shape, size, "primary")
		source.ask(http.MethodGet, "/state", nil, nil)
		for n := 0; b.Loop(); n++ {
			b.StopTimer()
			source.iterate(n, large)
			b.StartTimer()
			source.ask(http.MethodPost, "/handoff/quiesce", []byte(`{"epoch":7}`), nil)
			b.StopTimer()
			source.ask(http.MethodPost, "/handoff/resume", []byte(`{"epoch":7}`), nil)
			b.StartTimer()
		}
	})
}

func BenchmarkRestoreStandby(b *testing.B) {
	eachState(b, func(b *testing.B, shape string, size int, large bool) {
		b.Helper()
		source, target := newInstance(b, shape, size, "primary"), newInstance(b, shape, size, "standby")
		for n := 0; b.Loop(); n++ {
			b.StopTimer()
			source.iterate(n, large)
			body, header := source.ask(http.MethodGet, "/state", nil, nil)
			b.StartTimer()
			_, restored := target.ask(http.MethodPost, "/state", body, header)
			if restored.Get("X-Dory-Checksum") != header.Get("X-Dory-Checksum") {
				b.Fatal("not the same")
			}
		}
	})
}

// BenchmarkPause is all of it: quiesce, final copy, verification, promotion, until the first iteration may begin.
func BenchmarkPause(b *testing.B) {
	eachState(b, func(b *testing.B, shape string, size int, large bool) {
		b.Helper()
		source, target := newInstance(b, shape, size, "primary"), newInstance(b, shape, size, "standby")
		epoch := 7
		for n := 0; b.Loop(); n++ {
			b.StopTimer()
			source.iterate(n, false)
			body, header := source.ask(http.MethodGet, "/state", nil, nil)
			target.ask(http.MethodPost, "/state", body, header)
			source.iterate(n+1, large)
			b.StartTimer()
			body, header = source.ask(http.MethodPost, "/handoff/quiesce", fmt.Appendf(nil, `{"epoch":%d}`, epoch), nil)
			target.ask(http.MethodPost, "/state", body, header)
			epoch++
			target.ask(http.MethodPost, "/handoff/promote", fmt.Appendf(nil, `{"epoch":%d}`, epoch), nil)
			source, target = target, source
		}
	})
}
