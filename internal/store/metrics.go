package store

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are this package's share of the metrics in the processor contract.
type metrics struct {
	duration           *prometheus.HistogramVec
	errors             *prometheus.CounterVec
	breakerState       *prometheus.GaugeVec
	breakerTransitions *prometheus.CounterVec
	componentHealthy   *prometheus.GaugeVec
	watcherHealthy     prometheus.Gauge
	watcherErrors      prometheus.Counter

	connections prometheus.Collector
	registerer  prometheus.Registerer
}

// newMetrics makes and registers the metrics; a nil registerer leaves them unregistered.
func newMetrics(reg prometheus.Registerer, pool *pgxpool.Pool) (*metrics, error) {
	m := describeMetrics(pool)
	m.registerer = reg
	if reg == nil {
		return m, nil
	}
	// The connections come first: they belong to one pool, so they tell a second Store from the first.
	if err := reg.Register(m.connections); err != nil {
		return nil, fmt.Errorf("metric dory_database_connections_active: is another Store open? %w", err)
	}
	err := errors.Join(
		share(reg, &m.duration), share(reg, &m.errors),
		share(reg, &m.breakerState), share(reg, &m.breakerTransitions), share(reg, &m.componentHealthy),
		share(reg, &m.watcherHealthy), share(reg, &m.watcherErrors),
	)
	if err != nil {
		reg.Unregister(m.connections)
		return nil, fmt.Errorf("database metrics: %w", err)
	}
	return m, nil
}

func describeMetrics(pool *pgxpool.Pool) *metrics {
	return &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "dory_database_query_duration_seconds",
			Help:    "Time that a statement took, including the wait for a connection.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 13), // 0.5 ms to 30 s
		}, []string{"query_type"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_database_errors_total",
			Help: "Failed statements: connection, timeout, circuit_open, constraint, conflict or statement.",
		}, []string{"error_type"}),
		breakerState: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dory_circuit_breaker_state",
			Help: "State of a circuit breaker: 0 closed, 1 half open, 2 open.",
		}, []string{"component"}),
		breakerTransitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_circuit_breaker_transitions_total",
			Help: "Changes of a circuit breaker's state.",
		}, []string{"component", "from_state", "to_state"}),
		componentHealthy: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dory_component_healthy",
			Help: "Whether a component worked when it was last used: 1 or 0.",
		}, []string{"component"}),
		watcherHealthy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dory_config_watcher_healthy",
			Help: "Whether notifications of changes arrive: 1 or 0. At 0, changes wait for the resync.",
		}),
		watcherErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dory_config_watcher_errors_total",
			Help: "Lost connections and failed attempts of the watcher for changes.",
		}),
		connections: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "dory_database_connections_active",
			Help: "Connections of the pool that are in use.",
		}, func() float64 { return float64(pool.Stat().AcquiredConns()) }),
	}
}

// share registers a collector, or takes the one that is registered under the same description, because the
// names of the contract belong to several components.
func share[C prometheus.Collector](reg prometheus.Registerer, collector *C) error {
	err := reg.Register(*collector)
	var taken prometheus.AlreadyRegisteredError
	if !errors.As(err, &taken) {
		return err
	}
	existing, ok := taken.ExistingCollector.(C)
	if !ok {
		return fmt.Errorf("registered as %T: %w", taken.ExistingCollector, err)
	}
	*collector = existing
	return nil
}

// result counts the outcome of one statement.
func (m *metrics) result(kind errorKind) {
	if kind == kindCancelled {
		return
	}
	if kind != kindNone {
		m.errors.WithLabelValues(string(kind)).Inc()
	}
	healthy := 1.0
	if kind.unavailable() {
		healthy = 0
	}
	m.componentHealthy.WithLabelValues(component).Set(healthy)
}

// close unregisters what belongs to this Store alone.
func (m *metrics) close() {
	if m.registerer != nil {
		m.registerer.Unregister(m.connections)
	}
}
