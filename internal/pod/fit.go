package pod

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// Excluded says why the node can never take the pod as both are: by the pod's node selector, its affinity to nodes, its
// tolerations, or the node that it names. It is empty where nothing of this is in the way; whether there is room is the
// scheduler's to say, and a cordon or trouble of the node passes.
func Excluded(p *corev1.Pod, node *corev1.Node) string {
	if named := p.Spec.NodeName; named != "" && named != node.Name {
		return fmt.Sprintf("node %s is not node %s, which spec.podTemplate names in nodeName", node.Name, named)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Spec.NodeSelector)) {
		if value, has := node.Labels[key]; !has || value != p.Spec.NodeSelector[key] {
			return fmt.Sprintf("node %s has no label %s=%s", node.Name, key, p.Spec.NodeSelector[key])
		}
	}
	if matches, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(node); err != nil {
		return fmt.Sprintf("the affinity to nodes cannot be read: %v", err)
	} else if !matches {
		return fmt.Sprintf("node %s does not match the pod's required affinity to nodes", node.Name)
	}
	if taint, found := untolerated(p, node, lasts); found {
		return fmt.Sprintf("node %s has the taint %s, which the pod does not tolerate", node.Name, taint.ToString())
	}
	return ""
}

// Tolerates says whether no taint of the node keeps the pod out now, those that come and go with the node's condition included.
func Tolerates(p *corev1.Pod, node *corev1.Node) bool {
	_, found := untolerated(p, node, keepsOut)
	return !found
}

func untolerated(p *corev1.Pod, node *corev1.Node, counts func(*corev1.Taint) bool) (corev1.Taint, bool) {
	return corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, p.Spec.Tolerations, counts, true)
}

func keepsOut(t *corev1.Taint) bool {
	return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
}

// lasts leaves out the taints that Kubernetes itself sets and takes away, such as a cordon's: a move waits for that.
func lasts(t *corev1.Taint) bool {
	return keepsOut(t) && !strings.HasPrefix(t.Key, "node.kubernetes.io/")
}
