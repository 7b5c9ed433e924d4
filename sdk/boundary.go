package sdk

import (
	"context"
	"sync"
)

// boundary is the place between two iterations. An iteration holds it while it runs; whoever wants to see or change
// the state holds it in between. Go serves those who wait for a channel in their order, so a fast loop cannot keep
// the others out.
type boundary struct {
	slot chan struct{}

	mu      sync.Mutex
	waiting int
	yield   chan struct{} // Of the iteration in hand; closed once somebody waits.
	yielded bool
}

func newBoundary() *boundary {
	return &boundary{slot: make(chan struct{}, 1)}
}

// begin takes the boundary for an iteration and returns the channel that asks it to come to an end.
func (b *boundary) begin(ctx context.Context) (yield <-chan struct{}, err error) {
	if err := b.take(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.yield, b.yielded = make(chan struct{}), false
	b.askLocked()
	return b.yield, nil
}

// acquire takes the boundary for anything else.
func (b *boundary) acquire(ctx context.Context) error {
	b.wait(1)
	defer b.wait(-1)
	return b.take(ctx)
}

// wait changes how many wait for the iteration in hand to end.
func (b *boundary) wait(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting += n
	b.askLocked()
}

func (b *boundary) askLocked() {
	if b.waiting > 0 && b.yield != nil && !b.yielded {
		b.yielded = true
		close(b.yield)
	}
}

func (b *boundary) take(ctx context.Context) error {
	select {
	case b.slot <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if ctx.Err() != nil { // Both were possible.
		b.release()
		return context.Cause(ctx)
	}
	return nil
}

func (b *boundary) release() { <-b.slot }

type yieldKey struct{}

// Yield is closed when somebody waits for the iteration that ctx was given to: the state is to be read, or the
// processor is to stop. An iteration that waits for input should also wait for this and then return ErrIdle. Outside of
// an iteration it is nil, which is never ready.
func Yield(ctx context.Context) <-chan struct{} {
	yield, _ := ctx.Value(yieldKey{}).(<-chan struct{})
	return yield
}
