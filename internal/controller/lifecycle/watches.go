package lifecycle

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/undecodable"
)

// The indexes of the informer caches, by what they index.
const (
	indexPodProcessor = "dory.io/pod-processor"
	indexPodID        = "dory.io/pod-processor-id"
	indexPodNode      = "dory.io/pod-node"
	indexProcessorID  = "dory.io/processor-id"
	indexEdgeNode     = "dory.io/processor-edge-node"
	// indexMigrationProcessor is ours alone: an informer takes every index once.
	indexMigrationProcessor = "dory.io/lifecycle-migration-processor"
)

func addIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	for _, index := range []struct {
		object client.Object
		name   string
		value  client.IndexerFunc
	}{
		{&corev1.Pod{}, indexPodProcessor, func(o client.Object) []string { return some(processorOf(o)) }},
		{&corev1.Pod{}, indexPodID, func(o client.Object) []string { return some(idOf(o)) }},
		{&corev1.Pod{}, indexPodNode, func(o client.Object) []string { return some(o.(*corev1.Pod).Spec.NodeName) }},
		{&doryv1alpha1.Processor{}, indexProcessorID, func(o client.Object) []string { return some(o.(*doryv1alpha1.Processor).ID()) }},
		{&doryv1alpha1.Processor{}, indexEdgeNode, edgeNodesOf},
		{&doryv1alpha1.ProcessorMigration{}, indexMigrationProcessor, func(o client.Object) []string { return some(o.(*doryv1alpha1.ProcessorMigration).Spec.Processor) }},
	} {
		if err := indexer.IndexField(ctx, index.object, index.name, index.value); err != nil {
			return fmt.Errorf("adding the index %s: %w", index.name, err)
		}
	}
	return nil
}

func some(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

// processorOf is the name of the Processor that a pod belongs to, by its owner or else by its label.
func processorOf(pod client.Object) string {
	if owner := metav1.GetControllerOf(pod); owner != nil && ownedByProcessor(owner) {
		return owner.Name
	}
	return pod.GetLabels()[doryv1alpha1.LabelProcessor]
}

// idOf is the processor's id as a pod carries it: in an annotation, because not every id is a legal label, or, on
// a pod that was not adopted yet, in the label.
func idOf(pod client.Object) string {
	if id := pod.GetAnnotations()[doryv1alpha1.AnnotationProcessorID]; id != "" {
		return id
	}
	return pod.GetLabels()[doryv1alpha1.LabelProcessorID]
}

func edgeNodesOf(o client.Object) []string {
	if placement := o.(*doryv1alpha1.Processor).Spec.Placement; placement != nil {
		return some(placement.EdgeNode)
	}
	return nil
}

// fromProcessor lets what only wants to be acknowledged, and what a new leader finds, wait behind the starts of others.
func (r *Reconciler) fromProcessor() handler.EventHandler {
	enqueue := func(o client.Object, canWait bool, q requestQueue) {
		add(q, canWait, []reconcile.Request{request(o.GetNamespace(), o.GetName())})
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q requestQueue) { enqueue(e.Object, e.IsInInitialList, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q requestQueue) {
			enqueue(e.ObjectNew, dormant(e.ObjectOld) && dormant(e.ObjectNew), q)
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q requestQueue) { enqueue(e.Object, false, q) },
	}
}

// dormant Processors run nothing and are to run nothing.
func dormant(o client.Object) bool {
	p := o.(*doryv1alpha1.Processor)
	return p.Suspended() && p.Status.Instance == nil && p.DeletionTimestamp == nil
}

// relevantProcessorChanges leaves out the status, but for what decides how the next pod looks, and metadata, but for
// requests to restart.
func relevantProcessorChanges() builder.WatchesOption {
	learned := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*doryv1alpha1.Processor), e.ObjectNew.(*doryv1alpha1.Processor)
		return before.Status.LivenessPath != after.Status.LivenessPath || !pod.SameRequests(before, after)
	}}
	return builder.WithPredicates(predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, learned))
}

// nodeReadinessChanges leaves out heartbeats.
func nodeReadinessChanges() builder.WatchesOption {
	return builder.WithPredicates(predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return stateOf(e.ObjectOld.(*corev1.Node)) != stateOf(e.ObjectNew.(*corev1.Node))
		},
	})
}

// fromPod finds the Processor of a pod, and all others of its id: they wait for its end, or may adopt it. News of a pod
// that is on its way up can wait behind the starts of others: by the time it is told, there is often more to tell.
func (r *Reconciler) fromPod() handler.EventHandler {
	enqueue := func(ctx context.Context, o client.Object, q requestQueue) {
		pod := o.(*corev1.Pod)
		requests := r.processorsWhere(ctx, indexProcessorID, idOf(pod), r.scope(pod.Namespace))
		if name := processorOf(pod); name != "" {
			requests = append(requests, request(pod.Namespace, name))
		}
		add(q, comingUp(pod), requests)
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q requestQueue) { enqueue(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q requestQueue) { enqueue(ctx, e.ObjectNew, q) },
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q requestQueue) { enqueue(ctx, e.Object, q) },
	}
}

type requestQueue = workqueue.TypedRateLimitingInterface[reconcile.Request]

func add(q requestQueue, canWait bool, requests []reconcile.Request) {
	if queue, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok && canWait {
		queue.AddWithOpts(priorityqueue.AddOpts{Priority: ptr.To(handler.LowPriority)}, requests...)
		return
	}
	for _, r := range requests {
		q.Add(r)
	}
}

// comingUp says whether the pod was made and nothing more is known of it.
func comingUp(p *corev1.Pod) bool {
	return alive(p) && p.DeletionTimestamp == nil && !pod.Ready(p) && restarts(p) == 0
}

func (r *Reconciler) fromEpoch() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, epoch client.Object) []reconcile.Request {
		id := epoch.(*doryv1alpha1.ProcessorEpoch).Spec.ProcessorID
		return r.processorsWhere(ctx, indexProcessorID, id, client.InNamespace(epoch.GetNamespace()))
	})
}

func (r *Reconciler) fromMigration() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, migration client.Object) []reconcile.Request {
		return []reconcile.Request{request(migration.GetNamespace(), migration.(*doryv1alpha1.ProcessorMigration).Spec.Processor)}
	})
}

// fromRecord wakes the Processor of a version that is kept: a person may delete it to have the present one tried again.
func fromRecord() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, record client.Object) []reconcile.Request {
		return []reconcile.Request{request(record.GetNamespace(), record.GetLabels()[doryv1alpha1.LabelProcessor])}
	})
}

// ofProcessors leaves out the ControllerRevisions of other controllers.
func ofProcessors() builder.WatchesOption {
	return builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
		return o.GetLabels()[doryv1alpha1.LabelManagedBy] == doryv1alpha1.ManagedBy && o.GetLabels()[doryv1alpha1.LabelProcessor] != ""
	}))
}

// fromTwin wakes the other Processors of an id when one comes or goes.
func (r *Reconciler) fromTwin() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, processor client.Object) []reconcile.Request {
		return r.processorsWhere(ctx, indexProcessorID, processor.(*doryv1alpha1.Processor).ID(), r.scope(processor.GetNamespace()))
	})
}

func comingAndGoing() builder.WatchesOption {
	return builder.WithPredicates(predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }})
}

func (r *Reconciler) fromEdgeNode() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, node client.Object) []reconcile.Request {
		return r.processorsWhere(ctx, indexEdgeNode, node.GetName())
	})
}

func (r *Reconciler) fromNode() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, node client.Object) []reconcile.Request {
		var pods corev1.PodList
		if err := r.client.List(ctx, &pods, client.MatchingFields{indexPodNode: node.GetName()}); err != nil {
			log.FromContext(ctx).Error(err, "listing the pods of a node whose readiness changed", "node", node.GetName())
			return nil
		}
		var requests []reconcile.Request
		for i := range pods.Items {
			if name := processorOf(&pods.Items[i]); name != "" {
				requests = append(requests, request(pods.Items[i].Namespace, name))
			}
		}
		return requests
	})
}

func (r *Reconciler) processorsWhere(ctx context.Context, index, value string, options ...client.ListOption) []reconcile.Request {
	if value == "" {
		return nil
	}
	var found doryv1alpha1.ProcessorList
	if err := r.client.List(ctx, &found, append(options, client.MatchingFields{index: value}, undecodable.Tolerate)...); err != nil {
		log.FromContext(ctx).Error(err, "listing Processors", "index", index, "value", value)
		return nil
	}
	requests := make([]reconcile.Request, 0, len(found.Items))
	for i := range found.Items {
		requests = append(requests, request(found.Items[i].Namespace, found.Items[i].Name))
	}
	return requests
}

func request(namespace, name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
}
