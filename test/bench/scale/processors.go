package main

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// processors are what is measured.
type processors struct{ client client.Client }

func newProcessors(config *rest.Config) (*processors, error) {
	scheme := runtime.NewScheme()
	if err := doryv1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	return &processors{c}, nil
}

func (*processors) name() string { return "processors" }

func (s *processors) processor(i int) *doryv1alpha1.Processor {
	return &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.name(), Name: objectName(i)},
		Spec: doryv1alpha1.ProcessorSpec{
			Image: "registry.example/analytics/people-counter:1.4.2",
			Env: []corev1.EnvVar{
				{Name: "CAMERA_URL", Value: fmt.Sprintf("rtsp://10.20.0.7:554/stream/%05d", i)},
				{Name: "MODEL", Value: "yolo-v9-s"},
				{Name: "FRAMES_PER_SECOND", Value: "12"},
			},
		},
	}
}

func (s *processors) create(ctx context.Context, i int) error {
	return s.client.Create(ctx, s.processor(i))
}

func (s *processors) settled(ctx context.Context) (int, error) {
	var list doryv1alpha1.ProcessorList
	err := s.client.List(ctx, &list, client.InNamespace(s.name()), &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}})
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range list.Items {
		if list.Items[i].Status.Phase == doryv1alpha1.ProcessorRunning {
			n++
		}
	}
	return n, nil
}

func (s *processors) remove(ctx context.Context) error {
	return s.client.DeleteAllOf(ctx, &doryv1alpha1.Processor{}, client.InNamespace(s.name()))
}

// podTemplate is a processor's pod without what makes it Dory's, so that a StatefulSet's pods cost the same to
// schedule and to store.
func (s *processors) podTemplate() (corev1.PodTemplateSpec, error) {
	processor := s.processor(0)
	processor.UID = "00000000-0000-4000-8000-000000000000"
	processor.Spec.Port = 8080
	processor.Spec.Probes = doryv1alpha1.ProcessorProbes{PeriodSeconds: 10, TimeoutSeconds: 3, FailureThreshold: 3}
	processor.Spec.TerminationGracePeriodSeconds = 35
	processor.Spec.Location = doryv1alpha1.LocationManaged
	built, err := pod.Build(pod.Input{Processor: processor, Name: objectName(0), Epoch: 1})
	if err != nil {
		return corev1.PodTemplateSpec{}, fmt.Errorf("building the pod that both sides run: %w", err)
	}
	built.Spec.ServiceAccountName = "" // the namespace's default
	container := &built.Spec.Containers[0]
	container.Env = slices.DeleteFunc(container.Env, func(e corev1.EnvVar) bool { return e.Name == pod.InstanceVariable })
	return corev1.PodTemplateSpec{Spec: built.Spec}, nil
}
