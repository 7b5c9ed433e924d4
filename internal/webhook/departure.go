package webhook

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
)

const (
	// DeparturePath is what the kubelet asks for before it ends a replica.
	DeparturePath = "/departure"
	// departureTime is longer than the 5 s after which kubectl asks again, so that it has gone elsewhere by then.
	departureTime = 7 * time.Second
	// quietTime is from the eviction of this replica, when kubectl evicts the node's other pods too, until half-way to when
	// it asks again. Nobody asks then, so that no question meets the end of a connection which the API server has kept.
	quietTime = 2500 * time.Millisecond
)

// departure lets a replica leave unnoticed. The API server keeps connections, and asks over them also when the Service does
// not lead to the replica any more; a question that meets the end of its connection is an error 500 to whoever evicts.
type departure struct {
	clock   clock.Clock
	leaving atomic.Bool
}

// announce holds the kubelet back until nobody is likely to ask any more.
func (d *departure) announce(_ http.ResponseWriter, r *http.Request) {
	d.leaving.Store(true)
	d.wait(r.Context(), quietTime)
	if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
		server.SetKeepAlivesEnabled(false) // This also closes those that are idle.
	}
	d.wait(r.Context(), departureTime-quietTime)
}

func (d *departure) wait(ctx context.Context, duration time.Duration) {
	select {
	case <-ctx.Done():
	case <-d.clock.After(duration):
	}
}

// closing answers as ever, but tells the API server to keep no connection to a replica that leaves.
func (d *departure) closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
