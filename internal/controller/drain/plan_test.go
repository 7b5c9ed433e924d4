package drain

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

func aNode(changes ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"workload-type": "application"}},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
	for _, change := range changes {
		change(n)
	}
	return n
}

func named(name string) func(*corev1.Node) { return func(n *corev1.Node) { n.Name = name } }

func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }

func tainted(key string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

func unreadyNode(message string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.Conditions[0].Status, n.Status.Conditions[0].Message = corev1.ConditionFalse, message
	}
}

func TestLeaving(t *testing.T) {
	const no = corev1.TaintEffectNoSchedule
	edge := &doryv1alpha1.Processor{Spec: specOf(doryv1alpha1.LocationEdge)}
	cloud := &doryv1alpha1.Processor{Spec: specOf(doryv1alpha1.LocationManaged)}
	edgeTaint := func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "edge-node", Value: "true", Effect: no}}
	}
	for name, test := range map[string]struct {
		node      *corev1.Node
		processor *doryv1alpha1.Processor
		proactive bool
		want      string
	}{
		"gone":                              {want: "stays"},
		"at peace":                          {node: aNode(), proactive: true, want: "stays"},
		"cordoned":                          {node: aNode(cordoned), want: "is left"},
		"cluster-autoscaler":                {node: aNode(tainted("ToBeDeletedByClusterAutoscaler", no)), want: "goes"},
		"Karpenter":                         {node: aNode(tainted("karpenter.sh/disrupted", no)), want: "goes"},
		"Karpenter of old":                  {node: aNode(tainted("karpenter.sh/disruption", no)), want: "goes"},
		"out of service":                    {node: aNode(tainted("node.kubernetes.io/out-of-service", corev1.TaintEffectNoExecute)), want: "goes"},
		"cordoned and going":                {node: aNode(cordoned, tainted("karpenter.sh/disrupted", no)), want: "goes"},
		"shutting down":                     {node: aNode(unreadyNode("node is shutting down")), want: "goes"},
		"not ready":                         {node: aNode(unreadyNode("container runtime is down")), proactive: true, want: "stays"},
		"tainted":                           {node: aNode(tainted("team", no)), processor: cloud, proactive: true, want: "is left"},
		"tainted, and nobody minds":         {node: aNode(tainted("team", no)), processor: cloud, want: "stays"},
		"tainted with preference":           {node: aNode(tainted("team", corev1.TaintEffectPreferNoSchedule)), processor: cloud, proactive: true, want: "stays"},
		"tainted by Kubernetes":             {node: aNode(tainted("node.kubernetes.io/disk-pressure", no)), processor: cloud, proactive: true, want: "stays"},
		"tainted, and tolerated":            {node: aNode(edgeTaint), processor: edge, proactive: true, want: "stays"},
		"tainted, and tolerated by others":  {node: aNode(edgeTaint), processor: cloud, proactive: true, want: "is left"},
		"tainted with one of two tolerated": {node: aNode(edgeTaint, tainted("team", no)), processor: edge, proactive: true, want: "is left"},
	} {
		t.Run(name, func(t *testing.T) {
			got := "stays"
			switch l := leaving(test.node, test.processor, test.proactive); {
			case l.announced:
				got = "goes"
			case l.yes():
				got = "is left"
			}
			if got != test.want {
				t.Errorf("the node %s, want it to be one that %s", got, test.want)
			}
		})
	}
}

// String says in one line what is planned.
func (p plan) String() string {
	var words []string
	for _, m := range p.label {
		words = append(words, "label "+m.Name)
	}
	for _, c := range p.cancel {
		words = append(words, c.reason+" "+c.migration.Name)
	}
	for _, c := range p.attempts {
		words = append(words, c.String())
	}
	for _, s := range p.stuck {
		words = append(words, "stuck: "+s.message)
	}
	if p.after > 0 {
		words = append(words, "after "+p.after.String())
	}
	return strings.Join(words, ", ")
}

func TestPlan(t *testing.T) {
	left, goes := leave{why: "it is cordoned"}, leave{"it goes", true}
	leaves := func(l leave) change { return func(v *view) { v.leave = l } }
	drained := func(m *doryv1alpha1.ProcessorMigration) {
		m.Labels = map[string]string{doryv1alpha1.LabelDrainedNode: "n1"}
	}
	target := func(v *view) { v.pod = podOf(v.processor, other, 0) }
	handedOver := func(v *view) { v.epoch.Spec.Holder, v.epoch.Spec.Epoch = other, 8 }
	nowhere := withTarget(func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.Conditions = "", []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes"}}
	})
	const second = time.Second
	for name, test := range map[string]struct {
		v         *view
		proactive bool
		gone      bool
		want      string
	}{
		"at peace":                           {v: given(), proactive: true},
		"cordoned":                           {v: given(leaves(left))},
		"cordoned, proactive":                {v: given(leaves(left)), proactive: true, want: "wait Queued make 1"},
		"announced":                          {v: given(leaves(goes)), want: "wait Queued make 1"},
		"on its way":                         {v: given(leaves(goes), attempt(1, 0, in("Placing"), drained))},
		"on its way since before it was":     {v: given(leaves(left), attempt(1, 0, in("Placing"))), want: "label cam-drain-aaaabbbb-1"},
		"over since before it was":           {v: given(leaves(left), attempt(1, 80*second, failed(0, "Cancelled")))},
		"by an Update":                       {v: given(leaves(goes), move("u", in("Starting")))},
		"no place":                           {v: given(leaves(goes), attempt(1, 0, in("Placing"), drained), nowhere), want: "stuck: 0/3 nodes"},
		"no place, on a node that stays":     {v: given(attempt(1, 0, in("Placing")), nowhere), want: "stuck: 0/3 nodes"},
		"no place for an Update":             {v: given(leaves(goes), move("u", in("Placing")), nowhere), want: "wait Queued make 1 instead of u"},
		"again later":                        {v: given(leaves(goes), attempt(1, 80*second, failed(0, "TargetUnschedulable"))), want: "after 5s"},
		"broken, and the node goes":          {v: given(leaves(goes), attempt(1, 80*second, failed(0, "StateRefused"))), want: "wait FallingBack make 2 StopAndCopy"},
		"broken, and nobody waits":           {v: given(leaves(left), attempt(1, 80*second, failed(5*second, "StateRefused"))), proactive: true, want: "wait Queued make 2"},
		"no state to be had, and none kept":  {v: given(leaves(left), foretold("False", doryv1alpha1.ReasonStateTooLarge)), want: "stuck: because"},
		"no state to be had, but it is let":  {v: given(leaves(left), checkpointed, foretold("True", doryv1alpha1.ReasonStateTooLarge))},
		"hopeless":                           {v: given(leaves(goes), checkpointed, attempt(2, 80*second, stopAndCopy, failed(0, "StateInvalid")))},
		"ending":                             {v: given(leaves(goes), aPod(func(p *corev1.Pod) { deleted(p) }))},
		"a target on a node that is left":    {v: given(target, leaves(left), attempt(1, 0, in("Starting"))), want: EventMisled + " cam-drain-aaaabbbb-1"},
		"a target of somebody's move":        {v: given(target, leaves(left), move("u", in("HandingOff"))), want: EventMisled + " u"},
		"a target that has taken over":       {v: given(target, leaves(left), move("u", in("HandingOff")), handedOver), proactive: true},
		"a target that retires its source":   {v: given(target, leaves(left), move("u", in("Retiring"))), proactive: true},
		"a target that is taken back":        {v: given(target, leaves(left), move("u", in("RollingBack"))), proactive: true},
		"a target whose move was called off": {v: given(target, leaves(left), move("u", in("Starting"), cancelled))},
		"a target on a node that stays":      {v: given(target, move("u", in("Starting")))},
		"uncordoned":                         {v: given(attempt(1, 0, in("Placing"), drained)), want: EventWithdrawn + " cam-drain-aaaabbbb-1"},
		"uncordoned before it began":         {v: given(attempt(1, 0, drained)), want: EventWithdrawn + " cam-drain-aaaabbbb-1"},
		"uncordoned, and never was cordoned": {v: given(attempt(1, 0, in("Placing")))},
		"uncordoned too late":                {v: given(attempt(1, 0, in("HandingOff"), drained), handedOver)},
		"uncordoned twice":                   {v: given(attempt(1, 0, in("Placing"), drained, cancelled))},
		"uncordoned after it ended":          {v: given(attempt(1, 80*second, drained, failed(0, "Cancelled")))},
		"cordoned for good":                  {v: given(leaves(left), attempt(1, 0, in("Placing"), drained))},
		"the node is gone":                   {v: given(attempt(1, 0, in("Placing"), drained)), gone: true},
		"the pod is not seen to act":         {v: given(leaves(goes), func(v *view) { v.epoch = nil }), want: "after 1s"},
		"uncordoned, and moved by somebody":  {v: given(move("u", in("Placing"), drained))},
		"another drain's attempt is no matter": {v: given(attempt(1, 0, in("Placing"), func(m *doryv1alpha1.ProcessorMigration) {
			m.Labels = map[string]string{doryv1alpha1.LabelDrainedNode: "n2"}
		}))},
	} {
		t.Run(name, func(t *testing.T) {
			o := &observation{name: "n1", node: aNode(), views: []*view{test.v}, proactive: test.proactive}
			if test.gone {
				o.node = nil
			}
			if got := decide(o).String(); got != test.want {
				t.Errorf("planned %q, want %q", got, test.want)
			}
		})
	}
}

// What somebody waits for is looked at in time for the first of them.
func TestPlanLooksAgainForTheFirst(t *testing.T) {
	waiting := func(ago time.Duration) *view {
		return given(func(v *view) { v.leave = leave{"it goes", true} }, attempt(1, 80*time.Second, failed(ago, "TargetUnschedulable")))
	}
	p := decide(&observation{name: "n1", node: aNode(), views: []*view{waiting(time.Second), waiting(3 * time.Second), waiting(2 * time.Second)}})
	if p.after != 2*time.Second {
		t.Errorf("looks again after %s, want 2s", p.after)
	}
}

func TestNextTurns(t *testing.T) {
	mover := func(name, node string, priority int32, bytes int64, age int) Mover {
		m := Mover{Node: node, Priority: priority, StateBytes: bytes, Since: now.Add(-time.Duration(age) * time.Second)}
		m.Key.Namespace, m.Key.Name = "vision", name
		return m
	}
	many := func(node string, n int) []Mover {
		var found []Mover
		for i := range n {
			found = append(found, mover(node+string(rune('a'+i)), node, 0, 0, 0))
		}
		return found
	}
	for name, test := range map[string]struct {
		waiting, active []Mover
		limits          Limits
		want            string
	}{
		"nobody waits":                             {limits: Limits{10, 40}},
		"all at once":                              {waiting: many("x", 3), limits: Limits{10, 40}, want: "xa xb xc"},
		"as many as a node's limit":                {waiting: many("x", 5), limits: Limits{2, 40}, want: "xa xb"},
		"the limit counts all":                     {waiting: many("x", 5), active: many("x", 1), limits: Limits{2, 40}, want: "xa"},
		"nobody's turn on the node":                {waiting: many("x", 5), active: many("x", 2), limits: Limits{2, 40}},
		"nobody's turn anywhere":                   {waiting: many("x", 5), active: many("y", 3), limits: Limits{2, 3}},
		"the higher priority":                      {waiting: []Mover{mover("a", "x", 0, 1, 9), mover("b", "x", 10, 9, 1)}, limits: Limits{1, 40}, want: "b"},
		"the smaller state":                        {waiting: []Mover{mover("a", "x", 5, 9, 9), mover("b", "x", 5, 1, 1)}, limits: Limits{1, 40}, want: "b"},
		"the one who waits longer":                 {waiting: []Mover{mover("a", "x", 5, 9, 1), mover("b", "x", 5, 9, 2)}, limits: Limits{1, 40}, want: "b"},
		"by name at last":                          {waiting: []Mover{mover("b", "x", 5, 9, 1), mover("a", "x", 5, 9, 1)}, limits: Limits{1, 40}, want: "a"},
		"a small drain beside a large one":         {waiting: slices.Concat(many("x", 5), many("y", 2)), limits: Limits{10, 4}, want: "xa ya xb yb"},
		"a large drain does not push a small away": {waiting: slices.Concat(many("x", 5), many("y", 2)), active: many("x", 3), limits: Limits{10, 5}, want: "ya yb"},
		"priority does not break fairness":         {waiting: []Mover{mover("a", "x", 100, 0, 0), mover("b", "y", 0, 0, 0)}, active: many("x", 1), limits: Limits{10, 2}, want: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			var names []string
			for _, m := range NextTurns(test.waiting, test.active, test.limits) {
				names = append(names, m.Key.Name)
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("next are %q, want %q", got, test.want)
			}
		})
	}
}
