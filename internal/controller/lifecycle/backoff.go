package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

const (
	// The kubelet's own numbers for containers that crash: 10 s, doubled up to 5 min, forgotten after 10 min.
	backoffBase  = 10 * time.Second
	backoffCap   = 5 * time.Minute
	backoffReset = 10 * time.Minute
)

// countFailure adds the holder's end to the failures, once. A pod that somebody deleted did not fail, and one
// that had run for long enough starts the count anew.
func countFailure(last *doryv1alpha1.ProcessorBackoff, holder *corev1.Pod, now time.Time) *doryv1alpha1.ProcessorBackoff {
	if holder == nil || holder.DeletionTimestamp != nil || (last != nil && last.LastPod == holder.Name) {
		return setBack(last, now)
	}
	failures := int32(1)
	if last != nil && endedAt(holder, now).Sub(startedAt(holder)) < backoffReset {
		failures = last.Failures + 1
	}
	return &doryv1alpha1.ProcessorBackoff{Failures: failures, LastFailureTime: metav1.NewTime(now.Truncate(time.Second)), LastPod: holder.Name}
}

// setBack begins the wait anew where the last failure lies ahead: the clock was set back since, and nobody shall wait
// until it has caught up.
func setBack(last *doryv1alpha1.ProcessorBackoff, now time.Time) *doryv1alpha1.ProcessorBackoff {
	if last == nil || !last.LastFailureTime.After(now) {
		return last
	}
	anew := *last
	anew.LastFailureTime = metav1.NewTime(now.Truncate(time.Second))
	return &anew
}

// endedAt is by the clock of the kubelet, as startedAt is, where it says so: the operator's may be far from it.
func endedAt(pod *corev1.Pod, now time.Time) time.Time {
	var ended time.Time
	for i := range pod.Status.ContainerStatuses {
		if t := pod.Status.ContainerStatuses[i].State.Terminated; t != nil && t.FinishedAt.After(ended) {
			ended = t.FinishedAt.Time
		}
	}
	if ended.IsZero() {
		return now
	}
	return ended
}

func startedAt(pod *corev1.Pod) time.Time {
	if pod.Status.StartTime != nil {
		return pod.Status.StartTime.Time
	}
	return pod.CreationTimestamp.Time
}

// remaining is how long to wait before the next start. The first failure is answered at once.
func remaining(b *doryv1alpha1.ProcessorBackoff, now time.Time) time.Duration {
	if b == nil {
		return 0
	}
	return max(0, b.LastFailureTime.Add(delay(b.Failures)).Sub(now))
}

func delay(failures int32) time.Duration {
	if failures <= 1 {
		return 0
	}
	wait := backoffBase
	for range failures - 2 {
		if wait *= 2; wait >= backoffCap {
			return backoffCap
		}
	}
	return wait
}

// forgetFailures clears the count once the instance has been ready for long enough, and looks again by then. Since when it
// is ready is the kubelet's word; by the operator's own clock, which may be ahead, the last failure must be as long ago.
func forgetFailures(o *observation, p *plan, holder *corev1.Pod) {
	if p.backoff == nil || !pod.Ready(holder) {
		return
	}
	left := max(readySince(holder).Add(backoffReset).Sub(o.now), p.backoff.LastFailureTime.Add(backoffReset).Sub(o.now))
	if left > 0 {
		p.lookAgain(min(left, backoffReset))
		return
	}
	p.backoff = nil
}

// failure says how a pod ended, in the words of its kubelet.
func failure(ended *corev1.Pod) string {
	if ended == nil {
		return "without a trace"
	}
	return ended.Name + ": " + pod.Ending(ended)
}
