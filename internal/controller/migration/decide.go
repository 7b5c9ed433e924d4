package migration

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// decision is the next step or, without one, for how long nothing but an event can bring one.
type decision struct {
	step step
	// migration that the step is about; nil while a source is woken whose migration is gone.
	migration *doryv1alpha1.ProcessorMigration
	// status is what the steps that enter a phase write.
	status *doryv1alpha1.ProcessorMigrationStatus
	// cause is why, for events.
	cause outcome
	// timeout of the step, where it is not stepTimeout.
	timeout time.Duration
	// after is when to look again; zero is never.
	after time.Duration
}

const (
	// retryDelay paces what a processor or the API server did not answer. Whoever was asked has been asked several times
	// by then.
	retryDelay = time.Second
	// startPatience is for a target's container to overcome what usually does not pass, such as a missing image.
	startPatience = 30 * time.Second
	// quotaPatience is for a quota to get room for the target beside its source, as it does where another move's source ends.
	quotaPatience = 10 * time.Second
	// newsDelay is for how long a move may wait for something in one phase before its status says what for.
	newsDelay = 3 * time.Second
	// endPatience is beyond a pod's grace period, for its kubelet to confirm the end.
	endPatience = time.Minute
	// quiesceTimeout bounds how long one attempt to quiesce may hold a worker.
	quiesceTimeout = 2 * time.Minute
)

func do(s step, m *doryv1alpha1.ProcessorMigration) decision { return decision{step: s, migration: m} }

func wait(d time.Duration) decision { return decision{after: max(d, time.Millisecond)} }

// await waits for an event alone.
func await() decision { return decision{} }

// none says that a part of the policy has nothing to do, so that the next part follows.
func none() (decision, bool) { return decision{}, false }

func first(d decision) (decision, bool) { return d, true }

// decide is the whole policy of this package.
func decide(o *observation) decision {
	var d decision
	if m := o.active(); m != nil {
		d = advance(o, m)
	} else if !o.know.ended {
		d = idle(o)
	}
	if d.step != "" {
		return d
	}
	if chore, found := housekeep(o); found {
		return chore
	}
	return punctual(o, d)
}

// punctual waits no longer than until the next deadline of a migration.
func punctual(o *observation, d decision) decision {
	for _, m := range o.migrations {
		left, limited := deadlineLeft(o, m)
		if limited && left > 0 && !m.Ended() && !o.committed(m) && (d.after == 0 || left < d.after) {
			d = wait(left)
		}
	}
	return d
}

// deadlineLeft is the time until the migration is given up that is not committed by then.
func deadlineLeft(o *observation, m *doryv1alpha1.ProcessorMigration) (left time.Duration, limited bool) {
	at, limited := m.Deadline()
	return at.Sub(o.now), limited
}

// advance takes the active migration on. A cache may lag behind what this very operator did a moment ago, and most steps
// would do harm if they were taken twice, so none is taken before everything was read past the cache.
func advance(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	d := goOn(o, m)
	if d.step != "" && !o.live {
		return do(stepLook, m)
	}
	return d
}

func goOn(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	if o.committed(m) {
		return forward(o, m)
	}
	if m.Status.Phase == doryv1alpha1.MigrationRollingBack {
		return rollBack(o, m)
	}
	if cause, abandoned := abandon(o, m); abandoned {
		return enter(o, m, doryv1alpha1.MigrationRollingBack, cause)
	}
	switch m.Status.Phase {
	case doryv1alpha1.MigrationPlacing:
		return place(o, m)
	case doryv1alpha1.MigrationStarting:
		return start(o, m)
	case doryv1alpha1.MigrationWarming:
		return warm(o, m)
	case doryv1alpha1.MigrationHandingOff:
		return handOff(o, m)
	case doryv1alpha1.MigrationRetiring:
		// The target held the epoch and lost it again: whoever took it is responsible now.
		return enter(o, m, doryv1alpha1.MigrationRollingBack, holderChanged(o, m))
	default:
		return await()
	}
}

// abandon says why a migration that is not committed must not go on.
func abandon(o *observation, m *doryv1alpha1.ProcessorMigration) (outcome, bool) {
	phase, strategy := m.Status.Phase, m.Status.Strategy
	handingOff := phase == doryv1alpha1.MigrationHandingOff
	if handingOff && strategy == doryv1alpha1.MigrationStopAndCopy && (over(o.source) || going(o.source)) {
		return outcome{}, false // There is no way back for a source that was told to end.
	}
	if cause, off := calledOff(m); off {
		return cause, true
	}
	if cause, off := ruledOut(o); off {
		return cause, true
	}
	switch {
	case o.holderName() != m.Status.SourcePod:
		return holderChanged(o, m), true
	case (!handingOff || strategy == doryv1alpha1.MigrationStopAndCopy) && superseded(o, m):
		return outcome{ReasonSuperseded, "the Processor's spec changed after the target was made"}, true
	}
	if after, yes := stranded(o, m); yes && after <= 0 {
		return outcome{ReasonSuperseded, fmt.Sprintf("the Processor's spec changed, and no node has taken target pod %s: %s", m.Status.TargetPod, placement(o.target))}, true
	}
	if cause, lost := lostSource(o, m); lost {
		return cause, true
	}
	if cause, lost := lostTarget(o, m); lost {
		return cause, true
	}
	return overdue(o, m)
}

// ruledOut says why the Processor itself must not be moved any more.
func ruledOut(o *observation) (outcome, bool) {
	switch {
	case o.processor == nil || o.processor.DeletionTimestamp != nil:
		return outcome{ReasonProcessorDeleted, "the Processor is being deleted"}, true
	case o.undecodable() != "":
		return outcome{ReasonProcessorUndecodable, "the Processor cannot be decoded any more: " + o.undecodable()}, true
	case o.processor.Suspended():
		return outcome{ReasonProcessorSuspended, "spec.suspend of the Processor is true"}, true
	}
	return outcome{}, false
}

// calledOff says that somebody does not want the migration any more.
func calledOff(m *doryv1alpha1.ProcessorMigration) (outcome, bool) {
	switch {
	case m.DeletionTimestamp != nil:
		return outcome{ReasonCancelled, "the ProcessorMigration was deleted before the handoff"}, true
	case m.Cancelled() && m.Annotations[doryv1alpha1.AnnotationSupersededBy] != "":
		return outcome{ReasonSuperseded, fmt.Sprintf("it gave way to %s: %s", m.Annotations[doryv1alpha1.AnnotationSupersededBy], lastSaid(m))}, true
	case m.Cancelled():
		return outcome{ReasonCancelled, "spec.cancel was set before the handoff"}, true
	}
	return outcome{}, false
}

// overdue says that the migration has had its time, and what it waited for.
func overdue(o *observation, m *doryv1alpha1.ProcessorMigration) (outcome, bool) {
	left, limited := deadlineLeft(o, m)
	if !limited || left > 0 {
		return outcome{}, false
	}
	reason := ReasonDeadlineExceeded
	switch {
	case m.Status.Phase == doryv1alpha1.MigrationStarting && pod.Unmade(o.target) != nil:
		reason = ReasonTargetImage
	case m.Status.Phase == doryv1alpha1.MigrationPlacing && o.target == nil && m.Status.Reason != ReasonMoving && m.Status.Reason != "":
		reason = m.Status.Reason // Why it could not be made says more, and the drain goes by it.
	}
	return outcome{reason, fmt.Sprintf("the target had not taken over within %d s (spec.activeDeadlineSeconds): %s",
		*m.Spec.ActiveDeadlineSeconds, lastSeen(o, m))}, true
}

// lastSeen says what a migration waits for.
func lastSeen(o *observation, m *doryv1alpha1.ProcessorMigration) string {
	switch m.Status.Phase {
	case "":
		return "it was not looked at"
	case doryv1alpha1.MigrationPlacing:
		if o.target == nil {
			return fmt.Sprintf("target pod %s was not made: %s", m.Status.TargetPod, lastSaid(m))
		}
		return fmt.Sprintf("no node took target pod %s: %s", m.Status.TargetPod, placement(o.target))
	case doryv1alpha1.MigrationStarting:
		return fmt.Sprintf("target pod %s was not ready: %s", m.Status.TargetPod, pod.Unreadiness(o.target))
	default:
		return m.Status.Message
	}
}

// lastSaid is what a migration waits for, as far as its status says.
func lastSaid(m *doryv1alpha1.ProcessorMigration) string {
	if m.Status.Message == "" {
		return "it did not say what it waits for"
	}
	return m.Status.Message
}

// lostSource: once the handoff of a Live move began, its own policy decides, because the target may go on.
func lostSource(o *observation, m *doryv1alpha1.ProcessorMigration) (outcome, bool) {
	if m.Status.Phase == doryv1alpha1.MigrationHandingOff && m.Status.Strategy == doryv1alpha1.MigrationLive {
		return outcome{}, false
	}
	switch {
	case over(o.source):
		return outcome{ReasonSourceLost, fmt.Sprintf("source pod %s ended before the handoff", m.Status.SourcePod)}, true
	case going(o.source):
		return outcome{ReasonSourceLost, fmt.Sprintf("source pod %s was deleted before the handoff", m.Status.SourcePod)}, true
	}
	return outcome{}, false
}

// lostTarget: a target that was not created yet is not lost.
func lostTarget(o *observation, m *doryv1alpha1.ProcessorMigration) (outcome, bool) {
	unmade := m.Status.Phase == doryv1alpha1.MigrationPlacing || m.Status.Strategy == doryv1alpha1.MigrationStopAndCopy
	switch {
	case o.target == nil && unmade:
		return outcome{}, false
	case over(o.target):
		return outcome{ReasonTargetLost, fmt.Sprintf("target pod %s ended before the handoff: %s", m.Status.TargetPod, ending(o.target))}, true
	case going(o.target):
		return outcome{ReasonTargetLost, fmt.Sprintf("target pod %s was deleted before the handoff", m.Status.TargetPod)}, true
	}
	return outcome{}, false
}

func holderChanged(o *observation, m *doryv1alpha1.ProcessorMigration) outcome {
	return outcome{ReasonHolderChanged, fmt.Sprintf("the epoch names pod %q, neither the source %q nor the target %q",
		o.holderName(), m.Status.SourcePod, m.Status.TargetPod)}
}

// ending says how a pod ended, in the words of its kubelet.
func ending(p *corev1.Pod) string {
	if p == nil {
		return "its object is gone"
	}
	return pod.Ending(p)
}

// left is the time until a deadline that counts from when the phase was entered.
func left(o *observation, m *doryv1alpha1.ProcessorMigration, limit time.Duration) time.Duration {
	if m.Status.PhaseTime == nil {
		return limit
	}
	return m.Status.PhaseTime.Add(limit).Sub(o.now)
}

// startLeft is the time until the target must be ready; placing and starting share it.
func startLeft(o *observation, m *doryv1alpha1.ProcessorMigration) time.Duration {
	since := m.Status.StartTime
	if m.Status.Strategy == doryv1alpha1.MigrationStopAndCopy || since == nil {
		return left(o, m, o.policy().StartTimeout())
	}
	return since.Add(o.policy().StartTimeout()).Sub(o.now)
}
