package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sony/gobreaker/v2"
	"k8s.io/utils/clock"
)

// component is the value of the label component in the metrics of this package.
const component = "database"

// applicationName is what pg_stat_activity shows, unless the URL says otherwise.
const applicationName = "dory-operator"

// Store reads and writes the operator's tables. It is safe for concurrent use.
type Store struct {
	cfg     Config
	pool    *pgxpool.Pool
	direct  *pgx.ConnConfig
	breaker *gobreaker.CircuitBreaker[struct{}]
	metrics *metrics
	clock   clock.Clock
	log     logr.Logger
}

// New makes a Store. It does not connect: the database may be down, and every method answers
// ErrUnavailable until it is up. The error is about the configuration, and never shows the password.
func New(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	poolConfig, err := parseURL(cfg.URL, cfg)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	direct, err := parseURL(cfg.DirectURL, cfg)
	if err != nil {
		return nil, fmt.Errorf("direct database URL: %w", err)
	}
	if cfg.MaxConns > 0 {
		poolConfig.MaxConns = cfg.MaxConns
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), poolConfig) //nolint:forbidigo // It connects to nothing.
	if err != nil {
		return nil, fmt.Errorf("database pool: %w", err)
	}
	s := &Store{cfg: cfg, pool: pool, direct: direct.ConnConfig, clock: cfg.Clock, log: cfg.Logger}
	if s.metrics, err = newMetrics(cfg.Registerer, pool); err != nil {
		pool.Close()
		return nil, err
	}
	s.breaker = newBreaker(cfg, s.metrics, s.log)
	return s, nil
}

// parseURL adds to the URL what it leaves open.
func parseURL(url string, cfg Config) (*pgxpool.Config, error) {
	if url == "" {
		return nil, errors.New("is empty; expected postgres://user:password@host:5432/database")
	}
	parsed, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(url, "pool_max_conns") {
		parsed.MaxConns = DefaultMaxConns
	}
	conn := parsed.ConnConfig
	conn.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, conn.ConnectTimeout, DefaultConnectTimeout)
	conn.RuntimeParams["application_name"] = cmp.Or(conn.RuntimeParams["application_name"], applicationName)
	return parsed, nil
}

// Ping asks the server for a sign of life.
func (s *Store) Ping(ctx context.Context) error {
	return s.run(ctx, "ping", s.cfg.QueryTimeout, s.pool.Ping)
}

// Close ends all connections, after the queries that still run. Call it after Listen has returned.
func (s *Store) Close() {
	s.pool.Close()
	s.metrics.close()
}

// run is the one way to the pool: it adds the deadline, asks the breaker, measures, and names the error.
func (s *Store) run(ctx context.Context, query string, timeout time.Duration, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("database: %s: %w", query, err)
	}
	_, err := s.breaker.Execute(func() (struct{}, error) {
		return struct{}{}, s.timed(ctx, query, timeout, f)
	})
	kind := classify(err)
	s.metrics.result(kind)
	switch {
	case err == nil:
		return nil
	case kind.unavailable():
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, query, err)
	}
	return fmt.Errorf("database: %s: %w", query, advise(err))
}

func (s *Store) timed(ctx context.Context, query string, timeout time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := s.clock.Now()
	err := f(ctx)
	s.metrics.duration.WithLabelValues(query).Observe(s.clock.Since(start).Seconds())
	return err
}

// conflictTries is how often a write is tried that PostgreSQL rolls back because of a deadlock with somebody
// else's transaction.
const conflictTries = 3

// conflictPause lets the other transaction take the locks that were given up; without it we are often faster,
// and stand in its way again.
const conflictPause = 200 * time.Millisecond

// exec runs a statement that answers no rows, and says how many it changed.
func (s *Store) exec(ctx context.Context, query, sql string, args ...any) (int, error) {
	var changed int64
	statement := func(ctx context.Context) error {
		tag, err := s.pool.Exec(ctx, sql, args...)
		changed = tag.RowsAffected()
		return err
	}
	for try := 1; ; try++ {
		err := s.run(ctx, query, s.cfg.QueryTimeout, statement)
		if classify(err) != kindConflict || try == conflictTries {
			return int(changed), err
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-s.clock.After(conflictPause):
		}
	}
}

// list runs a query and hands every row to scan, which reads it by scanColumns.
func (s *Store) list(ctx context.Context, query string, timeout time.Duration,
	scan func(pgx.Rows) error, sql string, args ...any,
) error {
	return s.run(ctx, query, timeout, func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}
