package placement

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// lull is how long nothing must have been bound before the events of bindings are written.
	lull = 500 * time.Millisecond
	// mostAtOnce is how many are then written at once, and pause is how long the API server is left alone after them: 200 a
	// second, about as many as two cores write beside other work.
	mostAtOnce = 40
	pause      = 200 * time.Millisecond
	// longestHeld is how long an event is held back at most.
	longestHeld = 30 * time.Second
)

// assignment is a pod that was bound and of which no event tells yet.
type assignment struct {
	pod  *corev1.Pod
	node string
	at   time.Time
}

// backlog holds events of bindings back until nobody waits to be bound. An event costs the API server about as much as a
// binding: each that is written during a burst lets a pod wait for longer.
type backlog struct {
	held      []assignment // oldest first
	quietFrom time.Time
}

func (b *backlog) add(pod *corev1.Pod, node string, now time.Time) {
	b.held = append(b.held, assignment{pod: pod, node: node, at: now})
	b.quietFrom = now.Add(lull)
}

// due takes out those of which to tell now. Idle says that nothing is being bound.
func (b *backlog) due(now time.Time, idle bool) []assignment {
	n := 0
	for n < len(b.held) && !now.Before(b.held[n].at.Add(longestHeld)) {
		n++
	}
	if idle && !now.Before(b.quietFrom) && n < len(b.held) {
		n = max(n, min(len(b.held), mostAtOnce))
		b.quietFrom = now.Add(pause)
	}
	due := slices.Clone(b.held[:n])
	b.held = slices.Delete(b.held, 0, n)
	return due
}

// next is when something is due if nothing else happens. False: never.
func (b *backlog) next(idle bool) (time.Time, bool) {
	if len(b.held) == 0 {
		return time.Time{}, false
	}
	next := b.held[0].at.Add(longestHeld)
	if idle && b.quietFrom.Before(next) {
		next = b.quietFrom
	}
	return next, true
}
