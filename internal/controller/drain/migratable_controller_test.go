package drain

import (
	"context"
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/message"
)

// aReadyOne is a Processor whose instance is ready, in the words of its conditions.
func aReadyOne(name string) *doryv1alpha1.Processor {
	p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: name}, Spec: specOf(doryv1alpha1.LocationManaged)}
	p.Status.Instance = &doryv1alpha1.ProcessorInstance{Node: "n1"}
	meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: doryv1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: doryv1alpha1.ReasonRunning})
	return p
}

// One Processor whose status the API server does not take keeps the news of nodes from no other.
func TestMigratableOfAllGoesOn(t *testing.T) {
	refused := errors.New("the API server takes none of a")
	c := clusterOf(t, interceptor.Funcs{SubResourcePatch: func(ctx context.Context, c client.Client, of string, o client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
		if o.GetName() == "a" {
			return refused
		}
		return c.SubResource(of).Patch(ctx, o, patch, options...)
	}}, aReadyOne("a"), aReadyOne("b"), aNode())
	r := NewMigratable(MigratableConfig{Client: c, APIReader: c, Clock: clocktesting.NewFakeClock(now)})
	if _, err := r.Reconcile(t.Context(), everybody); !errors.Is(err, refused) {
		t.Errorf("error %v, want the one of a", err)
	}
	b := &doryv1alpha1.Processor{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "vision", Name: "b"}, b); err != nil {
		t.Fatal(err)
	}
	if condition := meta.FindStatusCondition(b.Status.Conditions, doryv1alpha1.ConditionMigratable); condition == nil || condition.Reason != doryv1alpha1.ReasonNoOtherNode {
		t.Errorf("b is told %+v", condition)
	}
}

// What the API server refuses is asked again in time, also where the news of a node came upon it.
func TestMigratableOfAllAsksAgain(t *testing.T) {
	objects := append(working("cam", "n1"), aNode(cordoned), aNode(named("n2")))
	for _, o := range objects {
		if p, is := o.(*doryv1alpha1.Processor); is {
			p.Status = aReadyOne("cam").Status
			p.Status.Instance.Pod = instance
		}
	}
	c := clusterOf(t, interceptor.Funcs{Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
		return errors.New("the API server is away")
	}}, objects...)
	r := NewMigratable(MigratableConfig{Client: c, APIReader: c, Clock: clocktesting.NewFakeClock(now)})
	if result, err := r.Reconcile(t.Context(), everybody); err != nil || result != (ctrl.Result{RequeueAfter: trialDoubt}) {
		t.Errorf("again after %+v (%v), want after %s", result, err, trialDoubt)
	}
}

// What is wrong with a template may quote all of it.
func TestMigratableMessageFits(t *testing.T) {
	p := aReadyOne("cam")
	long := condition(p, metav1.ConditionFalse, doryv1alpha1.ReasonInvalidPodTemplate, strings.Repeat("x", 2*message.ConditionLimit))
	if len(long.Message) > message.ConditionLimit {
		t.Errorf("%d bytes", len(long.Message))
	}
}
