package drain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// observation is what is known about a node and the processors that are on it, or on their way to it.
type observation struct {
	name string
	// node is nil once it is gone.
	node *corev1.Node
	// views are of all pods on the node that are processors'.
	views []*view
	// proactive moves processors off a node that is cordoned or tainted, and not only off one that goes.
	proactive bool
}

// plan is what to do about a node.
type plan struct {
	// attempts are the moves to make.
	attempts []conclusion
	// label are the moves to be told of the node that is being left.
	label []*doryv1alpha1.ProcessorMigration
	// cancel are the moves to call off.
	cancel []cancellation
	// stuck are the instances whose move finds no place.
	stuck []stuck
	// after is when to look again although nothing happens; zero is never.
	after time.Duration
}

// cancellation calls a move off.
type cancellation struct {
	migration *doryv1alpha1.ProcessorMigration
	// processor is for the events.
	processor *doryv1alpha1.Processor
	// misledTo is the node that the move led to, if it is called off for that.
	misledTo string
	// supersededBy is what takes its place, if it is called off for that.
	supersededBy string
	reason       string
	message      string
}

// stuck is an instance that is to leave and that no node takes.
type stuck struct {
	view    *view
	message string
}

// decide is the whole policy towards a node.
func decide(o *observation) plan {
	var p plan
	for _, v := range o.views {
		if c, yes := o.misled(v); yes {
			p.cancel = append(p.cancel, c)
			continue
		}
		if c, yes := o.withdrawn(v); yes {
			p.cancel = append(p.cancel, c)
			continue
		}
		if message, yes := v.stuck(); yes {
			p.stuck = append(p.stuck, stuck{v, message})
		}
		p.label = append(p.label, unlabelled(v)...)
		o.empty(&p, v)
	}
	return p
}

// misled is a move that leads onto a node which is being left itself.
func (o *observation) misled(v *view) (cancellation, bool) {
	m := v.active()
	if m == nil || m.Status.TargetPod != v.pod.Name || v.committed(m) || !v.leave.yes() || settledFate(m) {
		return cancellation{}, false
	}
	return cancellation{migration: m, processor: v.processor, misledTo: o.name, reason: EventMisled, message: fmt.Sprintf(
		"ProcessorMigration %s is called off: its target pod %s is on node %s, which is being left (%s)", m.Name, v.pod.Name, o.name, v.leave.why)}, true
}

// withdrawn is a drain of a node which is not being left any more. What has taken over stays where it is.
func (o *observation) withdrawn(v *view) (cancellation, bool) {
	if o.node == nil || v.leave.yes() {
		return cancellation{}, false
	}
	for _, m := range v.attempts() {
		if m.Ended() || settledFate(m) || v.committed(m) || m.Labels[doryv1alpha1.LabelDrainedNode] != nodeLabel(o.name) {
			continue
		}
		return cancellation{migration: m, processor: v.processor, reason: EventWithdrawn, message: fmt.Sprintf("ProcessorMigration %s is called off: node %s is not being left any more", m.Name, o.name)}, true
	}
	return cancellation{}, false
}

// unlabelled are the drains of a node that is being left which do not say so: they were made before, or where that was not
// known yet. Without the label they would not be withdrawn.
func unlabelled(v *view) []*doryv1alpha1.ProcessorMigration {
	if !v.leave.yes() {
		return nil
	}
	return slices.DeleteFunc(v.attempts(), func(m *doryv1alpha1.ProcessorMigration) bool {
		return m.Ended() || m.Labels[doryv1alpha1.LabelDrainedNode] != ""
	})
}

// settledFate says that a migration is on its way back already.
func settledFate(m *doryv1alpha1.ProcessorMigration) bool {
	return m.Cancelled() || m.DeletionTimestamp != nil || m.Status.Phase == doryv1alpha1.MigrationRollingBack
}

// empty moves an instance off a node before anybody evicts it. Where the node only takes no more pods, nobody waits, and so
// nothing is restarted for it.
func (o *observation) empty(p *plan, v *view) {
	if !v.leave.yes() || (!v.leave.announced && !o.proactive) {
		return
	}
	v.settled = !v.leave.announced
	c := conclude(Request{}, v)
	if c.Allowed {
		return // Its end is whoever's who takes the node away.
	}
	if c.attempt != nil || c.displaces != nil {
		p.attempts = append(p.attempts, c)
	}
	if c.after > 0 && (p.after == 0 || c.after < p.after) {
		p.after = c.after
	}
}

// stuck says why the move of an instance finds no place.
func (v *view) stuck() (message string, yes bool) {
	m := v.active()
	if m == nil && len(v.attempts()) == 0 {
		return v.stays()
	}
	if m == nil {
		return "", false
	}
	if m.Spec.Reason != doryv1alpha1.MigrationDrain || m.Status.SourcePod != v.pod.Name || m.Status.Phase != doryv1alpha1.MigrationPlacing {
		return "", false
	}
	if refused(m) {
		return strings.ReplaceAll(m.Status.Message, m.Status.TargetPod, "target"), true // One message for all attempts.
	}
	return unplaced(v.target)
}

// stays says why an instance that is to leave is not moved at all.
func (v *view) stays() (message string, yes bool) {
	if !v.leave.yes() || !v.owned() || !v.holds() || v.processor.Suspended() {
		return "", false
	}
	if hindrance := v.pinned(); hindrance != nil {
		return hindrance.Message, true
	}
	known := v.foretold()
	if known == nil || known.Status != metav1.ConditionFalse {
		return "", false
	}
	switch known.Reason {
	case doryv1alpha1.ReasonFallbackForbidden, doryv1alpha1.ReasonStateTooLarge, doryv1alpha1.ReasonQuotaExceeded:
		return known.Message, true
	}
	return "", false
}

// refused says of a move that the API server does not take its target so far.
func refused(m *doryv1alpha1.ProcessorMigration) bool {
	return m.Status.Reason == doryv1alpha1.MigrationReasonTargetOverQuota || m.Status.Reason == doryv1alpha1.MigrationReasonTargetRejected
}
