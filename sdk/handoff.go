package sdk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// standing is where an instance is at one moment: all that the handoff's decisions depend on.
type standing struct {
	phase    phase
	reason   string // Why it is not ready.
	role     role
	position Position
	holds    bool // Its variables are a processor's state, and not only what they were declared with.
}

// word is the role as GET /handoff tells it.
func (s standing) word() string {
	switch s.phase {
	case phaseRestoring:
		return "restoring"
	case phaseStopping:
		return "stopping"
	case phaseRunning:
	}
	return string(s.role)
}

// refusal is a request of the handoff that must not be done, with what the caller needs to see why.
type refusal struct {
	standing

	code    int
	message string
}

func (r *refusal) Error() string { return r.message }

func (s standing) refuse(code int, format string, args ...any) error {
	return &refusal{standing: s, code: code, message: fmt.Sprintf(format, args...)}
}

func (s standing) refuseUnlessRunning() error {
	if s.phase != phaseRunning {
		return s.refuse(http.StatusServiceUnavailable, "%s", s.reason)
	}
	return nil
}

// refuseQuiesce is nil where the instance acts under epoch, or did until it was quiesced.
func (s standing) refuseQuiesce(epoch int64) error {
	if err := s.refuseUnlessRunning(); err != nil {
		return err
	}
	switch {
	case s.role == roleStandby:
		return s.refuse(http.StatusConflict, "this instance is a standby: it does not act, and has no final state")
	case epoch != s.position.Epoch:
		return s.refuse(http.StatusConflict, "this instance has epoch %d, not %d", s.position.Epoch, epoch)
	case !s.holds:
		return s.refuse(http.StatusConflict, "this instance was quiesced, then started again, and no state was ever saved: it has none to hand over")
	}
	return nil
}

// refusePromote is nil where epoch is a new one, and the instance has a state to act on or may load one.
func (s standing) refusePromote(epoch int64, loads bool) error {
	if err := s.refuseUnlessRunning(); err != nil {
		return err
	}
	switch {
	case epoch <= s.position.Epoch:
		return s.refuse(http.StatusConflict, "epoch %d is not higher than %d, the last one that this instance has seen", epoch, s.position.Epoch)
	case !s.holds && !loads:
		return s.refuse(http.StatusConflict,
			`this instance holds no state: POST /state first, or send "state":"saved" to start from the state that was saved last`)
	}
	return nil
}

// refuseResume is nil where nobody but this instance can have acted since it was quiesced under epoch.
func (s standing) refuseResume(epoch int64) error {
	if err := s.refuseUnlessRunning(); err != nil {
		return err
	}
	switch {
	case s.role == roleStandby:
		return s.refuse(http.StatusConflict, "this instance is a standby that has seen epoch %d: only a promotion makes it act", s.position.Epoch)
	case epoch < s.position.Epoch:
		return s.refuse(http.StatusConflict, "this instance has seen epoch %d, which is higher than %d", s.position.Epoch, epoch)
	case epoch > s.position.Epoch:
		return s.refuse(http.StatusConflict, "this instance was quiesced under epoch %d, not %d: a new epoch takes a promotion", s.position.Epoch, epoch)
	}
	return nil
}

// refuseState keeps an older copy from replacing a newer one. Whoever gives a state to a PRIMARY means to replace its own.
func (s standing) refuseState(position Position) error {
	if err := s.refuseUnlessRunning(); err != nil {
		return err
	}
	if s.role != rolePrimary && position.Compare(s.position) < 0 {
		return s.refuse(http.StatusConflict, "the state has %s, but this instance holds, or has seen, %s", position, s.position)
	}
	return nil
}

// refuseRead is nil where there is a state to read.
func (s standing) refuseRead() error {
	switch {
	case s.phase == phaseRestoring:
		return fmt.Errorf("%w: %s", errUnavailable, s.reason)
	case !s.holds:
		return fmt.Errorf("%w: this instance is %s and holds no state yet", errUnavailable, s.role)
	}
	return nil
}

// quiesce ends the work of the PRIMARY between two iterations and returns its final state. It takes effect when the
// role file is written: a client that is gone before that has asked for nothing, and one that is gone later finds
// the instance quiesced.
func (p *Processor) quiesce(ctx context.Context, epoch int64) (*captured, error) {
	if err := p.boundary.acquire(ctx); err != nil {
		return nil, waitingFailed(err)
	}
	defer p.boundary.release()
	now := p.standing()
	if err := now.refuseQuiesce(epoch); err != nil {
		return nil, err
	}
	final, err := p.captureHere()
	if err != nil || now.role == roleQuiesced {
		return final, err
	}
	go final.checksum() // While the role file is written.
	if err := abandoned(ctx); err != nil {
		return nil, waitingFailed(err)
	}
	if err := p.turn(now, roleQuiesced, now.position); err != nil {
		return nil, err
	}
	p.keepFinal(final)
	p.log.Info("quiesced", "epoch", now.position.Epoch, "sequence", now.position.Sequence, "bytes", final.text.size)
	return final, nil
}

// promote makes this instance the PRIMARY under a new epoch. With load, one that holds no state takes what was saved last.
func (p *Processor) promote(ctx context.Context, epoch int64, load bool) (standing, error) {
	if err := p.boundary.acquire(ctx); err != nil {
		return standing{}, waitingFailed(err)
	}
	defer p.boundary.release()
	now := p.standing()
	if err := now.refusePromote(epoch, load); err != nil {
		return standing{}, err
	}
	to := Position{Epoch: epoch, Sequence: now.position.Sequence}
	if !now.holds {
		sequence, err := p.loadSaved(ctx, now, epoch)
		if err != nil {
			return standing{}, err
		}
		to.Sequence = sequence
	}
	if err := p.turn(now, rolePrimary, to); err != nil {
		return standing{}, err
	}
	p.mu.Lock()
	p.guest = false
	p.mu.Unlock()
	p.log.Info("promoted", "from", now.role, "epoch", epoch, "sequence", to.Sequence)
	return p.standing(), nil
}

// resume lets the quiesced instance go on under its epoch. The role file is written even if it is the PRIMARY already:
// an earlier attempt may have failed halfway.
func (p *Processor) resume(ctx context.Context, epoch int64) (standing, error) {
	if err := p.boundary.acquire(ctx); err != nil {
		return standing{}, waitingFailed(err)
	}
	defer p.boundary.release()
	now := p.standing()
	if err := now.refuseResume(epoch); err != nil {
		return standing{}, err
	}
	if err := p.turn(now, rolePrimary, now.position); err != nil {
		return standing{}, err
	}
	p.log.Info("resumed", "from", now.role, "epoch", epoch, "sequence", now.position.Sequence)
	return p.standing(), nil
}

func waitingFailed(err error) error {
	return fmt.Errorf("%w: waiting for the end of the iteration in hand: %w", errUnavailable, err)
}

// turn changes the role: first in the role file, because a container that is started again must not act where this one
// would not, then in this process. The caller holds the boundary.
func (p *Processor) turn(from standing, to role, position Position) error {
	err := writeRole(p.env.roleFile, roleRecord{to, position.Epoch})
	if err == nil {
		if p.settleRole(to, position) {
			return nil
		}
		err = p.standing().refuseUnlessRunning()
	}
	if back := writeRole(p.env.roleFile, roleRecord{from.role, from.position.Epoch}); back != nil {
		p.log.Error("the role file does not say what this instance is", "role", from.role, "epoch", from.position.Epoch, "error", back)
	}
	return err
}

// settleRole says whether the role could be changed: not any more once the processor stops, because then the role has
// decided whether the state is saved.
func (p *Processor) settleRole(to role, position Position) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != phaseRunning {
		return false
	}
	p.setRoleLocked(to, position)
	return true
}

// setRoleLocked tells all who wait for a change of the role.
func (p *Processor) setRoleLocked(to role, position Position) {
	p.role, p.position, p.final = to, position, nil
	p.metrics.at(position)
	p.metrics.acts(to)
	close(p.turned)
	p.turned = make(chan struct{})
}

func (p *Processor) keepFinal(final *captured) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.final = final
}

// stepDown makes a quiesced instance that has seen a higher epoch a standby: it may not resume any more.
func (p *Processor) stepDown(now standing, epoch int64) error {
	p.log.Info("a higher epoch was seen: this instance is a standby now", "epoch", now.position.Epoch, "seen", epoch)
	p.mu.Lock()
	p.holds = false // Its state is not one of that epoch.
	p.mu.Unlock()
	return p.turn(now, roleStandby, Position{Epoch: epoch})
}

// loadSaved takes the state that was saved last, for a promotion under epoch, and returns its sequence.
func (p *Processor) loadSaved(ctx context.Context, now standing, epoch int64) (sequence int64, err error) {
	p.saving.Lock()
	defer p.saving.Unlock()
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	doc, err := p.backend.Load(ctx)
	switch {
	case errors.Is(err, ErrNoState):
		p.setHolds(true)
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("%w: loading the state from %s: %w", errUnavailable, p.backend, err)
	case doc.Metadata.Epoch >= epoch:
		return 0, now.refuse(http.StatusConflict, "the saved state has %s, which is not older than epoch %d", doc.Metadata.Position, epoch)
	}
	if err := p.checkOwner(doc); err != nil {
		return 0, err
	}
	if err := p.replace(doc.Metadata.DataVersion, doc.Payload); err != nil {
		return 0, err
	}
	p.setHolds(true)
	p.metrics.restored(restoreOK)
	return doc.Metadata.Sequence, nil
}

func (p *Processor) setHolds(holds bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds = holds
}

// acting is whether iterations may run, and what is closed when the role changes.
func (p *Processor) acting() (acts bool, turned <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.role == rolePrimary, p.turned
}

// untilActing waits until iterations may run, and says no when ctx ends first.
func (p *Processor) untilActing(ctx context.Context) bool {
	for {
		acts, turned := p.acting()
		if acts {
			return true
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return false
		}
	}
}

// whileActing ends a context when the role changes.
func (p *Processor) whileActing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	_, turned := p.acting()
	go func() {
		select {
		case <-turned:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
