package migration

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

const (
	// staleDelay is how long to wait for the cache after a write met a newer object.
	staleDelay = 100 * time.Millisecond
	// maxSteps of one pass. A move takes about 25.
	maxSteps = 100

	firstRetry = 50 * time.Millisecond
	lastRetry  = 15 * time.Second

	defaultConcurrency = 16
)

// errStale says that the cache is behind.
var errStale = errors.New("the cache is behind")

// Issuer hands out epochs; a *fence.Issuer.
type Issuer interface {
	Draw(ctx context.Context, req fence.Request) (int64, error)
	Issue(ctx context.Context, req fence.Request) (*doryv1alpha1.ProcessorEpoch, error)
	Bar(ctx context.Context, current *doryv1alpha1.ProcessorEpoch, reason string) (*doryv1alpha1.ProcessorEpoch, error)
}

// Checkpoints is where states survive their pods.
type Checkpoints interface {
	// Save makes the state durable, unless a newer one is. epoch is the current one.
	Save(ctx context.Context, p *doryv1alpha1.Processor, epoch *doryv1alpha1.ProcessorEpoch, state *statexfer.State) error
	// Newest is the newest durable state, or nil.
	Newest(ctx context.Context, p *doryv1alpha1.Processor, epoch *doryv1alpha1.ProcessorEpoch) (*statexfer.State, error)
}

// StatePreparer puts the newest state where the next instance looks for it; a *statestore.Preparer.
type StatePreparer interface {
	Prepare(ctx context.Context, p *doryv1alpha1.Processor) (statestore.Result, error)
	// Foresee is what Prepare would say, and changes nothing.
	Foresee(ctx context.Context, p *doryv1alpha1.Processor) (statestore.Result, error)
}

// Options tune the reconciler.
type Options struct {
	// Concurrency is how many processors are moved at once; 16 if zero. A move that waits for a processor's answer holds
	// a worker for no longer than a step's timeout.
	Concurrency int
	// EvictionResponders are named by every target.
	EvictionResponders []corev1.EvictionResponder
}

// Config is what the reconciler works with.
type Config struct {
	Client client.Client
	// APIReader reads past the cache.
	APIReader   client.Reader
	Processors  Processors
	Issuer      Issuer
	Checkpoints Checkpoints
	Clock       clock.PassiveClock
	Recorder    events.EventRecorder
	Metrics     *Metrics
	// NewSuffix makes the unique part of pod names: a few lower-case letters and digits.
	NewSuffix func() string
	// Token is the state token of a namespace.
	Token func(namespace string) string
	// Tokens seal what pods are made from.
	Tokens pod.Tokens
	// Prepare makes what a pod of the Processor needs in its namespace, and answers the name of the image pull secret, or
	// nothing. Nil: nothing is needed.
	Prepare func(ctx context.Context, p *doryv1alpha1.Processor) (string, error)
	// States sees to it that a target finds its state that is started after its source has ended. Nil: nothing does.
	States StatePreparer
	// Turn says what a migration has to wait for that could begin; nothing lets it begin. Nil: all may.
	Turn func(ctx context.Context, m *doryv1alpha1.ProcessorMigration) (waitsFor string, err error)
	// Wake brings the migrations whose turn may have come. Nil: each asks again every turnDelay.
	Wake    <-chan event.GenericEvent
	Options Options
}

// Reconciler moves processors.
type Reconciler struct {
	cluster     cluster
	processors  Processors
	issuer      Issuer
	checkpoints Checkpoints
	clock       clock.PassiveClock
	events      narrator
	metrics     *Metrics
	newSuffix   func() string
	token       func(namespace string) string
	tokens      pod.Tokens
	prepare     func(ctx context.Context, p *doryv1alpha1.Processor) (string, error)
	states      StatePreparer
	turn        func(ctx context.Context, m *doryv1alpha1.ProcessorMigration) (waitsFor string, err error)
	wake        <-chan event.GenericEvent
	options     Options
	acts        map[step]action
	gate        gate
	// client finds the requests of events.
	client client.Client
}

// New makes a Reconciler.
func New(c Config) *Reconciler {
	if c.Prepare == nil {
		c.Prepare = func(context.Context, *doryv1alpha1.Processor) (string, error) { return "", nil }
	}
	r := &Reconciler{
		cluster: kubernetes{c.Client, c.APIReader, c.Tokens}, processors: c.Processors, issuer: c.Issuer, checkpoints: c.Checkpoints,
		clock: c.Clock, events: narrator{record.New(c.Recorder)}, metrics: c.Metrics, newSuffix: c.NewSuffix, token: c.Token, tokens: c.Tokens,
		prepare: c.Prepare, states: c.States, turn: c.Turn, wake: c.Wake, options: c.Options, client: c.Client, gate: newGate(),
	}
	r.acts = r.actions()
	return r
}

// +kubebuilder:rbac:groups=dory.io,resources=processormigrations,verbs=get;list;watch;update;patch;delete
// +kubebuilder:rbac:groups=dory.io,resources=processormigrations/status,verbs=get;update;patch
// +kubebuilder:rbac:groups=dory.io,resources=processormigrations/finalizers,verbs=update
// +kubebuilder:rbac:groups=dory.io,resources=processors,verbs=get;list;watch
// +kubebuilder:rbac:groups=dory.io,resources=edgenodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=dory.io,resources=processorepochs,verbs=get;list;watch;create;update
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile looks at all migrations of one Processor, and takes steps until there is nothing to do but wait.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	o, err := r.observe(ctx, req.NamespacedName)
	if err != nil {
		return r.conclude(ctx, err)
	}
	way := pass{gate: r.gate}
	defer way.end()
	for range maxSteps {
		d := decide(o)
		if d.step == "" {
			return ctrl.Result{RequeueAfter: d.after}, nil
		}
		if err := way.before(ctx, o, d); err != nil {
			return ctrl.Result{}, err
		}
		if err := r.run(sheltered(ctx, d), o, d); err != nil {
			return r.conclude(ctx, err)
		}
		way.after(d.step)
		r.trace(ctx, o, d)
	}
	log.FromContext(ctx).Info("a pass does not come to an end, going on with another", "steps", maxSteps)
	return ctrl.Result{RequeueAfter: retryDelay}, nil
}

// sheltered lets a handoff that began come to its end although the operator was told to stop, because the processor stands
// still meanwhile. The manager waits for it, and keeps the leader's lease until then.
func sheltered(ctx context.Context, d decision) context.Context {
	if d.migration != nil && d.migration.Status.Phase == doryv1alpha1.MigrationHandingOff {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

func (r *Reconciler) trace(ctx context.Context, o *observation, d decision) {
	logger := log.FromContext(ctx).V(1)
	if !logger.Enabled() {
		return
	}
	if t := o.know.trouble; t != nil && t.step == d.step {
		logger.Info("took a step", "step", d.step, "trouble", t.err.Error())
		return
	}
	logger.Info("took a step", "step", d.step)
}

// conclude turns the pass's failure into the queue's terms: a conflict means that the cache is late, and is no error.
func (r *Reconciler) conclude(ctx context.Context, err error) (ctrl.Result, error) {
	if errors.Is(err, errStale) || errors.Is(err, fence.ErrConflict) || apierrors.IsConflict(err) {
		log.FromContext(ctx).V(1).Info("the cache is behind, looking again", "cause", err.Error())
		return ctrl.Result{RequeueAfter: staleDelay}, nil
	}
	return ctrl.Result{}, err
}

func retries() workqueue.TypedRateLimiter[ctrl.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](firstRetry, lastRetry)
}

func (r *Reconciler) controllerOptions() controller.Options {
	concurrency := r.options.Concurrency
	if concurrency <= 0 {
		concurrency = defaultConcurrency
	}
	return controller.Options{MaxConcurrentReconciles: concurrency, RateLimiter: retries()}
}
