package drain

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/undecodable"
)

// The indexes of the informer caches. They are ours alone: an informer takes every index once.
const (
	indexMigrationProcessor = "dory.io/drain-migration-processor"
	indexPodNode            = "dory.io/drain-pod-node"
	// indexDrains finds the moves of drains that are not over, by whether they have begun.
	indexDrains   = "dory.io/drains"
	drainsWaiting = "waiting"
	drainsActive  = "active"
)

func addIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	for _, index := range []struct {
		object client.Object
		name   string
		value  client.IndexerFunc
	}{
		{&corev1.Pod{}, indexPodNode, func(o client.Object) []string { return some(o.(*corev1.Pod).Spec.NodeName) }},
		{&doryv1alpha1.ProcessorMigration{}, indexMigrationProcessor, func(o client.Object) []string {
			return some(o.(*doryv1alpha1.ProcessorMigration).Spec.Processor)
		}},
		{&doryv1alpha1.ProcessorMigration{}, indexDrains, func(o client.Object) []string {
			return some(drainState(o.(*doryv1alpha1.ProcessorMigration)))
		}},
	} {
		if err := indexer.IndexField(ctx, index.object, index.name, index.value); err != nil {
			return fmt.Errorf("adding the index %s: %w", index.name, err)
		}
	}
	return nil
}

func drainState(m *doryv1alpha1.ProcessorMigration) string {
	switch {
	case m.Spec.Reason != doryv1alpha1.MigrationDrain || m.Ended():
		return ""
	case m.Active():
		return drainsActive
	default:
		return drainsWaiting
	}
}

func some(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

// SetupWithManager registers the Reconciler. The Desk has registered the indexes.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("drain").
		For(&corev1.Node{}, builder.WithPredicates(signsChange())).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.fromPod)).
		Watches(&doryv1alpha1.ProcessorMigration{}, r.fromMigration()).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency, RateLimiter: retries()}).
		Complete(undecodable.LeaveAside(r))
}

// signsChange leaves out heartbeats.
func signsChange() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*corev1.Node), e.ObjectNew.(*corev1.Node)
		return before.Spec.Unschedulable != after.Spec.Unschedulable || !equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints) ||
			leaving(before, nil, false) != leaving(after, nil, false)
	}}
}

// fromPod finds the node that a pod is on, if it is being left, and that which it is to take an instance from.
func (r *Reconciler) fromPod(ctx context.Context, o client.Object) []reconcile.Request {
	p := o.(*corev1.Pod)
	if _, owned := processorOf(p); !owned {
		return nil
	}
	var nodes []string
	if r.mayBeLeft(ctx, p.Spec.NodeName) {
		nodes = append(nodes, p.Spec.NodeName)
	}
	if name := p.Labels[doryv1alpha1.LabelMigration]; name != "" && p.Spec.NodeName == "" {
		m, err := lookup.Get[doryv1alpha1.ProcessorMigration](ctx, r.client, types.NamespacedName{Namespace: p.Namespace, Name: name})
		if err != nil && !undecodable.Is(err) {
			log.FromContext(ctx).Error(err, "finding the move of a pod that has no node", "pod", client.ObjectKeyFromObject(p))
		}
		if m != nil && m.Status.SourceNode != "" {
			nodes = append(nodes, m.Status.SourceNode)
		}
	}
	return requests(nodes)
}

// mayBeLeft is a first, cheap look. A node that is gone is nobody's to leave.
func (r *Reconciler) mayBeLeft(ctx context.Context, name string) bool {
	node, err := r.viewer.node(ctx, name)
	if err != nil {
		log.FromContext(ctx).Error(err, "reading a node", "node", name)
		return true
	}
	if node == nil {
		return false
	}
	tainted := r.options.Proactive && slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoSchedule })
	return tainted || leaving(node, nil, false).yes()
}

// fromMigration finds the nodes at both ends of a move, and wakes those who waited for its end.
func (r *Reconciler) fromMigration() handler.EventHandler {
	enqueue := func(ctx context.Context, o client.Object, q queue) {
		for _, req := range r.ofMigration(ctx, o.(*doryv1alpha1.ProcessorMigration)) {
			q.Add(req)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { enqueue(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			enqueue(ctx, e.ObjectNew, q)
			before, after := e.ObjectOld.(*doryv1alpha1.ProcessorMigration), e.ObjectNew.(*doryv1alpha1.ProcessorMigration)
			if takesTurn(before) && !takesTurn(after) {
				r.turns.ended(ctx)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			enqueue(ctx, e.Object, q)
			if takesTurn(e.Object.(*doryv1alpha1.ProcessorMigration)) {
				r.turns.ended(ctx)
			}
		},
	}
}

// takesTurn says whether others may have to wait for the move.
func takesTurn(m *doryv1alpha1.ProcessorMigration) bool {
	return drainState(m) != "" && !handedOver(m)
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

func (r *Reconciler) ofMigration(ctx context.Context, m *doryv1alpha1.ProcessorMigration) []reconcile.Request {
	var nodes []string
	if source := r.sourceNode(ctx, m); m.Spec.Reason == doryv1alpha1.MigrationDrain || r.mayBeLeft(ctx, source) {
		nodes = append(nodes, source) // Also for the move of somebody else, which was to take it away and may have gone back.
	}
	if r.mayBeLeft(ctx, m.Status.TargetNode) {
		nodes = append(nodes, m.Status.TargetNode) // Also after its end: what it brought there has to leave again.
	}
	return requests(nodes)
}

// sourceNode is where the pod is that the move leaves.
func (r *Reconciler) sourceNode(ctx context.Context, m *doryv1alpha1.ProcessorMigration) string {
	if m.Status.SourceNode != "" || m.Spec.SourcePod == "" {
		return m.Status.SourceNode
	}
	p, err := lookup.Get[corev1.Pod](ctx, r.client, types.NamespacedName{Namespace: m.Namespace, Name: m.Spec.SourcePod})
	if err != nil || p == nil {
		return ""
	}
	return p.Spec.NodeName
}

func requests(nodes []string) []reconcile.Request {
	var found []reconcile.Request
	for _, name := range nodes {
		if name != "" {
			found = append(found, reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
		}
	}
	return found
}
