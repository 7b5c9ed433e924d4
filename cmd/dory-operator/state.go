package main

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/dory-io/dory/internal/controller/checkpoint"
	"github.com/dory-io/dory/internal/controller/migration"
	"github.com/dory-io/dory/internal/statestore"
)

// largeStates avoids an interface that holds a nil *store.Store.
func (o *operator) largeStates() statestore.Database {
	if o.store == nil {
		return nil
	}
	return o.store
}

func (o *operator) addCheckpoints(ctx context.Context) error {
	if !o.options.checkpoints {
		return nil
	}
	checkpointMetrics, err := checkpoint.NewMetrics(metrics.Registry)
	if err != nil {
		return err
	}
	reconciler := checkpoint.New(checkpoint.Config{
		Client: o.manager.GetClient(), APIReader: o.apiReader(), Store: o.states, Processors: o.processors,
		Issuer: o.issuer, Token: o.tokens.For, Clock: o.clock, Recorder: o.manager.GetEventRecorder("dory-checkpoint"),
		Metrics: checkpointMetrics, Concurrency: o.options.checkpointConcurrency,
	})
	if err := reconciler.SetupWithManager(ctx, o.manager); err != nil {
		return fmt.Errorf("adding the checkpoint controller: %w", err)
	}
	return nil
}

func (o *operator) addMigrations(ctx context.Context) error {
	migrationMetrics, err := migration.NewMetrics(metrics.Registry)
	if err != nil {
		return err
	}
	recorder := o.manager.GetEventRecorder("dory-migration")
	reconciler := migration.New(migration.Config{
		Client: o.manager.GetClient(), APIReader: o.apiReader(), Processors: o.processors, Issuer: o.issuer,
		Checkpoints: migration.StateStore{Store: o.states}, States: statestore.NewPreparer(o.states, o.manager.GetClient(), recorder), Clock: o.clock,
		Recorder: recorder, Metrics: migrationMetrics, NewSuffix: newSuffix,
		Token: o.tokens.For, Tokens: o.tokens, Prepare: o.lifecycle.PreparePod, Turn: o.turns.Turn, Wake: o.turns.Wake(),
		Options: migration.Options{
			Concurrency: o.options.migrationConcurrency, EvictionResponders: o.options.features.podResponders(),
		},
	})
	if err := reconciler.SetupWithManager(ctx, o.manager); err != nil {
		return fmt.Errorf("adding the migration controller: %w", err)
	}
	return nil
}
