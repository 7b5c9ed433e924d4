package drain

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// stuckPatience is how long a move may look for a node while a drain waits for it. Autoscalers, who drain too, are as patient as
// the drain's own moves, and one of these will find the same room.
const stuckPatience = 30 * time.Second

// displace has the drain's own move take the place of one that was made for something else and finds no node. Nothing was
// handed over yet, so nothing is lost. What could not get through either takes no other's place: least of all a restart, which
// ends an instance that works.
func (v *view) displace(m *doryv1alpha1.ProcessorMigration) (conclusion, bool) {
	why, stuck := v.strangerIsStuck(m)
	if !stuck {
		return conclusion{}, false
	}
	c := v.next()
	switch waiting := v.waiting(); {
	case c.attempt == nil && c.Reason != ReasonQueued:
		return conclusion{}, false // Nothing would come after it.
	case c.attempt == nil && waiting != nil && v.stops(waiting) && v.placeless() != nil:
		return conclusion{}, false // What waits would end the instance, and start it nowhere.
	}
	c.displaces = &cancellation{
		migration: m, processor: v.processor, supersededBy: fmt.Sprintf("the drain of pod %s off node %s", v.pod.Name, v.pod.Spec.NodeName), reason: EventSuperseded,
		message: fmt.Sprintf("ProcessorMigration %s (%s) is called off for the drain of node %s: %s", m.Name, m.Spec.Reason, v.pod.Spec.NodeName, why),
	}
	c.Message += fmt.Sprintf("; ProcessorMigration %s (%s) gives way to it: %s", m.Name, m.Spec.Reason, why)
	return c, true
}

// strangerIsStuck says why a move that is not the drain's will not bring the instance off its node in time.
func (v *view) strangerIsStuck(m *doryv1alpha1.ProcessorMigration) (why string, stuck bool) {
	s := m.Status
	seeks := m.Spec.Reason != doryv1alpha1.MigrationDrain && s.Phase == doryv1alpha1.MigrationPlacing && s.SourcePod == v.pod.Name &&
		s.Strategy != doryv1alpha1.MigrationStopAndCopy && (v.target == nil || v.target.Spec.NodeName == "")
	if !seeks || !v.holds() || v.settled || settledFate(m) {
		return "", false
	}
	if v.unfit(m.Spec.TargetNode) {
		return fmt.Sprintf("it leads to node %s, which does not take the processor", m.Spec.TargetNode), true
	}
	return v.progress(m), s.StartTime != nil && v.now.Sub(s.StartTime.Time) >= stuckPatience
}

// unfit says of the node that a move is to lead to that it is no place for an instance which has to leave its own.
func (v *view) unfit(name string) bool {
	if name == "" {
		return false
	}
	i := slices.IndexFunc(v.nodes, func(n *corev1.Node) bool { return n.Name == name })
	instance, err := pod.Build(pod.Input{Processor: v.version()})
	return name == v.pod.Spec.NodeName || i < 0 || err == nil && !takes(v.nodes[i], instance)
}
