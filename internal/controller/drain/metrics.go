package drain

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// answerUnknown is the label of an answer that was an error.
const answerUnknown = "Error"

// Metrics are those of drains.
type Metrics struct {
	answers   *prometheus.CounterVec
	durations prometheus.Histogram
	moves     *moves
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_evictions_total", Help: "Evictions of processors' pods, by what they were answered.",
		}, []string{"answer"}),
		durations: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dory_eviction_answer_duration_seconds", Help: "How long an eviction waited for its answer.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}),
		moves: &moves{desc: prometheus.NewDesc("dory_drain_moves", "Moves of drains that are not over, by state: waiting or active.", []string{"state"}, nil)},
	}
	for _, collector := range []prometheus.Collector{m.answers, m.durations, m.moves} {
		if err := registerer.Register(collector); err != nil {
			return nil, fmt.Errorf("registering a metric of drains: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) answered(reason string, took time.Duration) {
	m.answers.WithLabelValues(reason).Inc()
	m.durations.Observe(took.Seconds())
}

// moves are counted when they are asked for.
type moves struct {
	desc  *prometheus.Desc
	count atomic.Pointer[func() (waiting, active int)]
}

func (g *moves) measure(count func() (waiting, active int)) { g.count.Store(&count) }

// Describe implements prometheus.Collector.
func (g *moves) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

// Collect implements prometheus.Collector.
func (g *moves) Collect(ch chan<- prometheus.Metric) {
	count := g.count.Load()
	if count == nil {
		return
	}
	waiting, active := (*count)()
	ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(waiting), "waiting")
	ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(active), "active")
}
