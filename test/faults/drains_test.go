package faults

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// reserved is the taint of the nodes that are drained here, on which nothing else runs, and their label.
const reserved = "drained.test"

// leaving is how Karpenter says that a node is about to go.
var leaving = corev1.Taint{Key: "karpenter.sh/disrupted", Effect: corev1.TaintEffectNoSchedule}

var reservation = corev1.Taint{Key: reserved, Effect: corev1.TaintEffectNoSchedule}

// reservedNodes are those of all processors but one.
var reservedNodes = []string{"drained-0", "drained-1"}

// datedNodes are those of dated, so that a drain that another processor's moves come of moves only that one: an operator dies at the
// step of whichever move comes to it first.
var datedNodes = []string{"drained-2", "drained-3"}

// welcomeAll takes from them what is left of earlier drains.
func (w *world) welcomeAll() {
	w.Helper()
	for _, node := range reservedNodes {
		w.taint(node)
	}
}

// onReserved lets a processor run on the nodes that are drained, and on no others.
func onReserved(p *doryv1alpha1.Processor) {
	whose := "true"
	if p.Name == dated {
		whose = dated
	}
	p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{NodeSelector: map[string]string{reserved: whose}}
	p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{
		Raw: fmt.Appendf(nil, `{"tolerations":[{"key":%q,"operator":"Exists"}]}`, reserved),
	}}
}

// taint leaves a node with its reservation and what is added to it.
func (w *world) taint(node string, added ...corev1.Taint) {
	w.Helper()
	w.until("node "+node+" is tainted", func() error {
		var found corev1.Node
		if err := shared.k8s.Get(w.Context(), client.ObjectKey{Name: node}, &found); err != nil {
			return err
		}
		found.Spec.Taints = append([]corev1.Taint{reservation}, added...)
		return shared.k8s.Update(w.Context(), &found)
	})
}

// left says what is still on the node that was drained.
func (a *act) left() error {
	if a.leaves == "" {
		return nil
	}
	pods, err := a.livePods(a.processor)
	if err != nil {
		return err
	}
	for i := range pods {
		if pods[i].Spec.NodeName == a.leaves || pods[i].Spec.NodeName == "" {
			return fmt.Errorf("pod %s is on node %q, and %q is drained", pods[i].Name, pods[i].Spec.NodeName, a.leaves)
		}
	}
	return nil
}

// over lets the drained node take pods again.
func (a *act) over() {
	a.Helper()
	if a.leaves != "" {
		a.taint(a.leaves)
	}
}

// changes are what makes a processor one of this play.
func (p play) changes() []func(*doryv1alpha1.Processor) {
	changes := []func(*doryv1alpha1.Processor){by(p.strategy)}
	if p.drains {
		changes = append(changes, onReserved)
	}
	return changes
}
