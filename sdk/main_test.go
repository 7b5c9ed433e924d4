package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(childMain())
	}
	// The first use of signals starts a goroutine that never ends, which must not happen inside of a synctest bubble.
	unused := make(chan os.Signal, 1)
	signal.Notify(unused, syscall.SIGTERM)
	code := m.Run()
	stopAPIServer()
	os.Exit(code)
}

// memory is a backend that fails when told to.
type memory struct {
	mu      sync.Mutex
	doc     *Document
	loadErr func(call int) error
	saveErr func(call int) error
	loads   int
	saves   int
}

func (m *memory) Load(context.Context) (Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads++
	if m.loadErr != nil {
		if err := m.loadErr(m.loads); err != nil {
			return Document{}, err
		}
	}
	if m.doc == nil {
		return Document{}, ErrNoState
	}
	return *m.doc, nil
}

func (m *memory) Save(_ context.Context, doc Document) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saves++
	if m.saveErr != nil {
		if err := m.saveErr(m.saves); err != nil {
			return err
		}
	}
	if m.doc != nil {
		if err := refuseToReplace(m.doc.Metadata, doc); err != nil {
			return err
		}
	}
	m.doc = &doc
	return nil
}

func (m *memory) String() string { return "memory" }

// saved is the payload of the last save, or "".
func (m *memory) saved() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.doc == nil {
		return ""
	}
	return string(m.doc.Payload)
}

// position is that of the last save.
func (m *memory) position() Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.doc.Metadata.Position
}

func document(payload string, epoch, sequence int64) *Document {
	doc := &Document{Payload: json.RawMessage(payload)}
	doc.Metadata.ProcessorID = "p-1"
	doc.Metadata.PodName = "earlier-pod"
	doc.Metadata.Position = Position{Epoch: epoch, Sequence: sequence}
	return doc
}

// unset takes a variable out of the environment, where "" leaves it there and empty.
const unset = "(unset)"

func environ(extra ...string) Option {
	vars := map[string]string{
		"PROCESSOR_ID": "p-1", "APP_NAME": "app", "POD_NAME": "dory-p-1-a", "POD_NAMESPACE": "ns", "DORY_EPOCH": "7", "DORY_STATE_BACKEND": "none",
	}
	for pair := range slices.Chunk(extra, 2) {
		vars[pair[0]] = pair[1]
	}
	maps.DeleteFunc(vars, func(_, value string) bool { return value == unset })
	return WithEnv(func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	})
}

// idleListener accepts nothing: the tests call the handler.
type idleListener struct {
	closed chan struct{}
	once   sync.Once
}

func (l *idleListener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

func (l *idleListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *idleListener) Addr() net.Addr { return &net.TCPAddr{} }

func withoutNetwork(s *settings) {
	s.random = func() float64 { return 0 }
	s.listen = func(context.Context, string) (net.Listener, error) {
		return &idleListener{closed: make(chan struct{})}, nil
	}
}

func newProcessor(t *testing.T, backend Backend, options ...Option) *Processor {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	options = append([]Option{environ(), withoutNetwork, WithLogger(log), WithBackend(backend)}, options...)
	p, err := New(options...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// running is a processor whose Run is under way in a bubble.
type running struct {
	*Processor

	t    *testing.T
	done chan error
}

func start(t *testing.T, p *Processor, iterate func(context.Context) error) *running {
	t.Helper()
	r := &running{Processor: p, t: t, done: make(chan error, 1)}
	go func() { r.done <- p.Run(t.Context(), iterate) }()
	synctest.Wait()
	return r
}

// ended waits for the end of Run, in fake time.
func (r *running) ended() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(time.Hour):
		r.t.Fatal("Run does not end")
		return nil
	}
}

// shutDown is for tests that end with a healthy processor.
func (r *running) shutDown() {
	r.t.Helper()
	r.stop("the test is over")
	if err := r.ended(); err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

type answer struct {
	code   int
	body   string
	header http.Header
}

func ask(p *Processor, method, path, body string, header ...string) answer {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequestWithContext(context.Background(), method, path, reader)
	for pair := range slices.Chunk(header, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, r)
	return answer{w.Code, w.Body.String(), w.Header()}
}

func get(p *Processor, path string, header ...string) answer {
	return ask(p, http.MethodGet, path, "", header...)
}

func (a answer) want(t *testing.T, code int, body string) {
	t.Helper()
	if diff := cmp.Diff(answer{code: code, body: body}, answer{code: a.code, body: a.body}, cmp.AllowUnexported(answer{})); diff != "" {
		t.Error(diff)
	}
}

func (a answer) wantSays(t *testing.T, code int, says string) {
	t.Helper()
	if a.code != code || !strings.Contains(a.body, says) {
		t.Errorf("got %d %s, want %d that says %q", a.code, a.body, code, says)
	}
}

// data is the state in the answer of GET /state.
func (a answer) data(t *testing.T) string {
	t.Helper()
	var state struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal([]byte(a.body), &state); err != nil || a.code != http.StatusOK {
		t.Fatalf("GET /state: %d %s", a.code, a.body)
	}
	return string(state.Data)
}

func nothing(context.Context) error { return nil }

var errBroken = errors.New("broken on purpose")
