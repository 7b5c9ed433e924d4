package dbsync

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// FieldManager is the name under which the API server files what is written here.
const FieldManager = "dory-db-sync"

// writer is every write to the API server that is made here. All of it goes past the client's own bookkeeping of
// writes, in favour of the view's: that one costs no second cache for unstructured objects.
type writer struct {
	client client.Client
	clock  clock.PassiveClock
}

// apply writes an object by server-side apply and returns it as it is then.
func (w writer) apply(ctx context.Context, k kind, want client.Object) (client.Object, error) {
	fields, err := applyFields(k, want)
	if err != nil {
		return nil, err
	}
	err = w.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(fields), client.ForceOwnership,
		client.FieldOwner(FieldManager), client.DisableReadYourWritesConsistency)
	if err != nil {
		return nil, err
	}
	applied := k.newObject()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields.Object, applied); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if k.same(want, applied) {
		return applied, nil
	}
	return w.strip(ctx, k, want, applied)
}

// applyFields is what is sent: exactly the fields that are rendered, so that exactly these are ours.
func applyFields(k kind, want client.Object) (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(want)
	if err != nil {
		return nil, fmt.Errorf("writing %s as JSON: %w", describe(client.ObjectKeyFromObject(want)), err)
	}
	u := &unstructured.Unstructured{Object: fields}
	u.SetGroupVersionKind(doryv1alpha1.GroupVersion.WithKind(k.name()))
	return u, nil
}

// strip takes out of a spec what others have put there: apply leaves alone what it does not name.
func (w writer) strip(ctx context.Context, k kind, want, applied client.Object) (client.Object, error) {
	changed, ok := applied.DeepCopyObject().(client.Object)
	if !ok {
		return nil, fmt.Errorf("%T is no object", applied)
	}
	k.replace(changed, want)
	if _, wanted := want.GetAnnotations()[doryv1alpha1.AnnotationTemplateWarnings]; !wanted {
		delete(changed.GetAnnotations(), doryv1alpha1.AnnotationTemplateWarnings)
	}
	if err := w.patch(ctx, changed, applied); err != nil {
		return nil, err
	}
	if !k.same(want, changed) {
		return nil, errNotKept
	}
	return changed, nil
}

// rewrite makes the spec of an object that cannot be decoded what is wanted, unless it was written in between. It writes JSON,
// past all types.
func (w writer) rewrite(ctx context.Context, k kind, want, current client.Object) error {
	fields, err := applyFields(k, want)
	if err != nil {
		return err
	}
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/resourceVersion", "value": current.GetResourceVersion()},
		{"op": "replace", "path": "/spec", "value": fields.Object["spec"]},
	})
	if err != nil {
		return fmt.Errorf("encoding the spec of %s: %w", describe(client.ObjectKeyFromObject(want)), err)
	}
	return w.client.Patch(ctx, fields, client.RawPatch(types.JSONPatchType, patch), client.FieldOwner(FieldManager), client.DisableReadYourWritesConsistency)
}

// release takes our marks off an object.
func (w writer) release(ctx context.Context, object client.Object) (client.Object, error) {
	changed, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		return nil, fmt.Errorf("%T is no object", object)
	}
	delete(changed.GetLabels(), doryv1alpha1.LabelSource)
	for _, annotation := range []string{
		doryv1alpha1.AnnotationRowRevision, doryv1alpha1.AnnotationProcessorID, doryv1alpha1.AnnotationTemplateWarnings,
		doryv1alpha1.AnnotationDeletionApproved,
	} {
		delete(changed.GetAnnotations(), annotation)
	}
	return changed, w.patch(ctx, changed, object)
}

// unannotate takes one annotation off an object, and returns the object as it is then.
func (w writer) unannotate(ctx context.Context, object client.Object, annotation string) (client.Object, error) {
	changed, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		return nil, fmt.Errorf("%T is no object", object)
	}
	delete(changed.GetAnnotations(), annotation)
	return changed, w.patch(ctx, changed, object)
}

// patch writes what differs between two states of an object, if nobody else has written it in between. changed
// becomes the object as it is then.
func (w writer) patch(ctx context.Context, changed, base client.Object) error {
	return w.client.Patch(ctx, changed, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}),
		client.FieldOwner(FieldManager), client.DisableReadYourWritesConsistency)
}

// setCondition makes DatabaseSynced say what it should, or takes it away, and returns the object as it is then.
func (w writer) setCondition(ctx context.Context, p *doryv1alpha1.Processor, want *metav1.Condition) (*doryv1alpha1.Processor, error) {
	changed := p.DeepCopy()
	if want == nil {
		meta.RemoveStatusCondition(&changed.Status.Conditions, doryv1alpha1.ConditionDatabaseSynced)
	} else {
		condition := *want
		condition.ObservedGeneration = p.Generation
		condition.LastTransitionTime = metav1.NewTime(w.clock.Now())
		meta.SetStatusCondition(&changed.Status.Conditions, condition)
	}
	err := w.client.Status().Patch(ctx, changed, client.MergeFromWithOptions(p, client.MergeFromWithOptimisticLock{}),
		client.FieldOwner(FieldManager), client.DisableReadYourWritesConsistency)
	return changed, err
}

// remove deletes the object if it is still as it was seen. It says whether it was there to delete.
func (w writer) remove(ctx context.Context, object client.Object) (bool, error) {
	err := w.client.Delete(ctx, object, client.DisableReadYourWritesConsistency, client.Preconditions{
		UID: new(object.GetUID()), ResourceVersion: new(object.GetResourceVersion()),
	})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
