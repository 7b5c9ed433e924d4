package webhook

import (
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
)

const (
	// DeparturePath is what the kubelet asks for before it ends a replica.
	DeparturePath = "/departure"
	// departureTime is longer than the 5 s after which kubectl asks again, so that the connections which its last questions
	// came over are used once more, and then not kept.
	departureTime = 7 * time.Second
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
	select {
	case <-r.Context().Done():
	case <-d.clock.After(departureTime):
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
