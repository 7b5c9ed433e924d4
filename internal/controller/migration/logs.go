package migration

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// logEntered is the operator's own record of a move: a line where it begins, has handed over, goes back, and ends. The commit
// itself has none, because the processor stands still meanwhile.
func logEntered(ctx context.Context, o *observation, before, m *doryv1alpha1.ProcessorMigration) {
	s := &m.Status
	var what string
	switch s.Phase {
	case doryv1alpha1.MigrationRetiring:
		what = "Handed a processor over"
	case doryv1alpha1.MigrationSucceeded:
		what = "Moved a processor"
	case doryv1alpha1.MigrationRollingBack:
		what = "Rolling a move back"
	case doryv1alpha1.MigrationRolledBack:
		what = "Rolled a move back"
	case doryv1alpha1.MigrationFailed:
		what = "A move failed"
	default:
		if before.Active() || !m.Active() {
			return
		}
		what = "Beginning to move a processor"
	}
	epoch := s.TargetEpoch
	if epoch == 0 {
		epoch = s.SourceEpoch
	}
	log.FromContext(ctx).Info(what, "processor", o.key.Name, "migration", m.Name, "cause", m.Spec.Reason, "strategy", s.Strategy, "epoch", epoch,
		"pod", s.SourcePod, "node", s.SourceNode, "targetPod", s.TargetPod, "targetNode", s.TargetNode, "reason", s.Reason, "message", s.Message)
}
