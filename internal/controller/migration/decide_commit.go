package migration

import (
	"fmt"
	"time"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
)

// forward goes on after the commit. There is no way back: the target may act at any moment.
func forward(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	if m.Status.Strategy == doryv1alpha1.MigrationStopAndCopy {
		return forwardStopped(o, m)
	}
	if over(o.target) {
		return bereaved(o, m)
	}
	retiring := m.Status.Phase == doryv1alpha1.MigrationRetiring
	if !retiring {
		takeOver := promote
		if m.Status.Strategy == doryv1alpha1.MigrationOverlap {
			takeOver = promoteRunning
		}
		if d, found := takeOver(o, m); found {
			return d
		}
	}
	switch {
	case going(o.target) && !retiring:
		return await()
	case !retiring && (pod.EpochOf(o.target) != o.epoch.Spec.Epoch || aside(o.target)):
		return do(stepAdopt, m)
	case !retiring:
		return retire(o, m)
	default:
		return endSource(o, m)
	}
}

func retire(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	d := enter(o, m, doryv1alpha1.MigrationRetiring, outcome{ReasonMoving, fmt.Sprintf("pod %s acts under epoch %d; pod %s ends", m.Status.TargetPod, o.epoch.Spec.Epoch, m.Status.SourcePod)})
	d.status.TargetEpoch = o.epoch.Spec.Epoch
	describe(d.status, o.know.final)
	if m.Status.Strategy == doryv1alpha1.MigrationLive {
		setPause(d.status, o.stoodStill(m))
	}
	return d
}

// stoodStill is for how long the processor stood still. A pass that found it so knows only since when the handoff lasts.
func (o *observation) stoodStill(m *doryv1alpha1.ProcessorMigration) time.Duration {
	if o.know.pause > 0 || m.Status.PhaseTime == nil {
		return o.know.pause
	}
	return o.now.Sub(m.Status.PhaseTime.Time)
}

// promote lets the target act. It may have been done already, and the process that it was done with may be gone.
func promote(o *observation, m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	k := &o.know
	if v := judge(k.trouble); v != nil {
		if v.final && !v.source {
			return despair(o, m)
		}
		return first(wait(retryDelay))
	}
	switch {
	case k.promoted:
		return none()
	case going(o.target):
		return first(await()) // It may act until its end, which is to come.
	case k.targetIs == nil:
		return first(do(stepCheckTarget, m))
	case k.targetIs.Role == rolePrimary: // Also under an older epoch, where somebody issued another one to the same pod.
		return none()
	case k.targetIs.Role == roleUnknown && pod.EpochOf(o.target) == o.epoch.Spec.Epoch && !aside(o.target):
		return none() // It was marked after it was promoted.
	case !standsBy(k.targetIs.Role):
		return first(wait(retryDelay))
	}
	if d, found := furnish(o, m); found {
		return first(d)
	}
	return first(do(stepPromote, m))
}

// promoteRunning tells the target of an Overlap its epoch, where its SDK can be told: what it saves from now on is newer
// than what the source saves at its end. Whatever comes in between, its next process learns it from the pod.
func promoteRunning(o *observation, m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	k := &o.know
	switch {
	case k.promoted, k.trouble != nil, going(o.target):
		return none()
	case k.targetIs == nil:
		return first(do(stepCheckTarget, m))
	case k.targetIs.Role == rolePrimary && k.targetIs.Epoch < o.epoch.Spec.Epoch:
		return first(do(stepPromote, m))
	}
	return none()
}

// furnish makes sure that the target holds the final state. The commit was about a process that held it, and says which one.
// One that holds anything was given it since.
func furnish(o *observation, m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	k := &o.know
	committed := fence.InstanceOf(o.epoch)
	holds := (committed != "" && k.targetIs.Instance == committed) || (k.targetIs.Role == roleStandby && k.targetIs.Sequence > 0)
	if k.held || (k.final == nil && holds) {
		return none()
	}
	if k.final == nil {
		return refetch(o, m)
	}
	return deliver(o, m)
}

// refetch gets the final state once more from the source, which is quiesced and keeps it, or else from wherever it is.
func refetch(o *observation, m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	k := &o.know
	switch {
	case !over(o.source) && !aside(o.source):
		return first(do(stepAside, m))
	case !over(o.source) && k.sourceIs == nil:
		return first(do(stepCheckSource, m))
	case !over(o.source) && quiescible(k.sourceIs.Role):
		return first(do(stepQuiesce, m))
	case !k.gathered:
		return first(do(stepGather, m))
	case o.incomplete():
		return first(wait(retryDelay))
	default:
		return despair(o, m)
	}
}

// despair gives up a target that cannot be made to act: its end is the way to another instance.
func despair(o *observation, m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	if going(o.target) {
		return first(await())
	}
	return salvage(o, m, stepDeleteTarget)
}

// bereaved: the holder of the epoch ended, and lifecycle will start another instance from the newest durable state, so
// what the source holds must become that before the source is ended. A source that works saves its state by itself.
func bereaved(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	cause := outcome{ReasonTargetLost, fmt.Sprintf("target pod %s ended after it had taken over: %s", m.Status.TargetPod, ending(o.target))}
	switch {
	case over(o.source):
		return enter(o, m, doryv1alpha1.MigrationFailed, cause)
	case going(o.source) && !aside(o.source):
		return await()
	case m.Status.Strategy == doryv1alpha1.MigrationLive && o.processor != nil && !o.know.saved:
		d, _ := salvage(o, m, stepDeleteSource)
		return d
	case going(o.source):
		return await()
	default:
		return do(stepDeleteSource, m)
	}
}

// endSource ends a source that is not needed any more, and waits until its kubelet has confirmed it, though not for ever:
// the target acts, and lifecycle keeps an eye on the rest.
func endSource(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	moved := outcome{ReasonMoved, fmt.Sprintf("pod %s acts under epoch %d", m.Status.TargetPod, o.epoch.Spec.Epoch)}
	if over(o.source) {
		return enter(o, m, doryv1alpha1.MigrationSucceeded, moved)
	}
	if !going(o.source) {
		return do(stepDeleteSource, m)
	}
	remaining := left(o, m, grace(o.source)+endPatience)
	if remaining > 0 {
		return wait(remaining)
	}
	moved.message += fmt.Sprintf("; nobody has confirmed yet that pod %s on node %s ended", o.source.Name, o.source.Spec.NodeName)
	return enter(o, m, doryv1alpha1.MigrationSucceeded, moved)
}

// forwardStopped starts the target, which finds the state where the source saved it.
func forwardStopped(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	phase, remaining := m.Status.Phase, startLeft(o, m)
	cause, spoiled := overtaken(o, m)
	switch {
	case !o.wanted():
		return enter(o, m, doryv1alpha1.MigrationFailed, outcome{ReasonProcessorSuspended, "the processor is not to run any more; its source ended"})
	case spoiled:
		return enter(o, m, doryv1alpha1.MigrationFailed, cause)
	case phase != doryv1alpha1.MigrationPlacing && phase != doryv1alpha1.MigrationStarting:
		return enter(o, m, doryv1alpha1.MigrationPlacing, outcome{ReasonMoving, fmt.Sprintf("pod %s ended, pod %s starts from its state", m.Status.SourcePod, m.Status.TargetPod)})
	case o.target == nil && phase == doryv1alpha1.MigrationPlacing:
		return createStopped(o, m, remaining)
	case over(o.target), going(o.target):
		return enter(o, m, doryv1alpha1.MigrationFailed, endedEarly(o, m, remaining))
	case pod.Ready(o.target):
		d := enter(o, m, doryv1alpha1.MigrationSucceeded, outcome{ReasonMoved, fmt.Sprintf("pod %s acts under epoch %d", m.Status.TargetPod, o.epoch.Spec.Epoch)})
		d.status.TargetEpoch = o.epoch.Spec.Epoch
		setPause(d.status, o.stopped(m))
		return d
	case bound(o.target) && phase == doryv1alpha1.MigrationPlacing:
		return enter(o, m, doryv1alpha1.MigrationStarting, outcome{ReasonMoving, fmt.Sprintf("target pod %s starts on node %s", o.target.Name, o.target.Spec.NodeName)})
	default:
		return awaitStopped(o, m, remaining)
	}
}

// awaitStopped: what does not start in time is lifecycle's.
func awaitStopped(o *observation, m *doryv1alpha1.ProcessorMigration, remaining deadline) decision {
	limit := o.policy().StartTimeout()
	if bound(o.target) && pod.Stuck(o.target) != nil && m.Status.Phase == doryv1alpha1.MigrationStarting {
		if patience := left(o, m, startPatience); patience < remaining {
			limit, remaining = startPatience, patience
		}
	}
	switch {
	case remaining > 0 && bound(o.target):
		return waitFor(o, m, outcome{delay(o.target), fmt.Sprintf("target pod %s on node %s is not ready: %s", o.target.Name, o.target.Spec.NodeName, pod.Unreadiness(o.target))}, remaining)
	case remaining > 0:
		return waitFor(o, m, unplaced(o, m), remaining)
	case !bound(o.target):
		return do(stepDeleteTarget, m) // So that lifecycle starts one wherever there is room.
	default:
		return enter(o, m, doryv1alpha1.MigrationFailed, outcome{delay(o.target), fmt.Sprintf(
			"target pod %s was not ready within %s: %s; it is lifecycle's now", o.target.Name, limit, pod.Unreadiness(o.target))})
	}
}

func endedEarly(o *observation, m *doryv1alpha1.ProcessorMigration, remaining deadline) outcome {
	if o.target != nil && !bound(o.target) && remaining <= 0 {
		return unschedulable(o, m)
	}
	return outcome{ReasonTargetLost, fmt.Sprintf("target pod %s ended: %s; lifecycle starts the next instance", m.Status.TargetPod, ending(o.target))}
}

func createStopped(o *observation, m *doryv1alpha1.ProcessorMigration, remaining deadline) decision {
	v := judge(o.know.trouble)
	switch {
	case v == nil && unrecalled(o, m):
		return do(stepRecall, m)
	case v == nil:
		return do(stepCreateTarget, m)
	case v.final || remaining <= retryDelay:
		return enter(o, m, doryv1alpha1.MigrationFailed, outcome{v.reason, v.message + "; lifecycle starts the next instance"})
	default:
		return waitFor(o, m, v.outcome, retryDelay)
	}
}
