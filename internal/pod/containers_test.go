package pod_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dory-io/dory/internal/pod"
)

// The words in which the tests describe what a kubelet says of containers.

type says func(*corev1.Pod)

func statusPod(changes ...says) *corev1.Pod {
	p := made(container(pod.ContainerName, 8080), container("proxy"))
	p.Spec.InitContainers = []corev1.Container{{Name: "setup"}, {Name: "shipper", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{
		{Name: "setup", Ready: true, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}}},
		{Name: "shipper", Ready: true, State: runningSince},
	}
	// A kubelet sorts the rest by name.
	p.Status.ContainerStatuses = []corev1.ContainerStatus{
		{Name: pod.ContainerName, Ready: true, State: runningSince}, {Name: "proxy", Ready: true, State: runningSince},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

var (
	runningSince = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	endedAt      = metav1.NewTime(time.Date(2026, 11, 30, 12, 3, 4, 0, time.UTC))
)

func status(name string, state corev1.ContainerState, restarts int32, last ...corev1.ContainerStateTerminated) says {
	return func(p *corev1.Pod) {
		for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
			for i := range list {
				if list[i].Name != name {
					continue
				}
				list[i].Ready, list[i].State, list[i].RestartCount = false, state, restarts
				for _, l := range last {
					list[i].LastTerminationState.Terminated = &l
				}
			}
		}
	}
}

func waits(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func exit(code int32, reason string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, FinishedAt: endedAt}}
}

func limited(p *corev1.Pod) {
	p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("20Mi")}
}

// debugged is what kubectl debug adds. It is no part of what the pod is for.
func debugged(p *corev1.Pod) {
	p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debugger", State: waits("ImagePullBackOff", "no such image")}}
}

func TestUnreadiness(t *testing.T) {
	oom := corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled", FinishedAt: endedAt}
	for name, test := range map[string]struct {
		pod                 *corev1.Pod
		want                string
		stuck, pull, unmade string
	}{
		"nothing is known": {pod: &corev1.Pod{}, want: "its kubelet has not said anything yet"},
		"no such image": {
			pod:  statusPod(status(pod.ContainerName, waits("ImagePullBackOff", "Back-off pulling image \"x:1\""), 0)),
			want: `container processor: ImagePullBackOff: Back-off pulling image "x:1"`, stuck: "processor", pull: "processor", unmade: "processor",
		},
		"no such image of a companion": {
			pod:  statusPod(status("proxy", waits("ErrImagePull", "not found"), 0)),
			want: "container proxy: ErrImagePull: not found", stuck: "proxy", pull: "proxy", unmade: "proxy",
		},
		"no such image of a sidecar": {
			pod:  statusPod(status("shipper", waits("ImagePullBackOff", "not found"), 0), status(pod.ContainerName, waits("PodInitializing", ""), 0)),
			want: "container shipper: ImagePullBackOff: not found", stuck: "shipper", pull: "shipper", unmade: "shipper",
		},
		"no such image of init": {
			pod:  statusPod(status("setup", waits("ErrImageNeverPull", "not present"), 0), status(pod.ContainerName, waits("PodInitializing", ""), 0)),
			want: "container setup: ErrImageNeverPull: not present", stuck: "setup", unmade: "setup",
		},
		"init fails": {
			pod:  statusPod(status("setup", waits("CrashLoopBackOff", "back-off 20s restarting failed container=setup pod=x"), 2, corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"})),
			want: "container setup ended 3 times, last with exit code 1; next start 20s after that (CrashLoopBackOff)", stuck: "setup",
		},
		"init works": {
			pod:  statusPod(status("setup", runningSince, 0), status(pod.ContainerName, waits("PodInitializing", ""), 0)),
			want: "container setup, of init, has not ended yet",
		},
		"out of memory": {
			pod:  statusPod(limited, status(pod.ContainerName, waits("CrashLoopBackOff", "back-off 20s restarting failed container=processor pod=x_y(z)"), 2, oom)),
			want: "container processor ended 3 times, last OOMKilled (exit code 137) with a memory limit of 20Mi at 2026-11-30T12:03:04Z; next start 20s after that (CrashLoopBackOff)", stuck: "processor",
		},
		"out of memory, and works again": {
			pod:  statusPod(limited, status(pod.ContainerName, runningSince, 2, oom)),
			want: "container processor does not answer GET /ready with 200; it ended 2 times, last OOMKilled (exit code 137) with a memory limit of 20Mi at 2026-11-30T12:03:04Z",
		},
		"last words": {
			pod: statusPod(status(pod.ContainerName, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 2, Reason: "Error", Message: "unknown flag: --söund\n\x1b[0m" + strings.Repeat("ü", 1000),
			}}, 0)),
			want: `container processor ended with exit code 2, saying "unknown flag: --söund [0mü`,
		},
		"the processor is not ready": {pod: statusPod(status(pod.ContainerName, runningSince, 0)), want: "container processor does not answer GET /ready with 200"},
		"a companion is not ready":   {pod: statusPod(status("proxy", runningSince, 0)), want: "container proxy runs and is not ready"},
		"a sidecar is not ready":     {pod: statusPod(status("shipper", runningSince, 0)), want: "container shipper runs and is not ready"},
		"a readiness gate": {
			pod: statusPod(func(p *corev1.Pod) {
				p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}}
			}),
			want: "its readiness gate example.com/lb is not True",
		},
		"a debugger without an image": {pod: statusPod(debugged), want: "all of its containers are ready, and its kubelet has not said yet that it is"},
		"the one that is stuck before one that is only slow": {
			pod:  statusPod(status(pod.ContainerName, runningSince, 0), status("proxy", waits("InvalidImageName", "cannot parse"), 0)),
			want: "container proxy: InvalidImageName: cannot parse", stuck: "proxy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pod.Unreadiness(test.pod); !strings.HasPrefix(got, test.want) || len(got) > 2000 {
				t.Errorf("%s\nwant %s", got, test.want)
			}
			for what, pair := range map[string]struct {
				got  *corev1.ContainerStatus
				want string
			}{"stuck": {pod.Stuck(test.pod), test.stuck}, "unpullable": {pod.Unpullable(test.pod), test.pull}, "unmade": {pod.Unmade(test.pod), test.unmade}} {
				if got := nameOf(pair.got); got != pair.want {
					t.Errorf("%s is container %q, want %q", what, got, pair.want)
				}
			}
		})
	}
}

func nameOf(s *corev1.ContainerStatus) string {
	if s == nil {
		return ""
	}
	return s.Name
}

func TestEnding(t *testing.T) {
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"evicted": {statusPod(func(p *corev1.Pod) { p.Status.Reason, p.Status.Message = "Evicted", "The node was low on memory" }), "Evicted The node was low on memory"},
		"the one that failed, not the first": {
			statusPod(status(pod.ContainerName, exit(0, "Completed"), 0), status("proxy", exit(3, "Error"), 0)), "container proxy ended with exit code 3 at 2026-11-30T12:03:04Z",
		},
		"init failed":     {statusPod(status("setup", exit(1, "Error"), 0)), "container setup ended with exit code 1 at 2026-11-30T12:03:04Z"},
		"init ended well": {statusPod(status(pod.ContainerName, exit(0, "Completed"), 0)), "container processor ended Completed (exit code 0) at 2026-11-30T12:03:04Z"},
		"no one knows":    {&corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed}}, `phase "Failed"`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pod.Ending(test.pod); got != test.want {
				t.Errorf("%s\nwant %s", got, test.want)
			}
		})
	}
}

// Each of what a kubelet says of a container that waits is known for what it is, in one place.
func TestWhyContainersWait(t *testing.T) {
	for reason, want := range map[string]struct{ imageless, unstartable, unmade, stuck bool }{
		"ErrImagePull":               {true, true, true, true},
		"ImagePullBackOff":           {true, true, true, true},
		"ErrImageNeverPull":          {true, true, true, true},
		"InvalidImageName":           {true, true, false, true},
		"ImageInspectError":          {true, true, false, true},
		"CreateContainerConfigError": {false, true, true, true},
		"CreateContainerError":       {false, true, false, true},
		"RunContainerError":          {false, true, false, true},
		"PostStartHookError":         {false, true, false, true},
		"CrashLoopBackOff":           {false, false, false, true},
		"ContainerCreating":          {},
		"PodInitializing":            {},
	} {
		p := statusPod(status(pod.ContainerName, waits(reason, ""), 0))
		s := pod.ContainerStatus(p)
		got := want
		got.imageless, got.unstartable, got.unmade, got.stuck = pod.Imageless(s), pod.Unstartable(s), pod.Unmade(p) != nil, pod.Stuck(p) != nil
		if got != want {
			t.Errorf("%s: %+v, want %+v", reason, got, want)
		}
	}
}
