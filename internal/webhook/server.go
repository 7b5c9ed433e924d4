package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"
)

const (
	// idleTimeout of a connection is well above that of the API server, 90 s. Whoever closes an idle connection closes one
	// that the other side may be about to use, and a review that meets the end of its connection is an error 500 to whoever
	// evicts; so it must be the API server, which knows. With the usual 90 s on both sides, drains fail now and then.
	idleTimeout       = 10 * time.Minute
	readHeaderTimeout = 32 * time.Second
	maxHeaderBytes    = 1 << 20
	// shutdownTimeout is for the reviews in hand.
	shutdownTimeout = time.Minute
)

// server is the manager's kind of webhook server, which serves in its own way.
type server struct {
	ctrlwebhook.Server

	address string
	tls     *tls.Config
	started atomic.Bool
}

func newServer(config Config, configure func(*tls.Config)) *server {
	s := &server{
		Server:  ctrlwebhook.NewServer(ctrlwebhook.Options{}),
		address: net.JoinHostPort(config.Host, strconv.Itoa(config.Port)),
		tls:     &tls.Config{NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS13},
	}
	configure(s.tls)
	return s
}

// Start serves until the context ends, and what has come by then is still answered.
func (s *server) Start(ctx context.Context) error {
	listener, err := tls.Listen("tcp", s.address, s.tls)
	if err != nil {
		return fmt.Errorf("listening for reviews on %s: %w", s.address, err)
	}
	s.started.Store(true)
	serving := newHTTPServer(s.WebhookMux())
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		ended <- serving.Shutdown(ctx)
	}()
	if err := serving.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving reviews on %s: %w", s.address, err)
	}
	return <-ended
}

// StartedChecker says whether connections are accepted.
func (s *server) StartedChecker() healthz.Checker {
	return func(*http.Request) error {
		if !s.started.Load() {
			return fmt.Errorf("nobody listens for reviews on %s yet", s.address)
		}
		return nil
	}
}

func newHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{Handler: handler, IdleTimeout: idleTimeout, ReadHeaderTimeout: readHeaderTimeout, MaxHeaderBytes: maxHeaderBytes}
}
