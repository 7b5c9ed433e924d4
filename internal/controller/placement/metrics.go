package placement

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The values of the label result.
const (
	resultBound   = "bound"
	resultRefused = "refused"
	resultFailed  = "failed"
)

// Metrics of the placement.
type Metrics struct {
	decisions *prometheus.CounterVec
	durations prometheus.Histogram
	pods      prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_placement_decisions_total",
			Help: "Decisions about pods, by how they ended: bound, refused (no node fits now), or failed (the API server did not bind).",
		}, []string{"result"}),
		durations: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "dory_placement_duration_seconds",
			Help:    "Time from the creation of a pod, which Kubernetes notes in whole seconds, until it was bound.",
			Buckets: []float64{0.5, 1, 1.5, 2, 3, 5, 10, 30, 60, 120, 300, 600, 1800},
		}),
		pods: prometheus.NewGauge(prometheus.GaugeOpts{Name: "dory_placement_waiting_pods", Help: "Pods that have no node yet."}),
	}
	for _, c := range []prometheus.Collector{m.decisions, m.durations, m.pods} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of placement: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) bound(after time.Duration) {
	m.decisions.WithLabelValues(resultBound).Inc()
	m.durations.Observe(max(after, 0).Seconds())
}

func (m *Metrics) refused() { m.decisions.WithLabelValues(resultRefused).Inc() }

func (m *Metrics) failed() { m.decisions.WithLabelValues(resultFailed).Inc() }

func (m *Metrics) waiting(pods int) { m.pods.Set(float64(pods)) }
