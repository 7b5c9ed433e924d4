package store

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/dory-io/dory/migrations"
)

// Migrate brings the schema to the version of this binary, under an advisory lock, so that operators which
// start at once do it one after the other. Run again it does nothing. A schema newer than the binary, as
// after a rollback of the operator, is left as it is and only logged: migrations are written so that the
// release before can still work with the result. It uses a connection of its own, past the breaker.
func (s *Store) Migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.MigrateTimeout)
	defer cancel()
	db := stdlib.OpenDB(*s.direct)
	defer db.Close() //nolint:errcheck // The outcome of the migration is what counts.
	result, err := migrations.Apply(ctx, db)
	kind := classify(err)
	s.metrics.result(kind)
	if kind.unavailable() {
		return fmt.Errorf("%w: migrate: %w", ErrUnavailable, err)
	}
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	logMigration(s.log, result)
	return nil
}

func logMigration(log logr.Logger, r migrations.Result) {
	switch {
	case r.DatabaseVersion > r.BinaryVersion:
		log.Info("The database schema is newer than this operator; going on with it as it is",
			"databaseVersion", r.DatabaseVersion, "operatorVersion", r.BinaryVersion)
	case len(r.Applied) > 0:
		log.Info("Migrated the database", "applied", r.Applied, "version", r.DatabaseVersion)
	default:
		log.V(1).Info("The database schema is current", "version", r.DatabaseVersion)
	}
}
