package main

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/dory-io/dory/internal/controller/drain"
)

// addDrain makes the desk where evictions are answered, on every replica, and what the leader does about nodes.
func (o *operator) addDrain(ctx context.Context) error {
	drainMetrics, err := drain.NewMetrics(metrics.Registry)
	if err != nil {
		return err
	}
	c, recorder := o.manager.GetClient(), o.manager.GetEventRecorder("dory-drain")
	options := drain.Options{Patience: o.options.drainPatience, Proactive: o.options.proactiveDrain}
	versions := drain.NewVersions(c, o.apiReader(), o.tokens)
	o.desk = drain.NewDesk(drain.DeskConfig{Client: c, Versions: versions, Clock: o.clock, Recorder: recorder, Metrics: drainMetrics, Options: options})
	if err := o.desk.SetupWithManager(ctx, o.manager); err != nil {
		return fmt.Errorf("adding the answers to evictions: %w", err)
	}
	o.turns = drain.NewTurns(c, o.clock, drain.Limits{PerNode: o.options.drainPerNode, Total: o.options.drainParallel})
	nodes := drain.New(drain.Config{Client: c, Versions: versions, Clock: o.clock, Recorder: recorder, Turns: o.turns, Options: options})
	if err := nodes.SetupWithManager(o.manager); err != nil {
		return fmt.Errorf("adding the drain controller: %w", err)
	}
	if err := drain.NewMigratable(drain.MigratableConfig{Client: c, APIReader: o.apiReader(), Clock: o.clock, Versions: versions}).SetupWithManager(o.manager); err != nil {
		return fmt.Errorf("adding the controller of the condition Migratable: %w", err)
	}
	return nil
}
