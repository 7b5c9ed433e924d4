package pod_test

import (
	"testing"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

func placedBy(scheduler doryv1alpha1.PlacementScheduler) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) {
		p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{Scheduler: scheduler}
	}
}

func TestWhoFindsTheNode(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*doryv1alpha1.Processor)
		want   string
	}{
		"nothing said": {func(*doryv1alpha1.Processor) {}, ""},
		"default":      {placedBy(doryv1alpha1.PlacementSchedulerDefault), ""},
		"dory":         {placedBy(doryv1alpha1.PlacementSchedulerDory), pod.SchedulerName},
	} {
		t.Run(name, func(t *testing.T) {
			if got := build(t, processor(c.change)).Spec.SchedulerName; got != c.want {
				t.Errorf("scheduler %q, want %q", got, c.want)
			}
		})
	}
}

func TestAnotherSchedulerRestartsNobody(t *testing.T) {
	plain, placed := processor(), processor(placedBy(doryv1alpha1.PlacementSchedulerDory))
	if pod.Outdated(build(t, plain), placed, "") || pod.Outdated(build(t, placed), plain, "") {
		t.Error("the running instance counts as outdated")
	}
	placed.Spec.Placement.NodeSelector = map[string]string{"zone": "a"}
	if !pod.Outdated(build(t, plain), placed, "") {
		t.Error("another selector does not count")
	}
}
