// Package workload makes what the benchmarks move: the sample counter, once as a Processor and once as a StatefulSet of one
// replica that runs the same pod.
package workload

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// envelope is how much of a state is not the payload, so that the whole is as large as it is called.
const envelope = 128

// Counter counts as fast as it is told to, and carries a state of some size.
type Counter struct {
	Namespace, Name, Image string
	// Interval is the pause between two iterations, and Flush for how long their lines are held back; 0: not at all.
	Interval, Flush time.Duration
	StateBytes      int
	// CPU and Memory are its requests.
	CPU, Memory string
}

// Processor runs it under Dory.
func (c Counter) Processor() *doryv1alpha1.Processor {
	return &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name},
		Spec: doryv1alpha1.ProcessorSpec{
			Image: c.Image,
			Env: []corev1.EnvVar{
				{Name: "COUNTER_INTERVAL", Value: c.Interval.String()},
				{Name: "COUNTER_FLUSH_INTERVAL", Value: c.Flush.String()},
				{Name: "COUNTER_PAYLOAD_BYTES", Value: strconv.Itoa(max(0, c.StateBytes-envelope))},
			},
			// No limit of CPU: a throttled counter would be measured, and not the move.
			Resources: &doryv1alpha1.ProcessorResources{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(c.CPU), corev1.ResourceMemory: resource.MustParse(c.Memory)},
				Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")},
			},
		},
	}
}

// StatefulSet runs a processor's pod without what makes it Dory's. It saves its state in the ConfigMap when it is told
// to end. Its ServiceAccount is the one that the operator makes in a namespace with Processors.
func (c Counter) StatefulSet() (*appsv1.StatefulSet, error) {
	processor := c.Processor()
	processor.UID = "00000000-0000-4000-8000-000000000000"
	processor.Spec.Port = 8080
	processor.Spec.Probes = doryv1alpha1.ProcessorProbes{InitialDelaySeconds: ptr.To[int32](60), PeriodSeconds: 10, TimeoutSeconds: 3, FailureThreshold: 3}
	processor.Spec.TerminationGracePeriodSeconds = 35
	processor.Spec.Location = doryv1alpha1.LocationManaged
	processor.Spec.ServiceAccountName = "dory-processor"
	built, err := pod.Build(pod.Input{Processor: processor, Name: c.Name + "-0", Epoch: 1})
	if err != nil {
		return nil, fmt.Errorf("building the pod that both sides run: %w", err)
	}
	labels := map[string]string{"app": c.Name}
	container := &built.Spec.Containers[0]
	container.Env = slices.DeleteFunc(container.Env, func(e corev1.EnvVar) bool { return e.Name == pod.InstanceVariable || e.Name == "DORY_EPOCH" })
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](1), ServiceName: c.Name, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: built.Spec},
		},
	}, nil
}
