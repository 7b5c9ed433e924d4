package configchange

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// unsettled knows whose configuration changed just now, so that several changes in a row are one restart.
type unsettled struct {
	clock  clock.PassiveClock
	settle time.Duration

	mu    sync.Mutex
	since map[types.NamespacedName]span
}

type span struct{ first, last time.Time }

// begin notes a change.
func (u *unsettled) begin(key types.NamespacedName) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.clock.Now()
	s := u.since[key]
	if s.first.IsZero() {
		s.first = now
	}
	s.last = now
	u.since[key] = s
}

// left is how long to wait; once it is over, the changes are forgotten.
func (u *unsettled) left(key types.NamespacedName) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	s, waits := u.since[key]
	if !waits {
		return 0
	}
	due := s.last.Add(u.settle)
	if latest := s.first.Add(settleAtMost * u.settle); latest.Before(due) {
		due = latest
	}
	if wait := due.Sub(u.clock.Now()); wait > 0 {
		return wait
	}
	delete(u.since, key)
	return 0
}

func (u *unsettled) forget(key types.NamespacedName) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.since, key)
}
