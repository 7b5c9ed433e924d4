package sdk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dory-io/dory/internal/statexfer"
)

// loadTimeout bounds one attempt to load the state.
const loadTimeout = 10 * time.Second

// restore tries until the saved state is restored, or it is certain that there is none. What it never does is to go on
// without a state that could not be read.
func (p *Processor) restore(ctx context.Context) error {
	began := time.Now()
	for failures := 1; ; failures++ {
		err := p.restoreOnce(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return errStopping
		case errors.Is(err, ErrSuperseded), p.restoreTimeout > 0 && time.Since(began) >= p.restoreTimeout:
			return fmt.Errorf("restoring the state from %s: %w", p.backend, err)
		}
		delay := remoteBackoff.delay(failures, p.random())
		if p.restoreTimeout > 0 {
			delay = min(delay, p.restoreTimeout-time.Since(began))
		}
		p.log.Error("the state cannot be restored; the processor stays not ready and tries again",
			"from", p.backend.String(), "error", err, "attempt", failures, "next", delay.String())
		p.notReady("state not restored: " + err.Error())
		if !pause(ctx, delay) {
			return errStopping
		}
	}
}

func (p *Processor) notReady(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase == phaseRestoring {
		p.reason = reason
	}
}

func (p *Processor) restoreOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	doc, err := p.backend.Load(ctx)
	if errors.Is(err, ErrNoState) {
		p.metrics.restored(restoreFresh)
		p.log.Info("no saved state: starting with initial values", "from", p.backend.String())
		return nil
	}
	if err == nil {
		err = p.adopt(doc)
	}
	if err != nil {
		p.metrics.restored(restoreFailed)
		return err
	}
	p.metrics.restored(restoreOK)
	p.log.Info("state restored", "from", p.backend.String(), "epoch", p.Epoch(), "sequence", p.Sequence(),
		"writtenBy", doc.Metadata.PodName, "writtenEpoch", doc.Metadata.Epoch, "writtenAt", doc.Metadata.Time)
	return nil
}

// adopt makes a loaded document this instance's state, unless it is another processor's or shows that a newer instance
// has been there.
func (p *Processor) adopt(doc Document) error {
	m := doc.Metadata
	if m.ProcessorID != "" && m.ProcessorID != p.env.processorID {
		return fmt.Errorf("%w: it is the state of processor %q, this is %q", ErrForeignState, m.ProcessorID, p.env.processorID)
	}
	position := m.Position
	if p.env.hasEpoch {
		if position.Epoch > p.env.epoch {
			return fmt.Errorf("%w: the state was written under epoch %d by pod %q, this instance has epoch %d",
				ErrSuperseded, position.Epoch, m.PodName, p.env.epoch)
		}
		position.Epoch = p.env.epoch
	}
	if err := p.replace(doc.Payload); err != nil {
		return err
	}
	p.moveTo(position)
	return nil
}

func (p *Processor) replace(payload []byte) error {
	unknown, err := p.vars.restore(payload)
	if err != nil {
		return err
	}
	if len(unknown) > 0 {
		p.log.Warn("the state holds keys that no variable is declared for; they are kept as they are", "keys", unknown)
	}
	return nil
}

// accept replaces the state of the running processor by one from outside. That is a change like an iteration, so
// the sequence rises beyond both.
func (p *Processor) accept(ctx context.Context, payload []byte, sequence int64) error {
	if err := p.boundary.acquire(ctx); err != nil {
		return fmt.Errorf("%w: waiting for the end of the iteration in hand: %w", errUnavailable, err)
	}
	defer p.boundary.release()
	// Between the last save and the end, a state would be accepted and lost.
	if now, reason := p.status(); now != phaseRunning {
		return fmt.Errorf("%w: %s", errUnavailable, reason)
	}
	if err := p.replace(payload); err != nil {
		return err
	}
	position := p.at()
	p.moveTo(statexfer.Position{Epoch: position.Epoch, Sequence: max(position.Sequence, sequence) + 1})
	p.log.Info("state replaced over HTTP", "sequence", p.Sequence())
	return nil
}
