package drain

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/pod"
)

// outlook is what is known about a processor's next move, beside the Processor itself.
type outlook struct {
	nodes []*corev1.Node
	// revision is that of the pod that works, and of the one that a drain would make; empty where it is not known.
	revision string
	// runs is the Processor as it was when that pod was made; nil where that is not known.
	runs *doryv1alpha1.Processor
	// moves are all of the Processor.
	moves []*doryv1alpha1.ProcessorMigration
	// trial is nil where nothing was tried.
	trial    *trial
	instance string
	now      time.Time
}

func (o outlook) instanceName() string {
	if o.instance == "" {
		return "that works"
	}
	return o.instance
}

// obstacle is what stands in the way of a move while the processor works.
type obstacle struct {
	reason, message string
	// restart says that the processor can be restarted elsewhere all the same: its old pod makes room for the new one.
	restart bool
	// uncaptured says that it would be restarted from an older state, as its own cannot be had.
	uncaptured bool
}

// migratable says whether a drain of the instance's node would get through. It is nil where there is nothing to say yet: no
// instance has ever been ready.
func migratable(p *doryv1alpha1.Processor, o outlook) *metav1.Condition {
	current := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionMigratable)
	ready := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionReady)
	isReady := ready != nil && ready.Status == metav1.ConditionTrue
	if current == nil && !isReady {
		return nil
	}
	no := func(reason, message string) *metav1.Condition {
		return condition(p, metav1.ConditionFalse, reason, message)
	}
	switch {
	case p.Suspended():
		return no(doryv1alpha1.ReasonSuspended, "spec.suspend is true: there is nothing to move")
	case !isReady:
		return no(doryv1alpha1.ReasonNotReady, "the instance is not ready, so that it cannot hand over its state")
	}
	runs, about := p, ""
	if o.runs != nil && o.runs != p {
		runs, about = o.runs, ofAnother
	}
	if hindrance := placeless(runs, instanceNode(p), o.nodes); hindrance != nil {
		hindrance.Message += about
		return hindrance
	}
	if state := stateless(p); state != nil {
		return state.judged(p)
	}
	if last := lastFailure(o); last != nil {
		return last.judged(p)
	}
	if found := o.trial.said(o); found != nil {
		found.message += about
		return unkept(p, found.judged(p))
	}
	if o.trial != nil && o.trial.unknown != "" {
		return condition(p, metav1.ConditionUnknown, doryv1alpha1.ReasonNotKnown, "whether the API server takes a second pod of the processor could not be asked: "+o.trial.unknown)
	}
	how := manner(p)
	if how.Reason == doryv1alpha1.ReasonRestartOnly {
		return unkept(p, how)
	}
	return how
}

// stateless says why the state cannot be had, which a move needs. That it cannot be stored is no reason.
func stateless(p *doryv1alpha1.Processor) *obstacle {
	c := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionCheckpointed)
	if c == nil || c.Status != metav1.ConditionFalse {
		return nil
	}
	switch c.Reason {
	case doryv1alpha1.ReasonStateNotRestored:
		return &obstacle{reason: c.Reason, message: "the instance runs without its state, and a move would take that for it: " + c.Message}
	case doryv1alpha1.ReasonStateTooLarge, doryv1alpha1.ReasonCaptureFailing:
		return &obstacle{reason: c.Reason, message: "the state cannot be had, which a move needs, too: " + c.Message, restart: true, uncaptured: true}
	}
	return nil
}

// unkept says of a restart that the state cannot be stored, without which no instance is ended. A move while it works does not
// need that.
func unkept(p *doryv1alpha1.Processor, restart *metav1.Condition) *metav1.Condition {
	c := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionCheckpointed)
	if restart.Status != metav1.ConditionTrue || c == nil || c.Status != metav1.ConditionFalse || c.Reason != doryv1alpha1.ReasonCheckpointFailing {
		return restart
	}
	return condition(p, metav1.ConditionFalse, c.Reason, restart.Message+". But the state cannot be stored, without which the instance is not ended: "+c.Message)
}

// judged says what the drain's policy makes of an obstacle.
func (o *obstacle) judged(p *doryv1alpha1.Processor) *metav1.Condition {
	if o.uncaptured {
		return o.withoutState(p)
	}
	switch {
	case !o.restart, p.MigrationStrategy() == doryv1alpha1.MigrationStopAndCopy && o.reason == doryv1alpha1.ReasonRestartOnly:
		status := metav1.ConditionFalse
		if o.restart {
			status = metav1.ConditionTrue
		}
		return condition(p, status, o.reason, o.message)
	case p.MigrationStrategy() != doryv1alpha1.MigrationStopAndCopy && p.DrainFallback() == doryv1alpha1.DrainFallbackNever:
		reason := o.reason
		if reason == doryv1alpha1.ReasonRestartOnly {
			reason = doryv1alpha1.ReasonFallbackForbidden
		}
		return condition(p, metav1.ConditionFalse, reason, o.message+". Only a restart would do, and spec.migration.drainFallback is Never")
	}
	return condition(p, metav1.ConditionTrue, o.reason, o.message+". A drain ends the instance, and starts it elsewhere from its state")
}

// withoutState says what becomes of a processor whose state cannot be had: the same as letGo does.
func (o *obstacle) withoutState(p *doryv1alpha1.Processor) *metav1.Condition {
	from, is := restartsFrom(p)
	switch {
	case p.DrainFallback() == doryv1alpha1.DrainFallbackNever:
		return condition(p, metav1.ConditionFalse, o.reason, o.message+". Only a restart from an older state would do, and spec.migration.drainFallback is Never")
	case !is:
		return condition(p, metav1.ConditionFalse, o.reason, o.message+". There is no checkpoint to restart the processor from")
	}
	return condition(p, metav1.ConditionTrue, o.reason, fmt.Sprintf("%s. A drain ends the instance, and %s: what it did since is lost", o.message, from))
}

// restartsFrom says what a processor starts from whose instance ends without giving its state away; is is false where there is
// nothing to start from.
func restartsFrom(p *doryv1alpha1.Processor) (from string, is bool) {
	switch c := p.Status.Checkpoint; {
	case c != nil:
		return "the processor starts elsewhere from its checkpoint of " + c.Time.UTC().Format(time.RFC3339), true
	case p.OnMissing() == doryv1alpha1.OnMissingDiscard:
		return "the processor starts elsewhere without its state, as spec.state.onMissing says", true
	}
	return "", false
}

// lastFailure is why the last move of this pod did not get through, where the next one with the same spec would meet the same. A
// move to a node that a person chose says nothing about other nodes.
func lastFailure(o outlook) *obstacle {
	var last *doryv1alpha1.ProcessorMigration
	for _, m := range o.moves {
		if m.Ended() && m.Spec.TargetNode == "" && m.Status.SourcePod == o.instance && m.Status.Revision == o.revision && (last == nil || last.CreationTimestamp.Before(&m.CreationTimestamp)) {
			last = m
		}
	}
	if last == nil || last.Status.Phase != doryv1alpha1.MigrationRolledBack {
		return nil
	}
	found := &obstacle{reason: doryv1alpha1.ReasonLastMoveFailed, message: fmt.Sprintf(
		"the last move with this spec, ProcessorMigration %s, was given up (%s): %s", last.Name, last.Status.Reason, last.Status.Message)}
	switch last.Status.Reason { // A drain goes by the same, see failureOf.
	case doryv1alpha1.MigrationReasonTargetImage, doryv1alpha1.MigrationReasonTargetInvalid:
	case doryv1alpha1.MigrationReasonStateRefused, doryv1alpha1.MigrationReasonTargetHasNoHandoff, doryv1alpha1.MigrationReasonTargetNotReady:
		found.restart = true
	case doryv1alpha1.MigrationReasonStateTooLarge, doryv1alpha1.MigrationReasonStateInvalid, doryv1alpha1.MigrationReasonStateUnauthorized:
		found.restart, found.uncaptured = true, true
	default:
		return nil
	}
	if ended := last.Status.CompletionTime; ended != nil && o.now.Sub(ended.Time) > failureMemory {
		return nil
	}
	return found
}

// failureMemory is for how long a move that failed speaks against the next. Registries and states change.
const failureMemory = time.Hour

func condition(p *doryv1alpha1.Processor, status metav1.ConditionStatus, reason, said string) *metav1.Condition {
	return &metav1.Condition{Type: doryv1alpha1.ConditionMigratable, Status: status, Reason: reason, Message: message.Shorten(said, message.ConditionLimit), ObservedGeneration: p.Generation}
}

// manner is how the processor would move.
func manner(p *doryv1alpha1.Processor) *metav1.Condition {
	strategy := p.MigrationStrategy()
	handoff := p.Status.Handoff != nil && *p.Status.Handoff
	incapable := p.Status.Handoff != nil && !*p.Status.Handoff
	yes := metav1.ConditionTrue
	switch {
	case strategy == doryv1alpha1.MigrationStopAndCopy:
		return condition(p, yes, doryv1alpha1.ReasonRestartOnly, "the instance is ended and started elsewhere from its state, as spec.migration.strategy says")
	case strategy == doryv1alpha1.MigrationOverlap, strategy == doryv1alpha1.MigrationAuto && !handoff:
		return condition(p, yes, doryv1alpha1.ReasonOverlapMigratable, "the processor moves while it works; what it does between the copy of its state and its end may be lost or done twice")
	case strategy == doryv1alpha1.MigrationLive && incapable && p.DrainFallback() == doryv1alpha1.DrainFallbackNever:
		return condition(p, metav1.ConditionFalse, doryv1alpha1.ReasonFallbackForbidden, "spec.migration.strategy Live needs the handoff, which the instance does not support, and spec.migration.drainFallback is Never")
	case strategy == doryv1alpha1.MigrationLive && incapable:
		return condition(p, yes, doryv1alpha1.ReasonRestartOnly, "spec.migration.strategy Live needs the handoff, which the instance does not support: a drain ends it and starts it elsewhere from its state")
	default:
		return condition(p, yes, doryv1alpha1.ReasonLiveMigratable, "the processor moves while it works, and nothing is lost or done twice")
	}
}

func instanceNode(p *doryv1alpha1.Processor) string {
	if p.Status.Instance == nil {
		return ""
	}
	return p.Status.Instance.Node
}

// pinned says that every pod of the processor is for one node.
func pinned(p *doryv1alpha1.Processor) *metav1.Condition {
	if p.Spec.Placement != nil && p.Spec.Placement.EdgeNode != "" {
		return condition(p, metav1.ConditionFalse, doryv1alpha1.ReasonPinnedToEdgeNode, fmt.Sprintf("spec.placement.edgeNode %s lets the processor run on no other node", p.Spec.Placement.EdgeNode))
	}
	if p.Spec.PodTemplate == nil || p.Spec.PodTemplate.Spec == nil {
		return nil
	}
	instance, err := pod.Build(pod.Input{Processor: p})
	if err != nil || instance.Spec.NodeName == "" {
		return nil
	}
	return condition(p, metav1.ConditionFalse, doryv1alpha1.ReasonPinnedToNode, fmt.Sprintf(
		"spec.podTemplate.spec.nodeName %s lets the processor run on no other node: say spec.placement.nodeSelector instead", instance.Spec.NodeName))
}

// placeless says why no node but the current one takes the processor, as far as selectors, affinity to nodes, taints and
// cordons can tell. Whether there is room is the scheduler's to say.
func placeless(p *doryv1alpha1.Processor, current string, nodes []*corev1.Node) *metav1.Condition {
	if hindrance := pinned(p); hindrance != nil {
		return hindrance
	}
	instance, err := pod.Build(pod.Input{Processor: p})
	if err != nil {
		return condition(p, metav1.ConditionFalse, doryv1alpha1.ReasonInvalidPodTemplate, err.Error())
	}
	for _, node := range nodes {
		if node.Name != current && takes(node, instance) {
			return nil
		}
	}
	return condition(p, metav1.ConditionFalse, doryv1alpha1.ReasonNoOtherNode, "no other node that is ready and takes pods matches the processor's node selector, its affinity to nodes and its tolerations")
}

// takes says whether the node would take the pod if it had room.
func takes(node *corev1.Node, instance *corev1.Pod) bool {
	if node.Spec.Unschedulable || node.DeletionTimestamp != nil || !nodeReady(node) || leaving(node, nil, false).yes() {
		return false
	}
	return pod.Excluded(instance, node) == "" && pod.Tolerates(instance, node)
}

func nodeReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
