package pod_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/dory-io/dory/internal/pod"
)

func made(containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{Spec: corev1.PodSpec{Containers: containers}}
}

func container(name string, ports ...int32) corev1.Container {
	c := corev1.Container{Name: name}
	for _, port := range ports {
		c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: port})
	}
	return c
}

func TestPort(t *testing.T) {
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		spec int32
		want int32
	}{
		"the pod's, whatever the spec says since":      {made(container(pod.ContainerName, 9000)), 9090, 9000},
		"the processor's container, not a companion's": {made(container("proxy", 15000), container(pod.ContainerName, 9000)), 9090, 9000},
		"an adopted pod calls it otherwise":            {made(container("app", 9000)), 9090, 9000},
		"an adopted pod does not say it":               {made(container("app")), 9090, 9090},
		"nobody says it":                               {made(container("app")), 0, 8080},
		"the pod is not known":                         {nil, 9090, 9090},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pod.Port(test.pod, test.spec); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

func TestKeepsStateItself(t *testing.T) {
	for name, test := range map[string]struct {
		env  []corev1.EnvVar
		want bool
	}{
		"says nothing":           {nil, false},
		"in the ConfigMap":       {[]corev1.EnvVar{{Name: "DORY_STATE_BACKEND", Value: "ConfigMap"}}, false},
		"on a volume":            {[]corev1.EnvVar{{Name: "OTHER"}, {Name: "DORY_STATE_BACKEND", Value: "pvc"}}, true},
		"as something else says": {[]corev1.EnvVar{{Name: "DORY_STATE_BACKEND", ValueFrom: &corev1.EnvVarSource{}}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pod.KeepsStateItself(made(corev1.Container{Name: pod.ContainerName, Env: test.env})); got != test.want {
				t.Errorf("%v", got)
			}
		})
	}
}
