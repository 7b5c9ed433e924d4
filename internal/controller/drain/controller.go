package drain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/record"
)

// concurrency is how many nodes are looked at at once.
const concurrency = 4

// Config is what the Reconciler works with.
type Config struct {
	// Client reads from caches, and writes.
	Client   client.Client
	Clock    clock.PassiveClock
	Recorder events.EventRecorder
	// Turns are told of moves that ended.
	Turns *Turns
	// Versions know what runs; nil takes every pod for one of the present spec.
	Versions *Versions
	Options  Options
}

// Reconciler follows nodes. Its queue is of their names.
type Reconciler struct {
	client  client.Client
	viewer  viewer
	events  narrator
	maker   maker
	turns   *Turns
	options Options
	told    told
}

// New makes a Reconciler.
func New(c Config) *Reconciler {
	n := narrator{record.New(c.Recorder)}
	return &Reconciler{
		client: c.Client, viewer: viewer{c.Client, c.Clock, c.Options, c.Versions}, events: n, maker: maker{c.Client, n},
		turns: c.Turns, options: c.Options, told: told{nodes: map[string]memory{}},
	}
}

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch
// +kubebuilder:rbac:groups=dory.io,resources=processors,verbs=get;list;watch
// +kubebuilder:rbac:groups=dory.io,resources=processors/status,verbs=get;patch
// +kubebuilder:rbac:groups=dory.io,resources=processorepochs,verbs=get;list;watch
// +kubebuilder:rbac:groups=dory.io,resources=processormigrations,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile looks at one node.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	o, err := r.observe(ctx, req.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	p := decide(o)
	if err := r.act(ctx, o, p); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: p.after}, nil
}

func (r *Reconciler) observe(ctx context.Context, name string) (*observation, error) {
	o := &observation{name: name, proactive: r.options.Proactive}
	var err error
	if o.node, err = lookup.Get[corev1.Node](ctx, r.client, types.NamespacedName{Name: name}); err != nil {
		return nil, err
	}
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, client.MatchingFields{indexPodNode: name}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the pods of node %s: %w", name, err)
	}
	for i := range pods.Items {
		v, err := r.viewer.of(ctx, &pods.Items[i])
		if err != nil {
			return nil, err
		}
		if v.processor != nil && v.aside == "" {
			o.views = append(o.views, v)
		}
	}
	return o, nil
}

// act calls off first, so that what is made is made for the world as it will be.
func (r *Reconciler) act(ctx context.Context, o *observation, p plan) error {
	before, now := r.told.of(o.name), memory{cancelled: map[types.UID]bool{}, stuck: map[types.NamespacedName]string{}}
	var failed []error
	for _, c := range p.cancel {
		if before.cancelled[c.migration.UID] {
			now.cancelled[c.migration.UID] = true
			continue
		}
		if err := callOff(ctx, r.client, c); err != nil {
			failed = append(failed, err)
			continue
		}
		now.cancelled[c.migration.UID] = true
		r.events.calledOff(c)
	}
	for _, m := range p.label {
		if err := label(ctx, r.client, m, o.name); err != nil {
			failed = append(failed, err)
		}
	}
	for _, c := range p.attempts {
		if err := r.maker.make(ctx, order{
			attempt: c.attempt, displaces: c.displaces, processor: c.processor, node: o.name, by: "drain", message: c.Message, fallback: c.Reason == ReasonFallingBack,
		}); err != nil {
			failed = append(failed, err)
		}
	}
	r.tell(o, p, before, now)
	r.told.keep(o.name, now)
	return errors.Join(failed...)
}

// label notes for the sake of which node the migration is, as those that are made while it is being left say from the start.
func label(ctx context.Context, c client.Client, m *doryv1alpha1.ProcessorMigration, node string) error {
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, doryv1alpha1.LabelDrainedNode, nodeLabel(node)))
	named := &doryv1alpha1.ProcessorMigration{}
	named.Namespace, named.Name = m.Namespace, m.Name
	// gofail: var drainBeforeLabel struct{}
	err := c.Patch(ctx, named, patch)
	// gofail: var drainAfterLabel struct{}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("noting in ProcessorMigration %s/%s that node %s is being left: %w", m.Namespace, m.Name, node, err)
	}
	return nil
}

// tell says of every instance that finds no place why, once for every reason.
func (r *Reconciler) tell(o *observation, p plan, before, now memory) {
	for _, v := range o.views {
		key := client.ObjectKeyFromObject(v.pod)
		if message, told := before.stuck[key]; told {
			now.stuck[key] = message // Also between two attempts.
		}
	}
	for _, s := range p.stuck {
		key := client.ObjectKeyFromObject(s.view.pod)
		if now.stuck[key] != s.message {
			now.stuck[key] = s.message
			r.events.unplaceable(o, s)
		}
	}
}

// told remembers what was done and said about each node, for as long as it is of interest.
type told struct {
	mu    sync.Mutex
	nodes map[string]memory
}

type memory struct {
	// cancelled are the migrations that were called off, as the cache may not know yet.
	cancelled map[types.UID]bool
	// stuck is why an instance finds no place.
	stuck map[types.NamespacedName]string
}

func (t *told) of(node string) memory {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.nodes[node]
}

func (t *told) keep(node string, m memory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(m.cancelled) == 0 && len(m.stuck) == 0 {
		delete(t.nodes, node)
		return
	}
	t.nodes[node] = m
}

func retries() workqueue.TypedRateLimiter[reconcile.Request] {
	const first, last = 100 * time.Millisecond, 15 * time.Second
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](first, last)
}
