package dbsync

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
)

func TestStatusOf(t *testing.T) {
	const no, yes, unknown = metav1.ConditionFalse, metav1.ConditionTrue, metav1.ConditionUnknown
	tests := map[string]struct {
		status metav1.ConditionStatus
		reason string
		want   string
	}{
		"nothing known":        {"", "", HealthUnknown},
		"running":              {yes, doryv1alpha1.ReasonRunning, HealthHealthy},
		"starting":             {no, doryv1alpha1.ReasonStarting, HealthStarting},
		"no node":              {no, doryv1alpha1.ReasonUnschedulable, HealthStarting},
		"the old one ends":     {no, doryv1alpha1.ReasonWaitingForOldInstance, HealthStarting},
		"suspended":            {no, doryv1alpha1.ReasonSuspended, HealthSuspended},
		"not ready":            {no, doryv1alpha1.ReasonNotReady, HealthUnhealthy},
		"cannot start":         {no, doryv1alpha1.ReasonContainerWaiting, HealthUnhealthy},
		"backing off":          {no, doryv1alpha1.ReasonBackingOff, HealthUnhealthy},
		"no epoch":             {no, doryv1alpha1.ReasonEpochUnavailable, HealthUnhealthy},
		"a reason of tomorrow": {no, "Whatever", HealthUnhealthy},
		"the node is lost":     {unknown, doryv1alpha1.ReasonNodeLost, HealthUnknown},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := object("Cam 1")
			p.Status.Phase = doryv1alpha1.ProcessorRunning
			p.Status.Instance = &doryv1alpha1.ProcessorInstance{Pod: "pod", IP: "10.0.0.1", Node: "node", Epoch: 4}
			if tt.status != "" {
				p.Status.Conditions = []metav1.Condition{{Type: doryv1alpha1.ConditionReady, Status: tt.status, Reason: tt.reason}}
			}
			want := store.ProcessorStatus{ID: "Cam 1", HealthStatus: tt.want, Pod: "pod", PodIP: "10.0.0.1", Node: "node", Phase: "Running", Epoch: 4, K8sName: "cam-1"}
			if got := StatusOf(p); got != want {
				t.Errorf("StatusOf = %+v, want %+v", got, want)
			}
			p.Status.Instance = nil
			if got := StatusOf(p); got.Pod != "" || got.Epoch != 0 || got.HealthStatus != tt.want {
				t.Errorf("without an instance StatusOf = %+v", got)
			}
		})
	}
}

func TestSpeaksBefore(t *testing.T) {
	old := object("a", func(p *doryv1alpha1.Processor) { p.CreationTimestamp = metav1.NewTime(start().Add(-1)) })
	old.CreationTimestamp = metav1.NewTime(start())
	young := object("a", func(p *doryv1alpha1.Processor) { p.CreationTimestamp = metav1.NewTime(start().Add(1e9)) })
	youngLeaving := object("a", leaving)
	youngLeaving.CreationTimestamp = young.CreationTimestamp
	if !speaksBefore(young, old) || speaksBefore(old, young) {
		t.Error("the newer of two Processors speaks for their row")
	}
	if speaksBefore(youngLeaving, old) || !speaksBefore(old, youngLeaving) {
		t.Error("the Processor that stays speaks for the row, before one that leaves")
	}
}
