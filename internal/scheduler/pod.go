package scheduler

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	podresource "k8s.io/component-helpers/resource"
)

// Pod is what placement reads of a pod. It does not change.
type Pod struct {
	// Key is namespace/name.
	Key string
	// UID tells a pod from an earlier one of its name.
	UID string
	// Node it runs on; empty while it waits.
	Node string
	// Priority decides who goes first, and who may be asked to move.
	Priority int32
	// Created is when the pod was made.
	Created time.Time

	namespace   string
	labels      map[string]string
	request     request
	ports       []hostPort
	movable     bool
	placeholder bool
	patient     bool // it displaces nobody, whatever its priority
	terminating bool
	over        bool // it has ended and needs nothing any more

	// problem is why no node will do, whichever there are.
	problem string
	// shape is the same for all pods that ask the same of a node but for resources, ports and other pods.
	shape string
	where *where
	terms *terms
}

// PodOptions are what one must know of a pod beyond its own object.
type PodOptions struct {
	// Volumes are from where each of the persistent volumes that the pod mounts can be reached, or could be once it is bound.
	Volumes []*corev1.NodeSelector
	// Problem is why the pod cannot run anywhere, such as a claim that is not bound; empty if nothing speaks against it.
	Problem string
	// Movable pods can be moved to another node without being killed.
	Movable bool
	// Placeholder pods do nothing but keep room, and go when a pod of higher priority needs it.
	Placeholder bool
}

// NewPod reads a pod. It keeps the pod's map of labels, and nothing else of it where the pod has a node already.
func NewPod(pod *corev1.Pod, opts PodOptions) *Pod {
	p := &Pod{
		Key:         Key(pod.Namespace, pod.Name),
		UID:         string(pod.UID),
		Node:        pod.Spec.NodeName,
		Created:     pod.CreationTimestamp.Time,
		namespace:   pod.Namespace,
		labels:      pod.Labels,
		ports:       hostPorts(&pod.Spec),
		movable:     opts.Movable,
		placeholder: opts.Placeholder,
		terminating: pod.DeletionTimestamp != nil,
		over:        pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed,
		problem:     opts.Problem,
	}
	if pod.Spec.Priority != nil {
		p.Priority = *pod.Spec.Priority
	}
	if policy := pod.Spec.PreemptionPolicy; policy != nil {
		p.patient = *policy == corev1.PreemptNever
	}
	p.readRequest(pod)
	p.note(p.readTerms(pod))
	if p.Node == "" || p.movable {
		p.readWhere(&pod.Spec, opts.Volumes)
	}
	return p
}

// Key is how snapshots and queues name a pod.
func Key(namespace, name string) string { return namespace + "/" + name }

// Waiting says whether the pod is one to be placed.
func (p *Pod) Waiting() bool { return p.Node == "" && !p.terminating && !p.over }

// Placeholder says whether the pod does nothing but keep room.
func (p *Pod) Placeholder() bool { return p.placeholder }

// Terminating says whether the pod was told to end.
func (p *Pod) Terminating() bool { return p.terminating }

// Over says whether the pod has ended and needs nothing any more.
func (p *Pod) Over() bool { return p.over }

// Compare orders waiting pods: the higher priority first, then the older, then by name.
func Compare(a, b *Pod) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.Created.Compare(b.Created), cmp.Compare(a.Key, b.Key))
}

// note keeps the first problem.
func (p *Pod) note(err error) {
	if err != nil && p.problem == "" {
		p.problem = err.Error()
	}
}

// readRequest counts what a kubelet would: for a pod in place also what it was granted before it asked for less.
func (p *Pod) readRequest(pod *corev1.Pod) {
	if err := negative(&pod.Spec); err != nil {
		p.note(err)
	}
	var err error
	p.request, err = requestOf(podresource.PodRequests(pod, podresource.PodResourcesOptions{UseStatusResources: p.Node != ""}))
	p.note(err)
	if len(pod.Spec.ResourceClaims) > 0 && p.Node == "" {
		p.note(errors.New("it uses resource claims, which only kube-scheduler places: set spec.placement.scheduler to default"))
	}
}

// negative finds an amount below zero before sums hide it.
func negative(spec *corev1.PodSpec) error {
	lists := []corev1.ResourceList{spec.Overhead}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			lists = append(lists, containers[i].Resources.Requests)
		}
	}
	if spec.Resources != nil {
		lists = append(lists, spec.Resources.Requests)
	}
	for _, list := range lists {
		for _, quantity := range list {
			if quantity.Sign() < 0 {
				return fmt.Errorf("it requests %s of a resource: use 0 or more", quantity.String())
			}
		}
	}
	return nil
}

// hostPort is a port of the node that a pod takes.
type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

const everyAddress = "0.0.0.0"

func (h hostPort) conflicts(other hostPort) bool {
	return h.port == other.port && h.protocol == other.protocol &&
		(h.ip == other.ip || h.ip == everyAddress || other.ip == everyAddress)
}

// hostPorts are those of the containers that run for as long as the pod does.
func hostPorts(spec *corev1.PodSpec) []hostPort {
	var ports []hostPort
	for i := range spec.InitContainers {
		if policy := spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			ports = appendHostPorts(ports, spec.InitContainers[i].Ports)
		}
	}
	for i := range spec.Containers {
		ports = appendHostPorts(ports, spec.Containers[i].Ports)
	}
	return ports
}

func appendHostPorts(ports []hostPort, more []corev1.ContainerPort) []hostPort {
	for _, p := range more {
		if p.HostPort <= 0 {
			continue
		}
		ports = append(ports, hostPort{
			ip:       cmp.Or(p.HostIP, everyAddress),
			protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP),
			port:     p.HostPort,
		})
	}
	return ports
}

// sameNeeds says whether two pods weigh the same on the node that both name.
func sameNeeds(a, b *Pod) bool {
	return a.request.amounts == b.request.amounts && slices.Equal(a.request.extended, b.request.extended) &&
		slices.Equal(a.ports, b.ports)
}

// SameProblem says whether the same, or nothing, speaks against two readings of a pod wherever they go.
func (p *Pod) SameProblem(other *Pod) bool { return p.problem == other.problem }

// OnlyNode says whether a change can help the pod only on the node that it happened to: what the pod asks of others may
// come true anywhere.
func (p *Pod) OnlyNode(change Change) bool { return change.Node != "" && p.terms == nil }
