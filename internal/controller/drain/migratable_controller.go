package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/undecodable"
)

const (
	// DefaultSettle is how long news of processors and nodes lie before they are looked at: what is news while a processor
	// starts, or a node comes up, seldom is a moment later.
	DefaultSettle = 3 * time.Second
	// migratableConcurrency is small: nothing waits for this condition.
	migratableConcurrency = 2
	// conflictDelay is when to try again after the status was written by somebody else.
	conflictDelay = 500 * time.Millisecond
)

// everybody is the request to look at all Processors.
var everybody = reconcile.Request{NamespacedName: types.NamespacedName{Name: "*"}}

// MigratableConfig is what Migratable works with.
type MigratableConfig struct {
	// Client reads from caches, and writes the status.
	Client client.Client
	// APIReader reads past the cache.
	APIReader client.Reader
	Clock     clock.PassiveClock
	// Versions know what runs; nil takes every pod for one of the present spec.
	Versions *Versions
	// Settle is how long news lie before they are looked at; 3 s if zero.
	Settle time.Duration
}

// Migratable says in a condition of every Processor, before any drain, whether one would get through, and why not.
type Migratable struct {
	client client.Client
	clock  clock.PassiveClock
	settle time.Duration
	trials *trials
	views  viewer
}

// NewMigratable makes a Migratable.
func NewMigratable(c MigratableConfig) *Migratable {
	if c.Settle <= 0 {
		c.Settle = DefaultSettle
	}
	return &Migratable{client: c.Client, clock: c.Clock, settle: c.Settle, trials: newTrials(c.Client, c.APIReader), views: viewer{reader: c.Client, clock: c.Clock, versions: c.Versions}}
}

// +kubebuilder:rbac:groups="",resources=nodes;pods,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=create
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get
// +kubebuilder:rbac:groups=dory.io,resources=processors;processormigrations,verbs=get;list;watch
// +kubebuilder:rbac:groups=dory.io,resources=processors/status,verbs=patch

// Reconcile looks at one Processor, or at all after the nodes have changed.
func (r *Migratable) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	nodes, err := allNodes(ctx, r.client)
	if err != nil {
		return ctrl.Result{}, err
	}
	if req == everybody {
		return r.lookAtAll(ctx, nodes)
	}
	p, err := lookup.Get[doryv1alpha1.Processor](ctx, r.client, req.NamespacedName)
	if err != nil || p == nil || p.DeletionTimestamp != nil {
		r.trials.forget(req.NamespacedName)
		return ctrl.Result{}, err
	}
	return r.look(ctx, p, nodes, trialFresh)
}

func allNodes(ctx context.Context, reader client.Reader) ([]*corev1.Node, error) {
	var list corev1.NodeList
	if err := reader.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	return pointers(list.Items), nil
}

func (r *Migratable) lookAtAll(ctx context.Context, nodes []*corev1.Node) (ctrl.Result, error) {
	var list doryv1alpha1.ProcessorList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy, undecodable.Tolerate); err != nil {
		return ctrl.Result{}, fmt.Errorf("listing Processors: %w", err)
	}
	var after time.Duration
	var failed []error
	for i := range list.Items {
		if _, aside := undecodable.Of(&list.Items[i]); aside || list.Items[i].DeletionTimestamp != nil {
			continue
		}
		// No news of nodes is one about what the API server takes.
		one, err := r.look(ctx, &list.Items[i], nodes, trialRefresh)
		if err != nil && !undecodable.Is(err) {
			failed = append(failed, err) // One Processor's trouble keeps the news of nodes from no other.
		}
		after = sooner(after, one.RequeueAfter)
	}
	return ctrl.Result{RequeueAfter: after}, errors.Join(failed...)
}

// sooner is when to look at all Processors again, of which one is to be looked at again after the second time. What is found here
// has no request of its own. It is not soon: whoever waits for a turn has one.
func sooner(all, one time.Duration) time.Duration {
	switch {
	case one == conflictDelay:
		return one
	case one == 0 || one >= trialRefresh || all == conflictDelay:
		return all
	}
	one = max(one, trialDoubt)
	if all == 0 {
		return one
	}
	return min(all, one)
}

// look writes the condition where it differs.
func (r *Migratable) look(ctx context.Context, p *doryv1alpha1.Processor, nodes []*corev1.Node, believed time.Duration) (ctrl.Result, error) {
	o, again, err := r.outlook(ctx, p, nodes, believed)
	if err != nil || again.early {
		return ctrl.Result{RequeueAfter: again.after}, err
	}
	wanted := migratable(p, o)
	if wanted == nil {
		return ctrl.Result{RequeueAfter: again.after}, nil
	}
	wanted.Message = message.Shorten(wanted.Message, message.ConditionLimit)
	wanted.LastTransitionTime = metav1.NewTime(r.clock.Now())
	conditions := p.Status.DeepCopy().Conditions
	if !meta.SetStatusCondition(&conditions, *wanted) {
		return ctrl.Result{RequeueAfter: again.after}, nil
	}
	err = r.write(ctx, p, conditions)
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case client.IgnoreNotFound(err) != nil:
		return ctrl.Result{}, fmt.Errorf("writing the condition %s of Processor %s/%s: %w", wanted.Type, p.Namespace, p.Name, err)
	}
	return ctrl.Result{RequeueAfter: again.after}, nil
}

// again is when to look at a Processor again although nothing happens.
type again struct {
	after time.Duration
	// early says that nothing can be said before.
	early bool
}

// outlook gathers what is known about the next move, which brings the version that runs.
func (r *Migratable) outlook(ctx context.Context, p *doryv1alpha1.Processor, nodes []*corev1.Node, believed time.Duration) (outlook, again, error) {
	o := outlook{nodes: nodes, now: r.clock.Now()}
	instance := p.Status.Instance
	ready := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionReady)
	if instance == nil || ready == nil || ready.Status != metav1.ConditionTrue {
		return o, again{}, nil
	}
	o.instance = instance.Pod
	works, err := lookup.Get[corev1.Pod](ctx, r.client, types.NamespacedName{Namespace: p.Namespace, Name: instance.Pod})
	if err != nil || works == nil {
		return o, again{}, err
	}
	o.revision = works.Annotations[doryv1alpha1.AnnotationRevision]
	if o.moves, err = r.views.migrations(ctx, client.ObjectKeyFromObject(p)); err != nil {
		return o, again{}, err
	}
	if slices.ContainsFunc(o.moves, (*doryv1alpha1.ProcessorMigration).Active) {
		return o, again{early: true}, nil // Its target takes room itself, and its end is news.
	}
	if o.runs, err = r.views.versions.of(ctx, p, works); err != nil {
		return o, again{}, err
	}
	if i := slices.IndexFunc(nodes, func(n *corev1.Node) bool { return n.Name == instance.Node }); i >= 0 && leaving(nodes[i], nil, false).yes() {
		believed = trialFreshest // A drain is likely.
	}
	tried, after := r.trials.of(ctx, attempted{o.runs, o.revision, r.others(p)}, believed, o.now)
	o.trial = tried
	return o, again{after, !tried.done}, nil
}

// others says whether a target of another Processor's move is there in the namespace: it fills a quota only for a while.
func (r *Migratable) others(p *doryv1alpha1.Processor) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		var list doryv1alpha1.ProcessorMigrationList
		if err := r.client.List(ctx, &list, client.InNamespace(p.Namespace), client.UnsafeDisableDeepCopy, undecodable.Tolerate); err != nil {
			return "", fmt.Errorf("listing the migrations of namespace %s: %w", p.Namespace, err)
		}
		for i := range list.Items {
			if m := &list.Items[i]; m.Active() && m.Status.TargetPod != "" && m.Spec.Processor != p.Name {
				return m.Name, nil
			}
		}
		return "", nil
	}
}

// write replaces the list of conditions, of which a merge patch knows only the whole, if nobody has changed it since. It
// asks for no more than metadata in return.
func (r *Migratable) write(ctx context.Context, p *doryv1alpha1.Processor, conditions []metav1.Condition) error {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": p.ResourceVersion},
		"status":   map[string]any{"conditions": conditions},
	})
	if err != nil {
		return fmt.Errorf("encoding conditions: %w", err)
	}
	target := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}}
	target.SetGroupVersionKind(doryv1alpha1.GroupVersion.WithKind("Processor"))
	return r.client.Status().Patch(ctx, target, client.RawPatch(types.MergePatchType, body))
}

// SetupWithManager registers the controller.
func (r *Migratable) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("migratable").
		Watches(&doryv1alpha1.Processor{}, r.fromProcessor()).
		Watches(&corev1.Node{}, r.fromNode()).
		Watches(&doryv1alpha1.ProcessorMigration{}, r.fromMigration()).
		WithOptions(controller.Options{MaxConcurrentReconciles: migratableConcurrency, RateLimiter: retries()}).
		Complete(undecodable.LeaveAside(r))
}

func (r *Migratable) fromProcessor() handler.EventHandler {
	add := func(o client.Object, q queue) {
		r.addLater(q, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { add(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			if basisOf(e.ObjectOld.(*doryv1alpha1.Processor)) != basisOf(e.ObjectNew.(*doryv1alpha1.Processor)) {
				add(e.ObjectNew, q)
			}
		},
	}
}

// fromMigration looks at a Processor whose move has ended: what stood in its way may stand in the next one's.
func (r *Migratable) fromMigration() handler.EventHandler {
	add := func(m *doryv1alpha1.ProcessorMigration, q queue) {
		r.addLater(q, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: m.Namespace, Name: m.Spec.Processor}})
	}
	return handler.Funcs{
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			before, after := e.ObjectOld.(*doryv1alpha1.ProcessorMigration), e.ObjectNew.(*doryv1alpha1.ProcessorMigration)
			if !before.Ended() && after.Ended() {
				add(after, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) {
			add(e.Object.(*doryv1alpha1.ProcessorMigration), q)
		},
	}
}

// basis is what of a Processor the condition depends on.
type basis struct {
	generation          int64
	node, pod           string
	handoffKnown        bool
	handoff             bool
	ready, checkpointed string
}

func basisOf(p *doryv1alpha1.Processor) basis {
	b := basis{generation: p.Generation, handoffKnown: p.Status.Handoff != nil, handoff: ptr.Deref(p.Status.Handoff, false)}
	if p.Status.Instance != nil {
		b.node, b.pod = p.Status.Instance.Node, p.Status.Instance.Pod
	}
	for _, c := range p.Status.Conditions {
		switch c.Type {
		case doryv1alpha1.ConditionReady:
			b.ready = string(c.Status)
		case doryv1alpha1.ConditionCheckpointed:
			b.checkpointed = string(c.Status) + c.Reason
		}
	}
	return b
}

func (r *Migratable) fromNode() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, _ event.CreateEvent, q queue) { r.addLater(q, everybody) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			if welcomes(e.ObjectOld.(*corev1.Node), e.ObjectNew.(*corev1.Node)) {
				r.addLater(q, everybody)
			}
		},
		DeleteFunc: func(_ context.Context, _ event.DeleteEvent, q queue) { r.addLater(q, everybody) },
	}
}

// welcomes says whether the node may take other pods than before.
func welcomes(before, after *corev1.Node) bool {
	return nodeReady(before) != nodeReady(after) || before.Spec.Unschedulable != after.Spec.Unschedulable || leaving(before, nil, false) != leaving(after, nil, false) ||
		!equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints) || !equality.Semantic.DeepEqual(before.Labels, after.Labels)
}

// addLater lets news lie for a while, and go behind everything else.
func (r *Migratable) addLater(q queue, req reconcile.Request) {
	if pq, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
		pq.AddWithOpts(priorityqueue.AddOpts{After: r.settle, Priority: ptr.To(handler.LowPriority)}, req)
		return
	}
	q.AddAfter(req, r.settle)
}
