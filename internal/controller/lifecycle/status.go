package lifecycle

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/pod"
)

// report computes the status from what was seen and what is done about it. It keeps what other controllers
// write: their conditions, the SDK version and the liveness path.
func report(o *observation, p *plan) doryv1alpha1.ProcessorStatus {
	status := *o.processor.Status.DeepCopy()
	_, holder := o.holder()
	if p.adopt != nil {
		holder = p.adopt
	}
	status.ObservedGeneration = o.processor.Generation
	status.Backoff = p.backoff
	status.Instance = instance(o, holder, p)
	status.LastEpoch = max(status.LastEpoch, lastEpoch(status.Instance))
	view := describe(o, holder, p)
	status.Phase = view.phase
	setCondition(o, &status, doryv1alpha1.ConditionReady, view.status, view.reason, view.message)
	reportUpdated(o, &status, holder, p)
	return status
}

func setCondition(o *observation, status *doryv1alpha1.ProcessorStatus, kind string, value metav1.ConditionStatus, reason, said string) {
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: kind, Status: value, Reason: reason, Message: message.Shorten(said, message.ConditionLimit),
		ObservedGeneration: o.processor.Generation, LastTransitionTime: metav1.NewTime(o.now),
	})
}

// instance describes the holder. While a pod is missing that the epoch names, the last word stays: about it, so that the
// next pass knows it existed, or about the instance before it, so that whoever looks for the state knows under which epoch
// that one saved it.
func instance(o *observation, holder *corev1.Pod, p *plan) *doryv1alpha1.ProcessorInstance {
	last := o.processor.Status.Instance
	if holder == nil {
		if name, _ := o.holder(); name != "" && !p.release {
			return last
		}
		return nil
	}
	seen := &doryv1alpha1.ProcessorInstance{
		Pod: holder.Name, UID: string(holder.UID), Node: holder.Spec.NodeName, IP: holder.Status.PodIP, Image: pod.Image(holder),
		Location: locationOf(holder), Restarts: restarts(holder), Since: since(holder),
	}
	if o.epoch != nil {
		seen.Epoch = o.epoch.Spec.Epoch
	}
	if last != nil && last.UID == seen.UID {
		seen.SDKVersion = last.SDKVersion
		if o.epoch == nil {
			seen.Epoch = last.Epoch
		}
	}
	return seen
}

func lastEpoch(seen *doryv1alpha1.ProcessorInstance) int64 {
	if seen == nil {
		return 0
	}
	return seen.Epoch
}

func locationOf(pod *corev1.Pod) doryv1alpha1.Location {
	if pod.Labels[doryv1alpha1.LabelLocation] == "edge" {
		return doryv1alpha1.LocationEdge
	}
	return doryv1alpha1.LocationManaged
}

func restarts(p *corev1.Pod) int32 {
	if container := pod.ContainerStatus(p); container != nil {
		return container.RestartCount
	}
	return 0
}

func since(p *corev1.Pod) *metav1.Time {
	if pod.Ready(p) {
		t := readySince(p)
		return &t
	}
	t := p.CreationTimestamp
	return &t
}

// view is the Ready condition and the phase that goes with it.
type view struct {
	phase           doryv1alpha1.ProcessorPhase
	status          metav1.ConditionStatus
	reason, message string
}

func describe(o *observation, holder *corev1.Pod, p *plan) view {
	no := metav1.ConditionFalse
	switch {
	case p.behind != nil:
		return view{doryv1alpha1.ProcessorUnhealthy, no, p.behind.reason, p.behind.message}
	case holder != nil && alive(holder):
		return describePod(o, holder)
	case o.twin != "":
		return view{doryv1alpha1.ProcessorPending, no, p.hindrance.reason, p.hindrance.message}
	case o.processor.Suspended():
		return view{doryv1alpha1.ProcessorSuspended, no, doryv1alpha1.ReasonSuspended, "spec.suspend is true; set it to false to start an instance"}
	case p.hindrance != nil:
		return view{phaseOf(p.hindrance.reason), no, p.hindrance.reason, p.hindrance.message}
	default:
		return view{doryv1alpha1.ProcessorPending, no, doryv1alpha1.ReasonStarting, "an instance is being created"}
	}
}

func phaseOf(reason string) doryv1alpha1.ProcessorPhase {
	switch reason {
	case doryv1alpha1.ReasonBackingOff:
		return doryv1alpha1.ProcessorBackingOff
	case doryv1alpha1.ReasonWaitingForOldInstance:
		return doryv1alpha1.ProcessorStopping
	default:
		return doryv1alpha1.ProcessorPending
	}
}

func describePod(o *observation, p *corev1.Pod) view {
	no := metav1.ConditionFalse
	switch {
	case p.DeletionTimestamp != nil:
		wait := waitingFor(o, p)
		return view{doryv1alpha1.ProcessorStopping, no, wait.reason, wait.message}
	case p.Spec.NodeName == "":
		return describeUnscheduled(p)
	case o.nodes[p.Spec.NodeName] != nodeReady:
		return view{doryv1alpha1.ProcessorUnhealthy, metav1.ConditionUnknown, doryv1alpha1.ReasonNodeLost, fmt.Sprintf(
			"node %s is not ready, so nobody can say how pod %s is; it is not replaced before its end is proven", p.Spec.NodeName, p.Name)}
	case pod.Ready(p):
		return view{doryv1alpha1.ProcessorRunning, metav1.ConditionTrue, doryv1alpha1.ReasonRunning, fmt.Sprintf("pod %s is ready", p.Name)}
	default:
		return describeUnready(o, p)
	}
}

func describeUnscheduled(p *corev1.Pod) view {
	if condition := pod.Condition(p, corev1.PodScheduled); condition != nil && condition.Status == corev1.ConditionFalse {
		return view{doryv1alpha1.ProcessorPending, metav1.ConditionFalse, doryv1alpha1.ReasonUnschedulable, condition.Message}
	}
	return view{doryv1alpha1.ProcessorPending, metav1.ConditionFalse, doryv1alpha1.ReasonStarting, fmt.Sprintf("pod %s waits for a node", p.Name)}
}

func describeUnready(o *observation, p *corev1.Pod) view {
	no := metav1.ConditionFalse
	blocking := pod.Blocking(p)
	switch {
	case blocking != nil && blocking.State.Waiting != nil && !harmless(blocking.State.Waiting.Reason):
		return view{
			doryv1alpha1.ProcessorUnhealthy, no, doryv1alpha1.ReasonContainerWaiting, fmt.Sprintf("pod %s: %s", p.Name, pod.Unreadiness(p)),
		}
	case o.explanation != "":
		return view{unreadyPhase(p, blocking), no, doryv1alpha1.ReasonNotReady, fmt.Sprintf("pod %s on node %s %s", p.Name, p.Spec.NodeName, o.explanation)}
	case wentUnready(p, blocking):
		return view{
			doryv1alpha1.ProcessorUnhealthy, no, doryv1alpha1.ReasonNotReady, fmt.Sprintf("pod %s on node %s: %s", p.Name, p.Spec.NodeName, pod.Unreadiness(p)),
		}
	default:
		return view{doryv1alpha1.ProcessorStarting, no, doryv1alpha1.ReasonStarting, fmt.Sprintf("pod %s starts on node %s", p.Name, p.Spec.NodeName)}
	}
}

func unreadyPhase(p *corev1.Pod, blocking *corev1.ContainerStatus) doryv1alpha1.ProcessorPhase {
	if wentUnready(p, blocking) {
		return doryv1alpha1.ProcessorUnhealthy
	}
	return doryv1alpha1.ProcessorStarting
}

// wentUnready says whether the pod was ready before, or the container was started before that keeps it from that.
func wentUnready(p *corev1.Pod, blocking *corev1.ContainerStatus) bool {
	return blocking != nil && (blocking.RestartCount > 0 || wasReady(p, blocking))
}

// harmless are the reasons of a container that waits for nothing but its turn.
func harmless(reason string) bool {
	return reason == "" || reason == "ContainerCreating" || reason == "PodInitializing"
}

// wasReady: readiness changed after the container started, which it only does by getting ready first.
func wasReady(p *corev1.Pod, container *corev1.ContainerStatus) bool {
	condition, started := pod.Condition(p, corev1.PodReady), processStart(container)
	return condition != nil && started != nil && condition.LastTransitionTime.After(started.Time)
}

// processStart is when the process started that runs, or that has just ended.
func processStart(container *corev1.ContainerStatus) *metav1.Time {
	switch state := container.State; {
	case state.Running != nil:
		return &state.Running.StartedAt
	case state.Terminated != nil && !state.Terminated.StartedAt.IsZero():
		return &state.Terminated.StartedAt
	}
	return nil
}

// reportUpdated says whether the instance is of the current spec.
func reportUpdated(o *observation, status *doryv1alpha1.ProcessorStatus, holder *corev1.Pod, p *plan) {
	switch {
	case holder == nil || !alive(holder):
		meta.RemoveStatusCondition(&status.Conditions, doryv1alpha1.ConditionUpdated)
	case p.hindrance != nil && o.wanted():
		setCondition(o, status, doryv1alpha1.ConditionUpdated, metav1.ConditionFalse, p.hindrance.reason, "the running instance keeps its old spec: "+p.hindrance.message)
	case p.adopt == nil && !o.edgeNodeUnknown && pod.Outdated(holder, o.processor, o.edgeNode):
		setCondition(o, status, doryv1alpha1.ConditionUpdated, metav1.ConditionFalse, doryv1alpha1.ReasonReplacing, "the instance is being replaced by one of the current spec")
	default:
		setCondition(o, status, doryv1alpha1.ConditionUpdated, metav1.ConditionTrue, doryv1alpha1.ReasonCurrent, "the instance is of the current spec"+extraContainers(holder))
	}
}

// extraContainersSep is before what is said of them.
const extraContainersSep = "; "

// extraContainers names what may be a mistake: a container of another name is no overlay of the processor's own.
func extraContainers(p *corev1.Pod) string {
	extra := pod.Extra(p)
	if len(extra) == 0 || len(extra) == len(p.Spec.Containers) { // An adopted pod calls its own otherwise.
		return ""
	}
	return fmt.Sprintf(extraContainersSep+"spec.podTemplate adds container %q to the processor's own, which is called %q", strings.Join(extra, ", "), pod.ContainerName)
}

func readySince(p *corev1.Pod) metav1.Time {
	if condition := pod.Condition(p, corev1.PodReady); condition != nil {
		return condition.LastTransitionTime
	}
	return p.CreationTimestamp
}
