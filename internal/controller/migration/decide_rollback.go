package migration

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// rollBack returns to the source, or, where that is lost, leaves nothing behind for lifecycle but the newest state. The
// source's pod says that it stands aside until everything else is done, so that whether it acts is asked in every pass. Before
// it is woken, the epoch is barred: a leader that was overtaken may have stopped right before its commit. If it was faster,
// the bar meets a newer epoch, and the next pass goes forward.
func rollBack(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	live := m.Status.Strategy == doryv1alpha1.MigrationLive
	if over(o.source) || going(o.source) || o.holderName() != m.Status.SourcePod {
		return abandonSource(o, m, live)
	}
	if m.Status.Strategy != doryv1alpha1.MigrationStopAndCopy && !o.barred(m) {
		return do(stepBar, m)
	}
	if live && (aside(o.source) || o.know.back) {
		if d, found := wake(o, m); found {
			return d
		}
		if o.forsaken() {
			d, _ := salvage(o, m, stepDeleteSource)
			return d
		}
	}
	if d, found := endTarget(o, m); found {
		return d
	}
	if live && (aside(o.source) || pod.EpochOf(o.source) != o.epoch.Spec.Epoch) {
		return do(stepBack, m)
	}
	return enter(o, m, doryv1alpha1.MigrationRolledBack, outcome{m.Status.Reason, m.Status.Message + unconfirmed(o.target)})
}

// abandonSource is for a source that cannot go on: it ended, or is about to, or another pod holds the epoch.
func abandonSource(o *observation, m *doryv1alpha1.ProcessorMigration, live bool) decision {
	if live && o.processor != nil && !o.know.saved {
		d, _ := salvage(o, m, "")
		return d
	}
	if d, found := endTarget(o, m); found {
		return d
	}
	if going(o.source) && o.holderName() == m.Status.SourcePod {
		return await()
	}
	cause := outcome{m.Status.Reason, m.Status.Message + unconfirmed(o.target)}
	if cause.reason != ReasonSourceLost && o.wanted() && over(o.source) {
		cause = outcome{ReasonSourceLost, fmt.Sprintf("source pod %s ended while the move was rolled back because of %s: %s", m.Status.SourcePod, m.Status.Reason, m.Status.Message)}
	}
	return enter(o, m, doryv1alpha1.MigrationFailed, cause)
}

// wake makes the source act, in whatever role it is found. It is called again and again until the pod's metadata say so:
// a request to quiesce that nobody waits for any more may take effect late.
func wake(o *observation, m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	k := &o.know
	switch {
	case k.awake, o.forsaken():
		return none()
	case k.trouble != nil:
		return first(wait(retryDelay))
	case k.sourceIs == nil:
		return first(do(stepCheckSource, m))
	case k.sourceIs.Role == roleStandby:
		return revive(o, m)
	case quiescible(k.sourceIs.Role):
		return first(do(stepResume, m))
	default:
		return first(wait(retryDelay))
	}
}

// forsaken says that the source cannot be made to act: it refuses, or it knows nothing and nothing is known.
func (o *observation) forsaken() bool {
	k := &o.know
	return k.forsaken || (k.sourceIs != nil && k.sourceIs.Role == roleStandby && k.gathered && k.newest == nil && !o.incomplete())
}

// incomplete says that somebody who may hold the newest state did not answer when it was gathered.
func (o *observation) incomplete() bool {
	k := &o.know
	return (k.missedSource && !over(o.source) && !going(o.source)) || (k.missedTarget && !over(o.target) && !going(o.target))
}

// patient says that a move that is rolled back can still wait for a target to answer. The processor stands still meanwhile.
func patient(o *observation, m *doryv1alpha1.ProcessorMigration) bool {
	return left(o, m, o.policy().HandoffTimeout()) > 0
}

// revive is for a process that was started after the handoff began, and knows nothing: it gets the newest state there is,
// and an epoch of its own.
func revive(o *observation, m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	k := &o.know
	switch {
	case !k.gathered:
		return first(do(stepGather, m))
	case o.incomplete() && (k.newest == nil || patient(o, m)):
		return first(wait(retryDelay))
	case o.epoch.Spec.Epoch <= max(k.sourceIs.Epoch, pod.EpochOf(o.source)):
		return first(do(stepReviveIssue, m))
	case !k.revived:
		return first(do(stepReviveRestore, m))
	default:
		return first(do(stepRevivePromote, m))
	}
}

// salvage makes the newest state that can be had durable, and then takes a step that costs a copy of it; none if there
// is no such step.
func salvage(o *observation, m *doryv1alpha1.ProcessorMigration, then step) (decision, bool) {
	switch {
	case o.processor == nil: // Nobody knows any more where its state belongs.
	case !o.know.gathered:
		return first(do(stepGather, m))
	case o.know.missedSource && !over(o.source) && !going(o.source):
		return first(wait(retryDelay)) // It may hold the newest.
	case o.incomplete() && patient(o, m):
		return first(wait(retryDelay))
	case !o.know.saved:
		return first(do(stepSave, m))
	}
	if then == "" {
		return none()
	}
	return first(do(then, m))
}

// endTarget removes the target. Its end is waited for, but not for ever: it holds no epoch, so nobody promotes it.
func endTarget(o *observation, m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	if over(o.target) {
		return none()
	}
	if !going(o.target) {
		return first(do(stepDeleteTarget, m))
	}
	if remaining := left(o, m, grace(o.target)+endPatience); remaining > 0 {
		return first(wait(remaining))
	}
	return none()
}

func unconfirmed(target *corev1.Pod) string {
	if over(target) {
		return ""
	}
	return fmt.Sprintf("; nobody has confirmed yet that pod %s on node %s ended", target.Name, target.Spec.NodeName)
}

func grace(p *corev1.Pod) time.Duration {
	if p.Spec.TerminationGracePeriodSeconds == nil {
		return 0
	}
	return time.Duration(*p.Spec.TerminationGracePeriodSeconds) * time.Second
}
