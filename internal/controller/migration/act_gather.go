package migration

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

// gatherTimeout bounds how long one processor is asked for a state that it may not have.
const gatherTimeout = 5 * time.Second

// gather collects the newest state from wherever it may be: the source if it answers, a target that stands by, and the
// durable copies. It also finds the final save of a source that was ended.
func (r *Reconciler) gather(ctx context.Context, o *observation, d decision) error {
	k := &o.know
	k.missedSource, k.missedTarget = false, false
	stopped := d.migration != nil && d.migration.Status.Strategy == doryv1alpha1.MigrationStopAndCopy
	if k.final != nil {
		k.consider(k.final, "")
	}
	if !stopped && !over(o.source) {
		k.missedSource = r.captureFrom(ctx, o, o.source)
	}
	if !stopped && !over(o.target) {
		k.missedTarget = r.captureFrom(ctx, o, o.target)
	}
	if o.processor != nil {
		stored, err := r.checkpoints.Newest(ctx, o.processor, o.epoch)
		if err != nil {
			return err
		}
		k.consider(stored, "")
		k.sawStored(stored)
	}
	k.gathered = true
	if stopped {
		r.judgeSave(o, d.migration)
	}
	if k.final == nil && k.newest != nil && !o.incomplete() {
		k.final = k.newest
		k.held = o.target != nil && k.newestIn == o.target.Name
		k.delivered = k.held
	}
	return nil
}

// captureFrom says whether the pod may have a state that it did not give.
func (r *Reconciler) captureFrom(ctx context.Context, o *observation, p *corev1.Pod) bool {
	ctx, cancel := context.WithTimeout(ctx, gatherTimeout)
	defer cancel()
	at, err := r.endpoint(p)
	if err != nil {
		return false // It never had an address, so it never had a state.
	}
	is, err := r.identify(ctx, at, p)
	if err == nil && is.Role == roleStandby && is.Sequence == 0 {
		return false
	}
	state, err := r.processors.Capture(ctx, at)
	if err != nil {
		return !hopeless(err) && !o.blank(p, is)
	}
	o.know.consider(state, p.Name)
	return false
}

// blank says that the pod is the target after the commit, and that its process is another one than the commit was about and
// does not tell its role. It knows at most what somebody gave it who died since, so nobody waits for its word.
func (o *observation) blank(p *corev1.Pod, is statexfer.HandoffStatus) bool {
	m := o.active()
	return m != nil && o.committed(m) && p.Name == m.Status.TargetPod && is.Instance != "" && is.Role == roleUnknown && is.Instance != fence.InstanceOf(o.epoch)
}

// consider leaves out the state of a process that has not done or received anything: under a newer epoch it would count
// for more than all that was ever done.
func (k *knowledge) consider(state *statexfer.State, in string) {
	if state == nil || (state.HasPosition && state.Position.Sequence == 0) {
		return
	}
	if k.newest == nil || newer(state, k.newest) || (in != "" && k.newestIn == "" && !newer(k.newest, state)) {
		k.newest, k.newestIn = state, in
	}
}

// sawStored keeps the next epoch above the newest stored copy's.
func (k *knowledge) sawStored(stored *statexfer.State) {
	if stored != nil && stored.Position.Epoch <= statestore.MaxCredibleEpoch {
		k.storedEpoch = max(k.storedEpoch, stored.Position.Epoch)
	}
}

// under is the state as one of at least the epoch, which a process that has seen that one would otherwise not take.
func under(state *statexfer.State, epoch int64) *statexfer.State {
	return &statexfer.State{
		Data: state.Data, RawChecksum: state.RawChecksum, CapturedAt: state.CapturedAt, PodName: state.PodName, StateVersion: state.StateVersion,
		DataVersion: state.DataVersion, Uptime: state.Uptime,
		Position: statexfer.Position{Epoch: max(state.Position.Epoch, epoch), Sequence: state.Position.Sequence}, HasPosition: true,
	}
}

// newer compares positions or, where SDKs count nothing, times.
func newer(a, b *statexfer.State) bool {
	if a.HasPosition || b.HasPosition {
		return a.Position.Compare(b.Position) > 0
	}
	return a.CapturedAt.After(b.CapturedAt)
}

// judgeSave says so where a source that was ended did not save its state. SDKs answer 200 to /prestop all the same.
func (r *Reconciler) judgeSave(o *observation, m *doryv1alpha1.ProcessorMigration) {
	newest := o.know.newest
	if newest == nil || (m.Status.PhaseTime != nil && newest.CapturedAt.Before(m.Status.PhaseTime.Time)) {
		r.events.notSaved(o, m, newest)
	}
}

func (r *Reconciler) save(ctx context.Context, o *observation, _ decision) error {
	if o.know.newest != nil {
		if err := r.keep(ctx, o, o.know.newest); err != nil {
			return err
		}
	}
	o.know.saved = true
	return nil
}

// keep makes a state durable. What can never be kept is told and not tried for ever.
func (r *Reconciler) keep(ctx context.Context, o *observation, state *statexfer.State) error {
	err := r.checkpoints.Save(ctx, o.processor, o.epoch, state)
	if err == nil || !permanent(err) && !errors.Is(err, statestore.ErrBehind) {
		return err
	}
	r.events.unkept(o, err)
	return nil
}
