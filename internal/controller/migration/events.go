package migration

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/statexfer"
)

// narrator is the list of everything this package says in events.
type narrator struct{ recorder record.Recorder }

// tell says it about the migration, and about its Processor, where people look first.
func (n narrator) tell(o *observation, m *doryv1alpha1.ProcessorMigration, kind, reason, action, message string) {
	var related runtime.Object
	if o.processor != nil {
		related = o.processor
	}
	if m != nil {
		n.recorder.Eventf(m, related, kind, reason, action, "%s", message)
	}
	if o.processor != nil {
		n.recorder.Eventf(o.processor, nil, kind, reason, action, "%s", message)
	}
}

// entered tells of the phases that a person would want to read about: begun, going back, and ended.
func (n narrator) entered(o *observation, before, m *doryv1alpha1.ProcessorMigration) {
	s := m.Status
	switch s.Phase {
	case doryv1alpha1.MigrationSucceeded:
		message := fmt.Sprintf("ProcessorMigration %s: %s", m.Name, s.Message)
		if s.Pause != nil {
			message += fmt.Sprintf(", after a pause of %s", s.Pause.Duration)
		}
		n.tell(o, m, corev1.EventTypeNormal, "MigrationSucceeded", "Migrate", message)
	case doryv1alpha1.MigrationRollingBack:
		n.tell(o, m, corev1.EventTypeWarning, "MigrationRollingBack", "Migrate", fmt.Sprintf("ProcessorMigration %s: %s: %s", m.Name, s.Reason, s.Message))
	case doryv1alpha1.MigrationRolledBack:
		n.tell(o, m, corev1.EventTypeNormal, "MigrationRolledBack", "Migrate", fmt.Sprintf("ProcessorMigration %s left the processor where it was: %s: %s", m.Name, s.Reason, s.Message))
	case doryv1alpha1.MigrationFailed:
		n.tell(o, m, corev1.EventTypeWarning, "MigrationFailed", "Migrate", fmt.Sprintf("ProcessorMigration %s: %s: %s", m.Name, s.Reason, s.Message))
	default:
		if !before.Active() && m.Active() {
			n.tell(o, m, corev1.EventTypeNormal, "MigrationStarted", "Migrate", fmt.Sprintf("ProcessorMigration %s (%s): %s", m.Name, m.Spec.Reason, s.Message))
		}
	}
}

func (n narrator) created(m *doryv1alpha1.ProcessorMigration, target *corev1.Pod) {
	n.recorder.Eventf(m, target, corev1.EventTypeNormal, "TargetCreated", "Create", "Created target pod %s", target.Name)
}

func (n narrator) unverified(o *observation, m *doryv1alpha1.ProcessorMigration, err error) {
	n.tell(o, m, corev1.EventTypeNormal, "StateUnverified", "Verify", "The target works on while its state is compared, as Overlap has it: "+err.Error())
}

func (n narrator) notSaved(o *observation, m *doryv1alpha1.ProcessorMigration, newest *statexfer.State) {
	message := fmt.Sprintf("Pod %s ended without saving its state, and there is no copy of it", m.Status.SourcePod)
	if newest != nil {
		message = fmt.Sprintf("Pod %s ended without saving its state; the processor goes on from the copy of %s", m.Status.SourcePod, statexfer.FormatTime(newest.CapturedAt))
	}
	n.tell(o, m, corev1.EventTypeWarning, "StateNotSaved", "Migrate", message)
}

func (n narrator) unkept(o *observation, err error) {
	n.tell(o, nil, corev1.EventTypeWarning, "StateNotKept", "Save", "The state cannot be made durable: "+err.Error())
}

func (n narrator) unrecorded(o *observation, m *doryv1alpha1.ProcessorMigration) {
	n.tell(o, m, corev1.EventTypeWarning, "NoWayBack", "Keep", fmt.Sprintf(
		"Pod %s gives way to another version, and does not come back if that one does not work: it does not say what it was made from", o.source.Name))
}

func (n narrator) rescued(o *observation) {
	n.tell(o, nil, corev1.EventTypeWarning, "SourceRescued", "Resume", fmt.Sprintf("Pod %s stood aside for a ProcessorMigration that is gone; it acts again", o.source.Name))
}
