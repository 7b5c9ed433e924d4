package migration

import (
	"context"
	"time"
)

const (
	// handoffsAtOnce is how many processors stand still at a time, if it can be helped: those that hand over at the same
	// moment share the cores of the operator, of the API server, and often of a node, and each stands still the longer.
	handoffsAtOnce = 2
	// gatePatience is how long a source that is ready to hand over works on for that. It is a few dozen handoffs; one that
	// takes longer waits for a processor that does not answer, and keeps nobody else waiting.
	gatePatience = time.Second
)

// gate lets few handoffs be under way at once.
type gate chan struct{}

func newGate() gate { return make(gate, handoffsAtOnce) }

// enter waits for its turn, but not longer than patience. What it answers is to be called when the processor acts again.
func (g gate) enter(ctx context.Context, patience time.Duration) (leave func()) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case g <- struct{}{}:
		return func() { <-g }
	case <-ctx.Done():
		return func() {}
	}
}

// pass is the way of one pass through the gate.
type pass struct {
	gate  gate
	leave func()
}

// before waits at the gate where the step is the one after which a processor stands still. One that stands still already
// does not wait. It fails where the operator is to end: the source works, and the next leader goes on with it.
func (p *pass) before(ctx context.Context, o *observation, d decision) error {
	if d.step != stepQuiesce || p.leave != nil || o.know.sourceIs == nil || o.know.sourceIs.Role == roleQuiesced {
		return nil
	}
	const share = 4 // of the time that the handoff has
	p.leave = p.gate.enter(ctx, min(gatePatience, d.timeout/share))
	return context.Cause(ctx)
}

// after makes room once the processor acts again.
func (p *pass) after(s step) {
	if s == stepPromote {
		p.end()
	}
}

func (p *pass) end() {
	if p.leave != nil {
		p.leave()
		p.leave = func() {}
	}
}
