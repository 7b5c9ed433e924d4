package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
)

// act carries out the plan. What it created is added to the observation, so that the status tells of it.
func (r *Reconciler) act(ctx context.Context, o *observation, p *plan) error {
	var errs []error
	for _, removal := range p.remove {
		errs = append(errs, r.remove(ctx, o, removal))
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
	if p.start != nil {
		errs = append(errs, r.start(ctx, o, p))
	}
	return errors.Join(errs...)
}

// remove asks the kubelet to end the pod with its full grace period.
func (r *Reconciler) remove(ctx context.Context, o *observation, removal removal) error {
	uid := removal.pod.UID
	err := r.client.Delete(ctx, removal.pod, client.Preconditions{UID: &uid})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting pod %s/%s: %w", removal.pod.Namespace, removal.pod.Name, err)
	}
	r.events.removing(o.processor, removal)
	return nil
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
	_, holder := o.holder()
	if err := r.issuer.Release(ctx, o.epoch); err != nil {
		return err
	}
	if holder == nil {
		return nil
	}
	return r.lift(ctx, holder)
}

// adopt issues an epoch to a pod that runs already, and marks it as ours.
func (r *Reconciler) adopt(ctx context.Context, o *observation, found *corev1.Pod) error {
	if name, _ := o.holder(); name != found.Name {
		epoch, err := r.issue(ctx, o, found.Name, doryv1alpha1.EpochAdopt)
		if err != nil {
			return err
		}
		o.epoch = epoch
	}
	adopted := found.DeepCopy()
	markAdopted(adopted, o)
	if err := r.client.Patch(ctx, adopted, client.MergeFromWithOptions(found, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("adopting pod %s/%s: %w", found.Namespace, found.Name, err)
	}
	r.events.adopted(o.processor, adopted, o.epoch.Spec.Epoch)
	return nil
}

func markAdopted(adopted *corev1.Pod, o *observation) {
	metav1.SetMetaDataLabel(&adopted.ObjectMeta, doryv1alpha1.LabelManagedBy, doryv1alpha1.ManagedBy)
	metav1.SetMetaDataLabel(&adopted.ObjectMeta, doryv1alpha1.LabelProcessor, o.processor.Name)
	metav1.SetMetaDataLabel(&adopted.ObjectMeta, doryv1alpha1.LabelEpoch, strconv.FormatInt(o.epoch.Spec.Epoch, 10))
	if adopted.Annotations[doryv1alpha1.AnnotationRevision] == "" {
		metav1.SetMetaDataAnnotation(&adopted.ObjectMeta, doryv1alpha1.AnnotationRevision, pod.Revision(o.processor, o.edgeNode))
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
	if err := r.prepareNamespace(ctx, o.processor); err != nil {
		return r.rejected(p, err)
	}
	if err := r.ensureToken(ctx, o.processor); err != nil {
		return r.rejected(p, err)
	}
	pullSecret, err := r.pullSecrets.in(ctx, o.key.Namespace)
	if err != nil {
		return r.rejected(p, err)
	}
	name := p.start.name
	if name == "" {
		if name, err = r.nextHolder(ctx, o, p); err != nil {
			return err
		}
	}
	return r.create(ctx, o, p, name, pullSecret)
}

// nextHolder issues the next epoch to a pod that does not exist yet, and answers its name.
func (r *Reconciler) nextHolder(ctx context.Context, o *observation, p *plan) (string, error) {
	if err := r.confirmGone(ctx, o, p.start.confirmGone); err != nil {
		return "", err
	}
	name := pod.Name(o.processor.Name, r.newSuffix())
	epoch, err := r.issue(ctx, o, name, p.start.reason)
	if errors.Is(err, fence.ErrUnavailable) {
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
	found, err := get[corev1.Pod](ctx, r.apiReader, types.NamespacedName{Namespace: o.key.Namespace, Name: name})
	if err != nil || found == nil {
		return err
	}
	return fmt.Errorf("pod %s still exists although the cache does not have it: %w", name, fence.ErrConflict)
}

func (r *Reconciler) issue(ctx context.Context, o *observation, holder string, reason doryv1alpha1.EpochReason) (*doryv1alpha1.ProcessorEpoch, error) {
	return r.issuer.Issue(ctx, fence.Request{
		Namespace: o.key.Namespace, Processor: o.key.Name, ProcessorID: o.processor.ID(),
		Holder: holder, Reason: reason, Current: o.epoch, Floor: o.floor(),
	})
}

func (r *Reconciler) create(ctx context.Context, o *observation, p *plan, name, pullSecret string) error {
	created, err := pod.Build(pod.Input{
		Processor: o.processor, Name: name, Epoch: o.epoch.Spec.Epoch, Restarts: failures(p), EdgeNode: o.edgeNode,
		ImagePullSecret: pullSecret,
	})
	if err != nil {
		return err
	}
	if err := r.client.Create(ctx, created); err != nil {
		return r.createFailed(p, created, err)
	}
	o.pods = append(o.pods, created)
	r.events.created(o.processor, created, o.epoch.Spec.Epoch)
	return nil
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
