package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

var (
	// errOtherPod says that somebody else answers at the pod's address.
	errOtherPod = errors.New("another pod answers at this address")
	// errNotRestored says that a process works without its state.
	errNotRestored = errors.New("the instance runs without its state")
)

// look captures the state of a processor and sees to it that it is stored.
func (r *Reconciler) look(ctx context.Context, o *observation, e *entry) outcome {
	first := instanceOf(o.holder) != e.instance
	// A state that does not change may be that of a process that was quiesced, and nobody knows.
	if must := first || e.doubtful; must || e.unchanged >= verifyAfter {
		if out, done := r.wake(ctx, o, e, must); done {
			return out
		}
		e.doubtful = false
	}
	state, began, err := r.capture(ctx, o, e)
	if err != nil {
		r.metrics.result(resultCaptureFailed)
		out := outcome{err: err, uncaptured: true}
		if errors.Is(err, statexfer.ErrTooLarge) {
			out.reason = doryv1alpha1.ReasonStateTooLarge // No move can have it either.
		}
		return out
	}
	e.progress.learn(state.Iterations, r.clock.Now(), first)
	if !first && e.suspects(state, began) {
		if e.holds++; e.holds <= maxHolds {
			r.metrics.result(resultHeld)
			return outcome{again: holdDelay}
		}
		first = true // Something within the pod restarts the process, and the kubelet knows nothing of it.
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	out := r.keep(ctx, o, e, state, first)
	if out.err == nil && out.again == 0 {
		e.instance = instanceOf(o.holder)
		e.at, e.uptime = r.clock.Now(), state.Uptime
	}
	return out
}

// capture reads the state, and answers also when it began to.
func (r *Reconciler) capture(ctx context.Context, o *observation, e *entry) (*statexfer.State, time.Time, error) {
	timeout := lookTimeout
	if e.failures > 0 {
		timeout = lookAgainTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := r.clock.Now()
	state, err := r.processors.Capture(ctx, o.endpoint(r.token))
	if err != nil {
		return nil, began, fmt.Errorf("capturing the state of pod %s: %w", o.holder.Name, err)
	}
	if state.PodName != "" && state.PodName != o.holder.Name {
		return nil, began, fmt.Errorf("%w: %s says that it is pod %q, and pod %s is expected: the address was given to another pod, or POD_NAME is set to something else",
			errOtherPod, o.endpoint(r.token).URL, state.PodName, o.holder.Name)
	}
	r.metrics.duration("capture", r.clock.Now().Sub(began))
	return state, began, nil
}

// keep stores the state, or gives a better one to a process that lost its own.
func (r *Reconciler) keep(ctx context.Context, o *observation, e *entry, state *statexfer.State, first bool) outcome {
	if first {
		if out, done := r.welcome(ctx, o, e, state); done {
			return out
		}
	}
	if e.interval == 0 {
		return outcome{}
	}
	if e.unchangedBy(state, o) {
		if e.unchanged++; e.unchanged <= verifyAfter {
			return r.safe(e, resultUnchanged)
		}
		if intact, err := r.intact(ctx, o, e); err != nil || intact {
			return r.orSafe(e, err, resultUnchanged)
		}
	}
	return r.save(ctx, o, e, state, first)
}

// unchangedBy says whether the state is the one that was stored last. Under a new epoch it is stored again, so that a
// late save of an older pod is known to be older.
func (e *entry) unchangedBy(state *statexfer.State, o *observation) bool {
	return e.raw != "" && e.raw == state.RawChecksum && positionOf(state, o).Epoch == e.saved.Version.Epoch
}

// positionOf is what the processor says or, where its SDK does not, the epoch that its pod holds.
func positionOf(state *statexfer.State, o *observation) statexfer.Position {
	if state.HasPosition {
		return state.Position
	}
	return statexfer.Position{Epoch: o.epoch.Spec.Epoch}
}

// intact says whether what was stored is still there: an older pod may have saved late (trap 7), or a person may have
// deleted it, and a state that does not change would never be stored again.
func (r *Reconciler) intact(ctx context.Context, o *observation, e *entry) (bool, error) {
	found, err := r.store.Look(ctx, o.key().Current(), o.lineage())
	if err != nil {
		return false, err
	}
	newest := found.Newest()
	if newest != nil && newest.Version.Epoch > o.epoch.Spec.Epoch {
		return false, nil // Not ours: the save finds out what that means.
	}
	if newest == nil || newest.Version.Compare(e.saved.Version) < 0 {
		for _, problem := range found.Problems {
			if problem.Away && problem.Storage == e.saved.Storage {
				return false, problem.Err // It cannot be told.
			}
		}
		return false, nil
	}
	e.saved, e.slot, e.unchanged = newest.Bare(), found.Slot, 0
	return true, nil
}

// save stores the state, and remembers what is stored then. The first save of a process removes no other copy: should the
// process lack its state in spite of all, that copy is where a person can get it back from.
func (r *Reconciler) save(ctx context.Context, o *observation, e *entry, state *statexfer.State, first bool) outcome {
	began := r.clock.Now()
	obsolete := e.previous
	if first {
		obsolete = ""
	}
	saved, err := r.store.Save(ctx, statestore.SaveRequest{
		Key: o.key(), Document: e.document(o, state), Lineage: o.lineage(), Previous: obsolete,
		Fresh: e.freshOf(o, state), Slot: &e.slot,
	})
	if err != nil {
		r.metrics.result(resultSaveFailed)
		return outcome{err: fmt.Errorf("storing the state of pod %s: %w", o.holder.Name, err)}
	}
	r.metrics.duration("save", r.clock.Now().Sub(began))
	e.saved, e.raw, e.unchanged = saved.Bare(), "", 0
	if !first || e.previous == "" || e.previous == doryv1alpha1.CheckpointConfigMap {
		e.previous = saved.Storage
	}
	if !saved.Written && saved.Version.Epoch > max(o.epoch.Spec.Epoch, positionOf(state, o).Epoch) {
		return r.behind(ctx, o, e)
	}
	if !saved.Written {
		return r.safe(e, resultSuperseded)
	}
	e.raw = state.RawChecksum
	if saved.Undone != "" {
		r.events.lateSaveUndone(o, saved)
	}
	r.metrics.stored(saved)
	return r.safe(e, resultWritten)
}

// document makes sure that no document has an earlier time than the one before of the same instance: the clock of a pod
// may be set back, and where there is no sequence, the time decides which is newer.
func (e *entry) document(o *observation, state *statexfer.State) statexfer.Document {
	d := state.Document(o.processor.ID())
	d.Metadata.Position = positionOf(state, o)
	d.Metadata.PodName = o.holder.Name
	d.Metadata.Time = d.Metadata.Time.Truncate(time.Microsecond)
	last := e.saved.Version
	if last.Position == d.Metadata.Position && e.saved.PodName == d.Metadata.PodName && d.Metadata.Time.Before(last.Time) {
		d.Metadata.Time = last.Time.Add(2 * time.Millisecond)
	}
	return d
}

// freshOf recognises the very first state of a processor of which nothing was ever stored.
func (e *entry) freshOf(o *observation, state *statexfer.State) string {
	if state.HasPosition || e.saved.Storage != "" || o.processor.Status.Checkpoint != nil || instanceOf(o.holder).restarts > 0 {
		return ""
	}
	checksum, err := state.Checksum()
	if err != nil {
		return "" // Storing it will tell.
	}
	return checksum
}

func (r *Reconciler) safe(e *entry, result string) outcome {
	r.metrics.result(result)
	r.metrics.age(r.book.safe(e, r.clock.Now()))
	e.current = true
	return outcome{}
}

func (r *Reconciler) orSafe(e *entry, err error, result string) outcome {
	if err != nil {
		r.metrics.result(resultSaveFailed)
		return outcome{err: fmt.Errorf("looking for what was stored: %w", err)}
	}
	return r.safe(e, result)
}

// policy is a shorthand.
func (o *observation) policy() doryv1alpha1.OnMissing { return o.processor.OnMissing() }
