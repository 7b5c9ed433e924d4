package rig

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/dory-io/dory/internal/store/pgtest"
	"github.com/dory-io/dory/migrations"
)

// Database is the PostgreSQL of a benchmark, with Dory's schema.
type Database struct {
	// pool is the benchmark's own; the operator connects as another role, so that its statements can be told apart.
	pool        *pgxpool.Pool
	operatorURL string
}

// Pool is the benchmark's connection.
func (d *Database) Pool() *pgxpool.Pool { return d.pool }

// operatorRole is who the operator is in the database.
const operatorRole = "dory"

func (r *Rig) startPostgres(ctx context.Context) error {
	var err error
	if r.postgres, err = pgtest.New(); err != nil { //nolint:contextcheck // the server lives until Close
		return err
	}
	if err := r.configurePostgres(ctx); err != nil {
		return err
	}
	const name = "bench"
	if err := r.execMaintenance(ctx, "CREATE ROLE "+operatorRole+" SUPERUSER LOGIN", "CREATE DATABASE "+name+" OWNER "+operatorRole); err != nil {
		return err
	}
	url := fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", operatorRole, r.postgres.Addr(), name)
	pool, err := pgxpool.New(ctx, r.postgres.DatabaseURL(name))
	if err != nil {
		return err
	}
	r.Database = &Database{pool: pool, operatorURL: url}
	return r.migrate(ctx, url)
}

// configurePostgres loads the module that counts statements, and gives the server the memory of a small one.
func (r *Rig) configurePostgres(ctx context.Context) error {
	err := r.execMaintenance(ctx,
		"ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'",
		"ALTER SYSTEM SET track_io_timing = off")
	if err != nil {
		return err
	}
	if err := r.postgres.Stop(); err != nil {
		return err
	}
	if err := r.postgres.Start(); err != nil { //nolint:contextcheck // the server lives until Close
		return fmt.Errorf("starting again with pg_stat_statements: %w", err)
	}
	return r.execMaintenance(ctx, "CREATE EXTENSION pg_stat_statements")
}

func (r *Rig) execMaintenance(ctx context.Context, statements ...string) error {
	pool, err := pgxpool.New(ctx, r.postgres.URL())
	if err != nil {
		return err
	}
	defer pool.Close()
	for _, statement := range statements {
		if _, err := pool.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// migrate applies the schema before the operator comes, so that there can be rows before it.
func (r *Rig) migrate(ctx context.Context, url string) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config.ConnConfig)
	defer func() { _ = db.Close() }() // the migrations are committed by now, or have failed
	if _, err := migrations.Apply(ctx, db); err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	_, err = r.Database.pool.Exec(ctx, "CREATE EXTENSION pg_stat_statements")
	return err
}
