package sdk

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// The values of the label result of dory_processor_restore.
const (
	restorePending = "pending"
	restoreOK      = "restored"
	restoreFresh   = "fresh"
	restoreFailed  = "failed"
)

// metrics are what GET /metrics serves, in a registry of the processor's own.
type metrics struct {
	registry         *prometheus.Registry
	iterations       prometheus.Counter
	iterationErrors  prometheus.Counter
	iterationSeconds prometheus.Histogram
	saves            prometheus.Counter
	saveFailures     prometheus.Counter
	lastSave         prometheus.Gauge
	restore          *prometheus.GaugeVec
	epoch            prometheus.Gauge
	sequence         prometheus.Gauge
	role             *prometheus.GaugeVec
}

func newMetrics(now role, epoch int64) *metrics {
	m := &metrics{
		registry:        prometheus.NewRegistry(),
		iterations:      newCounter("iterations_total", "Committed iterations of this process."),
		iterationErrors: newCounter("iteration_errors_total", "Iterations that failed and were undone."),
		iterationSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dory_processor_iteration_duration_seconds", Help: "Duration of committed iterations.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10), // 0.1 ms to 26 s
		}),
		saves:        newCounter("state_saves_total", "Successful saves of the state."),
		saveFailures: newCounter("state_save_failures_total", "Failed attempts to save the state."),
		lastSave:     newGauge("state_last_save_timestamp_seconds", "When the state was last saved, in seconds since 1970; 0 for never."),
		restore: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dory_processor_restore", Help: "1 for what became of the saved state at the start: pending, restored, fresh or failed.",
		}, []string{"result"}),
		epoch:    newGauge("epoch", "The epoch under which this instance acts."),
		sequence: newGauge("sequence", "Iterations ever committed to the state."),
		role: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dory_processor_role", Help: "1 for what this instance is: primary, standby or quiesced.",
		}, []string{"role"}),
	}
	m.registry.MustRegister(m.iterations, m.iterationErrors, m.iterationSeconds, m.saves, m.saveFailures, m.lastSave, m.restore,
		m.epoch, m.sequence, m.role, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.epoch.Set(float64(epoch))
	m.restored(restorePending)
	m.acts(now)
	return m
}

func newCounter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "dory_processor_" + name, Help: help})
}

func newGauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: "dory_processor_" + name, Help: help})
}

func (m *metrics) at(position Position) {
	m.sequence.Set(float64(position.Sequence))
	m.epoch.Set(float64(position.Epoch))
}

func (m *metrics) acts(now role) {
	choose(m.role, now, rolePrimary, roleStandby, roleQuiesced)
}

func (m *metrics) restored(result string) {
	choose(m.restore, result, restorePending, restoreOK, restoreFresh, restoreFailed)
}

// choose sets the gauge of one of the labels to 1 and the others to 0.
func choose[L ~string](gauges *prometheus.GaugeVec, chosen L, labels ...L) {
	for _, label := range labels {
		value := 0.0
		if label == chosen {
			value = 1
		}
		gauges.WithLabelValues(string(label)).Set(value)
	}
}

func (m *metrics) saved(err error, now time.Time) {
	if err != nil {
		m.saveFailures.Inc()
		return
	}
	m.saves.Inc()
	m.lastSave.Set(float64(now.UnixMilli()) / 1e3)
}
