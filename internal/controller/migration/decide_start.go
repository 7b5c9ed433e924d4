package migration

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/pod"
)

// place brings the target to a node.
func place(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	remaining := startLeft(o, m)
	switch {
	case bound(o.target):
		return enter(o, m, doryv1alpha1.MigrationStarting, outcome{ReasonMoving, fmt.Sprintf("target pod %s starts on node %s", o.target.Name, o.target.Spec.NodeName)})
	case o.target == nil && o.know.trouble == nil && unrecalled(o, m):
		return do(stepRecall, m)
	case o.target == nil && o.know.trouble == nil:
		return do(stepCreateTarget, m)
	case o.target == nil:
		return endure(o, m, *judge(o.know.trouble), remaining)
	case remaining <= 0:
		return enter(o, m, doryv1alpha1.MigrationRollingBack, unschedulable(o, m))
	default:
		if after, yes := stranded(o, m); yes && after > 0 {
			remaining = min(remaining, after)
		}
		return waitFor(o, m, unplaced(o, m), remaining)
	}
}

// unplaced says what a target without a node waits for, once its scheduler has said it.
func unplaced(o *observation, m *doryv1alpha1.ProcessorMigration) outcome {
	condition := pod.Condition(o.target, corev1.PodScheduled)
	if bound(o.target) || condition == nil || condition.Status != corev1.ConditionFalse {
		return outcome{}
	}
	return outcome{ReasonTargetUnschedulable, fmt.Sprintf("target pod %s finds no node: %s", m.Status.TargetPod, condition.Message)}
}

func unschedulable(o *observation, m *doryv1alpha1.ProcessorMigration) outcome {
	return outcome{ReasonTargetUnschedulable, fmt.Sprintf("no node took target pod %s within %s: %s", m.Status.TargetPod, o.policy().StartTimeout(), placement(o.target))}
}

// placement is what the scheduler says about a pod without a node.
func placement(p *corev1.Pod) string {
	if p == nil {
		return "it was not created"
	}
	if condition := pod.Condition(p, corev1.PodScheduled); condition != nil && condition.Message != "" {
		return condition.Message
	}
	return "no scheduler has said why"
}

// endure tries again until the deadline, where trying again can help.
func endure(o *observation, m *doryv1alpha1.ProcessorMigration, v verdict, remaining deadline) decision {
	if v.reason == ReasonTargetOverQuota && m.Spec.Reason == doryv1alpha1.MigrationDrain { // Which has another way.
		remaining = min(remaining, left(o, m, quotaPatience))
	}
	if v.final || remaining <= retryDelay {
		return enter(o, m, doryv1alpha1.MigrationRollingBack, v.outcome)
	}
	if m.Status.Phase == doryv1alpha1.MigrationHandingOff {
		return wait(retryDelay) // The source may stand still: nothing is written for people.
	}
	return waitFor(o, m, v.outcome, retryDelay)
}

// waitFor waits, and says what for: in the migration's status, where people look, once for every change of it. What most
// moves wait for a moment is not worth a word.
func waitFor(o *observation, m *doryv1alpha1.ProcessorMigration, what outcome, d time.Duration) decision {
	same := m.Status.Reason == what.reason && m.Status.Message == message.Shorten(what.message, maxMessage)
	if what.reason == "" || same || o.know.said {
		return wait(d)
	}
	if early := left(o, m, newsDelay); early > 0 {
		return wait(min(d, early))
	}
	news := enter(o, m, m.Status.Phase, what)
	news.step, news.status.PhaseTime = stepNote, m.Status.PhaseTime
	return news
}

// start waits until the target is ready.
func start(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	remaining := startLeft(o, m)
	if !pod.Ready(o.target) {
		return awaitReady(o, m, remaining)
	}
	switch m.Status.Strategy {
	case doryv1alpha1.MigrationLive:
		return startLive(o, m, remaining)
	default:
		return enter(o, m, doryv1alpha1.MigrationHandingOff, outcome{ReasonMoving, fmt.Sprintf("target pod %s is ready and gets the state", o.target.Name)})
	}
}

func startLive(o *observation, m *doryv1alpha1.ProcessorMigration, remaining deadline) decision {
	switch {
	case o.know.trouble != nil:
		return endure(o, m, *judge(o.know.trouble), remaining)
	case o.know.targetCan == nil:
		return do(stepAskTarget, m)
	case !o.know.targetCan.Handoff:
		return enter(o, m, doryv1alpha1.MigrationRollingBack, outcome{ReasonTargetHasNoHandoff, fmt.Sprintf(
			"target pod %s does not list the handoff in GET /, which the source does", o.target.Name)})
	default:
		return enter(o, m, doryv1alpha1.MigrationWarming, outcome{ReasonMoving, fmt.Sprintf("target pod %s is ready and gets a first copy of the state", o.target.Name)})
	}
}

func awaitReady(o *observation, m *doryv1alpha1.ProcessorMigration, remaining deadline) decision {
	cause := outcome{delay(o.target), fmt.Sprintf("target pod %s was not ready within %s: %s", o.target.Name, o.policy().StartTimeout(), pod.Unreadiness(o.target))}
	if remaining <= 0 {
		return enter(o, m, doryv1alpha1.MigrationRollingBack, cause)
	}
	if pod.Stuck(o.target) != nil {
		patience := left(o, m, startPatience)
		if patience <= 0 {
			cause.message = fmt.Sprintf("target pod %s cannot start: %s", o.target.Name, pod.Unreadiness(o.target))
			return enter(o, m, doryv1alpha1.MigrationRollingBack, cause)
		}
		remaining = min(remaining, patience)
	}
	return waitFor(o, m, outcome{cause.reason, fmt.Sprintf("target pod %s on node %s is not ready: %s", o.target.Name, o.target.Spec.NodeName, pod.Unreadiness(o.target))}, remaining)
}

// delay is the reason for which a target is not ready.
func delay(p *corev1.Pod) string {
	if pod.Unpullable(p) != nil {
		return ReasonTargetImage
	}
	return ReasonTargetNotReady
}

// warm copies the state while the source works. For Live that makes the final copy small news to the target and finds out
// early whether the target takes the state; for StopAndCopy the copy is what is left if the source ends without saving.
func warm(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	k, remaining := &o.know, left(o, m, o.policy().HandoffTimeout())
	if v := judge(k.trouble); v != nil {
		return endure(o, m, *v, remaining)
	}
	if !pod.Ready(o.source) {
		if remaining <= 0 {
			return enter(o, m, doryv1alpha1.MigrationRollingBack, outcome{ReasonSourceUnavailable, fmt.Sprintf("source pod %s is not ready any more", o.source.Name)})
		}
		return waitFor(o, m, outcome{ReasonSourceUnavailable, fmt.Sprintf("source pod %s is not ready any more", o.source.Name)}, remaining)
	}
	if remaining <= -stepTimeout { // A last attempt at the deadline has a better reason to tell.
		return enter(o, m, doryv1alpha1.MigrationRollingBack, outcome{ReasonStateNotCopied, fmt.Sprintf(
			"no first copy of the state was made within %s (spec.migration.handoffTimeoutSeconds): %s", o.policy().HandoffTimeout(), lastSaid(m))})
	}
	if m.Status.Strategy == doryv1alpha1.MigrationStopAndCopy {
		return warmStop(o, m)
	}
	switch {
	case k.targetIs == nil: // Whoever acts would lose what it did to the copy.
		return do(stepCheckTarget, m)
	case !standsBy(k.targetIs.Role):
		return endure(o, m, targetActs(o), remaining)
	case k.copy == nil:
		return do(stepCapture, m)
	case !k.warmed:
		return do(stepWarm, m)
	default:
		return enter(o, m, doryv1alpha1.MigrationHandingOff, outcome{ReasonMoving, fmt.Sprintf("pod %s hands over to pod %s", m.Status.SourcePod, m.Status.TargetPod)})
	}
}

// warmStop does not end the source before it is known that the API server takes the target, and that there is a state.
func warmStop(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	k := &o.know
	switch {
	case unrecalled(o, m):
		return do(stepRecall, m)
	case !k.rehearsed:
		return do(stepRehearse, m)
	case k.copy == nil && o.policy().OnMissing() != doryv1alpha1.OnMissingDiscard:
		return do(stepCapture, m)
	case k.copy != nil && !k.reserved:
		return do(stepReserve, m)
	case !k.foreseen:
		return do(stepForesee, m)
	case !k.kept:
		return do(stepKeep, m)
	}
	d := enter(o, m, doryv1alpha1.MigrationHandingOff, outcome{ReasonMoving, fmt.Sprintf("pod %s saves its state and ends", m.Status.SourcePod)})
	describe(d.status, k.copy)
	return d
}
