package dbsync

import (
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// scope is how much a pass looks at.
type scope int

const (
	// deletionsOnly compares ids, to find the objects whose rows are gone.
	deletionsOnly scope = iota
	// contents also compares what the rows ask for with what there is.
	contents
	// everything also rewrites what people read about held deletions, if the numbers in it are outdated.
	everything
)

// minPassGap bounds how often passes run, whatever asks for them.
const minPassGap = time.Second

// passes decides when the next pass runs: on request, soon, and on a timer anyway.
type passes struct {
	clock    clock.Clock
	interval time.Duration

	mu      sync.Mutex
	pending bool
	scope   scope
	wake    chan struct{}
	// due is when the one deferred request is made, and dueScope what it asks for. No time: there is none.
	due      time.Time
	dueScope scope
}

func newPasses(c clock.Clock, interval time.Duration) *passes {
	return &passes{clock: c, interval: interval, wake: make(chan struct{}, 1)}
}

// request asks for a pass. Requests that come before it starts are one.
func (p *passes) request(s scope) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.scope = max(p.scope, s)
	p.pending = true
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take says what the next pass is to look at, and forgets the requests.
func (p *passes) take() (scope, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, pending := p.scope, p.pending
	p.scope, p.pending = deletionsOnly, false
	return s, pending
}

// run runs passes until ctx ends, the first one at once. One that failed is tried again soon.
func (p *passes) run(ctx context.Context, pass func(context.Context, scope) error) {
	failures := newRetry()
	p.request(everything)
	timer := p.clock.NewTimer(p.interval)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
			timer.Reset(p.interval)
			p.request(everything)
			continue
		case <-p.wake:
		}
		wanted, pending := p.take()
		if !pending {
			continue
		}
		gap := minPassGap
		if err := pass(ctx, wanted); err != nil {
			log.FromContext(ctx).V(1).Info("A pass failed; trying again", "cause", err.Error())
			gap = max(gap, failures.next())
			p.request(wanted)
		} else {
			failures.reset()
		}
		p.rest(ctx, gap)
	}
}

func (p *passes) rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-p.clock.After(d):
	}
}

// in asks for a pass after a while. Of several such requests the earliest counts, and asks for all of them.
func (p *passes) in(ctx context.Context, d time.Duration, s scope) {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := p.clock.Now().Add(d)
	if !p.due.IsZero() {
		p.dueScope = max(p.dueScope, s)
		if !p.due.After(due) {
			return
		}
	} else {
		p.dueScope = s
	}
	p.due = due
	go func() {
		p.rest(ctx, d)
		if s, mine := p.takeDue(due); mine {
			p.request(s)
		}
	}()
}

// takeDue ends the deferred request, if it is still the one of that time.
func (p *passes) takeDue(due time.Time) (scope, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.due.Equal(due) {
		return deletionsOnly, false // An earlier one took its place.
	}
	p.due = time.Time{}
	return p.dueScope, true
}
