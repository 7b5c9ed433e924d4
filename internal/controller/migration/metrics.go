package migration

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// Metrics are those of moves.
type Metrics struct {
	total    *prometheus.CounterVec
	pause    *prometheus.HistogramVec
	duration *prometheus.HistogramVec
	steps    *prometheus.HistogramVec
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_migrations_total", Help: "Migrations that ended, by why they were made, strategy and result.",
		}, []string{"reason", "strategy", "result"}),
		pause: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dory_migration_pause_seconds", Help: "For how long processors stood still in moves that succeeded.",
			Buckets: []float64{.005, .01, .02, .04, .06, .1, .15, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"strategy"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dory_migration_duration_seconds", Help: "How long migrations took from their start to their end.",
			Buckets: []float64{1, 2, 5, 10, 20, 40, 60, 120, 300, 600, 1800},
		}, []string{"strategy", "result"}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dory_migration_step_duration_seconds", Help: "How long the steps of migrations took: each is one write to the API server, or one call to a processor.",
			Buckets: []float64{.001, .002, .004, .008, .016, .032, .064, .125, .25, .5, 1, 4, 30},
		}, []string{"step"}),
	}
	for _, collector := range []prometheus.Collector{m.total, m.pause, m.duration, m.steps} {
		if err := registerer.Register(collector); err != nil {
			return nil, fmt.Errorf("registering a metric of migrations: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) took(s step, d time.Duration) {
	m.steps.WithLabelValues(string(s)).Observe(d.Seconds())
}

func (m *Metrics) ended(ended *doryv1alpha1.ProcessorMigration) {
	s := ended.Status
	strategy, result := string(s.Strategy), string(s.Phase)
	m.total.WithLabelValues(string(ended.Spec.Reason), strategy, result).Inc()
	if s.Pause != nil && s.Phase == doryv1alpha1.MigrationSucceeded {
		m.pause.WithLabelValues(strategy).Observe(s.Pause.Seconds())
	}
	if s.Duration != nil {
		m.duration.WithLabelValues(strategy, result).Observe(s.Duration.Seconds())
	}
}
