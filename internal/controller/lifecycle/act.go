package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/rehearsal"
)

// act carries out the plan. What it created is added to the observation, so that the status tells of it.
func (r *Reconciler) act(ctx context.Context, o *observation, p *plan) error {
	var errs []error
	if p.doubt != nil {
		errs = append(errs, r.settleDoubt(ctx, o, p))
	}
	if p.stamp != nil {
		errs = append(errs, r.stamp(ctx, o, p.stamp))
	}
	if p.forget {
		errs = append(errs, r.forget(ctx, o))
	}
	for _, removal := range p.remove {
		errs = append(errs, p.unlessRefused(r.remove(ctx, o, p, removal)))
	}
	for _, ended := range p.lift {
		errs = append(errs, r.lift(ctx, ended))
	}
	if p.release {
		errs = append(errs, r.release(ctx, o))
	}
	if p.adopt != nil {
		errs = append(errs, r.adopt(ctx, o, p.adopt))
	}
	if p.update != "" {
		errs = append(errs, r.createUpdate(ctx, o, p))
	}
	if p.start != nil {
		errs = append(errs, r.startOrRelease(ctx, o, p))
	}
	return errors.Join(errs...)
}

// startOrRelease lets a pod go that was deleted and ended, where it cannot have a successor now: somebody waits for
// it, be it a drain or, where the namespace is being deleted and takes no new pod, Kubernetes itself.
func (r *Reconciler) startOrRelease(ctx context.Context, o *observation, p *plan) error {
	err := r.start(ctx, o, p)
	if _, holder := o.holder(); p.hindrance == nil || !awaited(holder) {
		return err
	}
	return errors.Join(err, r.release(ctx, o))
}

// remove asks the kubelet to end the pod with its full grace period.
func (r *Reconciler) remove(ctx context.Context, o *observation, p *plan, removal removal) error {
	if err := r.confirm(ctx, o, p, removal); err != nil {
		return err
	}
	uid := removal.pod.UID
	// gofail: var lifecycleBeforeRemove struct{}
	err := r.client.Delete(ctx, removal.pod, client.Preconditions{UID: &uid})
	// gofail: var lifecycleAfterRemove struct{}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting pod %s/%s: %w", removal.pod.Namespace, removal.pod.Name, err)
	}
	r.events.removing(o, removal)
	logRemoved(ctx, o, removal)
	return nil
}

// confirm asks the API server itself before a pod is removed on the word of a cache: a pod that holds no epoch
// may be the newest one, while the epoch that names it is still on its way to us; and a spec that the CRD takes
// may be refused as a pod, or known not to start, which must not cost the instance that runs.
func (r *Reconciler) confirm(ctx context.Context, o *observation, p *plan, removal removal) error {
	switch removal.reason {
	case removeSurplus:
		return r.confirmSurplus(ctx, o, removal.pod)
	case removeOutdated:
		if err := r.rehearse(ctx, o, removal.pod, nil); err != nil {
			return err
		}
		return r.keepGood(ctx, o, removal.pod)
	case removeFailed:
		if err := r.rehearse(ctx, o, removal.pod, o.record.Origin); err != nil {
			return err
		}
		if p.revert == "" {
			return nil // An earlier pass gave it up, and did not come to its end.
		}
		return r.giveUp(ctx, o, p, p.revert)
	case removeRestarted:
		return r.rehearse(ctx, o, removal.pod, o.record.Origin)
	case removeDeleted, removeSuspended, removeTwin, removeOrphaned, removeBehind:
	}
	return nil
}

func (r *Reconciler) confirmSurplus(ctx context.Context, o *observation, surplus *corev1.Pod) error {
	if err := r.confirmNoMove(ctx, o, surplus); err != nil {
		return err
	}
	epoch, err := lookup.Get[doryv1alpha1.ProcessorEpoch](ctx, r.apiReader, o.epochKey())
	if err != nil || epoch == nil || epoch.Spec.Holder != surplus.Name {
		return err
	}
	return fmt.Errorf("pod %s holds epoch %d, which the cache does not have yet: %w", surplus.Name, epoch.Spec.Epoch, fence.ErrConflict)
}

// rehearse asks whether the next pod could take the place of the one that is to end for it, and would get the state.
func (r *Reconciler) rehearse(ctx context.Context, o *observation, old *corev1.Pod, of *pod.Origin) error {
	next, err := r.unmade(ctx, o, of)
	if err != nil {
		return err
	}
	if err := r.rehearsal.Replace(ctx, next, old); err != nil {
		return err
	}
	return r.foresee(ctx, o)
}

// foresee asks what prepareState will say. An instance whose successor would be refused or made to wait is not ended: some of
// its state may be nowhere else, and no processor runs meanwhile.
func (r *Reconciler) foresee(ctx context.Context, o *observation) error {
	if r.states == nil {
		return nil
	}
	result, err := r.states.Foresee(ctx, o.processor)
	switch {
	case err != nil:
		return rehearsal.NewUnknown(doryv1alpha1.ReasonStateMissing, err)
	case result.Refused():
		return rehearsal.NewRefusal(result.Reason, "the instance is not ended, because none would be started after it: "+result.Message)
	}
	return nil
}

// unmade is a pod that is never made for good. What it needs in its namespace is made before, as for any other.
func (r *Reconciler) unmade(ctx context.Context, o *observation, of *pod.Origin) (*corev1.Pod, error) {
	pullSecret, err := r.PreparePod(ctx, of.ProcessorOr(o.processor))
	if err != nil {
		return nil, err
	}
	return pod.Build(pod.Input{
		Processor: o.processor, Name: pod.Name(o.processor.Name, rehearsal.Name), Epoch: o.epoch.Spec.Epoch, EdgeNode: o.edgeNode,
		ImagePullSecret: pullSecret, EvictionResponders: r.options.EvictionResponders, Tokens: r.tokens, Origin: of,
	})
}

// refusalRetry is when to ask again after a refusal: what it was for need not be in the spec.
const refusalRetry = 30 * time.Second

// unlessRefused shows why the instance is not ended. A refusal is no error of the pass; that it is not known is.
func (p *plan) unlessRefused(err error) error {
	if refused, ok := rehearsal.AsRefusal(err); ok {
		p.hindrance, p.requeueAfter = &hindrance{cmp.Or(refused.Reason, doryv1alpha1.ReasonPodRejected), refused.Error()}, refusalRetry
		return nil
	}
	if unknown, ok := rehearsal.AsUnknown(err); ok {
		p.hindrance = &hindrance{cmp.Or(unknown.Reason, doryv1alpha1.ReasonPodRejected), "it is not known whether a pod of the new spec could start: " + unknown.Error()}
	}
	return err
}

// lift lets go of a pod that ended: its object may disappear now.
func (r *Reconciler) lift(ctx context.Context, ended *corev1.Pod) error {
	if fenced(ended) {
		released := ended.DeepCopy()
		controllerutil.RemoveFinalizer(released, doryv1alpha1.FinalizerFence)
		err := r.client.Patch(ctx, released, client.MergeFromWithOptions(ended, client.MergeFromWithOptimisticLock{}))
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("removing the finalizer of the ended pod %s/%s: %w", ended.Namespace, ended.Name, err)
		}
	}
	// gofail: var lifecycleAfterUnfence struct{}
	if ended.DeletionTimestamp != nil {
		return nil
	}
	uid := ended.UID
	if err := r.client.Delete(ctx, ended, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting the ended pod %s/%s: %w", ended.Namespace, ended.Name, err)
	}
	return nil
}

// release frees the epoch before its pod's object may go, so that no later pass takes the holder for one that
// was never created.
func (r *Reconciler) release(ctx context.Context, o *observation) error {
	name, holder := o.holder()
	if holder == nil {
		if err := r.confirmGone(ctx, o, name); err != nil {
			return err
		}
	}
	// gofail: var lifecycleBeforeRelease struct{}
	if err := r.issuer.Release(ctx, o.epoch); err != nil {
		return err
	}
	// gofail: var lifecycleAfterRelease struct{}
	if holder == nil {
		return nil
	}
	return r.lift(ctx, holder)
}

// adopt issues an epoch to a pod that runs already, and marks it as ours.
func (r *Reconciler) adopt(ctx context.Context, o *observation, found *corev1.Pod) error {
	if name, _ := o.holder(); name != found.Name {
		if err := r.learnStored(ctx, o); err != nil {
			return err
		}
		epoch, err := r.issue(ctx, o, found.Name, doryv1alpha1.EpochAdopt)
		if err != nil {
			return err
		}
		o.epoch = epoch
	}
	adopted := found.DeepCopy()
	markAdopted(adopted, o, r.tokens)
	// gofail: var lifecycleBeforeAdopt struct{}
	if err := r.client.Patch(ctx, adopted, client.MergeFromWithOptions(found, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("adopting pod %s/%s: %w", found.Namespace, found.Name, err)
	}
	r.events.adopted(o.processor, adopted, o.epoch.Spec.Epoch)
	logStarted(ctx, o, "Took over an instance", adopted)
	return nil
}

func markAdopted(adopted *corev1.Pod, o *observation, tokens pod.Tokens) {
	metav1.SetMetaDataLabel(&adopted.ObjectMeta, doryv1alpha1.LabelManagedBy, doryv1alpha1.ManagedBy)
	metav1.SetMetaDataLabel(&adopted.ObjectMeta, doryv1alpha1.LabelProcessor, o.processor.Name)
	metav1.SetMetaDataAnnotation(&adopted.ObjectMeta, doryv1alpha1.AnnotationProcessorID, o.id)
	metav1.SetMetaDataLabel(&adopted.ObjectMeta, doryv1alpha1.LabelEpoch, strconv.FormatInt(o.epoch.Spec.Epoch, 10))
	if adopted.Annotations[doryv1alpha1.AnnotationRevision] == "" {
		pod.StampRestarts(adopted, o.processor) // What was asked for before is about instances that others ran.
		metav1.SetMetaDataAnnotation(&adopted.ObjectMeta, doryv1alpha1.AnnotationRevision, o.present())
		pod.StampOrigin(adopted, pod.NewOrigin(o.processor, o.edgeNode, tokens))
	}
	adopted.OwnerReferences = slices.DeleteFunc(adopted.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return isSentinel(&owner) || ownedByProcessor(&owner)
	})
	adopted.OwnerReferences = append(adopted.OwnerReferences, pod.OwnerReference(o.processor))
	controllerutil.AddFinalizer(adopted, doryv1alpha1.FinalizerFence)
}

// start creates the instance's pod, under the epoch that waits for it or the next one. Everything the pod needs
// is there before an epoch is spent.
func (r *Reconciler) start(ctx context.Context, o *observation, p *plan) error {
	if err := r.settle(ctx, o, p); err != nil || p.hindrance != nil {
		return err
	}
	pullSecret, err := r.PreparePod(ctx, p.start.origin.ProcessorOr(o.processor))
	if err != nil {
		return r.rejected(p, err)
	}
	standby, err := r.prepareState(ctx, o, p)
	if err != nil || p.hindrance != nil {
		return err
	}
	name := p.start.name
	if name != "" && o.stored >= o.epoch.Spec.Epoch { // Under that epoch, the pod would count for older than its own state.
		p.start.reason, p.start.confirmGone, name = doryv1alpha1.EpochReplace, name, ""
	}
	if name == "" {
		if name, err = r.nextHolder(ctx, o, p); err != nil {
			return err
		}
	}
	return r.create(ctx, o, p, pod.Input{Name: name, ImagePullSecret: pullSecret, Standby: standby, Origin: p.start.origin})
}

// stateRetry paces the looks for a state that is required and cannot be read.
const stateRetry = 10 * time.Second

// prepareState answers whether the instance is to wait for its state: it is too large for where the SDK looks, and the
// checkpoint controller will hand it over.
func (r *Reconciler) prepareState(ctx context.Context, o *observation, p *plan) (standby bool, err error) {
	if r.states == nil {
		return false, nil
	}
	result, err := r.states.Prepare(ctx, o.processor)
	o.stored = result.Epoch
	switch {
	case err != nil:
		p.hindrance = &hindrance{doryv1alpha1.ReasonStateMissing, err.Error()}
		return false, err
	case result.Refused():
		p.hindrance, p.requeueAfter = &hindrance{result.Reason, result.Message}, stateRetry
		return false, nil
	}
	return result.Elsewhere && ptr.Deref(o.processor.Status.Handoff, false), nil
}

// nextHolder issues the next epoch to a pod that does not exist yet, and answers its name.
func (r *Reconciler) nextHolder(ctx context.Context, o *observation, p *plan) (string, error) {
	if err := r.confirmGone(ctx, o, p.start.confirmGone); err != nil {
		return "", err
	}
	name := pod.Name(o.processor.Name, r.newSuffix())
	epoch, err := r.issue(ctx, o, name, p.start.reason)
	if err != nil && !errors.Is(err, fence.ErrConflict) {
		p.hindrance = &hindrance{doryv1alpha1.ReasonEpochUnavailable, err.Error()}
	}
	if err != nil {
		return "", err
	}
	o.epoch = epoch
	return name, nil
}

func (r *Reconciler) confirmGone(ctx context.Context, o *observation, name string) error {
	if name == "" {
		return nil
	}
	found, err := lookup.Get[corev1.Pod](ctx, r.apiReader, types.NamespacedName{Namespace: o.key.Namespace, Name: name})
	if err != nil || found == nil {
		return err
	}
	if found.Labels[doryv1alpha1.LabelManagedBy] != doryv1alpha1.ManagedBy {
		return r.relabel(ctx, found)
	}
	return fmt.Errorf("pod %s still exists although the cache does not have it: %w", name, fence.ErrConflict)
}

// relabel brings a pod back into the cache, which holds only pods with our label: somebody took it off.
func (r *Reconciler) relabel(ctx context.Context, found *corev1.Pod) error {
	labelled := found.DeepCopy()
	metav1.SetMetaDataLabel(&labelled.ObjectMeta, doryv1alpha1.LabelManagedBy, doryv1alpha1.ManagedBy)
	if err := r.client.Patch(ctx, labelled, client.MergeFrom(found)); err != nil {
		return fmt.Errorf("labelling pod %s/%s as ours again: %w", found.Namespace, found.Name, err)
	}
	return fmt.Errorf("pod %s had lost its label %s: %w", found.Name, doryv1alpha1.LabelManagedBy, fence.ErrConflict)
}

func (r *Reconciler) issue(ctx context.Context, o *observation, holder string, reason doryv1alpha1.EpochReason) (*doryv1alpha1.ProcessorEpoch, error) {
	return r.issuer.Issue(ctx, fence.Request{
		Namespace: o.key.Namespace, ProcessorID: o.id,
		Holder: holder, Reason: reason, Current: o.epoch, Floor: o.floor(),
	})
}

func (r *Reconciler) create(ctx context.Context, o *observation, p *plan, in pod.Input) error {
	in.Processor, in.Epoch, in.Restarts, in.EdgeNode = o.processor, o.epoch.Spec.Epoch, failures(p), o.edgeNode
	in.EvictionResponders, in.Tokens = r.options.EvictionResponders, r.tokens
	created, err := pod.Build(in)
	if err != nil {
		return err
	}
	// gofail: var lifecycleBeforeCreate struct{}
	if err := r.client.Create(ctx, created); err != nil {
		if in.Origin == nil && o.onTrial() && specsFault(err) {
			return r.blameSpec(ctx, o, p, err)
		}
		return r.createFailed(p, created, err)
	}
	// gofail: var lifecycleAfterCreate struct{}
	o.pods = append(o.pods, created)
	p.started = true
	r.events.created(o.processor, created, o.epoch.Spec.Epoch)
	logStarted(ctx, o, "Started an instance", created)
	return nil
}

// specsFault says whether the API server's word is about the pod. That a quota is full just now is not: what the old pod took may
// not be given back yet, or another pod has it.
func specsFault(err error) bool {
	return rehearsal.Final(err) && !rehearsal.OverQuota(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// createFailed: a pod of this name is there already if an earlier pass created it and the cache is late.
func (r *Reconciler) createFailed(p *plan, refused *corev1.Pod, err error) error {
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("pod %s/%s: %w", refused.Namespace, refused.Name, fence.ErrConflict)
	}
	r.metrics.podCreationErrors.WithLabelValues(string(apierrors.ReasonForError(err))).Inc()
	return r.rejected(p, fmt.Errorf("creating pod %s/%s: %w", refused.Namespace, refused.Name, err))
}

// rejected shows the API server's refusal in the condition; the queue tries again, ever more seldom.
func (r *Reconciler) rejected(p *plan, err error) error {
	p.hindrance = &hindrance{doryv1alpha1.ReasonPodRejected, err.Error()}
	return err
}

func failures(p *plan) int32 {
	if p.backoff == nil {
		return 0
	}
	return p.backoff.Failures
}
