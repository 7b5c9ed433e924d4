package migration

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statexfer"
)

// maxMessage is the API's limit for status.message.
const maxMessage = 4096

// entering is the step that writes a phase, so that each is a step of its own to the fault tests.
func entering(phase doryv1alpha1.MigrationPhase) step {
	switch phase {
	case doryv1alpha1.MigrationPlacing:
		return stepEnterPlacing
	case doryv1alpha1.MigrationStarting:
		return stepEnterStarting
	case doryv1alpha1.MigrationWarming:
		return stepEnterWarming
	case doryv1alpha1.MigrationHandingOff:
		return stepEnterHandingOff
	case doryv1alpha1.MigrationRetiring:
		return stepEnterRetiring
	case doryv1alpha1.MigrationSucceeded:
		return stepEnterSucceeded
	case doryv1alpha1.MigrationRollingBack:
		return stepEnterRollingBack
	case doryv1alpha1.MigrationRolledBack:
		return stepEnterRolledBack
	case doryv1alpha1.MigrationFailed:
		return stepEnterFailed
	default:
		return stepNote
	}
}

// enter reaches a phase.
func enter(o *observation, m *doryv1alpha1.ProcessorMigration, phase doryv1alpha1.MigrationPhase, cause outcome) decision {
	now := metav1.NewTime(o.now.Truncate(time.Second)) // The API keeps seconds.
	status := m.Status.DeepCopy()
	status.ObservedGeneration = m.Generation
	status.Phase, status.PhaseTime = phase, &now
	status.Reason, status.Message = cause.reason, message.Shorten(cause.message, maxMessage)
	if bound(o.target) && o.target.Name == status.TargetPod {
		status.TargetNode = o.target.Spec.NodeName
	}
	ended := &doryv1alpha1.ProcessorMigration{Status: *status}
	if ended.Ended() {
		conclude(status, o.now)
	}
	return decision{step: entering(phase), migration: m, status: status, cause: cause}
}

// note says why a migration is still Pending. The time of the phase is that of the reason, which deadlines count from.
func note(o *observation, m *doryv1alpha1.ProcessorMigration, cause outcome) decision {
	d := enter(o, m, doryv1alpha1.MigrationPending, cause)
	if m.Status.Phase == doryv1alpha1.MigrationPending && m.Status.Reason == cause.reason && m.Status.PhaseTime != nil {
		d.status.PhaseTime = m.Status.PhaseTime
	}
	return d
}

func conclude(status *doryv1alpha1.ProcessorMigrationStatus, now time.Time) {
	completion := metav1.NewTime(now.Truncate(time.Second))
	status.CompletionTime = &completion
	if status.StartTime != nil {
		status.Duration = &metav1.Duration{Duration: max(0, completion.Sub(status.StartTime.Time))}
	}
	value := metav1.ConditionFalse
	if status.Phase == doryv1alpha1.MigrationSucceeded {
		value = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: ConditionSucceeded, Status: value, Reason: status.Reason, Message: status.Message,
		ObservedGeneration: status.ObservedGeneration, LastTransitionTime: completion,
	})
}

// describe says which state is moved.
func describe(status *doryv1alpha1.ProcessorMigrationStatus, state *statexfer.State) {
	if state == nil {
		return
	}
	status.StateBytes = int64(len(state.Data))
	if state.HasPosition {
		sequence := state.Position.Sequence
		status.Sequence = &sequence
	}
}

func setPause(status *doryv1alpha1.ProcessorMigrationStatus, pause time.Duration) {
	const precision = 100 * time.Microsecond
	status.Pause = &metav1.Duration{Duration: max(0, pause).Round(precision)}
}

// stopped is for how long a processor stood still that was stopped and started.
func (o *observation) stopped(m *doryv1alpha1.ProcessorMigration) time.Duration {
	condition := pod.Condition(o.target, "Ready")
	if condition == nil || m.Status.StartTime == nil {
		return 0
	}
	return condition.LastTransitionTime.Sub(m.Status.StartTime.Time)
}
