package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

const (
	rolePrimary  = "primary"
	roleStandby  = "standby"
	roleQuiesced = "quiesced"
	// afterRestore is when to look at a process that was just given its state: its first checkpoint should not wait for
	// its turn.
	afterRestore = holdDelay / 3
)

// errChanged says that the world is not what the caches say.
var errChanged = errors.New("it has changed meanwhile")

// wake finds a holder whose process waits, although no migration is under way that would end that. Either its container
// restarted, and what it knew of its role was lost with the process: it is a standby, which is given the newest state
// and promoted under the epoch that it holds. Or the migration that quiesced it was deleted: it is resumed. Nobody else
// acts for the processor, because the epoch is its own.
func (r *Reconciler) wake(ctx context.Context, o *observation, e *entry, must bool) (out outcome, done bool) {
	status, err := r.roleOf(ctx, o)
	unaware := status.Role == rolePrimary && status.Epoch < o.epoch.Spec.Epoch && o.migration == nil
	switch {
	case errors.Is(err, statexfer.ErrRefused), err != nil && (!must || e.failures >= failuresToTell):
		return outcome{}, false // Its SDK knows no handoff. Not all of them answer 404 to what they do not know.
	case err != nil:
		r.metrics.result(resultCaptureFailed)
		return outcome{err: fmt.Errorf("asking pod %s for its role: %w", o.holder.Name, err)}, true
	case status.Role != roleStandby && status.Role != roleQuiesced && !unaware:
		return outcome{}, false
	case o.migration != nil:
		return outcome{again: migrationDelay}, true
	}
	switch {
	case unaware:
		if err = r.tellEpoch(ctx, o); errors.Is(err, statexfer.ErrRefused) {
			return outcome{}, false // Its SDK takes a promotion only from a standby.
		}
	case status.Role == roleQuiesced:
		err = r.resume(ctx, o)
	default:
		err = r.revive(ctx, o, status)
	}
	if err != nil {
		return r.notRestored(err), true
	}
	return outcome{again: afterRestore}, true
}

func (r *Reconciler) resume(ctx context.Context, o *observation) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := r.confirm(ctx, o); err != nil {
		return err
	}
	if err := r.processors.Resume(ctx, o.endpoint(r.token), o.epoch.Spec.Epoch); err != nil {
		return fmt.Errorf("resuming pod %s, which was quiesced by a migration that is no more: %w", o.holder.Name, err)
	}
	r.events.resumed(o)
	return r.markPrimary(ctx, o)
}

// tellEpoch promotes a process that acts already: the target of an Overlap, which saves nothing before it knows its epoch.
func (r *Reconciler) tellEpoch(ctx context.Context, o *observation) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := r.confirm(ctx, o); err != nil {
		return err
	}
	if err := r.processors.Promote(ctx, o.endpoint(r.token), o.epoch.Spec.Epoch); err != nil {
		return fmt.Errorf("telling pod %s its epoch %d: %w", o.holder.Name, o.epoch.Spec.Epoch, err)
	}
	return r.markPrimary(ctx, o)
}

func (r *Reconciler) roleOf(ctx context.Context, o *observation) (statexfer.HandoffStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, lookAgainTimeout)
	defer cancel()
	return r.processors.Status(ctx, o.endpoint(r.token))
}

func (r *Reconciler) revive(ctx context.Context, o *observation, status statexfer.HandoffStatus) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := r.confirm(ctx, o); err != nil {
		return err
	}
	found, document, err := r.store.Newest(ctx, o.key(), o.lineage())
	if err != nil {
		return fmt.Errorf("reading the stored state: %w", err)
	}
	if o.policy() != doryv1alpha1.OnMissingDiscard {
		if err := statestore.Awaited(o.processor, found); err != nil {
			return err
		}
		if err := r.acceptable(o, found); err != nil {
			return err
		}
	}
	if o.epoch, err = r.epochAbove(ctx, o, seenBy(status.Epoch, o, found)); err != nil {
		return err
	}
	to, epoch := o.endpoint(r.token), o.epoch.Spec.Epoch
	if document != nil && lacks(status, document.Metadata.Position) {
		if err := r.hand(ctx, to, document, epoch); err != nil {
			return fmt.Errorf("giving the state to the waiting pod %s: %w", o.holder.Name, err)
		}
	}
	err = r.processors.Promote(ctx, to, epoch)
	if errors.Is(err, statexfer.ErrRefused) && document == nil {
		return r.end(ctx, o)
	}
	if err != nil {
		return fmt.Errorf("promoting the waiting pod %s under epoch %d: %w", o.holder.Name, epoch, err)
	}
	r.events.revived(o, found)
	return r.markPrimary(ctx, o)
}

// epochAbove is the epoch to promote the holder under: its own or, where its process has seen that one already, a new one.
func (r *Reconciler) epochAbove(ctx context.Context, o *observation, seen int64) (*doryv1alpha1.ProcessorEpoch, error) {
	if seen < o.epoch.Spec.Epoch {
		return o.epoch, nil
	}
	issued, err := r.issuer.Issue(ctx, fence.Request{
		Namespace: o.processor.Namespace, ProcessorID: o.processor.ID(), Holder: o.holder.Name,
		Reason: doryv1alpha1.EpochPromote, Current: o.epoch, Floor: seen,
	})
	if err != nil {
		return nil, fmt.Errorf("issuing an epoch above %d to the waiting pod %s: %w", seen, o.holder.Name, err)
	}
	return issued, nil
}

// lacks says whether a standby does not hold the state yet, nor a newer one that a migration left it with.
func lacks(status statexfer.HandoffStatus, stored statexfer.Position) bool {
	held := statexfer.Position{Epoch: status.Epoch, Sequence: status.Sequence}
	return status.Sequence == 0 || held.Compare(stored) < 0
}

// hand gives the state to a standby, as one of the epoch before: the standby must not have seen the one that it is promoted
// to, also where the process before it made the state under that one, and takes no state that is older than what it has
// seen.
func (r *Reconciler) hand(ctx context.Context, to statexfer.Endpoint, document *statexfer.Document, epoch int64) error {
	state := document.State()
	state.Position.Epoch = epoch - 1
	state.HasPosition = true
	restored, err := r.processors.Restore(ctx, to, state)
	if err != nil {
		return err
	}
	return r.processors.Verify(ctx, to, state, restored)
}

// confirm asks the API server itself: the caches may be behind, and two instances could act.
func (r *Reconciler) confirm(ctx context.Context, o *observation) error {
	epoch, holder, err := readHolder(ctx, r.apiReader, o.processor)
	if err != nil {
		return err
	}
	if epoch == nil || epoch.Spec.Epoch != o.epoch.Spec.Epoch || holder == nil || holder.UID != o.holder.UID ||
		!serves(holder) || instanceOf(holder) != instanceOf(o.holder) || holder.Status.PodIP != o.holder.Status.PodIP {
		return fmt.Errorf("%w: pod %s under epoch %d", errChanged, o.holder.Name, o.epoch.Spec.Epoch)
	}
	migration, err := activeMigration(ctx, r.apiReader, o.processor)
	if err == nil && migration != nil {
		err = fmt.Errorf("%w: ProcessorMigration %s is under way", errChanged, migration.Name)
	}
	return err
}

// end makes room for a new instance where a standby will not act without a state, and there is none to give.
func (r *Reconciler) end(ctx context.Context, o *observation) error {
	uid := o.holder.UID
	if err := r.client.Delete(ctx, o.holder, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("ending pod %s, which waits for a state that does not exist: %w", o.holder.Name, err)
	}
	r.events.ended(o)
	return nil
}

// markPrimary lets the next process of the pod start as what this one is.
func (r *Reconciler) markPrimary(ctx context.Context, o *observation) error {
	epoch := strconv.FormatInt(o.epoch.Spec.Epoch, 10)
	marked := o.holder.DeepCopy()
	metav1.SetMetaDataAnnotation(&marked.ObjectMeta, doryv1alpha1.AnnotationRole, doryv1alpha1.RolePrimary)
	metav1.SetMetaDataLabel(&marked.ObjectMeta, doryv1alpha1.LabelEpoch, epoch)
	if o.holder.Annotations[doryv1alpha1.AnnotationRole] == doryv1alpha1.RolePrimary && o.holder.Labels[doryv1alpha1.LabelEpoch] == epoch {
		return nil
	}
	if err := r.client.Patch(ctx, marked, client.MergeFrom(o.holder)); err != nil {
		return fmt.Errorf("marking pod %s as the one that acts: %w", o.holder.Name, err)
	}
	return nil
}

var _ Store = (*statestore.Store)(nil)
