package sdk

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/dory-io/dory/internal/statexfer"
)

const (
	// idlePause keeps an iteration that returns ErrIdle at once from occupying a core.
	idlePause = 10 * time.Millisecond
	// abandonAfter is how long an iteration may go on after its context ended.
	abandonAfter = 2 * time.Second
)

var (
	// ErrIdle is what an iteration returns that had nothing to do: it is not committed, and no error either.
	ErrIdle = errors.New("nothing to do")

	errStopping = errors.New("the processor is asked to stop")
	errPanic    = errors.New("the iteration panicked")
)

// work runs iterations until the processor is asked to stop or cannot go on. After it, no iteration changes state.
func (p *Processor) work(ctx context.Context, iterate func(context.Context) error) error {
	iterationCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.loop(ctx, iterationCtx, iterate) }()
	defer p.savePeriodically(ctx)()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	p.boundary.wait(1) // Nobody will take it; the iteration shall know that somebody waits.
	return p.finish(done, cancel)
}

// finish waits for the iteration in hand, ends its context when half of the time is over, and gives it up a little later.
func (p *Processor) finish(done <-chan error, cancel context.CancelFunc) error {
	if err, ok := receive(done, p.shutdownTimeout/2); ok {
		return err
	}
	p.log.Warn("the iteration in hand takes too long to stop: its context ends now", "waited", p.shutdownTimeout/2)
	cancel()
	if err, ok := receive(done, min(abandonAfter, p.shutdownTimeout/8)); ok {
		return err
	}
	if p.vars.endIteration(false) {
		return errors.New("the iteration in hand did not stop when its context ended: its changes are undone")
	}
	return <-done // It ended just now.
}

func receive(done <-chan error, within time.Duration) (err error, ok bool) { //nolint:revive // The error is a value here, not the outcome.
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case err := <-done:
		return err, true
	case <-timer.C:
		return nil, false
	}
}

// loop is nil when ctx ended, and else what makes going on impossible.
func (p *Processor) loop(ctx, iterationCtx context.Context, iterate func(context.Context) error) error {
	for failures := 0; ; {
		yield, err := p.boundary.begin(ctx)
		if err != nil {
			return nil //nolint:nilerr // To be stopped is what it is there for.
		}
		if p.isStopping() { // Known here a moment before ctx ends.
			p.boundary.release()
			return nil
		}
		if acts, _ := p.acting(); !acts {
			p.boundary.release()
			if !p.untilActing(ctx) {
				return nil
			}
			continue
		}
		err = p.iteration(context.WithValue(iterationCtx, yieldKey{}, yield), iterate)
		p.boundary.release()
		if err := p.fatal(err); err != nil {
			return err
		}
		failures = p.count(err, failures)
		if !pause(ctx, p.pauseAfter(err, failures)) {
			return nil
		}
	}
}

// iteration commits what iterate did, or undoes it.
func (p *Processor) iteration(ctx context.Context, iterate func(context.Context) error) error {
	p.vars.beginIteration()
	began := time.Now()
	err := call(ctx, iterate)
	if !p.vars.endIteration(err == nil) {
		return errStopping // It was given up and undone before it returned.
	}
	p.tell(err)
	if err == nil {
		p.metrics.iterationSeconds.Observe(time.Since(began).Seconds())
		position := p.at()
		position.Sequence++
		p.moveTo(position)
	}
	return err
}

// tell notes how iterations go, for those who ask for the state: before they can, which is between two iterations. One that
// had nothing to do changes nothing.
func (p *Processor) tell(err error) {
	lately := p.iterations()
	switch {
	case errors.Is(err, ErrIdle), err == nil && lately.Known && lately.Failures == 0:
		return
	case err == nil:
		lately = statexfer.Iterations{Known: true}
	default:
		lately = statexfer.Iterations{Known: true, Failures: lately.Failures + 1, Error: err.Error()}
	}
	p.lately.Store(&lately)
}

// iterations is how they go; nothing is known before the first has ended.
func (p *Processor) iterations() statexfer.Iterations {
	if lately := p.lately.Load(); lately != nil {
		return *lately
	}
	return statexfer.Iterations{}
}

func call(ctx context.Context, iterate func(context.Context) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, r, debug.Stack())
		}
	}()
	return iterate(ctx)
}

// fatal is what cannot be mended by another attempt.
func (p *Processor) fatal(err error) error {
	if errors.Is(err, errPanic) {
		p.metrics.iterationErrors.Inc()
		p.log.Error("the processor ends after saving the last committed state", "error", err)
		return err
	}
	return p.vars.mistake()
}

// count keeps the books about an iteration and returns how many in a row have failed.
func (p *Processor) count(err error, failures int) int {
	switch {
	case err == nil:
		p.metrics.iterations.Inc()
		return 0
	case errors.Is(err, ErrIdle):
		return 0
	}
	p.metrics.iterationErrors.Inc()
	p.log.Error("an iteration failed and is undone", "error", err, "failuresInARow", failures+1, "sequence", p.Sequence())
	return failures + 1
}

func (p *Processor) pauseAfter(err error, failures int) time.Duration {
	switch {
	case failures > 0:
		return max(p.interval, iterationBackoff.delay(failures, p.random()))
	case err != nil:
		return max(p.interval, idlePause)
	}
	return p.interval
}
