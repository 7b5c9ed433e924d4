package scheduler_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dory-io/dory/internal/scheduler"
)

const (
	zone     = corev1.LabelTopologyZone
	hostname = corev1.LabelHostname
)

// situation has one node that suits the pod, or a refusal.
type situation struct {
	nodes   []*corev1.Node
	pods    []*corev1.Pod
	pod     *corev1.Pod
	want    string
	refusal string
}

func (c situation) run(t *testing.T) {
	t.Helper()
	s := cluster(c.nodes, c.pods...)
	p := read(c.pod)
	wantNode(t, s, p, c.want)
	if c.want == "" {
		if got := s.Explain(p, scheduler.How{}).String(); got != c.refusal {
			t.Errorf("refusal:\n got %s\nwant %s", got, c.refusal)
		}
	}
	for _, n := range c.nodes {
		if fits := s.Fits(p, n.Name, scheduler.How{}); fits != (n.Name == c.want) {
			t.Errorf("fits on %s: %t", n.Name, fits)
		}
	}
}

func TestResources(t *testing.T) {
	sidecar := corev1.ContainerRestartPolicyAlways
	for name, c := range map[string]situation{
		"cpu": {
			nodes: nodes(aNode("a"), aNode("b", has("cpu", "2"))), pod: aPod("p", cpu("3")), want: "a",
		},
		"the last thousandth of a cpu": {
			nodes: nodes(aNode("a")), pods: []*corev1.Pod{aPod("o", on("a"), cpu("1500m"))}, pod: aPod("p", cpu("2500m")), want: "a",
		},
		"a thousandth too much": {
			nodes: nodes(aNode("a")), pods: []*corev1.Pod{aPod("o", on("a"), cpu("1501m"))}, pod: aPod("p", cpu("2500m")),
			refusal: "0/1 nodes fit: 1 insufficient cpu",
		},
		"memory and cpu": {
			nodes: nodes(aNode("a"), aNode("b")), pod: aPod("p", cpu("5"), memory("9Gi")),
			refusal: "0/2 nodes fit: 2 insufficient cpu, 2 insufficient memory",
		},
		"ephemeral storage": {
			nodes: nodes(aNode("a"), aNode("b", has("ephemeral-storage", "20Gi"))), pod: aPod("p", asks("ephemeral-storage", "11Gi")), want: "b",
		},
		"what is not asked for does not lack": {
			nodes: nodes(aNode("a")), pods: []*corev1.Pod{aPod("o", on("a"), cpu("9"))}, pod: aPod("p", memory("1Gi")), want: "a",
		},
		"GPU": {
			nodes: nodes(aNode("a"), aNode("b", has("example.com/gpu", "1"))), pod: aPod("p", asks("example.com/gpu", "1")), want: "b",
		},
		"no GPU left": {
			nodes: nodes(aNode("a", has("example.com/gpu", "1"))), pods: []*corev1.Pod{aPod("o", on("a"), asks("example.com/gpu", "1"))},
			pod: aPod("p", asks("example.com/gpu", "1")), refusal: "0/1 nodes fit: 1 insufficient example.com/gpu",
		},
		"number of pods": {
			nodes: nodes(aNode("a", has("pods", "1"))), pods: []*corev1.Pod{aPod("o", on("a"))}, pod: aPod("p"),
			refusal: "0/1 nodes fit: 1 too many pods",
		},
		"the largest init container counts, not their sum": {
			nodes: nodes(aNode("a")), want: "a", pod: aPod("p", cpu("1"), func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{initContainer("3", nil), initContainer("4", nil)}
			}),
		},
		"an init container is too large": {
			nodes: nodes(aNode("a")), refusal: "0/1 nodes fit: 1 insufficient cpu", pod: aPod("p", cpu("1"), func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{initContainer("4100m", nil)}
			}),
		},
		"a sidecar runs beside the others": {
			nodes: nodes(aNode("a")), refusal: "0/1 nodes fit: 1 insufficient cpu", pod: aPod("p", cpu("3"), func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{initContainer("1100m", &sidecar)}
			}),
		},
		"overhead": {
			nodes: nodes(aNode("a")), refusal: "0/1 nodes fit: 1 insufficient cpu", pod: aPod("p", cpu("4"), func(p *corev1.Pod) {
				set(&p.Spec.Overhead, corev1.ResourceCPU, "1m")
			}),
		},
		"resources of the whole pod stand for those of its containers": {
			nodes: nodes(aNode("a")), want: "a", pod: aPod("p", cpu("9"), func(p *corev1.Pod) {
				p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")}}
			}),
		},
		"no nodes": {pod: aPod("p"), refusal: "0/0 nodes fit"},
		"a pod that ended needs nothing": {
			nodes: nodes(aNode("a")), pods: []*corev1.Pod{aPod("o", on("a"), cpu("4"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })},
			pod: aPod("p", cpu("4")), want: "a",
		},
		"a pod that is ending still needs its share": {
			nodes: nodes(aNode("a")), pods: []*corev1.Pod{aPod("o", on("a"), cpu("4"), terminating)},
			pod: aPod("p", cpu("4")), refusal: "0/1 nodes fit: 1 insufficient cpu",
		},
	} {
		t.Run(name, c.run)
	}
}

func initContainer(cpu string, policy *corev1.ContainerRestartPolicy) corev1.Container {
	return corev1.Container{
		Name: "init", RestartPolicy: policy,
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
	}
}

func terminating(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }

func TestHostPorts(t *testing.T) {
	for name, c := range map[string]situation{
		"taken": {
			nodes: nodes(aNode("a")), pods: []*corev1.Pod{aPod("o", on("a"), hostPort(80, ""))}, pod: aPod("p", hostPort(80, "")),
			refusal: "0/1 nodes fit: 1 host port 80/TCP in use",
		},
		"taken on every address": {
			nodes: nodes(aNode("a")), pods: []*corev1.Pod{aPod("o", on("a"), hostPort(80, "0.0.0.0"))}, pod: aPod("p", hostPort(80, "10.0.0.1")),
			refusal: "0/1 nodes fit: 1 host port 80/TCP in use",
		},
		"another address": {
			nodes: nodes(aNode("a")), pods: []*corev1.Pod{aPod("o", on("a"), hostPort(80, "10.0.0.2"))}, pod: aPod("p", hostPort(80, "10.0.0.1")), want: "a",
		},
		"another port": {
			nodes: nodes(aNode("a")), pods: []*corev1.Pod{aPod("o", on("a"), hostPort(81, ""))}, pod: aPod("p", hostPort(80, "")), want: "a",
		},
		"another node": {
			nodes: nodes(aNode("a"), aNode("b")), pods: []*corev1.Pod{aPod("o", on("a"), hostPort(80, ""))}, pod: aPod("p", hostPort(80, "")), want: "b",
		},
	} {
		t.Run(name, c.run)
	}
}

func TestNodeAffinity(t *testing.T) {
	notSystem := corev1.NodeSelectorRequirement{Key: "node-role", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"system"}}
	for name, c := range map[string]situation{
		"selector": {
			nodes: nodes(aNode("a"), aNode("b", nodeLabel("workload-type", "application"))), pod: aPod("p", selects("workload-type", "application")), want: "b",
		},
		"selector that nothing matches": {
			nodes: nodes(aNode("a"), aNode("b")), pod: aPod("p", selects("workload-type", "application")),
			refusal: "0/2 nodes fit: 2 node affinity or selector does not match",
		},
		"not a system node": {
			nodes: nodes(aNode("a", nodeLabel("node-role", "system")), aNode("b")), pod: aPod("p", requires(notSystem)), want: "b",
		},
		"by hostname label": {
			nodes: nodes(aNode("a"), aNode("b")), pod: aPod("p", selects(hostname, "b")), want: "b",
		},
		"by name":         {nodes: nodes(aNode("a"), aNode("b")), pod: aPod("p", pinnedTo("b")), want: "b"},
		"by unknown name": {nodes: nodes(aNode("a")), pod: aPod("p", pinnedTo("z")), refusal: "0/1 nodes fit: 1 node affinity or selector does not match"},
		"by name, cordoned": {
			nodes: nodes(aNode("a", cordoned), aNode("b")), pod: aPod("p", pinnedTo("a")),
			refusal: "0/2 nodes fit: 1 cordoned, 1 node affinity or selector does not match",
		},
	} {
		t.Run(name, c.run)
	}
}

func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }

func TestTaintsAndHealth(t *testing.T) {
	noSchedule := tainted("gpu", corev1.TaintEffectNoSchedule)
	for name, c := range map[string]situation{
		"taint":            {nodes: nodes(aNode("a", noSchedule)), pod: aPod("p"), refusal: "0/1 nodes fit: 1 untolerated taint {gpu=true:NoSchedule}"},
		"NoExecute":        {nodes: nodes(aNode("a", tainted("x", corev1.TaintEffectNoExecute))), pod: aPod("p"), refusal: "0/1 nodes fit: 1 untolerated taint {x=true:NoExecute}"},
		"tolerated":        {nodes: nodes(aNode("a", noSchedule)), pod: aPod("p", tolerates("gpu")), want: "a"},
		"cordoned":         {nodes: nodes(aNode("a", cordoned), aNode("b", cordoned)), pod: aPod("p"), refusal: "0/2 nodes fit: 2 cordoned"},
		"cordon tolerated": {nodes: nodes(aNode("a", cordoned)), pod: aPod("p", tolerates(corev1.TaintNodeUnschedulable)), want: "a"},
		"not ready": {
			nodes: nodes(aNode("a", withCondition(corev1.NodeReady, corev1.ConditionFalse))), pod: aPod("p", tolerates("")),
			refusal: "0/1 nodes fit: 1 not ready",
		},
		"unknown whether ready": {
			nodes: nodes(aNode("a", withCondition(corev1.NodeReady, corev1.ConditionUnknown))), pod: aPod("p"), refusal: "0/1 nodes fit: 1 not ready",
		},
		"never reported": {
			nodes: nodes(aNode("a", func(n *corev1.Node) { n.Status.Conditions = nil })), pod: aPod("p"), refusal: "0/1 nodes fit: 1 not ready",
		},
		"being deleted": {
			nodes: nodes(aNode("a", func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{} })), pod: aPod("p"), refusal: "0/1 nodes fit: 1 being deleted",
		},
		"memory pressure": {
			nodes: nodes(aNode("a", withCondition(corev1.NodeMemoryPressure, corev1.ConditionTrue)), aNode("b")), pod: aPod("p"), want: "b",
		},
		"disk pressure": {
			nodes: nodes(aNode("a", withCondition(corev1.NodeDiskPressure, corev1.ConditionTrue))), pod: aPod("p"),
			refusal: "0/1 nodes fit: 1 untolerated taint {node.kubernetes.io/disk-pressure:NoSchedule}",
		},
		"pid pressure": {
			nodes: nodes(aNode("a", withCondition(corev1.NodePIDPressure, corev1.ConditionTrue)), aNode("b")), pod: aPod("p"), want: "b",
		},
		"network unavailable": {
			nodes: nodes(aNode("a", withCondition(corev1.NodeNetworkUnavailable, corev1.ConditionTrue)), aNode("b")), pod: aPod("p"), want: "b",
		},
		"pressure tolerated": {
			nodes: nodes(aNode("a", withCondition(corev1.NodeMemoryPressure, corev1.ConditionTrue))), pod: aPod("p", tolerates(corev1.TaintNodeMemoryPressure)), want: "a",
		},
	} {
		t.Run(name, c.run)
	}
}

func TestTopologySpread(t *testing.T) {
	three := nodes(aNode("a1", inZone("a")), aNode("b1", inZone("b")), aNode("none"))
	web := labelled("app", "web")
	minDomains := func(domains int32) func(*corev1.TopologySpreadConstraint) {
		return func(c *corev1.TopologySpreadConstraint) { c.MinDomains = &domains }
	}
	honourTaints := func(c *corev1.TopologySpreadConstraint) {
		honour := corev1.NodeInclusionPolicyHonor
		c.NodeTaintsPolicy = &honour
	}
	inA := aPod("o", web, on("a1"))
	for name, c := range map[string]situation{
		"into the emptier zone":    {nodes: three, pods: []*corev1.Pod{inA}, pod: aPod("p", web, spreads("web", zone, 1)), want: "b1"},
		"others do not count":      {nodes: three[:1], pods: []*corev1.Pod{inA}, pod: aPod("p", web, spreads("db", zone, 1)), want: "a1"},
		"ending pods do not count": {nodes: three[:1], pods: []*corev1.Pod{aPod("o", web, on("a1"), terminating)}, pod: aPod("p", web, spreads("web", zone, 1, minDomains(2))), want: "a1"},
		"too few domains": {
			nodes: three[:1], pods: []*corev1.Pod{inA}, pod: aPod("p", web, spreads("web", zone, 1, minDomains(2))),
			refusal: "0/1 nodes fit: 1 more pods than spreading over topology.kubernetes.io/zone allows",
		},
		"no label": {
			nodes: three[2:], pod: aPod("p", web, spreads("web", zone, 1)),
			refusal: "0/1 nodes fit: 1 no label topology.kubernetes.io/zone to spread over",
		},
		"over nodes": {
			nodes: nodes(aNode("a1"), aNode("b1")), pods: []*corev1.Pod{inA}, pod: aPod("p", web, spreads("web", hostname, 1)), want: "b1",
		},
		"a node that affinity leaves out is no domain": {
			nodes: nodes(aNode("a1", inZone("a"), nodeLabel("disk", "ssd")), aNode("b1", inZone("b"))), pods: []*corev1.Pod{inA},
			pod: aPod("p", web, selects("disk", "ssd"), spreads("web", zone, 1)), want: "a1",
		},
		"a tainted node is a domain": {
			nodes: nodes(aNode("a1", inZone("a")), aNode("b1", inZone("b"), tainted("x", corev1.TaintEffectNoSchedule))), pods: []*corev1.Pod{inA},
			pod:     aPod("p", web, spreads("web", zone, 1)),
			refusal: "0/2 nodes fit: 1 more pods than spreading over topology.kubernetes.io/zone allows, 1 untolerated taint {x=true:NoSchedule}",
		},
		"a tainted node is no domain where taints are honoured": {
			nodes: nodes(aNode("a1", inZone("a")), aNode("b1", inZone("b"), tainted("x", corev1.TaintEffectNoSchedule))), pods: []*corev1.Pod{inA},
			pod: aPod("p", web, spreads("web", zone, 1, honourTaints)), want: "a1",
		},
	} {
		t.Run(name, c.run)
	}
}

func TestPodAffinity(t *testing.T) {
	two := nodes(aNode("a1", inZone("a")), aNode("b1", inZone("b")))
	web := labelled("app", "web")
	for name, c := range map[string]situation{
		"near": {nodes: two, pods: []*corev1.Pod{aPod("o", web, on("b1"))}, pod: aPod("p", near("web", zone)), want: "b1"},
		"nobody to be near": {
			nodes: two, pod: aPod("p", near("web", zone)), refusal: "0/2 nodes fit: 2 pod affinity: no such pod in the same topology.kubernetes.io/zone",
		},
		"the first of its kind": {nodes: two[:1], pod: aPod("p", web, near("web", zone)), want: "a1"},
		"away":                  {nodes: two, pods: []*corev1.Pod{aPod("o", web, on("a1"))}, pod: aPod("p", awayFrom("web", zone)), want: "b1"},
		"away, by node":         {nodes: two, pods: []*corev1.Pod{aPod("o", web, on("a1"))}, pod: aPod("p", awayFrom("web", hostname)), want: "b1"},
		"nowhere to go": {
			nodes: two[:1], pods: []*corev1.Pod{aPod("o", web, on("a1"))}, pod: aPod("p", awayFrom("web", zone)),
			refusal: "0/1 nodes fit: 1 pod anti-affinity: such a pod in the same topology.kubernetes.io/zone",
		},
		"repelled by a pod in place": {nodes: two, pods: []*corev1.Pod{aPod("o", awayFrom("web", zone), on("a1"))}, pod: aPod("p", web), want: "b1"},
		"repelled everywhere": {
			nodes: two[:1], pods: []*corev1.Pod{aPod("o", awayFrom("web", hostname), on("a1"))}, pod: aPod("p", web),
			refusal: "0/1 nodes fit: 1 anti-affinity of a pod in the same kubernetes.io/hostname",
		},
	} {
		t.Run(name, c.run)
	}
}

func TestTheReasonDoesNotDependOnWhoCameFirst(t *testing.T) {
	byZone, byDisk := aPod("z", awayFrom("web", zone), on("a1")), aPod("d", awayFrom("web", "disk"), on("a1"))
	for name, pods := range map[string][]*corev1.Pod{"zone first": {byZone, byDisk}, "disk first": {byDisk, byZone}} {
		t.Run(name, situation{
			nodes: nodes(aNode("a1", inZone("a"), nodeLabel("disk", "fast"))), pods: pods, pod: aPod("p", labelled("app", "web")),
			refusal: "0/1 nodes fit: 1 anti-affinity of a pod in the same disk",
		}.run)
	}
}

func TestNamespaceSelectorOfPodAffinity(t *testing.T) {
	s := cluster(nodes(aNode("a"), aNode("b")), aPod("o", labelled("app", "web"), on("b"), func(p *corev1.Pod) { p.Namespace = "blue" }))
	p := aPod("p", near("web", hostname))
	p.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}}
	wantNode(t, s, read(p), "")
	s.SetNamespace("blue", map[string]string{"team": "x"})
	wantNode(t, s, read(p), "b")
	s.DeleteNamespace("blue")
	wantNode(t, s, read(p), "")
}

func TestVolumes(t *testing.T) {
	s := cluster(nodes(aNode("a", inZone("a")), aNode("b", inZone("b"))))
	inB := &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: zone, Operator: corev1.NodeSelectorOpIn, Values: []string{"b"}}},
	}}}
	wantNode(t, s, scheduler.NewPod(aPod("p"), scheduler.PodOptions{Volumes: []*corev1.NodeSelector{inB}}), "b")

	local := &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: hostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}},
	}}}
	wantNode(t, s, scheduler.NewPod(aPod("p"), scheduler.PodOptions{Volumes: []*corev1.NodeSelector{local}}), "a")

	nowhere := scheduler.NewPod(aPod("p"), scheduler.PodOptions{Volumes: []*corev1.NodeSelector{local, inB}})
	wantNode(t, s, nowhere, "")
	if got, want := s.Explain(nowhere, scheduler.How{}).String(), "0/2 nodes fit: 2 a volume cannot be reached"; got != want {
		t.Errorf("refusal: got %s, want %s", got, want)
	}

	unbound := scheduler.NewPod(aPod("p"), scheduler.PodOptions{Problem: "claim data is not bound"})
	wantNode(t, s, unbound, "")
	if got, want := s.Explain(unbound, scheduler.How{}).String(), "no node is tried: claim data is not bound"; got != want {
		t.Errorf("refusal: got %s, want %s", got, want)
	}
}

func TestResourceClaimsAreLeftToOthers(t *testing.T) {
	s := cluster(nodes(aNode("a")))
	wantNode(t, s, read(aPod("p", func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}} })), "")
}
