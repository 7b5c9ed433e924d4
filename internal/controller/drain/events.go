package drain

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/record"
)

// The reasons of events.
const (
	// EventRequested: a move was made because of a drain.
	EventRequested = "DrainRequested"
	// EventRefused: a move cannot be made, because of a quota or a policy.
	EventRefused = "DrainRefused"
	// EventFallback: the processor is restarted, because it could not be moved while it works.
	EventFallback = "DrainFallback"
	// EventLetGo: the pod may be evicted without having handed over.
	EventLetGo = "DrainRestartsFromCheckpoint"
	// EventUnplaceable: no node takes an instance that is to leave its node.
	EventUnplaceable = "DrainUnplaceable"
	// EventSuperseded: a move is called off that finds no node, because a drain cannot wait for it.
	EventSuperseded = "MoveSupersededByDrain"
	// EventMisled: a move is called off that leads onto a node which is being left.
	EventMisled = "MoveLedToDrainedNode"
	// EventWithdrawn: a move is called off because its node is not being left any more.
	EventWithdrawn = "DrainWithdrawn"
)

// narrator is the list of everything this package says in events.
type narrator struct{ recorder record.Recorder }

// requested tells of a move that was made.
func (n narrator) requested(o order) {
	kind, reason := corev1.EventTypeNormal, EventRequested
	if o.attempt.Spec.Strategy == doryv1alpha1.MigrationStopAndCopy && o.fallback {
		kind, reason = corev1.EventTypeWarning, EventFallback
	}
	n.recorder.Eventf(o.processor, o.attempt, kind, reason, "Drain", "%s asks that pod %s leaves node %s: %s", o.by, o.attempt.Spec.SourcePod, o.node, o.message)
}

// refused tells of a move that the API server does not take.
func (n narrator) refused(o order, err error) {
	n.recorder.Eventf(o.processor, nil, corev1.EventTypeWarning, EventRefused, "Drain",
		"Pod %s is to leave node %s, and its ProcessorMigration cannot be made: %v", o.attempt.Spec.SourcePod, o.node, err)
}

func (n narrator) letGo(v *view, message string) {
	n.recorder.Eventf(v.processor, v.pod, corev1.EventTypeWarning, EventLetGo, "Drain", "Pod %s may be evicted: %s", v.pod.Name, message)
}

// unplaceable tells all who may look: whoever has the pod, the processor, or the node before him.
func (n narrator) unplaceable(o *observation, s stuck) {
	message := fmt.Sprintf("Pod %s is to leave node %s and works on there: %s", s.view.pod.Name, o.name, s.message)
	n.recorder.Eventf(s.view.pod, s.view.processor, corev1.EventTypeWarning, EventUnplaceable, "Drain", "%s", message)
	n.recorder.Eventf(s.view.processor, s.view.pod, corev1.EventTypeWarning, EventUnplaceable, "Drain", "%s", message)
	if o.node != nil {
		n.recorder.Eventf(o.node, s.view.pod, corev1.EventTypeWarning, EventUnplaceable, "Drain", "Processor %s: %s", s.view.name(), message)
	}
}

func (n narrator) calledOff(c cancellation) {
	n.recorder.Eventf(c.migration, c.processor, corev1.EventTypeNormal, c.reason, "Cancel", "%s", c.message)
	n.recorder.Eventf(c.processor, c.migration, corev1.EventTypeNormal, c.reason, "Cancel", "%s", c.message)
}
