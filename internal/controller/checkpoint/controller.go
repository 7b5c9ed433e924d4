package checkpoint

import (
	"context"
	"time"

	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

const (
	// defaultConcurrency is how many processors are looked at at once. Each may take up to lookTimeout to answer.
	defaultConcurrency = 32
	// lookTimeout bounds one capture with its repetitions; lookAgainTimeout that of a processor that failed last time.
	lookTimeout      = 30 * time.Second
	lookAgainTimeout = 10 * time.Second
	// storeTimeout bounds how long storing or restoring may take.
	storeTimeout = 60 * time.Second

	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Processors is the part of statexfer.Client that is used here.
type Processors interface {
	Capture(ctx context.Context, from statexfer.Endpoint) (*statexfer.State, error)
	Restore(ctx context.Context, to statexfer.Endpoint, state *statexfer.State) (*statexfer.Restored, error)
	Verify(ctx context.Context, of statexfer.Endpoint, state *statexfer.State, restored *statexfer.Restored) error
	Status(ctx context.Context, of statexfer.Endpoint) (statexfer.HandoffStatus, error)
	Resume(ctx context.Context, who statexfer.Endpoint, epoch int64) error
	Promote(ctx context.Context, who statexfer.Endpoint, epoch int64) error
}

// Issuer is fence.Issuer.
type Issuer interface {
	Issue(ctx context.Context, req fence.Request) (*doryv1alpha1.ProcessorEpoch, error)
}

// Store is the part of statestore.Store that is used here.
type Store interface {
	Look(ctx context.Context, key statestore.Key, lineage statestore.Lineage) (*statestore.Inventory, error)
	Newest(ctx context.Context, key statestore.Key, lineage statestore.Lineage) (*statestore.Inventory, *statexfer.Document, error)
	Save(ctx context.Context, req statestore.SaveRequest) (statestore.Saved, error)
}

// Config is what the reconciler works with.
type Config struct {
	// Client reads from caches, and writes the status.
	Client client.Client
	// APIReader reads past the caches.
	APIReader  client.Reader
	Store      Store
	Processors Processors
	// Issuer makes new epochs, for a process that has to be promoted.
	Issuer Issuer
	// Token is the state token of a namespace.
	Token    func(namespace string) string
	Clock    clock.PassiveClock
	Recorder events.EventRecorder
	Metrics  *Metrics
	// Concurrency is how many processors are looked at at once; 32 if zero.
	Concurrency int
}

// Reconciler takes checkpoints.
type Reconciler struct {
	client      client.Client
	apiReader   client.Reader
	store       Store
	processors  Processors
	issuer      Issuer
	token       func(namespace string) string
	clock       clock.PassiveClock
	events      narrator
	metrics     *Metrics
	book        *book
	lanes       lanes
	concurrency int
}

// New makes a Reconciler.
func New(c Config) *Reconciler {
	if c.Concurrency <= 0 {
		c.Concurrency = defaultConcurrency
	}
	r := &Reconciler{
		client: c.Client, apiReader: c.APIReader, store: c.Store, processors: c.Processors, issuer: c.Issuer, token: c.Token,
		clock: c.Clock, events: narrator{record.New(c.Recorder)}, metrics: c.Metrics, book: newBook(),
		lanes: newLanes(c.Concurrency), concurrency: c.Concurrency,
	}
	c.Metrics.oldest.measure(r.oldestAge)
	return r
}

// +kubebuilder:rbac:groups=dory.io,resources=processors,verbs=get;list;watch
// +kubebuilder:rbac:groups=dory.io,resources=processors/status,verbs=get;patch
// +kubebuilder:rbac:groups=dory.io,resources=processorepochs,verbs=get;list;watch;update
// +kubebuilder:rbac:groups=dory.io,resources=processormigrations,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;create;update;patch;delete
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile looks at one processor, if it is its turn.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	o, err := r.observe(ctx, req.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	if o.processor == nil {
		r.book.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	e := r.book.entry(o)
	if due, wait := e.due(o); !due {
		return r.rest(ctx, o, e, wait)
	}
	leave, ok := r.lanes.enter(o, e)
	if !ok {
		return ctrl.Result{RequeueAfter: laneDelay}, nil
	}
	defer leave()
	e.conclude(o, r.look(ctx, o, e), r.clock.Now())
	e.generation = o.processor.Generation
	return r.rest(ctx, o, e, max(0, e.next.Sub(r.clock.Now())))
}

// rest reports what is new, and waits for the next turn.
func (r *Reconciler) rest(ctx context.Context, o *observation, e *entry, wait time.Duration) (ctrl.Result, error) {
	again, err := r.report(ctx, o, e)
	if err != nil {
		return ctrl.Result{}, err
	}
	if again > 0 && (wait == 0 || again < wait) {
		wait = again
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

func retries() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry)
}
