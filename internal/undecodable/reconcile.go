package undecodable

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// lookAgain is how often a pass looks whether what it met was mended. Mostly the change itself brings the next pass at once;
// but not every controller follows every change.
const lookAgain = 30 * time.Second

// LeaveAside ends a pass that met an object which cannot be decoded. Its failure is that object's alone, it was told of once,
// and trying again ever faster mends nothing.
func LeaveAside(r reconcile.Reconciler) reconcile.Reconciler { return leaver{r} }

type leaver struct{ reconcile.Reconciler }

// Reconcile implements reconcile.Reconciler.
func (l leaver) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	result, err := l.Reconciler.Reconcile(ctx, request)
	if aside, yes := As(err); yes {
		log.FromContext(ctx).V(1).Info("left aside", "object", Describe(aside.Object), "cause", aside.Cause)
		return reconcile.Result{RequeueAfter: lookAgain}, nil
	}
	return result, err
}
