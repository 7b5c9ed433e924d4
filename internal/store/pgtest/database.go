package pgtest

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/dory-io/dory/migrations"
)

// templateName is the database with all migrations applied, of which the others are copies.
const templateName = "dory_template"

// NewDatabase makes a database with the current schema and no rows, dropped at the test's end, and returns
// its URL. It is a copy of a template, so the migrations run once for each server.
func (s *Server) NewDatabase(tb testing.TB) string {
	tb.Helper()
	template, err := s.template()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return s.newDatabase(tb, " TEMPLATE "+template+"")
}

// NewEmptyDatabase makes a database without any schema, dropped at the test's end, and returns its URL.
func (s *Server) NewEmptyDatabase(tb testing.TB) string {
	tb.Helper()
	return s.newDatabase(tb, "")
}

func (s *Server) newDatabase(tb testing.TB, options string) string {
	tb.Helper()
	s.mu.Lock()
	s.database++
	name := fmt.Sprintf("test_%d", s.database)
	s.mu.Unlock()
	if err := s.exec(tb.Context(), "CREATE DATABASE "+name+options); err != nil {
		tb.Fatalf("pgtest: create a database: %v", err)
	}
	tb.Cleanup(func() {
		// The test's context has ended by now. Where a test left the server stopped, its data goes with it.
		if err := s.exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Logf("pgtest: drop a database: %v", err)
		}
	})
	return s.DatabaseURL(name)
}

func (s *Server) createTemplate() (string, error) {
	ctx := context.Background() // The template outlives the test that happens to come first.
	if err := s.exec(ctx, "CREATE DATABASE "+templateName); err != nil {
		return "", fmt.Errorf("create the template database: %w", err)
	}
	config, err := pgx.ParseConfig(s.DatabaseURL(templateName))
	if err != nil {
		return "", err
	}
	db := stdlib.OpenDB(*config)
	if _, err := migrations.Apply(ctx, db); err != nil {
		return "", fmt.Errorf("migrate the template database: %w", err)
	}
	return templateName, db.Close()
}

// exec runs one statement in the maintenance database.
func (s *Server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // The statement's own outcome is what counts.
	_, err = conn.Exec(ctx, sql)
	return err
}
