package dbsync

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// The API's defaults and bounds of a processor's policies. The original had no such sections: one that a template does not
// have, or that is empty, leaves the policy unset.
const (
	defaultCheckpointSeconds = 30
	defaultStartTimeout      = 300
	defaultHandoffTimeout    = 60
	defaultHistoryLimit      = 5

	secondsOfDay  = 86400
	secondsOfHour = 3600
)

// readState reads the section state.
func readState(s *section) *doryv1alpha1.ProcessorState {
	if s.empty() {
		return nil
	}
	seconds := s.integer("checkpoint_interval_sec", defaultCheckpointSeconds, 0, secondsOfDay)
	return &doryv1alpha1.ProcessorState{
		CheckpointInterval: &metav1.Duration{Duration: time.Duration(seconds) * time.Second},
		OnMissing: oneOf(s, "on_missing", doryv1alpha1.OnMissingPreferLatest,
			doryv1alpha1.OnMissingRequire, doryv1alpha1.OnMissingDiscard),
	}
}

// readUpdate reads the section update.
func readUpdate(s *section) *doryv1alpha1.ProcessorUpdate {
	if s.empty() {
		return nil
	}
	return &doryv1alpha1.ProcessorUpdate{
		Strategy:       oneOf(s, "strategy", doryv1alpha1.UpdateLive, doryv1alpha1.UpdateRecreate, doryv1alpha1.UpdateOnDelete),
		OnConfigChange: oneOf(s, "on_config_change", doryv1alpha1.ConfigChangeIgnore, doryv1alpha1.ConfigChangeRestart),
	}
}

// readMigration reads the section migration.
func readMigration(s *section) *doryv1alpha1.ProcessorMigrationPolicy {
	if s.empty() {
		return nil
	}
	history := s.integer("history_limit", defaultHistoryLimit, 0, 100)
	return &doryv1alpha1.ProcessorMigrationPolicy{
		Strategy: oneOf(s, "strategy", doryv1alpha1.MigrationAuto,
			doryv1alpha1.MigrationLive, doryv1alpha1.MigrationOverlap, doryv1alpha1.MigrationStopAndCopy),
		StartTimeoutSeconds:   s.integer("start_timeout_sec", defaultStartTimeout, 1, secondsOfDay),
		HandoffTimeoutSeconds: s.integer("handoff_timeout_sec", defaultHandoffTimeout, 1, secondsOfHour),
		HistoryLimit:          &history,
		DrainFallback: oneOf(s, "drain_fallback", doryv1alpha1.DrainFallbackRestart,
			doryv1alpha1.DrainFallbackNever),
	}
}
