package processkubelet

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func (w *world) patch(name, patch string) {
	w.Helper()
	_, err := client.CoreV1().Pods(w.namespace).Patch(w.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	w.must(err)
}

func (w *world) ask(pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(w.Context(), 300*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/ready", pod.Status.PodIP, w.port), http.NoBody)
	w.must(err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func dead(pid int) bool { return syscall.Kill(pid, 0) != nil }

func TestAPodRunsRestartsAndEnds(t *testing.T) {
	w := newWorld(t, Node{Name: "runs-1"})
	w.run("a", func(pod *corev1.Pod) { pod.Finalizers = []string{"example.com/hold"} })
	first := w.until("ready", "a", ready)
	if first.Spec.NodeName != "runs-1" || first.Status.Phase != corev1.PodRunning || first.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("status %+v on %s", first.Status, first.Spec.NodeName)
	}
	w.must(w.ask(first))

	// What changed in the metadata meanwhile is what the next start gets to see.
	w.patch("a", `{"metadata":{"labels":{"dory.io/epoch":"8"},"annotations":{"dory.io/role":"standby"}}}`)
	pid := w.k.PID(w.namespace, "a")
	w.must(w.k.KillContainer(w.namespace, "a"))
	again := w.until("restarted", "a", func(pod *corev1.Pod) bool {
		return ready(pod) && pod.Status.ContainerStatuses[0].RestartCount == 1
	})
	last := again.Status.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.ExitCode != 137 || again.Status.ContainerStatuses[0].ContainerID == first.Status.ContainerStatuses[0].ContainerID || !dead(pid) {
		t.Errorf("after a kill: %+v", again.Status.ContainerStatuses[0])
	}

	w.must(client.CoreV1().Pods(w.namespace).Delete(t.Context(), "a", metav1.DeleteOptions{}))
	end := w.until("ended", "a", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodSucceeded })
	if state := end.Status.ContainerStatuses[0].State.Terminated; state == nil || state.ExitCode != 0 || ready(end) {
		t.Errorf("at the end: %+v", end.Status)
	}
	w.patch("a", `{"metadata":{"finalizers":null}}`)
	w.until("gone", "a", func(pod *corev1.Pod) bool { return pod == nil })
	want := []string{
		"started role=primary epoch=7 node=runs-1 ip=" + first.Status.PodIP + " secret=hidden",
		"started role=standby epoch=8 node=runs-1 ip=" + first.Status.PodIP + " secret=hidden", "prestop", "sigterm",
	}
	if got := w.texts("a"); !slices.Equal(got, want) {
		t.Errorf("it wrote %q", got)
	}
}

func TestWhoIgnoresSIGTERMIsKilled(t *testing.T) {
	w := newWorld(t, Node{Name: "kill-1"})
	w.run("a", func(pod *corev1.Pod) {
		pod.Finalizers = []string{"example.com/hold"}
		pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: "IGNORE", Value: "1"})
	})
	w.until("ready", "a", ready)
	w.must(client.CoreV1().Pods(w.namespace).Delete(t.Context(), "a", metav1.DeleteOptions{}))
	end := w.until("failed", "a", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodFailed })
	if code := end.Status.ContainerStatuses[0].State.Terminated.ExitCode; code != 137 {
		t.Errorf("exit code %d", code)
	}
	w.patch("a", `{"metadata":{"finalizers":null}}`)
}

func TestPlacement(t *testing.T) {
	w := newWorld(t, Node{Name: "place-1", Labels: map[string]string{"disk": "fast"}}, Node{Name: "place-2"},
		Node{Name: "place-3", Taints: []corev1.Taint{{Key: "edge-node", Value: "true", Effect: corev1.TaintEffectNoSchedule}}})
	named := func(operator corev1.NodeSelectorOperator, names ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: operator, Values: names}}}
	}
	required := func(terms ...corev1.NodeSelectorTerm) *corev1.Affinity {
		return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms}}}
	}
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		node   string
	}{
		"selector": {func(pod *corev1.Pod) { pod.Spec.NodeSelector = map[string]string{"disk": "fast"} }, "place-1"},
		"required": {func(pod *corev1.Pod) { pod.Spec.Affinity = required(named(corev1.NodeSelectorOpIn, "place-2")) }, "place-2"},
		"avoided": {func(pod *corev1.Pod) {
			pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{
				{Weight: 100, Preference: named(corev1.NodeSelectorOpNotIn, "place-1")},
			}}}
		}, "place-2"},
		"tolerated": {func(pod *corev1.Pod) {
			pod.Spec.Affinity = required(named(corev1.NodeSelectorOpIn, "place-3"))
			pod.Spec.Tolerations = []corev1.Toleration{{Key: "edge-node", Operator: corev1.TolerationOpExists}}
		}, "place-3"},
	} {
		w.run(name, test.change)
		if got := w.until("bound", name, func(pod *corev1.Pod) bool { return pod.Spec.NodeName != "" }).Spec.NodeName; got != test.node {
			t.Errorf("%s: on %s, want %s", name, got, test.node)
		}
	}
	w.run("nowhere", func(pod *corev1.Pod) { pod.Spec.Affinity = required(named(corev1.NodeSelectorOpIn, "place-3")) })
	w.until("unschedulable", "nowhere", func(pod *corev1.Pod) bool {
		return len(pod.Status.Conditions) == 1 && pod.Status.Conditions[0].Reason == corev1.PodReasonUnschedulable
	})
	w.must(w.k.setTaints(t.Context(), Node{Name: "place-3"}))
	w.until("bound after all", "nowhere", func(pod *corev1.Pod) bool { return pod.Spec.NodeName == "place-3" })
}

func TestUnknownImageWaits(t *testing.T) {
	w := newWorld(t, Node{Name: "image-1"})
	w.run("a", func(pod *corev1.Pod) { pod.Spec.Containers[0].Image = "nothing" })
	w.until("waiting", "a", func(pod *corev1.Pod) bool {
		return len(pod.Status.ContainerStatuses) == 1 && pod.Status.ContainerStatuses[0].State.Waiting != nil &&
			pod.Status.ContainerStatuses[0].State.Waiting.Reason == "ImagePullBackOff" && pod.Status.Phase == corev1.PodPending
	})
	w.must(client.CoreV1().Pods(w.namespace).Delete(t.Context(), "a", metav1.DeleteOptions{}))
	w.until("gone", "a", func(pod *corev1.Pod) bool { return pod == nil })
}

func TestStoppedNodeSaysNothingUntilItIsBack(t *testing.T) {
	w := newWorld(t, Node{Name: "stop-1"})
	w.run("stays")
	w.run("ends")
	w.until("ready", "stays", ready)
	w.until("ready", "ends", ready)
	pid := w.k.PID(w.namespace, "stays")
	w.must(w.k.StopNode(t.Context(), "stop-1"))
	if !dead(pid) || ready(w.get("stays")) || w.k.PID(w.namespace, "stays") != 0 {
		t.Error("a process, or its readiness, outlived its node")
	}
	w.must(client.CoreV1().Pods(w.namespace).Delete(t.Context(), "ends", metav1.DeleteOptions{}))
	time.Sleep(300 * time.Millisecond)
	if pod := w.get("ends"); pod == nil || pod.Status.Phase != corev1.PodRunning {
		t.Errorf("a node that is off has confirmed an end: %+v", pod)
	}
	w.must(w.k.StartNode(t.Context(), "stop-1"))
	w.until("gone", "ends", func(pod *corev1.Pod) bool { return pod == nil })
	w.until("restarted", "stays", func(pod *corev1.Pod) bool { return ready(pod) && pod.Status.ContainerStatuses[0].RestartCount == 1 })
	if got := len(w.texts("ends")); got != 1 {
		t.Errorf("a pod that was to end has started again: %q", w.texts("ends"))
	}
}

func TestPartitionedNodeWorksOnUnreached(t *testing.T) {
	w := newWorld(t, Node{Name: "cut-1"})
	w.run("a")
	pod := w.until("ready", "a", ready)
	pid := w.k.PID(w.namespace, "a")
	w.must(w.k.PartitionNode(t.Context(), "cut-1"))
	if dead(pid) || ready(w.get("a")) {
		t.Error("the process ended, or its pod is still ready")
	}
	if err := w.ask(pod); err == nil {
		t.Error("the pod answers over a network that is cut")
	}
	w.must(client.CoreV1().Pods(w.namespace).Delete(t.Context(), "a", metav1.DeleteOptions{}))
	time.Sleep(300 * time.Millisecond)
	if dead(pid) {
		t.Error("the kubelet heard of a deletion although it is cut off")
	}
	w.must(w.k.HealNode(t.Context(), "cut-1"))
	w.until("gone", "a", func(pod *corev1.Pod) bool { return pod == nil })
	if !dead(pid) {
		t.Error("the process outlived its pod")
	}
}

func TestLostNodeLosesItsPods(t *testing.T) {
	w := newWorld(t, Node{Name: "lost-1"})
	w.run("a", func(pod *corev1.Pod) { pod.Finalizers = []string{"example.com/hold"} })
	w.until("ready", "a", ready)
	w.must(w.k.LoseNode(t.Context(), "lost-1"))
	if pod := w.get("a"); pod.Status.Phase != corev1.PodFailed || pod.DeletionTimestamp == nil {
		t.Errorf("its pod: %+v", pod)
	}
	w.patch("a", `{"metadata":{"finalizers":null}}`)
}

func TestFrozenProcessAnswersNothing(t *testing.T) {
	w := newWorld(t, Node{Name: "frozen-1"})
	w.run("a")
	pod := w.until("ready", "a", ready)
	w.must(w.k.Freeze(w.namespace, "a"))
	if w.ask(pod) == nil {
		t.Error("a frozen process answers")
	}
	w.must(w.k.Thaw(w.namespace, "a"))
	w.until("ready", "a", ready)
}

func TestCloseLeavesNoProcess(t *testing.T) {
	w := newWorld(t, Node{Name: "close-1"})
	var pids []int
	for _, name := range []string{"a", "b", "c"} {
		w.run(name)
		w.until("ready", name, ready)
		pids = append(pids, w.k.PID(w.namespace, name))
	}
	w.k.Close()
	for _, pid := range pids {
		if !dead(pid) {
			t.Errorf("process %d outlived Close", pid)
		}
	}
}

func TestDelays(t *testing.T) {
	w := newWorld(t, Node{Name: "slow-1"})
	w.k.SetDelays(Delays{Bind: 200 * time.Millisecond, Start: 200 * time.Millisecond, Report: 50 * time.Millisecond})
	began := time.Now()
	w.run("a")
	w.until("ready", "a", ready)
	if took := time.Since(began); took < 450*time.Millisecond {
		t.Errorf("ready after %s", took)
	}
}

func TestExpand(t *testing.T) {
	got := expand("$(A)/$(B) $$(A) $C", map[string]string{"A": "x"})
	if got != "x/$(B) $(A) $C" {
		t.Errorf("expanded to %q", got)
	}
}

func TestRelocateKnowsTheSource(t *testing.T) {
	if _, err := relocate("package sdk"); err == nil || !strings.Contains(err.Error(), "look at this anew") {
		t.Errorf("error %v", err)
	}
}

func TestPretendedPod(t *testing.T) {
	w := newWorld(t, Node{Name: "pretend-1"})
	w.k.SetProgram("pretended", Program{})
	w.run("a", func(pod *corev1.Pod) {
		pod.Finalizers = []string{"example.com/hold"}
		pod.Spec.Containers[0].Image = "pretended"
	})
	w.until("ready", "a", ready)
	w.must(w.k.KillContainer(w.namespace, "a"))
	w.until("restarted", "a", func(pod *corev1.Pod) bool { return ready(pod) && pod.Status.ContainerStatuses[0].RestartCount == 1 })
	w.must(client.CoreV1().Pods(w.namespace).Delete(t.Context(), "a", metav1.DeleteOptions{}))
	w.until("ended", "a", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodSucceeded })
	w.patch("a", `{"metadata":{"finalizers":null}}`)
	w.until("gone", "a", func(pod *corev1.Pod) bool { return pod == nil })
}
