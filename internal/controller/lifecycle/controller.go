package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/source"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/lastgood"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/rehearsal"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/undecodable"
)

// conflictDelay is how long to wait for the cache after a write met a newer object.
const conflictDelay = 200 * time.Millisecond

// Options tune the reconciler.
type Options struct {
	// ImagePullSecret is added to pods in namespaces that have a Secret of this name. Empty: none.
	ImagePullSecret string
	// EvictionResponders are named by every pod.
	EvictionResponders []corev1.EvictionResponder
	// ClusterWideIDs says that a processor id names one instance in the whole cluster and not in a namespace. It
	// is set where a database is, which holds every id once.
	ClusterWideIDs bool
	// Concurrency is how many Processors are reconciled at once; 8 if zero.
	Concurrency int
}

// Config is what the reconciler works with.
type Config struct {
	Client client.Client
	// APIReader reads past the cache.
	APIReader client.Reader
	Issuer    *fence.Issuer
	Clock     clock.PassiveClock
	Recorder  events.EventRecorder
	Metrics   *Metrics
	// NewSuffix makes the unique part of pod names: a few lower-case letters and digits.
	NewSuffix func() string
	// Tokens guard the processors' state.
	Tokens pod.Tokens
	// States sees to it that an instance finds its state. Nil: nothing does.
	States  StatePreparer
	Options Options
}

// StatePreparer knows what is stored; a *statestore.Preparer.
type StatePreparer interface {
	// Prepare puts the newest state where the next instance looks for it.
	Prepare(ctx context.Context, p *doryv1alpha1.Processor) (statestore.Result, error)
	// Foresee is what Prepare would say, and changes nothing.
	Foresee(ctx context.Context, p *doryv1alpha1.Processor) (statestore.Result, error)
	// Epochs says under which epochs the stored copies were written.
	Epochs(ctx context.Context, p *doryv1alpha1.Processor) (statestore.Result, error)
}

// Reconciler keeps one instance of every Processor alive.
type Reconciler struct {
	client      client.Client
	apiReader   client.Reader
	issuer      *fence.Issuer
	clock       clock.PassiveClock
	events      narrator
	metrics     *Metrics
	newSuffix   func() string
	tokens      pod.Tokens
	rehearsal   rehearsal.Rehearsal
	lastGood    lastgood.Store
	states      StatePreparer
	pullSecrets *pullSecrets
	unreported  unreported
	// explanations are of instances that are not ready; wake brings the Processors of new ones.
	explanations explanations
	wake         chan event.GenericEvent
	options      Options
}

// New makes a Reconciler.
func New(c Config) *Reconciler {
	return &Reconciler{
		client: c.Client, apiReader: c.APIReader, issuer: c.Issuer, clock: c.Clock, events: narrator{record.New(c.Recorder)},
		metrics: c.Metrics, newSuffix: c.NewSuffix, tokens: c.Tokens, states: c.States,
		rehearsal:   rehearsal.Rehearsal{Client: c.Client, Reader: c.APIReader},
		lastGood:    lastgood.Store{Client: c.Client, Reader: c.APIReader, Tokens: c.Tokens},
		wake:        make(chan event.GenericEvent, wakeBuffer),
		pullSecrets: newPullSecrets(c.APIReader, c.Clock, c.Options.ImagePullSecret), options: c.Options,
	}
}

// +kubebuilder:rbac:groups=dory.io,resources=processors,verbs=get;list;watch
// +kubebuilder:rbac:groups=dory.io,resources=processors/status,verbs=get;update;patch
// +kubebuilder:rbac:groups=dory.io,resources=processors/finalizers,verbs=update
// +kubebuilder:rbac:groups=dory.io,resources=edgenodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=dory.io,resources=processormigrations,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=dory.io,resources=processorepochs,verbs=get;list;watch;create;update
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=create
// +kubebuilder:rbac:groups="",resources=secrets,resourceNames=ecr-registry-secret,verbs=get
// +kubebuilder:rbac:groups="",resources=secrets,resourceNames=dory-state-token,verbs=get;list;watch;update
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,resourceNames=dory-processor,verbs=bind
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch

// Reconcile brings one Processor's pods to what its spec asks for.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	o, err := r.observe(ctx, req.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	p := decide(o)
	acted := r.act(ctx, o, &p)
	if acted == nil && plainStart(o, &p) {
		r.unreported.add(o)
		p.await = true // The pod's own event leads to the report, which often has more to tell by then.
	}
	if acted == nil && p.await {
		return ctrl.Result{RequeueAfter: p.requeueAfter}, nil
	}
	reported := r.report(ctx, o, &p)
	return r.conclude(ctx, &p, acted, reported)
}

// plainStart says whether all that happened is that the first instance was created.
func plainStart(o *observation, p *plan) bool {
	return p.started && p.backoff == nil && o.processor.Status.Instance == nil
}

// report writes the status, if it changed, and tells what is new in it.
func (r *Reconciler) report(ctx context.Context, o *observation, p *plan) error {
	if o.processor == nil {
		r.unreported.remove(o)
		return nil
	}
	status := report(o, p)
	if equality.Semantic.DeepEqual(status, o.processor.Status) {
		r.unreported.remove(o)
		return nil
	}
	processor := o.processor.DeepCopy()
	processor.Status = status
	// gofail: var lifecycleBeforeStatus struct{}
	if err := r.client.Status().Update(ctx, processor); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("writing the status of Processor %s: %w", o.key, err)
	}
	// gofail: var lifecycleAfterStatus struct{}
	r.unreported.remove(o)
	r.events.statusChanged(o.processor, processor)
	logReady(ctx, o.processor, processor)
	return nil
}

// conclude turns the pass's outcome into the queue's terms: a conflict means that the cache is late, and is no
// error.
func (r *Reconciler) conclude(ctx context.Context, p *plan, acted, reported error) (ctrl.Result, error) {
	err := errors.Join(acted, reported)
	switch {
	case err == nil:
		return ctrl.Result{RequeueAfter: p.requeueAfter}, nil
	case stale(err):
		log.FromContext(ctx).V(1).Info("the cache is behind, looking again", "cause", err.Error())
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return ctrl.Result{}, nil
	case reported == nil && usersMistake(acted):
		r.metrics.failed(err)
		log.FromContext(ctx).V(1).Info("refused by the API server, trying again", "cause", err.Error())
		return ctrl.Result{Requeue: true}, nil //nolint:staticcheck // The rate limiter paces the tries; the condition and a line of the log say why.
	default:
		r.metrics.failed(err)
		return ctrl.Result{}, err
	}
}

func stale(err error) bool {
	return errors.Is(err, fence.ErrConflict) || apierrors.IsConflict(err)
}

// SetupWithManager registers the reconciler and its indexes.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	if err := addIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("lifecycle").
		Watches(&doryv1alpha1.Processor{}, r.fromProcessor(), relevantProcessorChanges()).
		Watches(&corev1.Pod{}, r.fromPod()).
		Watches(&doryv1alpha1.Processor{}, r.fromTwin(), comingAndGoing()).
		Watches(&doryv1alpha1.ProcessorEpoch{}, r.fromEpoch()).
		Watches(&doryv1alpha1.ProcessorMigration{}, r.fromMigration()).
		Watches(&appsv1.ControllerRevision{}, fromRecord(), ofProcessors()).
		Watches(&corev1.Node{}, r.fromNode(), nodeReadinessChanges()).
		Watches(&doryv1alpha1.EdgeNode{}, r.fromEdgeNode()).
		WatchesRawSource(source.Channel(r.wake, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency(r.options.Concurrency), RateLimiter: retries()}).
		Complete(undecodable.LeaveAside(r))
}

const (
	firstRetry = 50 * time.Millisecond
	// lastRetry bounds for how long a Processor waits after its obstacle is gone, such as a database that was away
	// or a quota that was full. controller-runtime's own bound is 1000 s.
	lastRetry = 30 * time.Second
)

func retries() workqueue.TypedRateLimiter[ctrl.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](firstRetry, lastRetry)
}

func concurrency(n int) int {
	if n <= 0 {
		return 8
	}
	return n
}
