package dbsync

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
)

// The values of processors.health_status.
const (
	// HealthHealthy: the one instance is ready.
	HealthHealthy = "healthy"
	// HealthStarting: an instance is on its way to be ready, or its predecessor on its way out.
	HealthStarting = "starting"
	// HealthUnhealthy: there should be a ready instance and there is none.
	HealthUnhealthy = "unhealthy"
	// HealthSuspended: no instance is wanted, and none is there.
	HealthSuspended = "suspended"
	// HealthUnknown: nobody can say how the instance is, or there is no Processor.
	HealthUnknown = "unknown"
)

// StatusOf is what the database is to know about a Processor. The time of the check is the writer's to add.
func StatusOf(p *doryv1alpha1.Processor) store.ProcessorStatus {
	status := store.ProcessorStatus{ID: p.ID(), HealthStatus: healthOf(p), Phase: string(p.Status.Phase), K8sName: p.Name}
	if i := p.Status.Instance; i != nil {
		status.Pod, status.PodIP, status.Node, status.Epoch = i.Pod, i.IP, i.Node, i.Epoch
	}
	return status
}

// goneStatus is what the database is to know about an id without a Processor.
func goneStatus(id string) store.ProcessorStatus {
	return store.ProcessorStatus{ID: id, HealthStatus: HealthUnknown}
}

func healthOf(p *doryv1alpha1.Processor) string {
	ready := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionReady)
	switch {
	case ready == nil || ready.Status == metav1.ConditionUnknown:
		return HealthUnknown
	case ready.Status == metav1.ConditionTrue:
		return HealthHealthy
	}
	switch ready.Reason {
	case doryv1alpha1.ReasonSuspended:
		return HealthSuspended
	case doryv1alpha1.ReasonStarting, doryv1alpha1.ReasonUnschedulable, doryv1alpha1.ReasonWaitingForOldInstance:
		return HealthStarting
	}
	return HealthUnhealthy
}
