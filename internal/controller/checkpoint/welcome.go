package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

// migrationDelay is when to look again at a process that the migration controller is still busy with; the end of the
// migration wakes us sooner.
const migrationDelay = holdDelay

// welcome looks for the first time at a process: whether it has its state, and what is stored of it. done is true
// where nothing is to be stored.
func (r *Reconciler) welcome(ctx context.Context, o *observation, e *entry, state *statexfer.State) (out outcome, done bool) {
	found, err := r.store.Look(ctx, o.key(), o.lineage())
	if err != nil {
		return outcome{err: fmt.Errorf("looking for what is stored: %w", err)}, true
	}
	b, err := begin(o, state, found)
	if err != nil {
		return outcome{err: fmt.Errorf("the state of pod %s: %w", o.holder.Name, err)}, true
	}
	if o.policy() != doryv1alpha1.OnMissingDiscard {
		if err := statestore.Awaited(o.processor, found); err != nil && lacksRecorded(o, b, found) {
			return r.notRestored(err), true
		}
		if lostState(b, found) {
			return r.giveBack(ctx, o, e, b), true
		}
		if err := r.mournIfMissing(o, b, found); err != nil {
			return r.notRestored(err), true
		}
	}
	e.adopt(b, found)
	return outcome{}, false
}

func begin(o *observation, state *statexfer.State, found *statestore.Inventory) (beginning, error) {
	checksum, err := state.Checksum()
	b := beginning{state: state, checksum: checksum, pod: o.holder.Name, started: startedAt(o.holder), fresh: found.Fresh}
	if state.Uptime > 0 {
		b.started = state.CapturedAt.Add(-state.Uptime)
	}
	b.handed = o.tookOver(b.started) || pod.KeepsStateItself(o.holder)
	return b, err
}

// tookOver says whether the process ran already when its pod was given the epoch: then a move has brought it its state, or
// it was there before this operator.
func (o *observation) tookOver(started time.Time) bool {
	if o.epoch.Spec.Reason != doryv1alpha1.EpochPromote && o.epoch.Spec.Reason != doryv1alpha1.EpochAdopt {
		return false
	}
	return instanceOf(o.holder).restarts == 0 || !started.After(o.epoch.Spec.IssuedAt.Time)
}

// mournIfMissing says so where the newest state that there was is nowhere to be read, and the process does not show that
// it has it. It is an error where the spec says not to go on without it.
func (r *Reconciler) mournIfMissing(o *observation, b beginning, found *statestore.Inventory) error {
	missing := statestore.Missing(o.processor, found)
	if missing == "" || shows(o, b) {
		return nil
	}
	if err := r.acceptable(o, found); err != nil {
		return err
	}
	r.events.stateOutdated(o, missing)
	return nil
}

// lacksRecorded goes by what the status records of a copy that cannot be looked at.
func lacksRecorded(o *observation, b beginning, found *statestore.Inventory) bool {
	version, ok := statestore.Recorded(o.processor)
	if !ok {
		return false
	}
	c := o.processor.Status.Checkpoint
	recorded := &statestore.Copy{Storage: c.Storage, Version: version, PodName: b.pod, Checksum: c.Checksum}
	return lostState(b, &statestore.Inventory{Copies: append([]*statestore.Copy{recorded}, found.Copies...)})
}

// shows says whether the process may have the state that the status records, as far as its own state tells.
func shows(o *observation, b beginning) bool {
	recorded, ok := statestore.Recorded(o.processor)
	if !ok || b.checksum == o.processor.Status.Checkpoint.Checksum {
		return true
	}
	if b.state.HasPosition && recorded.Sequence > 0 {
		return b.state.Position.Sequence >= recorded.Sequence
	}
	return !initial(b.checksum, b.fresh)
}

// adopt takes what is stored for what was saved last. Where the newest copy is of the state in hand, it need not be
// stored again.
func (e *entry) adopt(b beginning, found *statestore.Inventory) {
	e.slot, e.saved, e.previous, e.raw, e.unchanged = found.Slot, statestore.Copy{}, "", "", 0
	newest := found.Newest()
	if newest == nil {
		return
	}
	// What a newer save elsewhere makes obsolete is known even while another place cannot be read: only that can be newer.
	e.saved, e.previous = newest.Bare(), newest.Storage
	if newest.Checksum == b.checksum && len(found.Problems) == 0 {
		e.raw = b.state.RawChecksum
	}
}

// giveBack restores the newest state that can be read into a process that lost it.
func (r *Reconciler) giveBack(ctx context.Context, o *observation, e *entry, b beginning) outcome {
	if o.migration != nil {
		r.metrics.result(resultHeld)
		return outcome{again: migrationDelay}
	}
	found, document, err := r.store.Newest(ctx, o.key(), o.lineage())
	if err != nil {
		return outcome{err: fmt.Errorf("reading the stored state: %w", err)}
	}
	if err := statestore.Awaited(o.processor, found); err != nil {
		return r.notRestored(err)
	}
	if err := r.acceptable(o, found); err != nil {
		return r.notRestored(err)
	}
	if !lostState(b, found) {
		r.events.stateOutdated(o, "it cannot be read: "+found.Problems[len(found.Problems)-1].Err.Error())
		return r.accept(o, e, b, found)
	}
	after, err := r.restore(ctx, o, b, found, document)
	if err != nil {
		return r.notRestored(err)
	}
	r.metrics.restored(true)
	r.events.stateRestored(o, b, found.Newest())
	out := r.accept(o, e, b, found)
	if !after.HasPosition && found.Newest().Storage != doryv1alpha1.CheckpointConfigMap {
		r.claim(ctx, o, e, after)
	}
	return out
}

// claim stores what was given back as the process's own. Without that, nothing tells the next operator that a process that
// counts nothing has it, and it would be given back again, over what was done since. That it fails is left to the next look.
func (r *Reconciler) claim(ctx context.Context, o *observation, e *entry, state *statexfer.State) {
	if out := r.save(ctx, o, e, state, true); out.err != nil {
		log.FromContext(ctx).Info("what was given back is not stored as the instance's own yet", "cause", out.err.Error())
	}
	e.raw = ""
}

// accept ends the welcome, and lets the next look store what the process has.
func (r *Reconciler) accept(o *observation, e *entry, b beginning, found *statestore.Inventory) outcome {
	e.adopt(b, found)
	e.instance, e.raw, e.at, e.uptime = instanceOf(o.holder), "", r.clock.Now(), 0
	return outcome{again: afterRestore}
}

// acceptable is an error where a newer state than the newest readable one exists or may exist, and the spec says not to
// go on without it.
func (r *Reconciler) acceptable(o *observation, found *statestore.Inventory) error {
	missing := statestore.Missing(o.processor, found)
	if missing == "" || o.policy() != doryv1alpha1.OnMissingRequire {
		return nil
	}
	return fmt.Errorf("%s; spec.state.onMissing is Require", missing)
}

// restore gives the state to the process, and answers what it shows then. One that works changes it at once, so that it is
// not compared byte by byte: what it shows next must have come from it.
func (r *Reconciler) restore(ctx context.Context, o *observation, b beginning, found *statestore.Inventory, document *statexfer.Document) (*statexfer.State, error) {
	to := o.endpoint(r.token)
	if _, err := r.processors.Restore(ctx, to, document.State()); err != nil {
		return nil, fmt.Errorf("giving the state back to pod %s: %w", o.holder.Name, err)
	}
	state, err := r.processors.Capture(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("reading the restored state back: %w", err)
	}
	after, err := begin(o, state, found)
	if err != nil {
		return nil, fmt.Errorf("the restored state: %w", err)
	}
	after.handed = true
	if after.state.HasPosition || after.checksum != b.checksum {
		if lostState(after, found) {
			return nil, fmt.Errorf("%w: pod %s answered that the state is restored, and does not have it", statexfer.ErrMismatch, o.holder.Name)
		}
		return state, nil
	}
	return nil, fmt.Errorf("%w: pod %s answered that the state is restored, and shows the same as before", statexfer.ErrMismatch, o.holder.Name)
}

// notRestored holds all checkpoints back: what the process shows would replace the state that it lost.
func (r *Reconciler) notRestored(err error) outcome {
	r.metrics.restored(false)
	out := outcome{err: fmt.Errorf("%w: %w", errNotRestored, err)}
	if !errors.Is(err, statexfer.ErrUnavailable) {
		out.reason = doryv1alpha1.ReasonStateNotRestored
	}
	return out
}
