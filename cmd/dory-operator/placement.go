package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/placement"
	"github.com/dory-io/dory/internal/pod"
)

func (o *operator) addPlacement(context.Context) error {
	if !o.options.placement {
		return nil
	}
	placementMetrics, err := placement.NewMetrics(metrics.Registry)
	if err != nil {
		return err
	}
	return placement.New(placement.Config{
		API: o.manager.GetConfig(), Client: o.manager.GetClient(), Clock: o.clock,
		Recorder: o.manager.GetEventRecorder(pod.SchedulerName), Metrics: placementMetrics,
		Options: placement.Options{
			SchedulerName: pod.SchedulerName, BufferPercent: int32(o.options.placementBuffer), //nolint:gosec // validated: below 100
			Movable: func(p *corev1.Pod) bool { return p.Labels[doryv1alpha1.LabelManagedBy] == doryv1alpha1.ManagedBy },
		},
	}).SetupWithManager(o.manager)
}
