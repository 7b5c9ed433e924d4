package sdk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dory-io/dory/internal/statexfer"
)

// saveTimeout bounds one attempt to save the state.
const saveTimeout = 10 * time.Second

var (
	errUnavailable = errors.New("not available now")
	// errNamespaceEnds: nothing can be created in a namespace that is being deleted, and that is never undone.
	errNamespaceEnds = errors.New("the namespace is being deleted")
)

// saveResult is what became of the last state: the answer of /prestop.
type saveResult struct {
	err     error
	message string
}

// capture is the state between two iterations.
func (p *Processor) capture(ctx context.Context) (*captured, error) {
	if err := p.boundary.acquire(ctx); err != nil {
		return nil, waitingFailed(err)
	}
	defer p.boundary.release()
	return p.captureHere()
}

// captureActing is the state of the PRIMARY, and nil where this instance is none.
func (p *Processor) captureActing(ctx context.Context) (*captured, error) {
	if err := p.boundary.acquire(ctx); err != nil {
		return nil, waitingFailed(err)
	}
	defer p.boundary.release()
	if acts, _ := p.acting(); !acts {
		return nil, nil //nolint:nilnil // See above.
	}
	return p.captureHere()
}

// captureHere is the state at this moment. Only at a boundary, or after the last iteration, is it a consistent one.
func (p *Processor) captureHere() (*captured, error) {
	if final := p.finalState(); final != nil {
		return final, nil
	}
	text, err := p.vars.snapshot()
	if err != nil {
		return nil, fmt.Errorf("reading the state: %w", err)
	}
	return newCaptured(text, statexfer.Metadata{
		Position:     p.at(),
		Time:         time.Now(),
		ProcessorID:  p.env.processorID,
		PodName:      p.env.podName,
		RestartCount: p.env.restartCount,
		DataVersion:  p.stateVersion,
	}), nil
}

func (p *Processor) finalState() *captured {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.final
}

// saveLast saves the state after the last iteration, and tries until the time for the shutdown is over.
func (p *Processor) saveLast(ctx context.Context) saveResult {
	p.saving.Lock()
	defer p.saving.Unlock()
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), p.deadline())
	defer cancel()
	state, err := p.captureHere()
	if err == nil {
		err = p.saveUntilDone(ctx, state.document())
	}
	if err != nil {
		err = fmt.Errorf("the state is NOT saved to %s: %w", p.backend, err)
		p.log.Error("the last state is lost", "error", err)
		return saveResult{err: err}
	}
	p.log.Info("state saved", "to", p.backend.String(), "epoch", state.meta.Epoch, "sequence", state.meta.Sequence)
	return saveResult{message: "State saved"}
}

// deadline is when the shutdown must be over.
func (p *Processor) deadline() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopBy
}

func (p *Processor) saveUntilDone(ctx context.Context, doc Document) error {
	for failures := 1; ; failures++ {
		err := p.saveOnce(ctx, doc)
		if err == nil || permanent(err) {
			return err
		}
		delay := remoteBackoff.delay(failures, p.random())
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < delay {
			return fmt.Errorf("given up after %d attempts: %w", failures, err)
		}
		p.log.Warn("saving the state failed, trying again", "error", err, "attempt", failures, "next", delay.String())
		pause(ctx, delay)
	}
}

func (p *Processor) saveOnce(ctx context.Context, doc Document) error {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	err := p.backend.Save(ctx, doc)
	p.metrics.saved(err, time.Now())
	return err
}

// permanent errors do not pass with time.
func permanent(err error) bool {
	for _, kind := range []error{ErrSuperseded, ErrForeignState, errNamespaceEnds, statexfer.ErrTooLarge, statexfer.ErrInvalidJSON, statexfer.ErrTooDeep} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// savePeriodically saves the state every saveInterval until ctx ends or the returned function is called, which waits.
func (p *Processor) savePeriodically(ctx context.Context) (stop func()) {
	if p.saveInterval == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		saved := p.at()
		for pause(ctx, p.saveInterval) {
			saved = p.saveChanged(ctx, saved)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// saveChanged saves the state unless it is at the position that was saved last, and returns the position saved now.
// A save that is under way when the role changes is given up; should it arrive all the same, it is of an older position
// than whatever the next PRIMARY saves.
func (p *Processor) saveChanged(ctx context.Context, saved statexfer.Position) statexfer.Position {
	p.saving.Lock()
	defer p.saving.Unlock()
	if p.at() == saved || p.isGuest() {
		return saved
	}
	ctx, cancel := p.whileActing(ctx)
	defer cancel()
	state, err := p.captureActing(ctx)
	if err == nil && state == nil {
		return saved
	}
	if err == nil {
		err = p.saveOnce(ctx, state.document())
	}
	switch {
	case err == nil:
		return state.meta.Position
	case ctx.Err() != nil:
	case errors.Is(err, ErrSuperseded):
		p.stop(err.Error()) // Another instance acts in its place.
	default:
		p.log.Error("the state could not be saved; trying again after the interval", "error", err, "interval", p.saveInterval.String())
	}
	return saved
}
