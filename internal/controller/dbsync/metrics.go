package dbsync

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// component is the value of the label component in shared metrics.
const component = "db-sync"

// The values of change_type in dory_config_changes_total.
const (
	changeCreated = "created"
	changeUpdated = "updated"
	changeDeleted = "deleted"
)

// errorTypeRow counts rows that turned out bad, among the types of errors.
const errorTypeRow = "row_invalid"

// metrics are this package's. Names that the processor contract has are shared with other packages, which is why
// their help is the same there.
type metrics struct {
	applications     prometheus.Gauge
	configChanges    *prometheus.CounterVec
	errors           *prometheus.CounterVec
	componentHealthy *prometheus.GaugeVec

	rowErrors     *prometheus.GaugeVec
	deletionsHeld *prometheus.GaugeVec
	rowConflicts  prometheus.Gauge
	passDuration  *prometheus.HistogramVec
	statusWrites  prometheus.Counter
	statusPending prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := describeMetrics()
	err := errors.Join(
		register(registerer, &m.applications), register(registerer, &m.configChanges), register(registerer, &m.errors),
		register(registerer, &m.componentHealthy), register(registerer, &m.rowErrors), register(registerer, &m.deletionsHeld),
		register(registerer, &m.rowConflicts), register(registerer, &m.passDuration), register(registerer, &m.statusWrites),
		register(registerer, &m.statusPending),
	)
	if err != nil {
		return nil, fmt.Errorf("metrics of db-sync: %w", err)
	}
	return m, nil
}

func describeMetrics() *metrics {
	byTable := []string{"table"}
	return &metrics{
		applications: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dory_applications_total", Help: "Processors that the database asks for, as last read.",
		}),
		configChanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_config_changes_total", Help: "Objects that were created, updated or deleted because their rows say so.",
		}, []string{"change_type"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_reconciliation_errors_total", Help: "Passes of a reconciler that failed, by the kind of error.",
		}, []string{"error_type"}),
		componentHealthy: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dory_component_healthy", Help: "Whether a component worked when it was last used: 1 or 0.",
		}, []string{"component"}),
		rowErrors: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dory_sync_row_errors", Help: "Rows that cannot become objects; their column sync_error says why.",
		}, byTable),
		deletionsHeld: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dory_sync_deletions_held", Help: "Objects whose rows are gone and that are not deleted, because too many went at once.",
		}, byTable),
		rowConflicts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dory_sync_row_conflicts", Help: "Processors applied to Kubernetes whose id is another's in the database.",
		}),
		passDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dory_sync_pass_duration_seconds", Help: "Time that one comparison of a whole table with its objects took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 3, 10), // 1 ms to 20 s
		}, byTable),
		statusWrites: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dory_sync_status_writes_total", Help: "Rows whose status was written back.",
		}),
		statusPending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dory_sync_status_pending", Help: "Processors whose status waits to be written back.",
		}),
	}
}

// register registers a collector, or takes the one that another package registered under the same name.
func register[C prometheus.Collector](registerer prometheus.Registerer, collector *C) error {
	if registerer == nil {
		return nil
	}
	err := registerer.Register(*collector)
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

// failed counts one failure.
func (m *metrics) failed(err error) { m.errors.WithLabelValues(errorType(err)).Inc() }
