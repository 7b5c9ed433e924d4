package configchange

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/undecodable"
)

const (
	// defaultSettle is how long nothing more may change before it is acted on: kubectl apply of a folder takes about a
	// second, and should be one restart.
	defaultSettle = 2 * time.Second
	// settleAtMost bounds that for objects that change all the time.
	settleAtMost = 5
	// askAgain is when the operator looks again whether it may watch by now.
	askAgain = 5 * time.Minute
)

// Config is what the reconciler works with.
type Config struct {
	Client client.Client
	// APIReader reads past the cache.
	APIReader client.Reader
	Metadata  metadata.Interface
	// Self is the operator's own account, which lets itself watch ConfigMaps.
	Self     client.Client
	Recorder events.EventRecorder
	Clock    clock.PassiveClock
	// SecretKey is what the hashes of a namespace's Secrets are keyed by, so that a content cannot be guessed by its hash.
	SecretKey func(namespace string) string
	// Settle is how long nothing more may change before it is acted on; 2 s if zero.
	Settle time.Duration
}

// Reconciler keeps status.config of Processors that restart when their configuration changes.
type Reconciler struct {
	client    client.Client
	reader    reader
	watches   *watches
	recorder  record.Recorder
	unsettled *unsettled
}

// New makes a Reconciler.
func New(c Config) *Reconciler {
	if c.Settle == 0 {
		c.Settle = defaultSettle
	}
	waiting := &unsettled{clock: c.Clock, settle: c.Settle, since: map[types.NamespacedName]span{}}
	return &Reconciler{
		client: c.Client, reader: reader{c.APIReader, c.SecretKey}, recorder: record.New(c.Recorder), unsettled: waiting,
		watches: newWatches(c.Metadata, granter{c.Self}, waiting.begin),
	}
}

// +kubebuilder:rbac:groups=dory.io,resources=processors,verbs=get;list;watch
// +kubebuilder:rbac:groups=dory.io,resources=processors/status,verbs=get;patch
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,verbs=create
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,resourceNames=dory-config-watcher,verbs=bind

// Reconcile brings status.config of one Processor to what there is.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	p, err := lookup.Get[doryv1alpha1.Processor](ctx, r.client, req.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	if p == nil || !p.RestartsOnConfigChange() || p.DeletionTimestamp != nil {
		r.watches.forget(req.NamespacedName)
		r.unsettled.forget(req.NamespacedName)
		return ctrl.Result{}, r.write(ctx, p, outcome{})
	}
	built, err := pod.Build(pod.Input{Processor: p})
	if err != nil {
		return ctrl.Result{}, nil //nolint:nilerr // Lifecycle says so, and no pod can be made meanwhile.
	}
	references, total := pod.References(&built.Spec)
	refused, err := r.watches.follow(ctx, req.NamespacedName, references)
	if errors.Is(err, errTooSoon) {
		return ctrl.Result{RequeueAfter: grantDelay}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	if wait := r.unsettled.left(req.NamespacedName); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	seen, err := r.reader.look(ctx, p.Namespace, references, refused)
	if err != nil {
		return ctrl.Result{}, err
	}
	next := decide(p.Status.Config, seen, total)
	if err := r.stamp(ctx, p, next.config); err != nil {
		return ctrl.Result{}, err
	}
	result := ctrl.Result{}
	if len(refused) > 0 {
		result.RequeueAfter = askAgain
	}
	return result, r.write(ctx, p, next)
}

// stamp records on an instance that has no record what it counts as made with: what was seen last or, if that is the first
// time, what is seen now.
func (r *Reconciler) stamp(ctx context.Context, p *doryv1alpha1.Processor, now *doryv1alpha1.ProcessorConfig) error {
	if p.Status.Config != nil {
		now = p.Status.Config
	}
	record := pod.RecordConfig(now)
	if p.Status.Instance == nil || record == "" {
		return nil
	}
	instance, err := lookup.Get[corev1.Pod](ctx, r.client, types.NamespacedName{Namespace: p.Namespace, Name: p.Status.Instance.Pod})
	if err != nil || instance == nil || instance.Annotations[doryv1alpha1.AnnotationConfig] != "" {
		return err
	}
	stamped := instance.DeepCopy()
	metav1.SetMetaDataAnnotation(&stamped.ObjectMeta, doryv1alpha1.AnnotationConfig, record)
	if err := r.client.Patch(ctx, stamped, client.MergeFrom(instance)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("recording on pod %s/%s what it is configured by: %w", p.Namespace, instance.Name, err)
	}
	return nil
}

// write tells what changed, once it is in the status.
func (r *Reconciler) write(ctx context.Context, p *doryv1alpha1.Processor, next outcome) error {
	if p == nil || equality.Semantic.DeepEqual(p.Status.Config, next.config) {
		return nil
	}
	changed := p.DeepCopy()
	changed.Status.Config = next.config
	if err := r.client.Status().Patch(ctx, changed, client.MergeFrom(p)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("writing status.config of Processor %s/%s: %w", p.Namespace, p.Name, err))
	}
	tell(r.recorder, p, next)
	return nil
}

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("configchange").
		Watches(&doryv1alpha1.Processor{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(concerned())).
		WatchesRawSource(source.Func(func(ctx context.Context, q requestQueue) error {
			r.watches.start(ctx, func(key types.NamespacedName) { q.AddAfter(ctrl.Request{NamespacedName: key}, r.unsettled.settle) })
			return nil
		})).
		Complete(undecodable.LeaveAside(r))
}

// concerned are Processors that restart when their configuration changes, or did until now: those whose references may be
// others, and those with an instance that may have no record.
func concerned() predicate.Predicate {
	opted := func(o client.Object) bool {
		p := o.(*doryv1alpha1.Processor)
		return p.RestartsOnConfigChange() || p.Status.Config != nil
	}
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return opted(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, after := e.ObjectOld.(*doryv1alpha1.Processor), e.ObjectNew.(*doryv1alpha1.Processor)
			return (opted(before) || opted(after)) && (before.Generation != after.Generation || podOf(before) != podOf(after) ||
				(before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil))
		},
		DeleteFunc: func(e event.DeleteEvent) bool { return opted(e.Object) },
	}
}

func podOf(p *doryv1alpha1.Processor) string {
	if p.Status.Instance == nil {
		return ""
	}
	return p.Status.Instance.Pod
}
