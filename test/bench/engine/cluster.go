package main

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var zones = []string{"eu-1a", "eu-1b", "eu-1c"}

// machine is a type of node: thousandths of a CPU and bytes.
type machine struct {
	name   string
	cpu    int64
	memory int64
}

var machines = []machine{
	{"m.xlarge", 4000, 16 << 30}, {"m.2xlarge", 8000, 32 << 30}, {"m.4xlarge", 16000, 64 << 30}, {"c.4xlarge", 16000, 32 << 30},
}

const apps = 1000

// world makes the objects of the benchmark. The same seed makes the same.
type world struct {
	random *rand.Rand
	made   int
}

func newWorld(seed uint64) *world {
	return &world{random: rand.New(rand.NewPCG(seed, seed))} //nolint:gosec // to be the same every time
}

// node is of one of 36 kinds: 3 zones, 4 machines, and 3 pools, one of them tainted and one for the system.
func (w *world) node(i int) *corev1.Node {
	m := machines[i/len(zones)%len(machines)]
	name := fmt.Sprintf("ip-10-%d-%d.eu-1.compute.internal", i/250, i%250)
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: zones[i%len(zones)], corev1.LabelTopologyRegion: "eu-1",
			corev1.LabelInstanceTypeStable: m.name, corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux",
			"alpha.eksctl.io/instance-id": fmt.Sprintf("i-%08x", i), "workload-type": "application",
		}},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{
				corev1.ResourceCPU:    *resource.NewMilliQuantity(m.cpu, resource.DecimalSI),
				corev1.ResourceMemory: *resource.NewQuantity(m.memory, resource.BinarySI),
				corev1.ResourcePods:   *resource.NewQuantity(110, resource.DecimalSI),
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
	switch i % 20 {
	case 0:
		n.Labels["node-role"] = "system"
	case 1, 2:
		n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "state", Effect: corev1.TaintEffectNoSchedule}}
	}
	return n
}

// plain asks for CPU and memory, as most pods of a cluster.
func (w *world) plain() *corev1.Pod {
	w.made++
	name := fmt.Sprintf("pod-%07d", w.made)
	app := w.random.IntN(apps)
	cpu, memory := int64(1+w.random.IntN(15))*100, int64(1+w.random.IntN(24))<<27
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: fmt.Sprintf("team-%02d", app%50), Name: name, UID: types.UID(name),
			Labels: map[string]string{"app": fmt.Sprintf("app-%03d", app), "pod-template-hash": "5f6d8c", "managed-by": "helm"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{
				corev1.ResourceCPU:    *resource.NewMilliQuantity(cpu, resource.DecimalSI),
				corev1.ResourceMemory: *resource.NewQuantity(memory, resource.BinarySI),
			},
		}}}},
	}
}

// constrained is a processor's pod: its selector, not on system nodes, and each of the following for a part of them:
// a toleration, spreading over zones, spreading over nodes, anti-affinity.
func (w *world) constrained() *corev1.Pod {
	p := w.plain()
	p.Spec.NodeSelector = map[string]string{"workload-type": "application"}
	p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "node-role", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"system"}}},
		}}},
	}}
	if w.random.IntN(4) == 0 {
		p.Spec.Tolerations = []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpExists}}
	}
	mine := &metav1.LabelSelector{MatchLabels: map[string]string{"app": p.Labels["app"]}}
	switch w.random.IntN(4) {
	case 0, 1:
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{spreadOver(corev1.LabelTopologyZone, mine)}
	case 2:
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{
			spreadOver(corev1.LabelTopologyZone, mine), spreadOver(corev1.LabelHostname, mine),
		}
	default:
		p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{LabelSelector: mine, TopologyKey: corev1.LabelHostname},
		}}
	}
	return p
}

func spreadOver(key string, selector *metav1.LabelSelector) corev1.TopologySpreadConstraint {
	return corev1.TopologySpreadConstraint{
		MaxSkew: 5, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector,
	}
}
