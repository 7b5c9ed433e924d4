package scheduler

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// node is what is known of a node and of the pods on it.
type node struct {
	owner *owner
	name  string
	// facts are nil while only pods are known that say they run here.
	facts *facts
	// class is the number of the node's index; noClass without facts.
	class int

	used     amounts
	extended map[corev1.ResourceName]int64
	// pods are in no particular order.
	pods []*Pod
	// ports that pods on the node have taken.
	ports []hostPort
}

const noClass = -1

// facts are what the node itself says. They do not change; a new report makes new ones.
type facts struct {
	uid         string
	labels      map[string]string
	taints      []corev1.Taint
	allocatable amounts
	extended    map[corev1.ResourceName]int64
	slots       int64   // how many pods may run
	free        amounts // of allocatable, without the buffer
	// outOfService is why nothing may come here that no toleration helps against.
	outOfService string
	// object is what selectors of the API are matched with.
	object *corev1.Node
}

// impliedTaints are those that Kubernetes puts on a node for a condition, some seconds after it. They count at once.
var impliedTaints = []struct {
	condition corev1.NodeConditionType
	key       string
}{
	{corev1.NodeMemoryPressure, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.TaintNodeDiskPressure},
	{corev1.NodePIDPressure, corev1.TaintNodePIDPressure},
	{corev1.NodeNetworkUnavailable, corev1.TaintNodeNetworkUnavailable},
}

func newFacts(n *corev1.Node, bufferPercent int32) *facts {
	f := &facts{
		uid: string(n.UID), labels: n.Labels, taints: taintsOf(n), outOfService: outOfService(n),
		object: &corev1.Node{},
	}
	f.object.Name, f.object.Labels = n.Name, n.Labels
	// An amount that cannot be is taken for none or the most, which is what the error is about.
	allocatable, err := requestOf(n.Status.Allocatable)
	_ = err
	f.allocatable = allocatable.amounts
	if len(allocatable.extended) > 0 {
		f.extended = make(map[corev1.ResourceName]int64, len(allocatable.extended))
	}
	for _, e := range allocatable.extended {
		f.extended[e.name] = e.amount
	}
	f.slots, err = bounded(corev1.ResourcePods, n.Status.Allocatable[corev1.ResourcePods])
	_ = err
	f.free = amounts{
		cpu:     f.allocatable.cpu - keptFree(f.allocatable.cpu, bufferPercent),
		memory:  f.allocatable.memory - keptFree(f.allocatable.memory, bufferPercent),
		storage: f.allocatable.storage,
	}
	return f
}

// taintsOf are the taints that keep pods out, with those that the node's state implies, in the order of their text.
func taintsOf(n *corev1.Node) []corev1.Taint {
	var taints []corev1.Taint
	for _, taint := range n.Spec.Taints {
		taints = append(taints, corev1.Taint{Key: taint.Key, Value: taint.Value, Effect: taint.Effect})
	}
	imply := func(key string) {
		implied := corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule}
		if !slices.Contains(taints, implied) {
			taints = append(taints, implied)
		}
	}
	if n.Spec.Unschedulable {
		imply(corev1.TaintNodeUnschedulable)
	}
	for _, implied := range impliedTaints {
		if condition(n, implied.condition) == corev1.ConditionTrue {
			imply(implied.key)
		}
	}
	slices.SortFunc(taints, func(a, b corev1.Taint) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value), cmp.Compare(a.Effect, b.Effect))
	})
	return taints
}

// condition is empty where a node does not report it.
func condition(n *corev1.Node, kind corev1.NodeConditionType) corev1.ConditionStatus {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == kind {
			return n.Status.Conditions[i].Status
		}
	}
	return ""
}

func outOfService(n *corev1.Node) string {
	switch {
	case n.DeletionTimestamp != nil:
		return "being deleted"
	case condition(n, corev1.NodeReady) != corev1.ConditionTrue:
		return "not ready"
	default:
		return ""
	}
}

func (f *facts) equal(other *facts) bool {
	return f.uid == other.uid && f.outOfService == other.outOfService && f.sameCapacity(other) &&
		maps.Equal(f.labels, other.labels) && slices.Equal(f.taints, other.taints)
}

func (f *facts) sameCapacity(other *facts) bool {
	return f.allocatable == other.allocatable && f.slots == other.slots && maps.Equal(f.extended, other.extended)
}

// ownedBy is the node, or a clone that o may change.
func (n *node) ownedBy(o *owner) *node {
	if n.owner == o {
		return n
	}
	clone := *n
	clone.owner = o
	clone.extended = maps.Clone(n.extended)
	clone.pods = slices.Clone(n.pods)
	clone.ports = slices.Clone(n.ports)
	return &clone
}

func (n *node) entry() entry {
	free := n.facts.free.minus(n.used)
	return entry{
		fullness: fullness(n.used, n.facts.allocatable),
		room:     room{cpu: free.cpu, memory: free.memory, pods: n.facts.slots - int64(len(n.pods))},
		node:     n,
	}
}

func (n *node) place() place {
	return place{fullness: fullness(n.used, n.facts.allocatable), name: n.name}
}

func (n *node) add(p *Pod) {
	n.pods = append(n.pods, p)
	n.used = n.used.plus(p.request.amounts)
	n.ports = append(n.ports, p.ports...)
	for _, e := range p.request.extended {
		if n.extended == nil {
			n.extended = map[corev1.ResourceName]int64{}
		}
		n.extended[e.name] += e.amount
	}
}

func (n *node) drop(p *Pod) {
	n.pods = without(n.pods, p)
	n.used = n.used.minus(p.request.amounts)
	for _, port := range p.ports {
		i := slices.Index(n.ports, port)
		n.ports = slices.Delete(n.ports, i, i+1)
	}
	for _, e := range p.request.extended {
		if n.extended[e.name] -= e.amount; n.extended[e.name] == 0 {
			delete(n.extended, e.name)
		}
	}
}

// lacks names the resources of which too little is left. What is not asked for is not lacking, even where too much of
// it is given away already.
func (n *node) lacks(p *Pod, buffer bool) []corev1.ResourceName {
	var lacking []corev1.ResourceName
	if int64(len(n.pods)) >= n.facts.slots {
		lacking = append(lacking, corev1.ResourcePods)
	}
	free := n.facts.allocatable
	if buffer {
		free = n.facts.free
	}
	free = free.minus(n.used)
	for _, r := range []struct {
		name       corev1.ResourceName
		need, free int64
	}{
		{corev1.ResourceCPU, p.request.cpu, free.cpu},
		{corev1.ResourceMemory, p.request.memory, free.memory},
		{corev1.ResourceEphemeralStorage, p.request.storage, free.storage},
	} {
		if r.need > 0 && r.need > r.free {
			lacking = append(lacking, r.name)
		}
	}
	for _, e := range p.request.extended {
		if e.amount > n.facts.extended[e.name]-n.extended[e.name] {
			lacking = append(lacking, e.name)
		}
	}
	return lacking
}

// takenPort is a port that the pod wants and another has.
func (n *node) takenPort(p *Pod) (hostPort, bool) {
	for _, wanted := range p.ports {
		if slices.ContainsFunc(n.ports, wanted.conflicts) {
			return wanted, true
		}
	}
	return hostPort{}, false
}
