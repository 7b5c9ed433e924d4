package migration

import (
	"fmt"
	"time"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

type deadline = time.Duration

// drawTimeout is what the database may take of the handoff's time. Without its answer the ProcessorEpoch stands in for it.
const drawTimeout = time.Second

// handOff ends with the commit. Everything before it can be undone.
func handOff(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	if m.Status.Strategy == doryv1alpha1.MigrationStopAndCopy {
		return handOffStopped(o, m)
	}
	remaining := left(o, m, o.policy().HandoffTimeout())
	if v := judge(o.know.trouble); v != nil {
		if o.quiescedInVain() {
			return do(stepSave, m)
		}
		return endure(o, m, *v, remaining)
	}
	if remaining <= 0 {
		return enter(o, m, doryv1alpha1.MigrationRollingBack, outcome{ReasonNotQuiesced, fmt.Sprintf(
			"the handoff was not finished within %s (spec.migration.handoffTimeoutSeconds)", o.policy().HandoffTimeout())})
	}
	d := handOffRunning
	if m.Status.Strategy == doryv1alpha1.MigrationLive {
		d = handOffLive
	}
	return inTime(d(o, m, remaining), remaining)
}

// inTime lets no processor's answer be awaited beyond the deadline, because the source may stand still meanwhile. The commit
// has its own time: cut short, it leaves open whether it happened.
func inTime(d decision, remaining deadline) decision {
	switch {
	case d.step == stepQuiesce:
		d.timeout = min(remaining, quiesceTimeout)
	case d.step == stepDraw:
		d.timeout = min(remaining/4, drawTimeout)
	case d.step != "" && d.step != stepCommit && d.status == nil:
		d.timeout = min(remaining, stepTimeout)
	}
	return d
}

// handOffLive: the source stands aside in its pod's metadata before it does so in fact, so that a process of it that is
// started anew meanwhile does not act. Both processes are asked who they are before anything is done with them, and once
// more before the commit: it must be about the process that quiesced and the process that holds the state.
func handOffLive(o *observation, m *doryv1alpha1.ProcessorMigration, remaining deadline) decision {
	k := &o.know
	switch {
	case k.drawn == 0:
		return do(stepDraw, m)
	case !over(o.source) && !aside(o.source):
		return do(stepAside, m)
	case !over(o.source) && k.sourceIs == nil:
		return do(stepCheckSource, m)
	case k.targetIs == nil:
		return do(stepCheckTarget, m)
	case !standsBy(k.targetIs.Role):
		return endure(o, m, targetActs(o), remaining)
	}
	if d, found := obtain(o, m, remaining); found {
		return d
	}
	if d, found := deliver(o, m); found {
		return d
	}
	if !k.confirmed {
		return do(stepConfirm, m)
	}
	return do(stepCommit, m)
}

// handOffRunning is the handoff of Overlap: the target runs already, and the source goes on until it is ended.
func handOffRunning(o *observation, m *doryv1alpha1.ProcessorMigration, _ deadline) decision {
	k := &o.know
	switch {
	case k.targetIs == nil:
		return do(stepCheckTarget, m)
	case k.final == nil:
		return do(stepCapture, m)
	}
	if d, found := deliver(o, m); found {
		return d
	}
	if !k.confirmed {
		return do(stepConfirm, m)
	}
	return do(stepCommit, m)
}

// obtain makes sure that nothing acts and that the state to go on from is in hand.
func obtain(o *observation, m *doryv1alpha1.ProcessorMigration, remaining deadline) (decision, bool) {
	k := &o.know
	switch {
	case k.final != nil && o.silent():
		return none()
	case !o.silent() && !quiescible(k.sourceIs.Role):
		return first(endure(o, m, verdict{outcome: outcome{ReasonNotQuiesced, fmt.Sprintf("source pod %s is %s", m.Status.SourcePod, k.sourceIs.Role)}}, remaining))
	case !o.silent(), k.sourceIs != nil && k.sourceIs.Role == roleQuiesced && !over(o.source):
		return first(do(stepQuiesce, m))
	case !k.gathered:
		return first(do(stepGather, m))
	case o.incomplete():
		return first(endure(o, m, verdict{outcome: outcome{ReasonTargetUnavailable, fmt.Sprintf("target pod %s does not say which state it holds", m.Status.TargetPod)}}, remaining))
	default: // What is gathered becomes the final state, so there was nothing.
		return first(enter(o, m, doryv1alpha1.MigrationRollingBack, outcome{ReasonSourceLost, fmt.Sprintf(
			"source pod %s lost its state before the handoff, and there is no copy of it", m.Status.SourcePod)}))
	}
}

// deliver gets the final state into the target, and makes sure of it.
func deliver(o *observation, m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	k := &o.know
	switch {
	case k.held:
		return none()
	case !k.delivered:
		return first(do(stepRestore, m))
	default:
		return first(do(stepVerify, m))
	}
}

// silent says that the source does not act, and cannot begin to by itself.
func (o *observation) silent() bool {
	is := o.know.sourceIs
	return over(o.source) || (is != nil && (is.Role == roleQuiesced || is.Role == roleStandby))
}

// The roles that processes tell.
const (
	rolePrimary  = "primary"
	roleQuiesced = "quiesced"
	roleStandby  = "standby"
	// roleUnknown is for SDKs that do not tell.
	roleUnknown = ""
)

func standsBy(role string) bool { return role == roleStandby || role == roleUnknown }

func quiescible(role string) bool {
	return role == rolePrimary || role == roleQuiesced || role == roleUnknown
}

func targetActs(o *observation) verdict {
	role := o.know.targetIs.Role
	return verdict{final: role == rolePrimary, outcome: outcome{ReasonTargetUnavailable, fmt.Sprintf("target pod %s should stand by and is %s", o.target.Name, role)}}
}

// handOffStopped ends the source and goes by what it saved.
func handOffStopped(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	k := &o.know
	cause, spoiled := overtaken(o, m)
	switch {
	case !over(o.source) && !going(o.source):
		return do(stepDeleteSource, m)
	case going(o.source):
		return await()
	case !o.wanted():
		return enter(o, m, doryv1alpha1.MigrationFailed, outcome{ReasonProcessorSuspended, "the processor is not to run any more; its source ended"})
	case o.holderName() != m.Status.SourcePod:
		return enter(o, m, doryv1alpha1.MigrationFailed, holderChanged(o, m))
	case spoiled:
		return enter(o, m, doryv1alpha1.MigrationFailed, cause)
	case m.DeletionTimestamp != nil:
		return enter(o, m, doryv1alpha1.MigrationFailed, outcome{ReasonCancelled, "the ProcessorMigration was deleted after the source was told to end; lifecycle starts the next instance"})
	case !k.gathered:
		return do(stepGather, m)
	default:
		return do(stepCommit, m)
	}
}

// quiescedInVain says that the final state is in hand, the handoff is interrupted, and nobody but this pass and a source
// that saves nothing any more is known to hold it.
func (o *observation) quiescedInVain() bool {
	k := &o.know
	return k.quiesced && o.processor != nil && !k.saved
}
