// Package migrations is the operator's database schema, and brings a database up to it.
//
// A file is one step, applied once, in one transaction, in the order of its number. Steps only go forward,
// and a step that has been released is never edited. Each must leave a schema that the release before still
// works with (add before use, remove one release later), because a rollback of the operator leaves the
// schema as it is, and because two releases run side by side during an update.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed *.sql
var files embed.FS

// table is where goose records the applied versions.
const table = "dory_schema_version"

// lockID is the advisory lock of a migration: "dory" in ASCII.
const lockID int64 = 0x646f7279

// Waits for another operator's migration: one try a second. The caller's context ends it sooner.
const (
	lockPeriodSeconds = 1
	lockTries         = 600
)

// Result says what Apply found and did.
type Result struct {
	// DatabaseVersion is the schema's version now. Greater than BinaryVersion, a newer operator was here.
	DatabaseVersion int64
	// BinaryVersion is the version that this binary brings.
	BinaryVersion int64
	// Applied are the files applied by this call.
	Applied []string
}

// Apply brings the database to this binary's version under a session-level advisory lock. Any number of
// callers may do so at once; it changes nothing when there is nothing to do, nor when the database is newer
// than the binary. The connection must not lead through a proxy that pools transactions.
func Apply(ctx context.Context, db *sql.DB) (Result, error) {
	provider, err := newProvider(db)
	if err != nil {
		return Result{}, err
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("read the schema version from %s: %w", table, err)
	}
	result := Result{DatabaseVersion: current, BinaryVersion: target}
	if current > target {
		return result, nil
	}
	applied, err := provider.Up(ctx)
	if err != nil {
		return result, fmt.Errorf("bring the schema from version %d to %d: %w", current, target, explain(err))
	}
	result.DatabaseVersion = target
	for _, step := range applied {
		result.Applied = append(result.Applied, step.Source.Path)
	}
	return result, nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	locker, err := lock.NewPostgresSessionLocker(
		lock.WithLockID(lockID), lock.WithLockTimeout(lockPeriodSeconds, lockTries))
	if err != nil {
		return nil, fmt.Errorf("migration lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(table), goose.WithSessionLocker(locker), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, fmt.Errorf("read the migrations in the binary: %w", err)
	}
	return provider, nil
}

// duplicateTable is PostgreSQL's code for a table that exists already.
const duplicateTable = "42P07"

// explain adds the file that failed, and what to do about tables that are not ours.
func explain(err error) error {
	var partial *goose.PartialError
	if !errors.As(err, &partial) {
		return err
	}
	file := partial.Failed.Source.Path
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == duplicateTable {
		return fmt.Errorf("%s: the database has tables that Dory did not make; give it a database of its own, "+
			"or a schema of its own with search_path in the URL: %w", file, partial.Err)
	}
	return fmt.Errorf("%s: %w", file, partial.Err)
}
