package pod_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// slim is a pod as a cache has it.
func slim(t *testing.T, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	slim, err := pod.Slim(p.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	return slim.(*corev1.Pod)
}

// What controllers decide by must stay; what is large must go.
func TestSlim(t *testing.T) {
	probe := &corev1.Probe{PeriodSeconds: 7}
	limits := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourceCPU: resource.MustParse("1")}
	got := slim(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Labels: map[string]string{"a": "b"}, Finalizers: []string{"f"}, ManagedFields: []metav1.ManagedFieldsEntry{{}},
			Annotations: map[string]string{doryv1alpha1.AnnotationSpec: "large", doryv1alpha1.AnnotationSeal: "small"},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", Volumes: []corev1.Volume{{}}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "s"}},
			InitContainers: []corev1.Container{{Name: "shipper", Command: []string{"ship"}, RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}},
			Containers: []corev1.Container{{
				Name: "processor", LivenessProbe: probe, Resources: corev1.ResourceRequirements{Limits: limits, Requests: limits},
				Env: []corev1.EnvVar{{Name: "A"}, {Name: "DORY_STATE_CONFIGMAP", Value: "dory-state-x"}},
			}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
	})
	want := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Labels: map[string]string{"a": "b"}, Finalizers: []string{"f"}, Annotations: map[string]string{doryv1alpha1.AnnotationSeal: "small"},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", ImagePullSecrets: []corev1.LocalObjectReference{{Name: "s"}},
			InitContainers: []corev1.Container{{Name: "shipper", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}},
			Containers: []corev1.Container{{
				Name: "processor", LivenessProbe: probe, Env: []corev1.EnvVar{{Name: "DORY_STATE_CONFIGMAP", Value: "dory-state-x"}},
				Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}},
			}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
}

// Whatever is asked about a pod has the same answer where a cache has dropped what it drops. A question that reads more of a pod
// belongs here, too.
func TestQuestionsAboutSlimPods(t *testing.T) {
	processor := &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "cam"},
		Spec: doryv1alpha1.ProcessorSpec{
			Image: "counter:1", Port: 9000, Probes: doryv1alpha1.ProcessorProbes{LivenessPath: doryv1alpha1.LivenessPathHealth, PeriodSeconds: 10},
			Env: []corev1.EnvVar{{Name: "DORY_STATE_BACKEND", Value: "redis"}},
		},
	}
	questions := map[string]func(*corev1.Pod) any{
		"Port":             func(p *corev1.Pod) any { return pod.Port(p, 0) },
		"Image":            func(p *corev1.Pod) any { return pod.Image(p) },
		"KeepsStateItself": func(p *corev1.Pod) any { return pod.KeepsStateItself(p) },
		"StateConfigMapOf": func(p *corev1.Pod) any { return pod.StateConfigMapOf(p) },
		"Extra":            func(p *corev1.Pod) any { return pod.Extra(p) },
		"Ready":            func(p *corev1.Pod) any { return pod.Ready(p) },
		"Unreadiness":      func(p *corev1.Pod) any { return pod.Unreadiness(p) },
		"Ending":           func(p *corev1.Pod) any { return pod.Ending(p) },
		"CrashLooping":     func(p *corev1.Pod) any { return pod.CrashLooping(p) },
		"EpochOf":          func(p *corev1.Pod) any { return pod.EpochOf(p) },
		"RevisionOf":       func(p *corev1.Pod) any { return pod.RevisionOf(p) },
		"Outdated":         func(p *corev1.Pod) any { return pod.Outdated(p, processor, "") },
		"RestartDue":       func(p *corev1.Pod) any { return pod.RestartDue(p, processor) },
		"ChangedConfig":    func(p *corev1.Pod) any { return pod.ChangedConfig(p, processor) },
		"Stuck":            func(p *corev1.Pod) any { return pod.Stuck(p) },
		"Unpullable":       func(p *corev1.Pod) any { return pod.Unpullable(p) },
		"Unmade":           func(p *corev1.Pod) any { return pod.Unmade(p) },
		"Blocking":         func(p *corev1.Pod) any { return pod.Blocking(p) },
		"ContainerStatus":  func(p *corev1.Pod) any { return pod.ContainerStatus(p) },
	}
	killed := corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137, FinishedAt: metav1.NewTime(time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC))}
	for name, change := range map[string]says{
		"as it was made": func(*corev1.Pod) {},
		"out of memory":  status(pod.ContainerName, waits("CrashLoopBackOff", "back-off 40s restarting failed container"), 3, killed),
		"ended":          status(pod.ContainerName, corev1.ContainerState{Terminated: &killed}, 0),
		"a sidecar":      status("shipper", runningSince, 0),
		"no image":       status("proxy", waits("ImagePullBackOff", "not found"), 0),
	} {
		whole, err := pod.Build(pod.Input{Processor: processor, Name: "dory-cam-1", Epoch: 3})
		if err != nil {
			t.Fatal(err)
		}
		made := statusPod()
		whole.Spec.InitContainers, whole.Status = made.Spec.InitContainers, made.Status
		whole.Spec.Containers = append(whole.Spec.Containers, container("proxy"))
		whole.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
		change(whole)
		for question, ask := range questions {
			want, got := fmt.Sprintf("%+v", ask(whole)), fmt.Sprintf("%+v", ask(slim(t, whole)))
			if got != want {
				t.Errorf("%s, %s: %s, and of the whole pod %s", name, question, got, want)
			}
		}
	}
}
