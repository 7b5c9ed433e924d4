package store

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dory-io/dory/internal/store/pgtest"
)

var server *pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }

// deadline is for what should happen at once, on a machine that is busy with other tests.
const deadline = 30 * time.Second

// open makes a Store on a migrated database of its own, next to a plain connection for fixtures.
func open(tb testing.TB, change ...func(*Config)) (*Store, *pgx.Conn) {
	tb.Helper()
	url := server.NewDatabase(tb)
	return openURL(tb, url, change...), connect(tb, url)
}

func openURL(tb testing.TB, url string, change ...func(*Config)) *Store {
	tb.Helper()
	cfg := Config{URL: url, QueryTimeout: deadline, ListenCheck: deadline}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	tb.Cleanup(s.Close)
	return s
}

func connect(tb testing.TB, url string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	if err != nil {
		tb.Fatalf("connect: %v", err)
	}
	tb.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// exec runs a fixture's statement and returns how many rows it touched.
func exec(tb testing.TB, conn *pgx.Conn, sql string, args ...any) int64 {
	tb.Helper()
	tag, err := conn.Exec(tb.Context(), sql, args...)
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return tag.RowsAffected()
}

// value reads a single value, as text.
func value(tb testing.TB, conn *pgx.Conn, sql string, args ...any) string {
	tb.Helper()
	var v *string
	if err := conn.QueryRow(tb.Context(), "SELECT ("+sql+")::text", args...).Scan(&v); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	if v == nil {
		return "NULL"
	}
	return *v
}

// eventually asks until the condition holds.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	timeout := time.After(deadline)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-timeout:
			tb.Fatalf("not within %s: %s", deadline, what)
		case <-tick.C:
		}
	}
}

// insertTemplate makes a template with one active version, both named after slug.
func insertTemplate(tb testing.TB, conn *pgx.Conn, slug string) {
	tb.Helper()
	exec(tb, conn, `INSERT INTO processor_templates (id, slug) VALUES ($1, $1)`, slug)
	exec(tb, conn, `INSERT INTO processor_template_versions (id, processor_template_id, image_uri, version, is_active)
		VALUES ($1 || '-v1', $1, 'registry.example/' || $1, '1', true)`, slug)
}

// insertProcessors makes database rows of one template.
func insertProcessors(tb testing.TB, conn *pgx.Conn, template string, ids ...string) {
	tb.Helper()
	exec(tb, conn, `INSERT INTO processors (id, processor_template_id) SELECT unnest($1::text[]), $2`, ids, template)
}

func numbered(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return ids
}

func wantContains(tb testing.TB, err error, parts ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want one that says %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			tb.Errorf("error %q does not say %q", err, part)
		}
	}
}
