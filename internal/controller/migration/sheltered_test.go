package migration

import (
	"context"
	"testing"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// TestStopOfTheOperatorDoesNotInterruptAHandoff: everything else can wait for the next leader.
func TestStopOfTheOperatorDoesNotInterruptAHandoff(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, phase := range []doryv1alpha1.MigrationPhase{
		"", doryv1alpha1.MigrationPending, doryv1alpha1.MigrationPlacing, doryv1alpha1.MigrationStarting, doryv1alpha1.MigrationWarming,
		doryv1alpha1.MigrationHandingOff, doryv1alpha1.MigrationRetiring, doryv1alpha1.MigrationRollingBack,
	} {
		m := &doryv1alpha1.ProcessorMigration{Status: doryv1alpha1.ProcessorMigrationStatus{Phase: phase}}
		goesOn := sheltered(stopped, decision{migration: m}).Err() == nil
		if want := phase == doryv1alpha1.MigrationHandingOff; goesOn != want {
			t.Errorf("%q: goes on is %t, want %t", phase, goesOn, want)
		}
	}
	if sheltered(stopped, decision{}).Err() == nil {
		t.Error("a step about no migration goes on")
	}
}
