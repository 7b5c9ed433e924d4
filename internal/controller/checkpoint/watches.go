package checkpoint

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/undecodable"
)

// The indexes of the informer caches, by what they index.
const (
	indexMigration   = "dory.io/checkpoint-migration-processor"
	indexProcessorID = "dory.io/checkpoint-processor-id"
)

// SetupWithManager registers the reconciler and its indexes.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	if err := addIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("checkpoint").
		For(&doryv1alpha1.Processor{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Pod{}, r.fromPod(), builder.WithPredicates(podChanges())).
		Watches(&doryv1alpha1.ProcessorEpoch{}, r.fromEpoch(), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&doryv1alpha1.ProcessorMigration{}, r.fromMigration(), builder.WithPredicates(phaseChanges())).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.concurrency, RateLimiter: retries()}).
		Complete(undecodable.LeaveAside(r))
}

func addIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	for _, index := range []struct {
		object client.Object
		name   string
		value  client.IndexerFunc
	}{
		{&doryv1alpha1.ProcessorMigration{}, indexMigration, func(o client.Object) []string {
			return []string{o.(*doryv1alpha1.ProcessorMigration).Spec.Processor}
		}},
		{&doryv1alpha1.Processor{}, indexProcessorID, func(o client.Object) []string {
			return []string{o.(*doryv1alpha1.Processor).ID()}
		}},
	} {
		if err := indexer.IndexField(ctx, index.object, index.name, index.value); err != nil {
			return fmt.Errorf("adding the index %s: %w", index.name, err)
		}
	}
	return nil
}

// fromPod finds the Processor of a pod. A pod that is gone may have saved its state last, over a newer one.
func (r *Reconciler) fromPod() handler.EventHandler {
	find := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, pod client.Object) []reconcile.Request {
		return some(pod.GetNamespace(), processorOf(pod))
	})
	return handler.Funcs{
		CreateFunc: find.Create,
		UpdateFunc: find.Update,
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			for _, req := range some(e.Object.GetNamespace(), processorOf(e.Object)) {
				r.book.doubt(req.NamespacedName)
			}
			find.Delete(ctx, e, q)
		},
	}
}

// fromMigration finds the Processor of a migration. After its end it is looked whether all is as it should be.
func (r *Reconciler) fromMigration() handler.EventHandler {
	find := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, m client.Object) []reconcile.Request {
		return some(m.GetNamespace(), m.(*doryv1alpha1.ProcessorMigration).Spec.Processor)
	})
	doubt := func(o client.Object, ended bool) {
		if ended {
			r.book.doubt(types.NamespacedName{Namespace: o.GetNamespace(), Name: o.(*doryv1alpha1.ProcessorMigration).Spec.Processor})
		}
	}
	return handler.Funcs{
		CreateFunc: find.Create,
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			doubt(e.ObjectNew, e.ObjectNew.(*doryv1alpha1.ProcessorMigration).Ended())
			find.Update(ctx, e, q)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			doubt(e.Object, !e.Object.(*doryv1alpha1.ProcessorMigration).Ended())
			find.Delete(ctx, e, q)
		},
	}
}

func (r *Reconciler) fromEpoch() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, epoch client.Object) []reconcile.Request {
		id := epoch.(*doryv1alpha1.ProcessorEpoch).Spec.ProcessorID
		var found doryv1alpha1.ProcessorList
		err := r.client.List(ctx, &found, client.InNamespace(epoch.GetNamespace()), client.MatchingFields{indexProcessorID: id}, undecodable.Tolerate)
		if err != nil {
			log.FromContext(ctx).Error(err, "listing the Processors of an epoch", "processorID", id)
		}
		var requests []reconcile.Request
		for i := range found.Items {
			requests = append(requests, some(found.Items[i].Namespace, found.Items[i].Name)...)
		}
		return requests
	})
}

func some(namespace, name string) []reconcile.Request {
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}}
}

// processorOf is the name of the Processor that a pod belongs to, by its owner or else by its label.
func processorOf(pod client.Object) string {
	owner := metav1.GetControllerOf(pod)
	if owner != nil && owner.Kind == "Processor" && owner.APIVersion == doryv1alpha1.GroupVersion.String() {
		return owner.Name
	}
	return pod.GetLabels()[doryv1alpha1.LabelProcessor]
}

// podChanges are those that decide whether the pod's state is to be looked at.
func podChanges() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod)
		return serves(before) != serves(after) || instanceOf(before) != instanceOf(after) ||
			before.Status.PodIP != after.Status.PodIP || processorOf(before) != processorOf(after)
	}}
}

func phaseChanges() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*doryv1alpha1.ProcessorMigration), e.ObjectNew.(*doryv1alpha1.ProcessorMigration)
		return before.Status.Phase != after.Status.Phase
	}}
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
