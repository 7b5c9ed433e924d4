package meter

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Database counts what PostgreSQL did.
type Database struct{ pool *pgxpool.Pool }

// NewDatabase reads PostgreSQL's own statistics.
func NewDatabase(pool *pgxpool.Pool) *Database { return &Database{pool} }

// StatsDelay is how late a connection may tell of its writes: PostgreSQL lets an idle one wait for 10 s.
const StatsDelay = 11 * time.Second

// Writes counts rows inserted, updated and deleted, by table.
func (d *Database) Writes(ctx context.Context) (map[string]float64, error) {
	return d.counters(ctx, "SELECT relname::text, (n_tup_ins + n_tup_upd + n_tup_del)::float8 FROM pg_stat_user_tables")
}

// Statements counts the statements of the operator, by their text.
func (d *Database) Statements(ctx context.Context) (map[string]float64, error) {
	return d.counters(ctx, `SELECT left(regexp_replace(query, '\s+', ' ', 'g'), 90), sum(calls)::float8
		FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid WHERE rolname = 'dory' GROUP BY 1`)
}

func (d *Database) counters(ctx context.Context, sql string) (map[string]float64, error) {
	rows, err := d.pool.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("reading PostgreSQL's statistics: %w", err)
	}
	defer rows.Close()
	found := map[string]float64{}
	for rows.Next() {
		var name string
		var count float64
		if err := rows.Scan(&name, &count); err != nil {
			return nil, fmt.Errorf("reading PostgreSQL's statistics: %w", err)
		}
		found[name] += count
	}
	return found, rows.Err()
}
