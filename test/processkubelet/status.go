package processkubelet

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// view is what a kubelet knows of a pod's container.
type view struct {
	started  metav1.Time
	ip       string
	id       string
	restarts int32
	// One of the three is set.
	waiting    *corev1.ContainerStateWaiting
	running    *corev1.ContainerStateRunning
	terminated *corev1.ContainerStateTerminated
	last       *corev1.ContainerStateTerminated
	ready      bool
	failures   int32
	phase      corev1.PodPhase
	since      map[corev1.PodConditionType]corev1.PodCondition
}

func (v *view) wait(reason, message string) {
	v.running, v.terminated, v.ready = nil, nil, false
	v.waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
}

func (v *view) run(p *process) {
	if v.last != nil {
		v.restarts++
	}
	v.waiting, v.terminated, v.ready, v.failures = nil, nil, false, 0
	v.running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(p.started)}
	v.id = p.id
}

func (v *view) stop(p *process) {
	reason := "Completed"
	if p.exitCode != 0 {
		reason = "Error"
	}
	v.terminated = &corev1.ContainerStateTerminated{
		ExitCode: p.exitCode, Reason: reason, ContainerID: p.id, StartedAt: metav1.NewTime(p.started), FinishedAt: metav1.NewTime(p.finished),
	}
	v.waiting, v.running, v.last, v.ready = nil, nil, v.terminated, false
}

// finish makes the pod a terminal one.
func (v *view) finish() {
	if v.terminated == nil && v.last != nil {
		v.terminated, v.waiting = v.last, nil
	}
	if v.terminated == nil {
		const killed = 137
		v.terminated = &corev1.ContainerStateTerminated{ExitCode: killed, Reason: "ContainerStatusUnknown", Message: "the container was never started"}
		v.waiting = nil
	}
	v.phase = corev1.PodSucceeded
	if v.terminated.ExitCode != 0 {
		v.phase = corev1.PodFailed
	}
}

// probed says whether the outcome counts yet.
func (v *view) probed(ready bool, probe *corev1.Probe) bool {
	if ready {
		v.failures = 0
		return true
	}
	v.failures++
	return v.failures >= max(probe.FailureThreshold, 1) || !v.ready
}

// status is the whole status of a pod.
func (v *view) status(pod *corev1.Pod) corev1.PodStatus {
	s := corev1.PodStatus{
		Phase: v.phase, PodIP: v.ip, PodIPs: []corev1.PodIP{{IP: v.ip}}, HostIP: "127.0.0.1", HostIPs: []corev1.HostIP{{IP: "127.0.0.1"}},
		StartTime: &v.started,
	}
	if s.Phase == "" {
		s.Phase = corev1.PodRunning
		if v.running == nil && v.last == nil {
			s.Phase = corev1.PodPending
		}
	}
	if s.Phase == corev1.PodPending {
		s.PodIP, s.PodIPs = "", nil
	}
	reason := ""
	if ended(&corev1.Pod{Status: s}) {
		reason = "PodCompleted"
	}
	v.condition(&s, corev1.PodScheduled, true, "")
	v.condition(&s, corev1.PodInitialized, true, "")
	v.condition(&s, corev1.ContainersReady, v.ready, reason)
	v.condition(&s, corev1.PodReady, v.ready, reason)
	for i := range pod.Spec.Containers {
		started := v.running != nil
		status := corev1.ContainerStatus{
			Name: pod.Spec.Containers[i].Name, Image: pod.Spec.Containers[i].Image, ImageID: pod.Spec.Containers[i].Image,
			ContainerID: v.id, Ready: v.ready, Started: &started, RestartCount: v.restarts,
			State: corev1.ContainerState{Waiting: v.waiting, Running: v.running, Terminated: v.terminated},
		}
		if v.terminated == nil {
			status.LastTerminationState.Terminated = v.last
		}
		s.ContainerStatuses = append(s.ContainerStatuses, status)
	}
	return s
}

func (v *view) condition(s *corev1.PodStatus, kind corev1.PodConditionType, is bool, reason string) {
	condition := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason}
	if is {
		condition.Status = corev1.ConditionTrue
	} else if reason == "" && (kind == corev1.PodReady || kind == corev1.ContainersReady) {
		condition.Reason = "ContainersNotReady"
	}
	if v.since == nil {
		v.since = map[corev1.PodConditionType]corev1.PodCondition{}
	}
	condition.LastTransitionTime = v.since[kind].LastTransitionTime
	if v.since[kind].Status != condition.Status {
		condition.LastTransitionTime = metav1.Now()
	}
	v.since[kind] = condition
	s.Conditions = append(s.Conditions, condition)
}

// report writes the status if it is another than the one written last, and says whether it is the one that stands.
func (w *worker) report() bool {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": w.uid}, "status": w.view.status(w.pod),
	})
	if err != nil {
		panic(fmt.Sprintf("a status that is no JSON: %v", err))
	}
	if string(patch) == w.reported {
		return true
	}
	if w.k.sleep(w.k.delay().Report) != nil {
		return false
	}
	w.node.reporting.RLock()
	defer w.node.reporting.RUnlock()
	if _, cut, _ := w.node.state(); cut {
		return false
	}
	err = w.k.patchStatus(w.k.ctx, w.pod, patch)
	switch {
	case err == nil:
		w.reported = string(patch)
		return true
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		w.gone = true
	default:
		w.again()
	}
	return false
}

// again looks a little later: the API server was not there.
func (w *worker) again() {
	w.k.wg.Go(func() {
		if w.k.sleep(retryDelay) == nil {
			w.poke()
		}
	})
}

func (k *Kubelet) patchStatus(ctx context.Context, pod *corev1.Pod, patch []byte) error {
	_, err := k.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// processorContainer is the one that is played.
func processorContainer(pod *corev1.Pod) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == "processor" {
			return &pod.Spec.Containers[i]
		}
	}
	return &pod.Spec.Containers[0]
}
