package drain

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// leave says that a node is being left, and by which sign.
type leave struct {
	// why is the sign; empty where the node stays.
	why string
	// announced says that the node goes whether or not anybody evicts.
	announced bool
}

func (l leave) yes() bool { return l.why != "" }

// goodbyes are the taints of a node that is about to be removed.
var goodbyes = []string{
	"ToBeDeletedByClusterAutoscaler",
	"karpenter.sh/disrupted",
	"karpenter.sh/disruption", // Karpenter before v1.
	corev1.TaintNodeOutOfService,
}

// shuttingDown is in the message of the Ready condition while the kubelet ends the node's pods.
const shuttingDown = "node is shutting down"

// leaving reads off the node whether the processor's instance on it has to leave. A node that does not exist is left to
// those who prove that its pods ended. With proactive, a taint by which the processor would not be put there counts too.
func leaving(node *corev1.Node, p *doryv1alpha1.Processor, proactive bool) leave {
	if node == nil {
		return leave{}
	}
	for _, taint := range node.Spec.Taints {
		if slices.Contains(goodbyes, taint.Key) {
			return leave{"it has the taint " + taint.Key, true}
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue && strings.Contains(condition.Message, shuttingDown) {
			return leave{"it is shutting down", true}
		}
	}
	if node.Spec.Unschedulable {
		return leave{why: "it is cordoned"}
	}
	if taint := unwelcome(node, p, proactive); taint != nil {
		return leave{why: fmt.Sprintf("it has the taint %s, which the processor does not tolerate", taint.ToString())}
	}
	return leave{}
}

// unwelcome is a taint by which somebody wants processors like this one off the node. Kubernetes' own taints tell of the
// node's health, and pass.
func unwelcome(node *corev1.Node, p *doryv1alpha1.Processor, proactive bool) *corev1.Taint {
	theirs := func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule && !strings.Contains(t.Key, "node.kubernetes.io/") && !strings.Contains(t.Key, "node.cloudprovider.kubernetes.io/")
	}
	if !proactive || p == nil || !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return theirs(&t) }) {
		return nil
	}
	instance, err := pod.Build(pod.Input{Processor: p})
	if err != nil {
		return nil // Lifecycle says what is wrong with the spec.
	}
	taint, untolerated := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, instance.Spec.Tolerations, theirs, true)
	if !untolerated {
		return nil
	}
	return &taint
}
