package pod

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// keepWhatDoryNeeds gives the processor's container back what an overlay may have changed, removed or put something before:
// its place, its environment, its port, and the requests by which it is known to be ready and told to save. The strategic merge
// puts new items of a list first, so that who looks at the first one would take the overlay's for Dory's.
func keepWhatDoryNeeds(pod *corev1.Pod, in Input) error {
	at := containerNamed(pod.Spec.Containers, ContainerName)
	if at < 0 {
		return fmt.Errorf("spec.podTemplate.spec.containers: no container %q is left", ContainerName)
	}
	container := pod.Spec.Containers[at]
	pod.Spec.Containers = slices.Insert(slices.Delete(pod.Spec.Containers, at, at+1), 0, container)
	own := &pod.Spec.Containers[0]
	own.Env = mergeEnv(own.Env, reservedEnv(in))
	keepReadiness(own, in.Processor)
	keepPreStop(own, in.Processor)
	return keepPort(own, in.Processor)
}

// keepReadiness keeps an overlay's times, and asks what the contract says.
func keepReadiness(container *corev1.Container, p *doryv1alpha1.Processor) {
	probe := readinessProbe(p)
	if container.ReadinessProbe == nil {
		container.ReadinessProbe = probe
		return
	}
	container.ReadinessProbe.ProbeHandler = probe.ProbeHandler
}

func keepPreStop(container *corev1.Container, p *doryv1alpha1.Processor) {
	if container.Lifecycle == nil {
		container.Lifecycle = &corev1.Lifecycle{}
	}
	container.Lifecycle.PreStop = preStop(p)
}

// keepPort puts the processor's own port first. An overlay may give it another name.
func keepPort(container *corev1.Container, p *doryv1alpha1.Processor) error {
	own, others := processorPort(p), container.Ports
	if at := portNumbered(others, own); at >= 0 {
		found := others[at]
		found.Protocol = own.Protocol
		own, others = found, slices.Delete(slices.Clone(others), at, at+1)
	}
	for _, port := range others {
		if own.Name != "" && port.Name == own.Name {
			return fmt.Errorf("spec.podTemplate.spec.containers[name=%s].ports: the name %q is that of the processor's own port %d: give port %d another name, or set spec.port to the port that the processor listens on",
				ContainerName, port.Name, own.ContainerPort, port.ContainerPort)
		}
	}
	container.Ports = append([]corev1.ContainerPort{own}, others...)
	return nil
}

// portNumbered is the index of the port with the same number, rather of the same protocol, or -1.
func portNumbered(ports []corev1.ContainerPort, own corev1.ContainerPort) int {
	found := -1
	for i, port := range ports {
		if port.ContainerPort == own.ContainerPort && (found < 0 || port.Protocol == own.Protocol) {
			found = i
		}
	}
	return found
}

// containerNamed is a container's index, or -1.
func containerNamed(containers []corev1.Container, name string) int {
	return slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == name })
}
