package placement

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/scheduler"
)

// narrator is the list of everything this package says in events. Reasons are those of kube-scheduler, which people and
// tools look for.
type narrator struct{ recorder record.Recorder }

func (n narrator) scheduled(pod *corev1.Pod, node string) {
	n.recorder.Eventf(pod, nil, corev1.EventTypeNormal, "Scheduled", "Binding", "Assigned %s/%s to %s", pod.Namespace, pod.Name, node)
}

func (n narrator) claims(pod *corev1.Pod, promises []promise, node string) {
	var claims []string
	for _, p := range promises {
		claims = append(claims, p.claim.Name)
	}
	n.recorder.Eventf(pod, nil, corev1.EventTypeNormal, "WaitingForVolumes", "Binding", "Waits for claims to be bound for %s: %s", node, strings.Join(claims, ", "))
}

func (n narrator) refused(pod *corev1.Pod, message string) {
	n.recorder.Eventf(pod, nil, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", "%s", message)
}

func (n narrator) yields(pod, other *corev1.Pod, move scheduler.Move) {
	n.recorder.Eventf(pod, other, corev1.EventTypeNormal, "MakingRoom", "Moving", "Pod %s, of lower priority, moves from %s to %s to make room", move.Pod, move.From, move.To)
}

func (n narrator) displaces(pod, placeholder *corev1.Pod, node string) {
	n.recorder.Eventf(pod, placeholder, corev1.EventTypeNormal, "MakingRoom", "Displacing", "Placeholder %s/%s ends on %s to make room", placeholder.Namespace, placeholder.Name, node)
	n.recorder.Eventf(placeholder, pod, corev1.EventTypeNormal, "Displaced", "Displacing", "Makes room on %s for pod %s/%s", node, pod.Namespace, pod.Name)
}
