package pod

import (
	"fmt"
	"iter"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/dory-io/dory/internal/message"
)

// A pod is all of its containers: it is ready once those of init have ended well, its sidecars have started, and all others
// are ready. Ephemeral containers, as kubectl debug adds them, count for nothing of that.

// statuses are those of the containers that the pod's readiness depends on, in the order in which they are started: of init,
// the processor's, and then the others.
func statuses(p *corev1.Pod) iter.Seq[*corev1.ContainerStatus] {
	return func(yield func(*corev1.ContainerStatus) bool) {
		for i := range p.Status.InitContainerStatuses {
			if !yield(&p.Status.InitContainerStatuses[i]) {
				return
			}
		}
		first := ContainerStatus(p)
		if first != nil && !yield(first) {
			return
		}
		for i := range p.Status.ContainerStatuses {
			if status := &p.Status.ContainerStatuses[i]; status != first && !yield(status) {
				return
			}
		}
	}
}

// Why a container waits is the kubelet's word. These are all that the operator goes by: to one that is new to it, it gives time.
var (
	// unpulled: a registry may be away for a while, or refuse.
	unpulled = []string{"ErrImagePull", "ImagePullBackOff"}
	// unmade: what the container is made from is not there, be it on its node or in its namespace.
	unmade = slices.Concat(unpulled, []string{"ErrImageNeverPull", "CreateContainerConfigError"})
	// imageless: the image cannot be had, for whatever reason.
	imageless = slices.Concat(unpulled, []string{"ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})
	// unstartable: the container has not started.
	unstartable = slices.Concat(imageless, []string{"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PostStartHookError"})
	// stuck: or it ends again and again.
	stuck = slices.Concat(unstartable, []string{"CrashLoopBackOff"})
)

// Imageless says whether a container with this status waits for an image that cannot be had.
func Imageless(s *corev1.ContainerStatus) bool { return waitsForOne(s, imageless) }

// Unstartable says whether a container with this status waits because it cannot be started, be it for its image.
func Unstartable(s *corev1.ContainerStatus) bool { return waitsForOne(s, unstartable) }

func waitsForOne(s *corev1.ContainerStatus, reasons []string) bool {
	return s.State.Waiting != nil && slices.Contains(reasons, s.State.Waiting.Reason)
}

// Stuck is the first container that waits for something that time alone seldom mends, such as its image; nil where there is
// none.
func Stuck(p *corev1.Pod) *corev1.ContainerStatus { return waitsFor(p, anyRestarts, stuck) }

// Unpullable is the first container whose image cannot be pulled; nil where there is none. A registry may be away for a
// while. That an image is not on the node and may not be pulled is the spec's own word, and no such case.
func Unpullable(p *corev1.Pod) *corev1.ContainerStatus {
	return waitsFor(p, anyRestarts, unpulled)
}

// Unmade is the first container that never ran, because its image or its configuration cannot be had; nil where there is none.
func Unmade(p *corev1.Pod) *corev1.ContainerStatus {
	return waitsFor(p, 0, unmade)
}

const anyRestarts = math.MaxInt32

// waitsFor is the first container that waits for one of the reasons and was not restarted more often.
func waitsFor(p *corev1.Pod, restarts int32, reasons []string) *corev1.ContainerStatus {
	if p == nil {
		return nil
	}
	for status := range statuses(p) {
		if status.RestartCount <= restarts && waitsForOne(status, reasons) {
			return status
		}
	}
	return nil
}

// Blocking is the container that the pod's readiness waits for: one that is stuck, or else the first that is not ready. It is
// nil before the kubelet has said anything, and where no container is to blame.
func Blocking(p *corev1.Pod) *corev1.ContainerStatus {
	if p == nil {
		return nil
	}
	if stuck := Stuck(p); stuck != nil {
		return stuck
	}
	for status := range statuses(p) {
		if !status.Ready && !done(p, status) {
			return status
		}
	}
	return nil
}

// done says whether the container is one of init that ended well.
func done(p *corev1.Pod, status *corev1.ContainerStatus) bool {
	return ofInit(p, status.Name) && status.State.Terminated != nil && status.State.Terminated.ExitCode == 0
}

func ofInit(p *corev1.Pod, name string) bool {
	return slices.ContainsFunc(p.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == name })
}

// Unreadiness says what a pod that is not ready waits for.
func Unreadiness(p *corev1.Pod) string {
	if status := Blocking(p); status != nil {
		return waiting(p, status)
	}
	if p == nil || ContainerStatus(p) == nil {
		return "its kubelet has not said anything yet"
	}
	for _, gate := range p.Spec.ReadinessGates {
		if c := Condition(p, gate.ConditionType); c == nil || c.Status != corev1.ConditionTrue {
			return fmt.Sprintf("its readiness gate %s is not True", gate.ConditionType)
		}
	}
	return "all of its containers are ready, and its kubelet has not said yet that it is"
}

// waiting says what a container that is not ready waits for.
func waiting(p *corev1.Pod, status *corev1.ContainerStatus) string {
	name := "container " + status.Name
	last := lastEnd(status)
	switch {
	case status.State.Waiting != nil && last != nil:
		return name + " " + ends(p, status, last) + next(status.State.Waiting)
	case status.State.Waiting != nil && status.State.Waiting.Message != "":
		return fmt.Sprintf("%s: %s: %s", name, status.State.Waiting.Reason, message.Line(status.State.Waiting.Message, maxSaid))
	case status.State.Waiting != nil && status.State.Waiting.Reason != "":
		return name + ": " + status.State.Waiting.Reason
	case status.State.Waiting != nil:
		return name + " is about to start"
	case status.State.Terminated != nil:
		return name + " " + ends(p, status, last)
	}
	doing := " runs and is not ready"
	switch {
	case isProcessor(p, status):
		doing = " does not answer GET /ready with 200"
	case ofInit(p, status.Name) && !sidecar(p, status.Name):
		doing = ", of init, has not ended yet"
	}
	if last != nil {
		return name + doing + "; it " + ends(p, status, last)
	}
	return name + doing
}

func isProcessor(p *corev1.Pod, status *corev1.ContainerStatus) bool {
	return status == ContainerStatus(p)
}

// sidecar says whether a container of init goes on beside the others.
func sidecar(p *corev1.Pod, name string) bool {
	return slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	})
}

// maxSaid of what a container or a kubelet says are passed on.
const maxSaid = 512

// lastEnd is how the container ended last; nil where it has not.
func lastEnd(status *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if status.State.Terminated != nil {
		return status.State.Terminated
	}
	return status.LastTerminationState.Terminated
}

// ends says how often a container ended, and how the last time. It says the same until it ends again.
func ends(p *corev1.Pod, status *corev1.ContainerStatus, last *corev1.ContainerStateTerminated) string {
	count := status.RestartCount
	if status.State.Running == nil {
		count++
	}
	var text strings.Builder
	switch count {
	case 0, 1:
		text.WriteString("ended ")
	default:
		fmt.Fprintf(&text, "ended %d times, last ", count)
	}
	text.WriteString(End(last))
	if last.Reason == "OOMKilled" {
		if limit := memoryLimit(p, status.Name); limit != "" {
			text.WriteString(" with a memory limit of " + limit)
		}
	}
	if !last.FinishedAt.IsZero() {
		text.WriteString(" at " + last.FinishedAt.UTC().Format(time.RFC3339))
	}
	if said := message.Line(last.Message, maxSaid); said != "" {
		fmt.Fprintf(&text, ", saying %q", said)
	}
	return text.String()
}

// End is how a container ended, in a few words.
func End(t *corev1.ContainerStateTerminated) string {
	if t.Reason == "" || t.Reason == "Error" {
		return fmt.Sprintf("with exit code %d", t.ExitCode)
	}
	return fmt.Sprintf("%s (exit code %d)", t.Reason, t.ExitCode)
}

func memoryLimit(p *corev1.Pod, name string) string {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if limit, limited := c.Resources.Limits[corev1.ResourceMemory]; c.Name == name && limited {
			return limit.String()
		}
	}
	return ""
}

// backOff finds how long the kubelet waits.
var backOff = regexp.MustCompile(`^back-off (\S+) restarting failed container`)

// next says when the kubelet starts a container anew that crashes, or what else it waits for.
func next(waiting *corev1.ContainerStateWaiting) string {
	if found := backOff.FindStringSubmatch(waiting.Message); found != nil {
		return "; next start " + found[1] + " after that (" + waiting.Reason + ")"
	}
	if waiting.Message == "" {
		return "; " + waiting.Reason
	}
	return fmt.Sprintf("; %s: %s", waiting.Reason, message.Line(waiting.Message, maxSaid))
}

// Ending says how a pod ended, in the words of its kubelet: of its containers, it names the one that failed.
func Ending(p *corev1.Pod) string {
	if p.Status.Reason != "" {
		return strings.TrimSpace(p.Status.Reason + " " + message.Line(p.Status.Message, maxSaid))
	}
	var found *corev1.ContainerStatus
	for status := range statuses(p) {
		t := status.State.Terminated
		if t != nil && (found == nil || found.State.Terminated.ExitCode == 0) && (t.ExitCode != 0 || !done(p, status)) {
			found = status
		}
	}
	if found == nil {
		return fmt.Sprintf("phase %q", p.Status.Phase)
	}
	return fmt.Sprintf("container %s %s", found.Name, ends(p, found, found.State.Terminated))
}

// Extra are the names of containers beside the processor's own. One that was meant to be it is a mistake that is easily made.
func Extra(p *corev1.Pod) []string {
	var names []string
	for i := range p.Spec.Containers {
		if name := p.Spec.Containers[i].Name; name != ContainerName {
			names = append(names, name)
		}
	}
	return names
}
