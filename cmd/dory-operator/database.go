package main

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/dory-io/dory/internal/controller/databasesecret"
	"github.com/dory-io/dory/internal/controller/dbsync"
)

// addFollower takes up a database whose Secret comes later.
func (o *operator) addFollower(ctx context.Context) error {
	if !o.options.followSecret {
		return nil
	}
	namespace := ownNamespace(o.options.leaderElectNS)
	if namespace == "" {
		return errors.New("--follow-database-secret outside of a cluster needs --leader-election-namespace, where the Secret and the Deployment are")
	}
	if o.options.databaseURL == "" {
		if err := databasesecret.Required(ctx, o.apiReader(), namespace); err != nil {
			return fmt.Errorf("starting without a database: %w", err)
		}
	}
	return databasesecret.Add(o.manager, namespace, o.options.databaseURL)
}

// addDatabase lets db-sync migrate the database before it reads it. Every leader may do so: an advisory lock lets
// one at a time.
func (o *operator) addDatabase(ctx context.Context) error {
	if o.store == nil {
		return nil
	}
	syncer, err := dbsync.New(dbsync.Config{
		Client: o.manager.GetClient(), Store: o.store, Prepare: o.store.Migrate,
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
