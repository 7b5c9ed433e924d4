package leftaside

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/undecodable"
)

// NewMetric registers the number of objects that are left aside, by kind.
func NewMetric(registerer prometheus.Registerer) (*prometheus.GaugeVec, error) {
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "dory_undecodable_objects", Help: "Objects that cannot be decoded and are left aside, by kind.",
	}, []string{"kind"})
	if err := registerer.Register(gauge); err != nil {
		return nil, fmt.Errorf("registering dory_undecodable_objects: %w", err)
	}
	return gauge, nil
}

// Add adds a reconciler for every kind of ours.
func Add(mgr ctrl.Manager, recorder events.EventRecorder, metric *prometheus.GaugeVec) error {
	for _, object := range undecodable.Kinds() {
		kind := undecodable.KindOf(object)
		r := &Reconciler{
			reader: mgr.GetClient(), object: object, tell: teller{record.New(recorder)}, count: metric.WithLabelValues(kind),
			told: map[types.NamespacedName]string{},
		}
		err := ctrl.NewControllerManagedBy(mgr).
			Named("left-aside-"+strings.ToLower(kind)).
			Watches(object, &handler.EnqueueRequestForObject{}, builder.WithPredicates(comesOrGoes())).
			Complete(r)
		if err != nil {
			return fmt.Errorf("adding the controller of undecodable %ss: %w", kind, err)
		}
	}
	return nil
}

// comesOrGoes leaves out all that can be decoded and could be before.
func comesOrGoes() predicate.Predicate {
	aside := func(o client.Object) bool { _, yes := undecodable.Of(o); return yes }
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return aside(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool { return aside(e.ObjectOld) || aside(e.ObjectNew) },
		DeleteFunc: func(e event.DeleteEvent) bool { return aside(e.Object) },
	}
}

// Reconciler follows one kind, one object at a time.
type Reconciler struct {
	reader client.Reader
	object client.Object
	tell   teller
	count  prometheus.Gauge
	// told is what was said last about each object that is left aside.
	told map[types.NamespacedName]string
}

// Reconcile tells what is new about one object.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	object, ok := r.object.DeepCopyObject().(client.Object)
	if !ok {
		return ctrl.Result{}, fmt.Errorf("%T is no object", r.object)
	}
	err := r.reader.Get(ctx, req.NamespacedName, object)
	aside, isAside := undecodable.As(err)
	said, known := r.told[req.NamespacedName]
	switch {
	case isAside:
		if about := string(aside.Object.GetUID()) + aside.Cause; said != about {
			r.told[req.NamespacedName] = about
			log.FromContext(ctx).Info("an object cannot be decoded and is left aside", "object", undecodable.Describe(aside.Object), "cause", aside.Cause)
			r.tell.leftAside(aside.Object, aside.Cause)
		}
	case err == nil && known:
		delete(r.told, req.NamespacedName)
		log.FromContext(ctx).Info("an object can be decoded again", "object", undecodable.Describe(object))
		r.tell.mended(object)
	case apierrors.IsNotFound(err):
		delete(r.told, req.NamespacedName)
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("reading %s: %w", req.NamespacedName, err)
	}
	r.count.Set(float64(len(r.told)))
	return ctrl.Result{}, nil
}
