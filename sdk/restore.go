package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
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

// own keeps other processes from the state where there are no epochs to do so, which is on a developer's machine.
func (p *Processor) own() error {
	file, ok := p.backend.(*fileBackend)
	if !ok || p.env.hasEpoch {
		return nil
	}
	return file.own()
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
	if err := p.own(); err != nil {
		p.metrics.restored(restoreFailed)
		return err
	}
	doc, err := p.backend.Load(ctx)
	if errors.Is(err, ErrNoState) {
		p.metrics.restored(restoreFresh)
		p.setHolds(p.env.role == rolePrimary) // What a quiesced instance held before it was started again is gone.
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
	p.setHolds(true)
	p.metrics.restored(restoreOK)
	p.log.Info("state restored", "from", p.backend.String(), "epoch", p.Epoch(), "sequence", p.Sequence(),
		"writtenBy", doc.Metadata.PodName, "writtenEpoch", doc.Metadata.Epoch, "writtenAt", doc.Metadata.Time)
	return nil
}

// adopt makes a loaded document this instance's state, unless it is another processor's or shows that a newer instance
// has been there. A quiesced instance may find the state of its successor, and is a standby from then on.
func (p *Processor) adopt(doc Document) error {
	if err := p.checkOwner(doc); err != nil {
		return err
	}
	position, now := doc.Metadata.Position, p.role
	switch {
	case !p.env.hasEpoch || position.Epoch == p.env.epoch:
	case position.Epoch < p.env.epoch:
		position.Epoch = p.env.epoch
	case now == roleQuiesced:
		now = roleStandby
	default:
		return fmt.Errorf("%w: the state was written under epoch %d by pod %q, this instance has epoch %d",
			ErrSuperseded, position.Epoch, doc.Metadata.PodName, p.env.epoch)
	}
	if err := p.replace(doc.Metadata.DataVersion, doc.Payload); err != nil {
		return err
	}
	if now != p.role {
		if err := writeRole(p.env.roleFile, roleRecord{now, position.Epoch}); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setRoleLocked(now, position)
	return nil
}

func (p *Processor) checkOwner(doc Document) error {
	if id := doc.Metadata.ProcessorID; id != "" && id != p.env.processorID {
		return fmt.Errorf("%w: it is the state of processor %q, this is %q", ErrForeignState, id, p.env.processorID)
	}
	return nil
}

// replace takes a state of some version.
func (p *Processor) replace(version string, payload json.RawMessage) error {
	members, _, err := p.understand(posted{data: payload, version: version})
	if err != nil {
		return err
	}
	return p.replaceMembers(members)
}

// understand is the members of a state in this processor's version.
func (p *Processor) understand(state posted) (members []member, migrated bool, err error) {
	if state.version != p.stateVersion {
		migrated = true
		if state.data, err = p.upgrade(state.version, state.data); err != nil {
			return nil, false, err
		}
		p.log.Info("state migrated", "from", state.version, "to", p.stateVersion)
	}
	if members = state.members; migrated || members == nil {
		members, err = splitObject(state.data, p.vars.known)
	}
	return members, migrated, err
}

func (p *Processor) replaceMembers(members []member) error {
	unknown, err := p.vars.replace(members)
	if err != nil {
		return err
	}
	if len(unknown) > 0 {
		p.log.Warn("the state holds keys that no variable is declared for; they are kept as they are", "keys", unknown)
	}
	return nil
}

// accept takes a state from outside, and returns the state as it is then. On a standby, it is a copy of the PRIMARY's and
// has its position. On the PRIMARY it is a change like an iteration, so that the sequence rises beyond both.
func (p *Processor) accept(ctx context.Context, state posted) (restored *captured, migrated bool, err error) {
	if err := p.boundary.acquire(ctx); err != nil {
		return nil, false, waitingFailed(err)
	}
	defer p.boundary.release()
	// Between the last save and the end, a state would be accepted and lost.
	now := p.standing()
	if err := now.refuseState(state.position); err != nil {
		return nil, false, err
	}
	members, migrated, err := p.understand(state)
	if err != nil {
		return nil, false, err
	}
	if now.role == roleQuiesced && state.position.Epoch > now.position.Epoch {
		if err := p.stepDown(now, state.position.Epoch); err != nil {
			return nil, false, fmt.Errorf("%w: %w", errUnavailable, err)
		}
	}
	if err := p.replaceMembers(members); err != nil {
		return nil, false, err
	}
	to := state.position
	if now.role == rolePrimary {
		to = Position{Epoch: now.position.Epoch, Sequence: max(now.position.Sequence, state.position.Sequence) + 1}
	}
	p.moveTo(to)
	p.setHolds(true)
	p.metrics.restored(restoreOK)
	p.log.Info("state replaced over HTTP", "role", now.role, "epoch", to.Epoch, "sequence", to.Sequence, "migrated", migrated)
	restored, err = p.captureHere()
	return restored, migrated, err
}
