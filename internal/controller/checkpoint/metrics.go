package checkpoint

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dory-io/dory/internal/statestore"
)

// The values of the label result.
const (
	resultWritten       = "written"
	resultUnchanged     = "unchanged"
	resultSuperseded    = "superseded"
	resultBehind        = "behind"
	resultHeld          = "held"
	resultCaptureFailed = "capture_failed"
	resultSaveFailed    = "save_failed"
)

// Metrics of the checkpoints.
type Metrics struct {
	total     *prometheus.CounterVec
	ages      prometheus.Histogram
	bytes     *prometheus.HistogramVec
	durations *prometheus.HistogramVec
	restores  *prometheus.CounterVec
	oldest    *gauge
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_checkpoints_total",
			Help: "Looks at a processor's state, by how they ended: written, unchanged, superseded (what is stored is newer), behind (and of a higher epoch than the processor has), held (the process may have restarted), capture_failed or save_failed.",
		}, []string{"result"}),
		ages: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "dory_checkpoint_age_seconds",
			Help:    "Age that a checkpoint had reached when the next look found the state safe again.",
			Buckets: []float64{1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 90, 120, 300, 600, 1800, 3600, 86400},
		}),
		bytes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dory_checkpoint_bytes", Help: "Size of the states that were written, as canonical JSON, by where they went.",
			Buckets: prometheus.ExponentialBuckets(256, 4, 9), // 256 B to 16 MiB
		}, []string{"storage"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dory_checkpoint_duration_seconds", Help: "Time that a step of a checkpoint took: capture or save.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12), // 1 ms to 24 s
		}, []string{"step"}),
		restores: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_state_restores_total", Help: "States given back to processes that had started without them, by result: restored or failed.",
		}, []string{"result"}),
		oldest: &gauge{desc: prometheus.NewDesc("dory_checkpoint_oldest_age_seconds",
			"Age of the oldest checkpoint among the processors that run.", nil, nil)},
	}
	for _, c := range []prometheus.Collector{m.total, m.ages, m.bytes, m.durations, m.restores, m.oldest} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of checkpoints: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) result(result string) { m.total.WithLabelValues(result).Inc() }

func (m *Metrics) age(age time.Duration) { m.ages.Observe(age.Seconds()) }

func (m *Metrics) duration(step string, d time.Duration) {
	m.durations.WithLabelValues(step).Observe(d.Seconds())
}

func (m *Metrics) stored(saved statestore.Saved) {
	m.bytes.WithLabelValues(string(saved.Storage)).Observe(float64(saved.Size))
}

func (m *Metrics) restored(ok bool) {
	result := "failed"
	if ok {
		result = "restored"
	}
	m.restores.WithLabelValues(result).Inc()
}

// gauge is measured when it is asked for.
type gauge struct {
	desc  *prometheus.Desc
	value atomic.Pointer[func() float64]
}

func (g *gauge) measure(value func() float64) { g.value.Store(&value) }

// Describe implements prometheus.Collector.
func (g *gauge) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

// Collect implements prometheus.Collector.
func (g *gauge) Collect(ch chan<- prometheus.Metric) {
	if value := g.value.Load(); value != nil {
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, (*value)())
	}
}
