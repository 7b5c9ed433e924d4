package drain

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

func TestMigratable(t *testing.T) {
	says := func(kind string, status metav1.ConditionStatus, reason string) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) {
			meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: "because"})
		}
	}
	unready := says(doryv1alpha1.ConditionReady, metav1.ConditionFalse, doryv1alpha1.ReasonNotReady)
	handoff := func(can bool) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) { p.Status.Handoff = &can }
	}
	policy := func(strategy doryv1alpha1.MigrationStrategy, fallback doryv1alpha1.DrainFallback) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) {
			p.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{Strategy: strategy, DrainFallback: fallback}
		}
	}
	template := func(spec string) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) {
			p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(spec)}}
		}
	}
	with := func(changes ...func(*doryv1alpha1.Processor)) *doryv1alpha1.Processor {
		p := &doryv1alpha1.Processor{Spec: specOf(doryv1alpha1.LocationManaged)}
		p.Status.Instance = &doryv1alpha1.ProcessorInstance{Node: "n1"}
		says(doryv1alpha1.ConditionReady, metav1.ConditionTrue, doryv1alpha1.ReasonRunning)(p)
		handoff(true)(p)
		for _, change := range changes {
			change(p)
		}
		return p
	}
	two := []*corev1.Node{aNode(), aNode(named("n2"))}
	besides := func(changes ...func(*corev1.Node)) []*corev1.Node {
		return []*corev1.Node{aNode(), aNode(append([]func(*corev1.Node){named("n2")}, changes...)...)}
	}
	labelled := func(key, value string) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Labels[key] = value }
	}
	const no = "False " + doryv1alpha1.ReasonNoOtherNode
	for name, test := range map[string]struct {
		p     *doryv1alpha1.Processor
		nodes []*corev1.Node
		want  string
	}{
		"live":                           {with(), two, "True LiveMigratable"},
		"live, as asked for":             {with(policy("Live", "")), two, "True LiveMigratable"},
		"without the handoff":            {with(handoff(false)), two, "True OverlapMigratable"},
		"by overlap":                     {with(policy("Overlap", "")), two, "True OverlapMigratable"},
		"by a restart":                   {with(policy("StopAndCopy", "Never")), two, "True RestartOnly"},
		"not live, though asked for":     {with(policy("Live", ""), handoff(false)), two, "True RestartOnly"},
		"not live, and never otherwise":  {with(policy("Live", "Never"), handoff(false)), two, "False FallbackForbidden"},
		"never been ready":               {&doryv1alpha1.Processor{}, two, ""},
		"not ready any more":             {with(unready, says(doryv1alpha1.ConditionMigratable, metav1.ConditionTrue, "LiveMigratable")), two, "False NotReady"},
		"not ready before it was told":   {with(unready), two, ""},
		"suspended":                      {with(func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(true) }), two, "False Suspended"},
		"at one edge node":               {with(func(p *doryv1alpha1.Processor) { p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{EdgeNode: "e1"} }), two, "False PinnedToEdgeNode"},
		"no checkpoints":                 {with(says(doryv1alpha1.ConditionCheckpointed, metav1.ConditionFalse, doryv1alpha1.ReasonCheckpointFailing)), two, "False CheckpointFailing"},
		"one node":                       {with(), two[:1], no},
		"no node":                        {with(), nil, no},
		"the other is cordoned":          {with(), besides(cordoned), no},
		"the other goes":                 {with(), besides(tainted("karpenter.sh/disrupted", corev1.TaintEffectNoExecute)), no},
		"the other is not ready":         {with(), besides(unreadyNode("")), no},
		"the other is of another kind":   {with(), besides(labelled("workload-type", "system")), no},
		"the other is a system node":     {with(), besides(labelled("node-role", "system")), no},
		"the other is tainted":           {with(), besides(tainted("team", corev1.TaintEffectNoSchedule)), no},
		"the other is tainted by a wish": {with(), besides(tainted("team", corev1.TaintEffectPreferNoSchedule)), "True LiveMigratable"},
		"the other is tolerated":         {with(template(`{"tolerations":[{"key":"team","operator":"Exists"}]}`)), besides(tainted("team", corev1.TaintEffectNoSchedule)), "True LiveMigratable"},
		"the other is not in the zone": {with(func(p *doryv1alpha1.Processor) {
			p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{NodeSelector: map[string]string{"zone": "a"}}
		}), two, no},
		"the other is in the zone": {with(func(p *doryv1alpha1.Processor) {
			p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{NodeSelector: map[string]string{"zone": "a"}}
		}), besides(labelled("zone", "a")), "True LiveMigratable"},
		"the spec makes no pod":           {with(template(`{"containers":"none"}`)), two, "False InvalidPodTemplate"},
		"a third takes what two does not": {with(), append(besides(cordoned), aNode(named("n3"))), "True LiveMigratable"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if c := migratable(test.p, test.nodes); c != nil {
				got = string(c.Status) + " " + c.Reason
				if c.Message == "" {
					t.Error("it says nothing")
				}
			}
			if got != test.want {
				t.Errorf("condition %q, want %q", got, test.want)
			}
		})
	}
}

// What decides about the condition is looked at when it changes.
func TestBasisKnowsWhatIsNotKnownYet(t *testing.T) {
	unknown, incapable := &doryv1alpha1.Processor{}, &doryv1alpha1.Processor{}
	incapable.Status.Handoff = new(false)
	if basisOf(unknown) == basisOf(incapable) {
		t.Error("that a processor has no handoff is no news after nothing was known of it")
	}
}
