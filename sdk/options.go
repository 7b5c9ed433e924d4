package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

const (
	defaultShutdownTimeout = 25 * time.Second
	// captureTimeout bounds how long a request waits for the end of the iteration in hand. Clients give up after 30 s.
	captureTimeout = 25 * time.Second
)

// Option changes one of a processor's settings.
type Option func(*settings)

type settings struct {
	lookupEnv       func(string) (string, bool)
	log             *slog.Logger
	backend         Backend
	health          func(context.Context) error
	interval        time.Duration
	saveInterval    time.Duration
	restoreTimeout  time.Duration
	shutdownTimeout time.Duration
	stateVersion    string
	hasStateVersion bool
	migrate         func(from string, data json.RawMessage) (json.RawMessage, error)

	// What tests replace.
	random func() float64
	listen func(ctx context.Context, address string) (net.Listener, error)
}

func defaultSettings() settings {
	return settings{
		lookupEnv:       os.LookupEnv,
		log:             slog.New(slog.NewJSONHandler(os.Stderr, nil)),
		shutdownTimeout: defaultShutdownTimeout,
		random:          rand.Float64,
		listen:          listen,
	}
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", address)
}

// validate says which options are out of their bounds.
func (s *settings) validate() error {
	errs := []error{s.validateVersion()}
	if s.log == nil {
		errs = append(errs, errors.New("WithLogger: no logger; slog.New(slog.DiscardHandler) is one that is silent"))
	}
	for name, d := range map[string]time.Duration{
		"WithInterval": s.interval, "WithSaveInterval": s.saveInterval, "WithRestoreTimeout": s.restoreTimeout,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s: %v is negative", name, d))
		}
	}
	if s.shutdownTimeout <= 0 {
		errs = append(errs, fmt.Errorf("WithShutdownTimeout: %v leaves no time to save the state", s.shutdownTimeout))
	}
	return errors.Join(errs...)
}

// WithInterval sets the pause between the end of an iteration and the start of the next. Default 0: no pause. Wait
// here rather than inside of an iteration, because the state cannot be read in the middle of one.
func WithInterval(pause time.Duration) Option {
	return func(s *settings) { s.interval = pause }
}

// WithSaveInterval also saves the state while the processor runs, at most this long after the last time, so that
// a crash loses no more than this. Default 0: the state is saved at the end, and the operator's checkpoints are
// what a crash falls back to.
func WithSaveInterval(interval time.Duration) Option {
	return func(s *settings) { s.saveInterval = interval }
}

// WithRestoreTimeout makes Run fail when the saved state cannot be read for this long at the start. Default 0: the
// processor keeps trying and stays not ready. Neither ever starts empty in place of a state that exists.
func WithRestoreTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.restoreTimeout = timeout }
}

// WithShutdownTimeout bounds the time from a request to stop until the state is saved. Half of it is for the iteration
// in hand, whose context ends then. Default 25 s, which fits into the operator's grace period of 35 s.
func WithShutdownTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.shutdownTimeout = timeout }
}

// WithHealthCheck makes GET /health answer 503 while check fails. Kubernetes then restarts the process, so check only what a
// restart can mend. Default: always healthy.
func WithHealthCheck(check func(context.Context) error) Option {
	return func(s *settings) { s.health = check }
}

// WithBackend keeps the state elsewhere than DORY_STATE_BACKEND says.
func WithBackend(backend Backend) Option {
	return func(s *settings) { s.backend = backend }
}

// WithLogger replaces the logger. Default: JSON lines on standard error.
func WithLogger(log *slog.Logger) Option {
	return func(s *settings) { s.log = log }
}

// WithEnv replaces the process's environment, for tests and for processors that are embedded in something else.
func WithEnv(lookup func(name string) (value string, ok bool)) Option {
	return func(s *settings) { s.lookupEnv = lookup }
}
