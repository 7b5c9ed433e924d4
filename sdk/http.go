package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dory-io/dory/internal/statexfer"
)

const (
	// drainTimeout is for answers under way when the processor ends, such as that of /prestop.
	drainTimeout = 5 * time.Second
	// requestReadTimeout is the contract's timeout for a request.
	requestReadTimeout = 30 * time.Second
)

// server serves the endpoints while Run runs.
type server struct {
	http.Server
	failed chan error
}

func (p *Processor) serve(ctx context.Context) (*server, error) {
	listener, err := p.listen(ctx, net.JoinHostPort(p.env.bindAddress, strconv.Itoa(p.env.port)))
	if err != nil {
		return nil, fmt.Errorf("serving health and state on port %d (DORY_HEALTH_PORT): %w", p.env.port, err)
	}
	s := &server{failed: make(chan error, 1), Server: http.Server{
		Handler:           p.Handler(),
		ConnContext:       withPeer,
		ReadHeaderTimeout: drainTimeout,
		ReadTimeout:       requestReadTimeout,
		WriteTimeout:      max(requestReadTimeout, p.shutdownTimeout) + drainTimeout,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
	}}
	p.log.Info("serving", "address", listener.Addr().String(), "state", p.backend.String())
	go p.accepting(s, listener)
	return s, nil
}

// accepting stops the processor when it can no longer be asked about its health.
func (p *Processor) accepting(s *server, listener net.Listener) {
	err := s.Serve(listener)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	} else {
		p.stop("the HTTP server failed: " + err.Error())
	}
	s.failed <- err
}

// close lets the answers under way be sent.
func (s *server) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		_ = s.Close()
	}
	if err := <-s.failed; err != nil {
		return fmt.Errorf("serving HTTP: %w", err)
	}
	return nil
}

// endpoints are the capabilities that GET / tells.
func endpoints() []string {
	return []string{
		"/", "/health", "/healthz", "/ready", "/metrics", "/state", "/prestop", pathHandoff, pathQuiesce, pathPromote, pathResume,
	}
}

// Handler serves the contract's endpoints. Run serves it on DORY_HEALTH_PORT; it is exported for tests.
func (p *Processor) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/{$}", methods{http.MethodGet: p.getIndex})
	mux.Handle("/health", methods{http.MethodGet: p.getHealth})
	mux.Handle("/healthz", methods{http.MethodGet: p.getHealth})
	mux.Handle("/ready", methods{http.MethodGet: p.getReady})
	mux.Handle("/metrics", methods{http.MethodGet: promhttp.HandlerFor(p.metrics.registry, promhttp.HandlerOpts{}).ServeHTTP})
	mux.Handle("/state", p.authorized(methods{http.MethodGet: p.getState, http.MethodPost: p.postState}))
	p.handoffRoutes(mux)
	mux.Handle("/prestop", methods{http.MethodGet: p.getPreStop})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "no endpoint "+r.URL.Path)
	})
	return p.limited(mux)
}

// methods answers 405 in JSON to the methods that it does not have.
type methods map[string]http.HandlerFunc

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if serve, ok := m[method]; ok {
		serve(w, r)
		return
	}
	for allowed := range m {
		w.Header().Add("Allow", allowed)
	}
	writeError(w, http.StatusMethodNotAllowed, fmt.Sprintf("method %s is not allowed here", r.Method))
}

// limited refuses the requests of a client that sends too many, and counts the others.
func (p *Processor) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.limiter.allow(clientIP(r), time.Now()) {
			w.Header().Set("Retry-After", "1")
			writeError(w, http.StatusTooManyRequests, "Too many requests")
			return
		}
		p.requests.Add(1)
		next.ServeHTTP(w, r)
	})
}

// clientIP is the peer's. A header could name anybody.
func clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func (p *Processor) getIndex(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set(statexfer.HeaderSDKVersion, Version)
	writeJSON(w, http.StatusOK, struct {
		Service   string   `json:"service"`
		Endpoints []string `json:"endpoints"`
	}{"dory-processor", endpoints()})
}

func (p *Processor) getHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(statexfer.HeaderSDKVersion, Version)
	p.mu.Lock()
	p.lastHealth = time.Now()
	p.mu.Unlock()
	if p.health != nil {
		if err := p.health(r.Context()); err != nil {
			writeJSON(w, http.StatusServiceUnavailable, statusBody{Status: "unhealthy", Reason: err.Error()})
			return
		}
	}
	writeJSON(w, http.StatusOK, statusBody{Status: "healthy"})
}

func (p *Processor) getReady(w http.ResponseWriter, _ *http.Request) {
	if now, reason := p.status(); now != phaseRunning {
		writeJSON(w, http.StatusServiceUnavailable, statusBody{Status: "not ready", Reason: reason})
		return
	}
	writeJSON(w, http.StatusOK, statusBody{Status: "ready"})
}

// getPreStop answers when the state is saved, and not before.
func (p *Processor) getPreStop(w http.ResponseWriter, r *http.Request) {
	p.stop("GET /prestop")
	select {
	case <-p.settled:
	case <-r.Context().Done():
		return
	}
	if p.result.err != nil {
		writeError(w, http.StatusInternalServerError, p.result.err.Error())
		return
	}
	writeJSON(w, http.StatusOK, statusBody{Status: "ok", Message: p.result.message})
}

// statusBody is the answer of everything but GET / and GET /state.
type statusBody struct {
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func writeError(w http.ResponseWriter, code int, message string) {
	writeJSON(w, code, map[string]string{"error": message})
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		code, text = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(text) //nolint:errcheck // The client is gone, and nobody is left to tell.
}
