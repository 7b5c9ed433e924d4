package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/fence"
)

// Metrics are the lifecycle's; the names are the original orchestrator's.
type Metrics struct {
	podCreationErrors    *prometheus.CounterVec
	reconciliationErrors *prometheus.CounterVec
}

// NewMetrics registers the metrics. reader is the cache that dory_pods_total is counted from.
func NewMetrics(registerer prometheus.Registerer, reader client.Reader) (*Metrics, error) {
	m := &Metrics{
		podCreationErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_pod_creation_errors_total", Help: "Pods that the API server refused, by its reason.",
		}, []string{"reason"}),
		reconciliationErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dory_reconciliation_errors_total", Help: "Passes of a reconciler that failed, by the kind of error.",
		}, []string{"error_type"}),
	}
	if err := registerer.Register(m.podCreationErrors); err != nil {
		return nil, fmt.Errorf("registering dory_pod_creation_errors_total: %w", err)
	}
	if err := registerShared(registerer, &m.reconciliationErrors); err != nil {
		return nil, err
	}
	if err := registerer.Register(podCounter{reader}); err != nil {
		return nil, fmt.Errorf("registering dory_pods_total: %w", err)
	}
	return m, nil
}

// registerShared takes the counter that another controller registered under the same name.
func registerShared(registerer prometheus.Registerer, counter **prometheus.CounterVec) error {
	err := registerer.Register(*counter)
	if taken, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := taken.ExistingCollector.(*prometheus.CounterVec); ok {
			*counter = existing
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("registering a counter: %w", err)
	}
	return nil
}

func (m *Metrics) failed(err error) {
	m.reconciliationErrors.WithLabelValues(errorType(err)).Inc()
}

func errorType(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, fence.ErrUnavailable):
		return "epoch_unavailable"
	case apierrors.ReasonForError(err) != "":
		return string(apierrors.ReasonForError(err))
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network):
		return "network"
	default:
		return "other"
	}
}

// podCounter counts pods when it is asked, instead of keeping a gauge that could drift.
type podCounter struct{ reader client.Reader }

func podsDesc() *prometheus.Desc {
	return prometheus.NewDesc("dory_pods_total", "Pods of processors, by phase.", []string{"status"}, nil)
}

// Describe implements prometheus.Collector.
func (c podCounter) Describe(ch chan<- *prometheus.Desc) { ch <- podsDesc() }

// Collect implements prometheus.Collector.
func (c podCounter) Collect(ch chan<- prometheus.Metric) {
	var pods corev1.PodList
	if err := c.reader.List(context.Background(), &pods, client.UnsafeDisableDeepCopy); err != nil { //nolint:forbidigo // a scrape has no context
		ch <- prometheus.NewInvalidMetric(podsDesc(), err)
		return
	}
	count := map[corev1.PodPhase]int{}
	for i := range pods.Items {
		count[pods.Items[i].Status.Phase]++
	}
	for phase, n := range count {
		ch <- prometheus.MustNewConstMetric(podsDesc(), prometheus.GaugeValue, float64(n), string(phase))
	}
}
