package migrations_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/dory-io/dory/internal/store/pgtest"
	"github.com/dory-io/dory/migrations"
)

var server *pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }

func openDB(t *testing.T, url string) *sql.DB {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { db.Close() })
	return db
}

func text(t *testing.T, db *sql.DB, query string) string {
	t.Helper()
	var s string
	if err := db.QueryRowContext(t.Context(), query).Scan(&s); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return s
}

const appliedSQL = `SELECT string_agg(version_id::text || is_applied::text, ',' ORDER BY id) FROM dory_schema_version`

func TestOperatorsStartAtOnce(t *testing.T) {
	url := server.NewEmptyDatabase(t)
	const operators = 6
	var wg sync.WaitGroup
	var mu sync.Mutex
	var applied []string
	for range operators {
		db := openDB(t, url)
		wg.Go(func() {
			result, err := migrations.Apply(t.Context(), db)
			if err != nil {
				t.Errorf("Apply: %v", err)
			}
			if result.DatabaseVersion != result.BinaryVersion || result.BinaryVersion == 0 {
				t.Errorf("%+v", result)
			}
			mu.Lock()
			defer mu.Unlock()
			applied = append(applied, result.Applied...)
		})
	}
	wg.Wait()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var want int
	for _, file := range files {
		if strings.HasSuffix(file.Name(), ".sql") {
			want++
		}
	}
	if len(applied) != want {
		t.Errorf("applied %v, want each of %d files once", applied, want)
	}
}

func TestRunAgain(t *testing.T) {
	db := openDB(t, server.NewDatabase(t))
	before := text(t, db, appliedSQL)
	result, err := migrations.Apply(t.Context(), db)
	if err != nil || len(result.Applied) != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	if after := text(t, db, appliedSQL); after != before {
		t.Errorf("recorded %s, before %s", after, before)
	}
}

func TestNewerDatabaseIsLeftAlone(t *testing.T) {
	db := openDB(t, server.NewDatabase(t))
	if _, err := db.ExecContext(t.Context(), `INSERT INTO dory_schema_version (version_id, is_applied) VALUES (99999, true)`); err != nil {
		t.Fatal(err)
	}
	before := text(t, db, appliedSQL)
	result, err := migrations.Apply(t.Context(), db)
	if err != nil || result.DatabaseVersion != 99999 || result.BinaryVersion >= 99999 || len(result.Applied) != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	if after := text(t, db, appliedSQL); after != before {
		t.Errorf("recorded %s, before %s", after, before)
	}
}

func TestForeignTablesAreNotTouched(t *testing.T) {
	db := openDB(t, server.NewEmptyDatabase(t))
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE processors (id int)`); err != nil {
		t.Fatal(err)
	}
	_, err := migrations.Apply(t.Context(), db)
	if err == nil || !strings.Contains(err.Error(), "00001_tables.sql") || !strings.Contains(err.Error(), "search_path") {
		t.Errorf("error %v", err)
	}
	if got := text(t, db, `SELECT string_agg(relname, ',') FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'dory_schema_version'`); got != "processors" {
		t.Errorf("tables now: %s", got)
	}
}

func TestWaitForTheLockEnds(t *testing.T) {
	url := server.NewEmptyDatabase(t)
	holder := openDB(t, url)
	conn, err := holder.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), `SELECT pg_advisory_lock(x'646f7279'::bigint)`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if result, err := migrations.Apply(ctx, openDB(t, url)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", result, err)
	}
	if got := text(t, holder, `SELECT count(*)::text FROM pg_class WHERE relname = 'processors'`); got != "0" {
		t.Error("migrated without the lock")
	}
}

// TestOwnSchema covers tables beside those of others, and writers who name the schema instead of setting it.
func TestOwnSchema(t *testing.T) {
	url := server.NewEmptyDatabase(t)
	plain := openDB(t, url)
	if _, err := plain.ExecContext(t.Context(), `CREATE TABLE processors (id int); CREATE SCHEMA dory`); err != nil {
		t.Fatal(err)
	}
	if _, err := migrations.Apply(t.Context(), openDB(t, url+"&search_path=dory")); err != nil {
		t.Fatal(err)
	}
	_, err := plain.ExecContext(t.Context(), `
		INSERT INTO dory.processor_templates (id, slug) VALUES ('t', 't');
		INSERT INTO dory.processor_template_versions (processor_template_id, image_uri, version, is_active) VALUES ('t', 'i', '1', true);
		INSERT INTO dory.sensors (id) VALUES ('s');
		INSERT INTO dory.edge_nodes (organization_id, name) VALUES (gen_random_uuid(), 'e');
		INSERT INTO dory.processors (id, processor_template_id, sensor_id) VALUES ('p', 't', 's');
		UPDATE dory.processors SET status = 'suspended';
		UPDATE dory.processor_template_versions SET is_active = false;
		UPDATE dory.sensors SET name = 'x';
		UPDATE dory.edge_nodes SET name = 'x';
		DELETE FROM dory.processors;
		TRUNCATE dory.processors;
		INSERT INTO dory.processor_epochs (processor_id, epoch) VALUES ('p', 1);
		UPDATE dory.processor_epochs SET epoch = 2;`)
	if err != nil {
		t.Error(err)
	}
}
