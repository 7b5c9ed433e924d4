package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/dory-io/dory/internal/controller/dbsync"
	"github.com/dory-io/dory/internal/store"
)

func (o *operator) addDatabase(ctx context.Context) error {
	if o.store == nil {
		return nil
	}
	if err := o.manager.Add(migrator{o.store}); err != nil {
		return fmt.Errorf("adding the database migrations: %w", err)
	}
	syncer, err := dbsync.New(dbsync.Config{
		Client: o.manager.GetClient(), Store: o.store,
		Recorder: o.manager.GetEventRecorder("dory-db-sync"), Registerer: metrics.Registry,
		Options: dbsync.Options{Resync: o.options.resyncInterval, DeletionShare: o.options.maxDeletionShare, Clock: o.clock},
	})
	if err != nil {
		return err
	}
	if err := syncer.SetupWithManager(ctx, o.manager); err != nil {
		return fmt.Errorf("adding db-sync: %w", err)
	}
	return nil
}

// migrator brings the database's schema up to date as soon as the database answers. Every replica may run it:
// an advisory lock lets one at a time.
type migrator struct{ store *store.Store }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (migrator) NeedLeaderElection() bool { return true }

// Start implements manager.Runnable.
func (m migrator) Start(ctx context.Context) error {
	retry := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.1, Steps: 6, Cap: 30 * time.Second}
	// The only error is that of ctx: the operator stops.
	_ = retry.DelayFunc().Until(ctx, true, false, func(ctx context.Context) (bool, error) {
		err := m.store.Migrate(ctx)
		if err != nil && ctx.Err() == nil {
			ctrl.Log.Error(err, "the database is not migrated yet; trying again")
		}
		return err == nil, nil
	})
	return nil
}
