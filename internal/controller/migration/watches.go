package migration

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/undecodable"
)

// indexProcessor finds the migrations of a Processor.
const indexProcessor = "dory.io/migration-processor"

// SetupWithManager registers the reconciler and its index.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	byProcessor := func(o client.Object) []string { return []string{o.(*doryv1alpha1.ProcessorMigration).Spec.Processor} }
	if err := mgr.GetFieldIndexer().IndexField(ctx, &doryv1alpha1.ProcessorMigration{}, indexProcessor, byProcessor); err != nil {
		return fmt.Errorf("adding the index %s: %w", indexProcessor, err)
	}
	b := ctrl.NewControllerManagedBy(mgr).
		Named("migration").
		Watches(&doryv1alpha1.ProcessorMigration{}, handler.EnqueueRequestsFromMapFunc(fromMigration)).
		Watches(&doryv1alpha1.Processor{}, r.ifMoving(processorItself), builder.WithPredicates(predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, restartRequested()))).
		Watches(&corev1.Pod{}, r.ifMoving(processorOfPod)).
		Watches(&doryv1alpha1.ProcessorEpoch{}, r.ifMoving(r.processorOfEpoch)).
		WithOptions(r.controllerOptions())
	if r.wake != nil {
		b = b.WatchesRawSource(source.Channel(r.wake, handler.EnqueueRequestsFromMapFunc(fromMigration)))
	}
	return b.Complete(undecodable.LeaveAside(r))
}

// restartRequested: another request is another target, and calls off the move to the one before.
func restartRequested() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return !pod.SameRequests(e.ObjectOld.(*doryv1alpha1.Processor), e.ObjectNew.(*doryv1alpha1.Processor))
	}}
}

func fromMigration(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.(*doryv1alpha1.ProcessorMigration).Spec.Processor}}}
}

// ifMoving leaves out the events of processors that have nothing to do with a move.
func (r *Reconciler) ifMoving(processor func(context.Context, client.Object) string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		name := processor(ctx, o)
		if name == "" {
			return nil
		}
		key := types.NamespacedName{Namespace: o.GetNamespace(), Name: name}
		if p, isPod := o.(*corev1.Pod); isPod && aside(p) && p.Labels[doryv1alpha1.LabelEpoch] != "" {
			return []reconcile.Request{{NamespacedName: key}} // Perhaps nobody's any more.
		}
		if r.moving(ctx, key) {
			return []reconcile.Request{{NamespacedName: key}}
		}
		return nil
	})
}

func (r *Reconciler) moving(ctx context.Context, key types.NamespacedName) bool {
	var list doryv1alpha1.ProcessorMigrationList
	err := r.client.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingFields{indexProcessor: key.Name}, client.UnsafeDisableDeepCopy, undecodable.Tolerate)
	if err != nil {
		log.FromContext(ctx).Error(err, "listing the migrations of a Processor", "processor", key)
		return true
	}
	for i := range list.Items {
		if !list.Items[i].Ended() {
			return true
		}
	}
	return false
}

func processorItself(_ context.Context, o client.Object) string { return o.GetName() }

// processorOfPod goes by the owner or else by the label.
func processorOfPod(_ context.Context, o client.Object) string {
	if owner := metav1.GetControllerOf(o); owner != nil && owner.Kind == "Processor" {
		return owner.Name
	}
	return o.GetLabels()[doryv1alpha1.LabelProcessor]
}

// processorOfEpoch is that of the pod which the epoch names. Where there is no such pod, the pod's own events say so.
func (r *Reconciler) processorOfEpoch(ctx context.Context, o client.Object) string {
	holder := o.(*doryv1alpha1.ProcessorEpoch).Spec.Holder
	if holder == "" {
		return ""
	}
	p, err := lookup.Get[corev1.Pod](ctx, r.client, types.NamespacedName{Namespace: o.GetNamespace(), Name: holder})
	if err != nil || p == nil {
		return ""
	}
	return processorOfPod(ctx, p)
}
