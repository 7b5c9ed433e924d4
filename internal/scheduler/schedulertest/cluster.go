// Package schedulertest draws clusters, and pods that ask for everything that a scheduler knows, for property tests.
package schedulertest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// Namespaces that pods are drawn in.
var Namespaces = []string{"blue", "green"}

// GPU is the extended resource of some nodes.
const GPU = corev1.ResourceName("example.com/gpu")

var (
	zones  = []string{"a", "b", "c"}
	disks  = []string{"ssd", "hdd"}
	apps   = []string{"web", "db", "cache"}
	taints = []corev1.Taint{
		{Key: "gpu", Value: "yes", Effect: corev1.TaintEffectNoSchedule},
		{Key: "old", Effect: corev1.TaintEffectNoExecute},
		{Key: "spare", Value: "yes", Effect: corev1.TaintEffectPreferNoSchedule},
	}
	topologies = []string{corev1.LabelTopologyZone, corev1.LabelHostname, "disk"}
)

// NodeName of the i-th node.
func NodeName(i int) string { return fmt.Sprintf("node-%02d", i) }

// Node draws a node. Few are anything but ready.
func Node(t *rapid.T, name string) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU:              *resource.NewMilliQuantity(int64(rapid.SampledFrom([]int{1000, 2000, 4000}).Draw(t, "cpu")), resource.DecimalSI),
			corev1.ResourceMemory:           *resource.NewQuantity(int64(rapid.IntRange(1, 4).Draw(t, "GiB"))<<30, resource.BinarySI),
			corev1.ResourceEphemeralStorage: resource.MustParse("10Gi"),
			corev1.ResourcePods:             *resource.NewQuantity(int64(rapid.SampledFrom([]int{3, 110}).Draw(t, "slots")), resource.DecimalSI),
		}},
	}
	label(t, n.Labels, corev1.LabelTopologyZone, zones, 9)
	label(t, n.Labels, "disk", disks, 7)
	label(t, n.Labels, corev1.LabelHostname, []string{name}, 9)
	if chance(t, "gpu", 2) {
		n.Status.Allocatable[GPU] = resource.MustParse("2")
	}
	for _, taint := range taints {
		if chance(t, "taint", 1) {
			n.Spec.Taints = append(n.Spec.Taints, taint)
		}
	}
	n.Spec.Unschedulable = chance(t, "cordoned", 1)
	ready := corev1.ConditionTrue
	if chance(t, "not ready", 1) && chance(t, "really", 3) {
		ready = corev1.ConditionFalse
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	return n
}

// chance is out of ten.
func chance(t *rapid.T, what string, ofTen int) bool {
	return rapid.IntRange(0, 9).Draw(t, what) >= 10-ofTen
}

func label(t *rapid.T, labels map[string]string, key string, values []string, ofTen int) {
	if chance(t, "has "+key, ofTen) {
		labels[key] = rapid.SampledFrom(values).Draw(t, key)
	}
}

// Pod draws a pod that waits.
func Pod(t *rapid.T, name string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: rapid.SampledFrom(Namespaces).Draw(t, "namespace"), UID: types.UID(name),
			Labels: map[string]string{"app": rapid.SampledFrom(apps).Draw(t, "app")},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "image"}}},
	}
	label(t, p.Labels, "tier", []string{"front", "back"}, 5)
	requests(t, p)
	ports(t, p)
	nodeAffinity(t, p)
	podAffinity(t, p)
	spread(t, p)
	if chance(t, "priority", 3) {
		priority := int32(rapid.IntRange(-1, 2).Draw(t, "priority"))
		p.Spec.Priority = &priority
	}
	return p
}

func requests(t *rapid.T, p *corev1.Pod) {
	list := func() corev1.ResourceList {
		list := corev1.ResourceList{}
		if chance(t, "asks for cpu", 8) {
			list[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(rapid.IntRange(0, 15).Draw(t, "cpu")*100), resource.DecimalSI)
		}
		if chance(t, "asks for memory", 8) {
			list[corev1.ResourceMemory] = *resource.NewQuantity(int64(rapid.IntRange(0, 12).Draw(t, "memory"))<<27, resource.BinarySI)
		}
		if chance(t, "asks for storage", 1) {
			list[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(int64(rapid.IntRange(1, 6).Draw(t, "storage"))<<30, resource.BinarySI)
		}
		return list
	}
	p.Spec.Containers[0].Resources.Requests = list()
	if chance(t, "asks for a GPU", 1) {
		p.Spec.Containers[0].Resources.Requests[GPU] = resource.MustParse("1")
	}
	if chance(t, "init container", 2) {
		init := corev1.Container{Name: "init", Resources: corev1.ResourceRequirements{Requests: list()}}
		if chance(t, "sidecar", 5) {
			always := corev1.ContainerRestartPolicyAlways
			init.RestartPolicy = &always
		}
		p.Spec.InitContainers = []corev1.Container{init}
	}
	if chance(t, "overhead", 1) {
		p.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")}
	}
	if chance(t, "resources of the pod", 1) {
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}
	}
}

func ports(t *rapid.T, p *corev1.Pod) {
	if !chance(t, "host port", 2) {
		return
	}
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{
		HostPort: int32(rapid.IntRange(80, 81).Draw(t, "port")),
		HostIP:   rapid.SampledFrom([]string{"", "0.0.0.0", "10.0.0.1", "10.0.0.2"}).Draw(t, "host IP"),
		Protocol: rapid.SampledFrom([]corev1.Protocol{"", corev1.ProtocolTCP, corev1.ProtocolUDP}).Draw(t, "protocol"),
	}}
}

func nodeAffinity(t *rapid.T, p *corev1.Pod) {
	if chance(t, "node selector", 2) {
		p.Spec.NodeSelector = map[string]string{"disk": rapid.SampledFrom(disks).Draw(t, "disk")}
	}
	for _, taint := range taints {
		if chance(t, "tolerates", 2) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, toleration(t, taint))
		}
	}
	if chance(t, "tolerates a cordon", 1) {
		p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists})
	}
	affinity := &corev1.NodeAffinity{}
	if chance(t, "required node affinity", 3) {
		terms := []corev1.NodeSelectorTerm{nodeTerm(t)}
		if chance(t, "alternative", 3) {
			terms = append(terms, nodeTerm(t))
		}
		affinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: terms}
	}
	if chance(t, "preferred node affinity", 2) {
		affinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.PreferredSchedulingTerm{{
			Weight: int32(rapid.IntRange(1, 100).Draw(t, "weight")), Preference: nodeTerm(t),
		}}
	}
	if affinity.RequiredDuringSchedulingIgnoredDuringExecution != nil || affinity.PreferredDuringSchedulingIgnoredDuringExecution != nil {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: affinity}
	}
}

func toleration(t *rapid.T, taint corev1.Taint) corev1.Toleration {
	tolerated := corev1.Toleration{Key: taint.Key, Operator: corev1.TolerationOpExists}
	if chance(t, "by value", 3) {
		tolerated.Operator, tolerated.Value = corev1.TolerationOpEqual, taint.Value
	}
	if chance(t, "by effect", 3) {
		tolerated.Effect = taint.Effect
	}
	return tolerated
}

func nodeTerm(t *rapid.T) corev1.NodeSelectorTerm {
	if chance(t, "by name", 3) {
		operator := rapid.SampledFrom([]corev1.NodeSelectorOperator{corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn}).Draw(t, "operator")
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{
			Key: "metadata.name", Operator: operator, Values: []string{NodeName(rapid.IntRange(0, 5).Draw(t, "node"))},
		}}}
	}
	requirement := rapid.SampledFrom([]corev1.NodeSelectorRequirement{
		{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"a", "b"}},
		{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpNotIn, Values: []string{"c"}},
		{Key: "disk", Operator: corev1.NodeSelectorOpExists},
		{Key: "disk", Operator: corev1.NodeSelectorOpDoesNotExist},
		{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpNotIn, Values: []string{NodeName(0), NodeName(1)}},
		{Key: "generation", Operator: corev1.NodeSelectorOpGt, Values: []string{"2"}},
	}).Draw(t, "requirement")
	return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{requirement}}
}

func podAffinity(t *rapid.T, p *corev1.Pod) {
	affine, repelled := chance(t, "pod affinity", 1), chance(t, "pod anti-affinity", 2)
	if !affine && !repelled {
		return
	}
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if affine {
		terms := []corev1.PodAffinityTerm{podTerm(t)}
		if chance(t, "second term", 3) {
			terms = append(terms, podTerm(t))
		}
		p.Spec.Affinity.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}
	}
	if repelled {
		p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{podTerm(t)}}
	}
}

func podTerm(t *rapid.T) corev1.PodAffinityTerm {
	term := corev1.PodAffinityTerm{TopologyKey: rapid.SampledFrom(topologies).Draw(t, "topology"), LabelSelector: selector(t)}
	switch {
	case chance(t, "other namespaces", 2):
		term.Namespaces = Namespaces
	case chance(t, "namespaces by label", 2):
		term.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"colour": Namespaces[0]}}
	case chance(t, "all namespaces", 1):
		term.NamespaceSelector = &metav1.LabelSelector{}
	}
	return term
}

func selector(t *rapid.T) *metav1.LabelSelector {
	return rapid.SampledFrom([]*metav1.LabelSelector{
		{MatchLabels: map[string]string{"app": "web"}},
		{MatchLabels: map[string]string{"app": "db"}},
		{MatchLabels: map[string]string{"app": "web", "tier": "front"}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"web", "cache"}}}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: metav1.LabelSelectorOpDoesNotExist}}},
		{},
		nil,
	}).Draw(t, "selector")
}

func spread(t *rapid.T, p *corev1.Pod) {
	for range rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 1, 1, 2}).Draw(t, "constraints") {
		c := corev1.TopologySpreadConstraint{
			MaxSkew: int32(rapid.IntRange(1, 2).Draw(t, "skew")), TopologyKey: rapid.SampledFrom(topologies).Draw(t, "topology"),
			WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector(t),
		}
		if chance(t, "softly", 1) {
			c.WhenUnsatisfiable = corev1.ScheduleAnyway
		}
		if chance(t, "domains", 2) {
			domains := int32(rapid.IntRange(1, 4).Draw(t, "domains"))
			c.MinDomains = &domains
		}
		c.NodeAffinityPolicy, c.NodeTaintsPolicy = policy(t), policy(t)
		if chance(t, "label keys", 1) {
			c.MatchLabelKeys = []string{"tier"}
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
	}
}

func policy(t *rapid.T) *corev1.NodeInclusionPolicy {
	ignore, honour := corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor
	return rapid.SampledFrom([]*corev1.NodeInclusionPolicy{nil, nil, &ignore, &honour}).Draw(t, "policy")
}
