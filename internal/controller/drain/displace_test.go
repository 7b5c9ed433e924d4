package drain

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

func TestAMoveThatFindsNoNodeGivesWayToADrain(t *testing.T) {
	const second = time.Second
	nowhere := withTarget(func(p *corev1.Pod) {
		p.Spec.NodeName = ""
		p.Status = corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes are available"}}}
	})
	manual := func(age time.Duration, node string, details ...detail) change {
		return func(v *view) {
			v.migrations = append(v.migrations, migration("m3", age, append([]detail{in("Placing"), func(m *doryv1alpha1.ProcessorMigration) {
				m.Spec.Reason, m.Spec.TargetNode = doryv1alpha1.MigrationManual, node
			}}, details...)...))
		}
	}
	noOther := func(v *view) { v.nodes = v.nodes[:1] }
	claimed := foretold(metav1.ConditionTrue, doryv1alpha1.ReasonRestartOnly)
	const gives = "wait Queued make 1 instead of m3"
	for name, test := range map[string]struct {
		v    *view
		want string
	}{
		"stuck for long":                          {given(manual(31*second, ""), nowhere), gives},
		"stuck for long on its way to a node":     {given(manual(31*second, "n2"), nowhere), gives},
		"its target is refused for long":          {given(manual(31*second, "", says("TargetOverQuota", "exceeded quota"))), gives},
		"stuck for a moment":                      {given(manual(29*second, "n2"), nowhere), "wait Moving"},
		"to the node that is left":                {given(manual(second, "n1"), nowhere), gives},
		"to a node that is not there":             {given(manual(second, "n9"), nowhere), gives},
		"to a node that takes it no more":         {given(manual(second, "n2"), nowhere, func(v *view) { v.nodes[1].Spec.Unschedulable = true }), gives},
		"an Update":                               {given(manual(31*second, "", func(m *doryv1alpha1.ProcessorMigration) { m.Spec.Reason = doryv1alpha1.MigrationUpdate }), nowhere), gives},
		"the drain's own":                         {given(attempt(1, 31*second, in("Placing")), nowhere), "wait Moving"},
		"it has a node":                           {given(manual(31*second, ""), withTarget(func(p *corev1.Pod) { p.Spec.NodeName = "n2" })), "wait Moving"},
		"it starts":                               {given(manual(31*second, "", in("Starting")), nowhere), "wait Moving"},
		"there is no way back":                    {given(manual(31*second, "", func(m *doryv1alpha1.ProcessorMigration) { m.Status.Strategy = doryv1alpha1.MigrationStopAndCopy }), nowhere), "wait Moving"},
		"it is called off already":                {given(manual(31*second, "", cancelled), nowhere), "wait Moving"},
		"no one waits":                            {given(manual(31*second, ""), nowhere, func(v *view) { v.settled = true }), "wait Moving"},
		"the drain's own waits already":           {given(attempt(1, second), manual(31*second, ""), nowhere), "wait Queued instead of m3"},
		"a restart takes its place":               {given(manual(31*second, ""), nowhere, claimed), "wait FallingBack make 1 StopAndCopy instead of m3"},
		"a restart would find no node either":     {given(manual(31*second, ""), nowhere, claimed, noOther), "wait Moving"},
		"a restart by the spec would find none":   {given(manual(31*second, ""), nowhere, restarts, noOther), "wait Moving"},
		"a restart after what failed, and none":   {given(attempt(1, 90*second, failed(0, "TargetHasNoHandoff")), manual(31*second, ""), nowhere, noOther), "wait Moving"},
		"a restart after what failed":             {given(attempt(1, 90*second, failed(0, "TargetHasNoHandoff")), manual(31*second, ""), nowhere), "wait FallingBack make 2 StopAndCopy instead of m3"},
		"a restart waits already, and finds none": {given(attempt(1, second, stopAndCopyWanted), manual(31*second, ""), nowhere, noOther), "wait Moving"},
		"the spec names the edge node":            {given(manual(31*second, ""), nowhere, aProcessor(func(p *doryv1alpha1.Processor) { p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{EdgeNode: "e1"} })), "wait Moving"},
		"the version that runs names the node":    {given(manual(31*second, ""), nowhere, runsAs(pinnedTo("n1"))), "wait Moving"},
		"a spec that waits names the node":        {given(manual(31*second, ""), nowhere, runsAs(), pinnedTo("n1")), gives},
		"the spec names the node":                 {given(manual(31*second, ""), nowhere, pinnedTo("n1")), "wait Moving"},
		"the drain's own has to wait for a while": {given(attempt(1, 5*second, failed(0, "StateRefused")), manual(31*second, ""), nowhere), "wait Moving"},
	} {
		t.Run(name, func(t *testing.T) {
			c := answer(Request{}, test.v)
			if c.String() != test.want {
				t.Errorf("concluded %q, want %q: %s", c, test.want, c.Message)
			}
			if c.displaces != nil && !strings.Contains(c.Message, "m3") {
				t.Errorf("says nothing of it: %s", c.Message)
			}
			if c := answer(Request{DryRun: true}, test.v); c.attempt != nil || c.displaces != nil {
				t.Errorf("a trial does something: %s", c)
			}
		})
	}
}
