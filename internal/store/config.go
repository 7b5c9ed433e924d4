package store

import (
	"cmp"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
)

// Defaults of Config.
const (
	// DefaultMaxConns is enough for the operator's handful of workers and leaves a small server room.
	DefaultMaxConns = 8
	// DefaultConnectTimeout bounds the making of one connection.
	DefaultConnectTimeout = 5 * time.Second
	// DefaultQueryTimeout bounds every statement but the listings.
	DefaultQueryTimeout = 5 * time.Second
	// DefaultListTimeout bounds a listing of a whole table.
	DefaultListTimeout = 30 * time.Second
	// DefaultMigrateTimeout bounds Migrate, including its wait for another operator's migration.
	DefaultMigrateTimeout = 5 * time.Minute
	// DefaultBreakerFailures is how many failures in a row open the breaker.
	DefaultBreakerFailures = 5
	// DefaultBreakerOpen is how long an open breaker refuses before it lets one query try.
	DefaultBreakerOpen = 5 * time.Second
	// DefaultListenCheck is how often an idle LISTEN connection is checked to be alive, and how long a
	// notification sent to oneself may take.
	DefaultListenCheck = 15 * time.Second
	// DefaultListenBackoff is the longest wait between two attempts to listen.
	DefaultListenBackoff = 30 * time.Second
)

// Config says how to reach the database and what to tolerate. Zero values mean the defaults.
type Config struct {
	// URL is a PostgreSQL URL or key=value string as libpq knows it, plus pgx's parameters. Behind a proxy
	// that pools transactions, such as PgBouncer, add default_query_exec_mode=exec (or simple_protocol), so
	// that no prepared statement outlives its transaction. Required.
	URL string
	// DirectURL reaches the database past such a proxy, for what needs a session of its own: Listen and
	// Migrate. Defaults to URL.
	DirectURL string

	// MaxConns bounds the pool; Listen and Migrate each use one connection more.
	// pool_max_conns in the URL is used if this is 0.
	MaxConns int32
	// ConnectTimeout bounds the making of one connection. connect_timeout in the URL is used if this is 0.
	ConnectTimeout time.Duration
	// QueryTimeout bounds every statement but the listings.
	QueryTimeout time.Duration
	// ListTimeout bounds ListProcessors, ListEdgeNodes and ListKubernetesProcessors.
	ListTimeout time.Duration
	// MigrateTimeout bounds Migrate.
	MigrateTimeout time.Duration

	// BreakerFailures in a row open the breaker.
	BreakerFailures uint32
	// BreakerOpen is how long the breaker stays open before it lets one query try.
	BreakerOpen time.Duration

	// ListenCheck is how often an idle LISTEN connection is checked.
	ListenCheck time.Duration
	// ListenBackoff is the longest wait between two attempts to listen.
	ListenBackoff time.Duration

	// Clock measures durations and times the waits of Listen. Deadlines of queries use the real clock.
	Clock clock.Clock
	// Logger gets lost and regained connections and applied migrations. Defaults to discarding them.
	Logger logr.Logger
	// Registerer gets the metrics. Nil means none. One registerer serves one Store at a time.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	c.DirectURL = cmp.Or(c.DirectURL, c.URL)
	c.QueryTimeout = cmp.Or(c.QueryTimeout, DefaultQueryTimeout)
	c.ListTimeout = cmp.Or(c.ListTimeout, DefaultListTimeout)
	c.MigrateTimeout = cmp.Or(c.MigrateTimeout, DefaultMigrateTimeout)
	c.BreakerFailures = cmp.Or(c.BreakerFailures, DefaultBreakerFailures)
	c.BreakerOpen = cmp.Or(c.BreakerOpen, DefaultBreakerOpen)
	c.ListenCheck = cmp.Or(c.ListenCheck, DefaultListenCheck)
	c.ListenBackoff = cmp.Or(c.ListenBackoff, DefaultListenBackoff)
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Logger.GetSink() == nil {
		c.Logger = logr.Discard()
	}
	return c
}
