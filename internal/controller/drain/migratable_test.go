package drain

import (
	"strings"
	"testing"
	"time"

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
	uncheckpointed := func(reason string) func(*doryv1alpha1.Processor) {
		return says(doryv1alpha1.ConditionCheckpointed, metav1.ConditionFalse, reason)
	}
	kept := func(p *doryv1alpha1.Processor) {
		p.Status.Checkpoint = &doryv1alpha1.ProcessorCheckpoint{Time: metav1.NewTime(now)}
	}
	two := []*corev1.Node{aNode(), aNode(named("n2"))}
	besides := func(changes ...func(*corev1.Node)) []*corev1.Node {
		return []*corev1.Node{aNode(), aNode(append([]func(*corev1.Node){named("n2")}, changes...)...)}
	}
	labelled := func(key, value string) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Labels[key] = value }
	}
	const no = "False " + doryv1alpha1.ReasonNoOtherNode
	tried := func(t trial) func(*outlook) {
		return func(o *outlook) { t.done, o.trial = true, &t }
	}
	const quota = `pods "dory-cam-trial" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1`
	full, claimed := tried(trial{quota: quota}), tried(trial{claim: "disk"})
	failedMove := func(reason, revision string, ago time.Duration) func(*outlook) {
		return func(o *outlook) {
			o.moves = append(o.moves, migration("m", ago, failed(ago, reason), func(m *doryv1alpha1.ProcessorMigration) { m.Status.Revision = revision }))
		}
	}
	runs := func(change func(*doryv1alpha1.Processor)) func(*outlook) {
		return func(o *outlook) { o.runs = with(change) }
	}
	succeeded := func(o *outlook) {
		o.moves = append(o.moves, migration("n", 0, in("Succeeded"), func(m *doryv1alpha1.ProcessorMigration) { m.Status.Revision = "r1" }))
	}
	for name, test := range map[string]struct {
		p       *doryv1alpha1.Processor
		outlook []func(*outlook)
		want    string
	}{
		"a second pod was tried":               {with(), []func(*outlook){tried(trial{})}, "True LiveMigratable"},
		"a full quota":                         {with(), []func(*outlook){full}, "True QuotaExceeded"},
		"a full quota, and never otherwise":    {with(policy("Auto", "Never")), []func(*outlook){full}, "False QuotaExceeded"},
		"a full quota, and it restarts anyway": {with(policy("StopAndCopy", "Never")), []func(*outlook){full}, "True QuotaExceeded"},
		"a claim of one pod":                   {with(), []func(*outlook){claimed}, "True RestartOnly"},
		"a claim of one pod, and never":        {with(policy("Live", "Never")), []func(*outlook){claimed}, "False FallbackForbidden"},
		"a claim of one pod, by a restart":     {with(policy("StopAndCopy", "Never")), []func(*outlook){claimed}, "True RestartOnly"},
		"admission refuses":                    {with(), []func(*outlook){tried(trial{refused: "violates PodSecurity"})}, "False PodRejected"},
		"no one answers":                       {with(), []func(*outlook){tried(trial{unknown: "the webhook is away"})}, "Unknown NotKnown"},
		"the last move was refused its state":  {with(), []func(*outlook){failedMove("StateRefused", "r1", time.Minute)}, "True LastMoveFailed"},
		"the same, and never otherwise":        {with(policy("Auto", "Never")), []func(*outlook){failedMove("StateRefused", "r1", time.Minute)}, "False LastMoveFailed"},
		"the last move had no state":           {with(), []func(*outlook){failedMove("StateInvalid", "r1", time.Minute)}, "False LastMoveFailed"},
		"the same, with a checkpoint":          {with(kept), []func(*outlook){failedMove("StateInvalid", "r1", time.Minute)}, "True LastMoveFailed"},
		"the same, and it is never used":       {with(kept, policy("Auto", "Never")), []func(*outlook){failedMove("StateInvalid", "r1", time.Minute)}, "False LastMoveFailed"},
		"the last move was to a node by name":  {with(), []func(*outlook){failedMove("TargetImageUnavailable", "r1", time.Minute), func(o *outlook) { o.moves[0].Spec.TargetNode = "n7" }}, "True LiveMigratable"},
		"a claim, and nothing can be stored":   {with(says(doryv1alpha1.ConditionCheckpointed, metav1.ConditionFalse, doryv1alpha1.ReasonCheckpointFailing)), []func(*outlook){claimed}, "False CheckpointFailing"},
		"the last move had no image":           {with(), []func(*outlook){failedMove("TargetImageUnavailable", "r1", time.Minute)}, "False LastMoveFailed"},
		"a move was refused its state, once":   {with(), []func(*outlook){failedMove("StateRefused", "r1", 2*time.Hour)}, "True LiveMigratable"},
		"an Update was refused its state":      {with(), []func(*outlook){failedMove("StateRefused", "r2", time.Minute)}, "True LiveMigratable"},
		"the last move found no room":          {with(), []func(*outlook){failedMove("TargetUnschedulable", "r1", time.Minute)}, "True LiveMigratable"},
		"a later move got through":             {with(), []func(*outlook){failedMove("TargetImageUnavailable", "r1", time.Minute), succeeded}, "True LiveMigratable"},
		"the version that runs names a node":   {with(), []func(*outlook){runs(template(`{"nodeName":"n1"}`))}, "False PinnedToNode"},
		"a spec that waits names a node":       {with(template(`{"nodeName":"n1"}`)), []func(*outlook){runs(func(p *doryv1alpha1.Processor) { p.Spec.PodTemplate = nil })}, "True LiveMigratable"},
		"the template names a node":            {with(template(`{"nodeName":"n1"}`)), nil, "False PinnedToNode"},
	} {
		t.Run(name, func(t *testing.T) {
			o := outlook{nodes: two, revision: "r1", instance: instance, now: now}
			for _, change := range test.outlook {
				change(&o)
			}
			c := migratable(test.p, o)
			if got := string(c.Status) + " " + c.Reason; got != test.want {
				t.Errorf("condition %q, want %q: %s", got, test.want, c.Message)
			}
			if o.trial != nil && !strings.Contains(c.Message, o.trial.quota+o.trial.refused+o.trial.unknown+o.trial.claim) {
				t.Errorf("it does not say why: %s", c.Message)
			}
		})
	}
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
		"nothing can be stored":          {with(uncheckpointed(doryv1alpha1.ReasonCheckpointFailing)), two, "True LiveMigratable"},
		"nothing can be stored, restart": {with(uncheckpointed(doryv1alpha1.ReasonCheckpointFailing), policy("StopAndCopy", "")), two, "False CheckpointFailing"},
		"a higher epoch is stored":       {with(uncheckpointed(doryv1alpha1.ReasonEpochBehindState)), two, "True LiveMigratable"},
		"no state can be had":            {with(uncheckpointed(doryv1alpha1.ReasonCaptureFailing)), two, "False CaptureFailing"},
		"no state, but an older one":     {with(uncheckpointed(doryv1alpha1.ReasonCaptureFailing), kept), two, "True CaptureFailing"},
		"too large a state":              {with(uncheckpointed(doryv1alpha1.ReasonStateTooLarge), kept), two, "True StateTooLarge"},
		"too large a state, and never":   {with(uncheckpointed(doryv1alpha1.ReasonStateTooLarge), kept, policy("", "Never")), two, "False StateTooLarge"},
		"it runs without its state":      {with(uncheckpointed(doryv1alpha1.ReasonStateNotRestored), kept), two, "False StateNotRestored"},
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
			if c := migratable(test.p, outlook{nodes: test.nodes}); c != nil {
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
