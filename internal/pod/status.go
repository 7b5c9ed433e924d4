package pod

import (
	"cmp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// Ready says whether the pod's kubelet calls it ready.
func Ready(p *corev1.Pod) bool {
	condition := Condition(p, corev1.PodReady)
	return condition != nil && condition.Status == corev1.ConditionTrue
}

// Condition is nil where the pod has none of that kind.
func Condition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// ContainerStatus is that of the processor's container; nil before the kubelet has said anything. Adopted pods may call it
// otherwise; then it is the first.
func ContainerStatus(p *corev1.Pod) *corev1.ContainerStatus {
	for i := range p.Status.ContainerStatuses {
		if p.Status.ContainerStatuses[i].Name == ContainerName {
			return &p.Status.ContainerStatuses[i]
		}
	}
	if len(p.Status.ContainerStatuses) > 0 && containerNamed(p.Spec.Containers, ContainerName) < 0 {
		return &p.Status.ContainerStatuses[0]
	}
	return nil
}

// CrashLooping says whether the processor's container ended and waits for its next start.
func CrashLooping(p *corev1.Pod) bool {
	container := ContainerStatus(p)
	return container != nil && container.State.Waiting != nil && container.State.Waiting.Reason == "CrashLoopBackOff"
}

// EpochOf is what the pod's label says; 0 without one, and without a pod.
func EpochOf(p *corev1.Pod) int64 {
	if p == nil {
		return 0
	}
	epoch, err := strconv.ParseInt(p.Labels[doryv1alpha1.LabelEpoch], 10, 64)
	if err != nil {
		return 0
	}
	return epoch
}

// Port is where the pod's processor listens. That is the pod's word, because the Processor's spec may have changed since the
// pod was made. Adopted pods may not say it; then it is the spec's or, where that says nothing either, the contract's.
func Port(p *corev1.Pod, spec int32) int32 {
	if p == nil {
		return cmp.Or(spec, defaultPort)
	}
	container := processorOf(p)
	if container == nil {
		return cmp.Or(spec, defaultPort)
	}
	return cmp.Or(toldPort(container), declaredPort(container), spec, defaultPort)
}

// toldPort is what the processor itself was told to listen on, or 0.
func toldPort(container *corev1.Container) int32 {
	for _, env := range container.Env {
		if env.Name == healthPort {
			port, err := strconv.ParseUint(env.Value, 10, 16)
			if err == nil {
				return int32(port)
			}
		}
	}
	return 0
}

// declaredPort is the container's port of the name that Dory gives it, else its first, or 0.
func declaredPort(container *corev1.Container) int32 {
	var first int32
	for _, port := range container.Ports {
		if port.Name == portName {
			return port.ContainerPort
		}
		first = cmp.Or(first, port.ContainerPort)
	}
	return first
}

// Image is what the pod's processor is made from; empty where it cannot be told which of its containers that is.
func Image(p *corev1.Pod) string {
	if container := processorOf(p); container != nil {
		return container.Image
	}
	return ""
}

// defaultPort is the contract's.
const defaultPort = 8080

// KeepsStateItself says whether the pod's SDK was told to keep its state elsewhere than in the state ConfigMap.
func KeepsStateItself(p *corev1.Pod) bool {
	container := processorOf(p)
	if container == nil {
		return false
	}
	for _, env := range container.Env {
		if env.Name == stateBackend {
			return env.ValueFrom != nil || (env.Value != "" && !strings.EqualFold(env.Value, "configmap"))
		}
	}
	return false
}

// processorOf is the processor's container. Adopted pods may call their only one otherwise.
func processorOf(p *corev1.Pod) *corev1.Container {
	for i := range p.Spec.Containers {
		if p.Spec.Containers[i].Name == ContainerName || len(p.Spec.Containers) == 1 {
			return &p.Spec.Containers[i]
		}
	}
	return nil
}
