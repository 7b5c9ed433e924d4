package dbsync

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/dory-io/dory/internal/store"
)

// The waits between two tries to reach the database. The breaker in front of it answers at once while it is open.
const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// health tells people, once, that the database cannot be used, and once that it can again.
type health struct {
	metrics *metrics

	mu   sync.Mutex
	down bool
}

// report takes the outcome of one use of the database.
func (h *health) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return // We were told to stop; that says nothing about the database.
	}
	wasDown := h.record(err)
	switch logger := log.FromContext(ctx); {
	case err != nil && !wasDown:
		logger.Error(err, "The database cannot be used: everything stays as it is until it can", "unavailable", errors.Is(err, store.ErrUnavailable))
	case err == nil && wasDown:
		logger.Info("The database can be used again")
	}
}

// record takes the outcome of one use of the database into the metrics, and says whether the one before failed.
func (h *health) record(err error) (wasDown bool) {
	value := 1.0
	if err != nil {
		value = 0
		h.metrics.failed(err)
	}
	h.metrics.componentHealthy.WithLabelValues(component).Set(value)
	h.mu.Lock()
	defer h.mu.Unlock()
	wasDown, h.down = h.down, err != nil
	return wasDown
}

// retry grows the wait between tries.
type retry struct {
	first, last time.Duration

	mu      sync.Mutex
	backoff wait.Backoff
}

func newRetry() *retry { return newRetryBetween(firstRetry, lastRetry) }

func newRetryBetween(first, last time.Duration) *retry {
	r := &retry{first: first, last: last}
	r.reset()
	return r
}

func (r *retry) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backoff = wait.Backoff{Duration: r.first, Factor: 2, Jitter: 0.1, Steps: 30, Cap: r.last}
}

func (r *retry) next() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.backoff.Step()
}
