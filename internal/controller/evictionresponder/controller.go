package evictionresponder

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/drain"
	"github.com/dory-io/dory/internal/undecodable"
)

// indexPod finds Evictions by the name of their pod.
const indexPod = "spec.target.pod.name"

// Desk decides whether a pod may go, has it moved if not, and takes that back.
type Desk interface {
	Ask(ctx context.Context, request drain.Request) (drain.Answer, error)
	Withdraw(ctx context.Context, request drain.Request) error
}

// Config is what the responder works with.
type Config struct {
	// Client reads from caches, and writes.
	Client client.Client
	Desk   Desk
	Clock  clock.PassiveClock
	// Patience is how long a drain is expected to take at most.
	Patience time.Duration
}

// Reconciler responds to Evictions.
type Reconciler struct{ Config }

// New makes a Reconciler.
func New(c Config) *Reconciler {
	if c.Patience <= 0 {
		c.Patience = drain.DefaultPatience
	}
	return &Reconciler{c}
}

// +kubebuilder:rbac:groups=lifecycle.k8s.io,resources=evictions,verbs=get;list;watch
// +kubebuilder:rbac:groups=lifecycle.k8s.io,resources=evictions/status,verbs=get;patch

// SetupWithManager adds the responder. The API server must serve Evictions.
func (r *Reconciler) SetupWithManager(ctx context.Context, manager ctrl.Manager) error {
	err := manager.GetFieldIndexer().IndexField(ctx, &lifecyclev1alpha1.Eviction{}, indexPod, func(object client.Object) []string {
		if eviction, ok := object.(*lifecyclev1alpha1.Eviction); ok && eviction.Spec.Target.Pod != nil {
			return []string{eviction.Spec.Target.Pod.Name}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("indexing Evictions by pod: %w", err)
	}
	return builder.ControllerManagedBy(manager).Named("eviction-responder").
		For(&lifecyclev1alpha1.Eviction{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, object client.Object) []reconcile.Request {
			return r.evictionsOf(ctx, object.GetNamespace(), object.GetName())
		})).
		Watches(&doryv1alpha1.ProcessorMigration{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, object client.Object) []reconcile.Request {
			if m, ok := object.(*doryv1alpha1.ProcessorMigration); ok && m.Status.SourcePod != "" {
				return r.evictionsOf(ctx, m.Namespace, m.Status.SourcePod)
			}
			return nil
		})).
		Complete(undecodable.LeaveAside(r))
}

func (r *Reconciler) evictionsOf(ctx context.Context, namespace, pod string) []reconcile.Request {
	var list lifecyclev1alpha1.EvictionList
	if err := r.Client.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{indexPod: pod}); err != nil {
		return nil // A cache that is not filled yet brings every Eviction here itself.
	}
	var requests []reconcile.Request
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

// Reconcile asks the desk in the Eviction's name, and reports its answer.
func (r *Reconciler) Reconcile(ctx context.Context, key ctrl.Request) (ctrl.Result, error) {
	eviction := &lifecyclev1alpha1.Eviction{}
	if err := r.Client.Get(ctx, key.NamespacedName, eviction); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	switch roleIn(eviction) {
	case active:
		return r.respond(ctx, eviction)
	case canceled:
		return ctrl.Result{}, r.Desk.Withdraw(ctx, requestOf(eviction))
	default:
		return ctrl.Result{}, nil
	}
}

func requestOf(e *lifecyclev1alpha1.Eviction) drain.Request {
	target := e.Spec.Target.Pod
	return drain.Request{Pod: types.NamespacedName{Namespace: e.Namespace, Name: target.Name}, UID: target.UID, By: "eviction request"}
}

func (r *Reconciler) respond(ctx context.Context, eviction *lifecyclev1alpha1.Eviction) (ctrl.Result, error) {
	answer, err := r.Desk.Ask(ctx, requestOf(eviction))
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("answering Eviction %s/%s: %w", eviction.Namespace, eviction.Name, err)
	}
	next, due, after := report(reported(eviction), answer, r.Patience, r.Clock.Now())
	if !due {
		return ctrl.Result{RequeueAfter: after}, nil
	}
	err = r.say(ctx, eviction, next)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: time.Second}, nil // Another has written since; that event brings it here again.
	}
	return ctrl.Result{RequeueAfter: after}, err
}

// say replaces our own part of the status.
func (r *Reconciler) say(ctx context.Context, eviction *lifecyclev1alpha1.Eviction, next lifecyclev1alpha1.ResponderStatus) error {
	changed := eviction.DeepCopy()
	i := slices.IndexFunc(changed.Status.Responders, func(s lifecyclev1alpha1.ResponderStatus) bool { return s.Name == Name })
	if i < 0 {
		changed.Status.Responders = append(changed.Status.Responders, next)
	} else {
		changed.Status.Responders[i] = next
	}
	patch := client.MergeFromWithOptions(eviction, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, changed, patch); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reporting on Eviction %s/%s: %w", eviction.Namespace, eviction.Name, err)
	}
	return nil
}
