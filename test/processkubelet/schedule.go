package processkubelet

import (
	"cmp"
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	corev1listers "k8s.io/client-go/listers/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/klog/v2"
)

// schedule binds pods whenever something has changed.
func (k *Kubelet) schedule(nodes corev1listers.NodeLister) {
	bound := assumed{} // The cache may be late.
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-k.wake:
		}
		pods, err := k.pods.List(labels.Everything())
		all, nodesErr := nodes.List(labels.Everything())
		if err != nil || nodesErr != nil {
			continue // A cache answers no errors.
		}
		waiting := slices.DeleteFunc(slices.Clone(pods), func(pod *corev1.Pod) bool {
			return pod.Spec.NodeName != "" || pod.DeletionTimestamp != nil || ended(pod) || bound[pod.UID] != ""
		})
		slices.SortFunc(waiting, func(a, b *corev1.Pod) int {
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
		for _, pod := range waiting {
			node := choose(pod, all, pods, bound)
			if node == "" {
				k.unschedulable(pod)
				continue
			}
			if k.sleep(k.delay().Bind) == nil && k.bind(pod, node) {
				bound[pod.UID] = node
			}
		}
	}
}

// assumed is where pods were bound to, which may not be seen yet.
type assumed map[types.UID]string

func (a assumed) node(pod *corev1.Pod) string { return cmp.Or(pod.Spec.NodeName, a[pod.UID]) }

func (k *Kubelet) bind(pod *corev1.Pod, node string) bool {
	err := k.client.CoreV1().Pods(pod.Namespace).Bind(k.ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if ignoreGone(err) == nil {
		return true // Bound, or gone, or another's by now.
	}
	k.again()
	return false
}

// again looks a little later: the API server was not there.
func (k *Kubelet) again() {
	k.wg.Go(func() {
		if k.sleep(retryDelay) == nil {
			k.wakeScheduler()
		}
	})
}

func (k *Kubelet) unschedulable(pod *corev1.Pod) {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonUnschedulable {
			return
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "no node fits",
			LastTransitionTime: metav1.Now(),
		}}},
	})
	if err != nil {
		panic(err) // Nothing in it can fail.
	}
	if err := k.patchStatus(k.ctx, pod, patch); ignoreGone(err) != nil {
		k.again()
	}
}

// choose answers a node that the pod fits on: one that it prefers, then one with few pods, then the first by name.
func choose(pod *corev1.Pod, nodes []*corev1.Node, pods []*corev1.Pod, bound assumed) string {
	load, used := map[string]int{}, map[string]*resource.Quantity{}
	for _, other := range pods {
		name := bound.node(other)
		load[name]++
		if used[name] == nil {
			used[name] = &resource.Quantity{}
		}
		if !ended(other) {
			used[name].Add(cpu(other))
		}
	}
	nodes = slices.DeleteFunc(slices.Clone(nodes), func(node *corev1.Node) bool { return !fits(pod, node) || !holds(node, used[node.Name], cpu(pod)) })
	if len(nodes) == 0 {
		return ""
	}
	return slices.MinFunc(nodes, func(a, b *corev1.Node) int {
		return cmp.Or(cmp.Compare(preference(pod, b), preference(pod, a)), cmp.Compare(load[a.Name], load[b.Name]), cmp.Compare(a.Name, b.Name))
	}).Name
}

func fits(pod *corev1.Pod, node *corev1.Node) bool {
	if node.Spec.Unschedulable || node.DeletionTimestamp != nil || !isReady(node) {
		return false
	}
	if !labels.SelectorFromSet(pod.Spec.NodeSelector).Matches(labels.Set(node.Labels)) || !tolerates(pod, node) {
		return false
	}
	affinity := nodeAffinity(pod)
	if affinity == nil || affinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	return slices.ContainsFunc(affinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, func(term corev1.NodeSelectorTerm) bool {
		return matches(term, node)
	})
}

// holds says whether the node has as much processor time left. Of all resources, it is the one that tests run out of.
func holds(node *corev1.Node, used *resource.Quantity, wanted resource.Quantity) bool {
	if used != nil {
		wanted.Add(*used)
	}
	return wanted.Cmp(*node.Status.Allocatable.Cpu()) <= 0
}

func cpu(pod *corev1.Pod) resource.Quantity {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})[corev1.ResourceCPU]
}

func isReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func tolerates(pod *corev1.Pod, node *corev1.Node) bool {
	for i := range node.Spec.Taints {
		taint := &node.Spec.Taints[i]
		if taint.Effect == corev1.TaintEffectPreferNoSchedule {
			continue
		}
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.ToleratesTaint(klog.Background(), taint, false) }) {
			return false
		}
	}
	return true
}

func nodeAffinity(pod *corev1.Pod) *corev1.NodeAffinity {
	if pod.Spec.Affinity == nil {
		return nil
	}
	return pod.Spec.Affinity.NodeAffinity
}

func preference(pod *corev1.Pod, node *corev1.Node) int32 {
	affinity := nodeAffinity(pod)
	if affinity == nil {
		return 0
	}
	var sum int32
	for _, term := range affinity.PreferredDuringSchedulingIgnoredDuringExecution {
		if matches(term.Preference, node) {
			sum += term.Weight
		}
	}
	return sum
}

var operators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
	corev1.NodeSelectorOpExists: selection.Exists, corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
}

// matches says whether all of the term is true of the node. An empty term matches nothing.
func matches(term corev1.NodeSelectorTerm, node *corev1.Node) bool {
	if len(term.MatchExpressions)+len(term.MatchFields) == 0 {
		return false
	}
	for _, field := range term.MatchFields { // The API knows metadata.name alone.
		if slices.Contains(field.Values, node.Name) != (field.Operator == corev1.NodeSelectorOpIn) {
			return false
		}
	}
	for _, expression := range term.MatchExpressions {
		requirement, err := labels.NewRequirement(expression.Key, operators[expression.Operator], expression.Values)
		if err != nil || !requirement.Matches(labels.Set(node.Labels)) {
			return false
		}
	}
	return true
}
