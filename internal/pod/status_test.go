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

func named(c corev1.Container, names ...string) corev1.Container {
	for i, name := range names {
		c.Ports[i].Name = name
	}
	return c
}

func told(c corev1.Container, port string) *corev1.Pod {
	c.Env = []corev1.EnvVar{{Name: "DORY_HEALTH_PORT", Value: port}}
	return made(c)
}

func TestContainerStatus(t *testing.T) {
	statuses := func(names ...string) (all []corev1.ContainerStatus) {
		for _, name := range names {
			all = append(all, corev1.ContainerStatus{Name: name})
		}
		return all
	}
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		told []string
		want string
	}{
		"ours":                         {made(container("proxy"), container(pod.ContainerName)), []string{"proxy", pod.ContainerName}, pod.ContainerName},
		"another's alone is not ours":  {made(container("proxy"), container(pod.ContainerName)), []string{"proxy"}, ""},
		"an adopted pod's is the only": {made(container("app")), []string{"app"}, "app"},
		"nothing yet":                  {made(container(pod.ContainerName)), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			test.pod.Status.ContainerStatuses = statuses(test.told...)
			got := ""
			if status := pod.ContainerStatus(test.pod); status != nil {
				got = status.Name
			}
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestPort(t *testing.T) {
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		spec int32
		want int32
	}{
		"the pod's, whatever the spec says since":      {made(container(pod.ContainerName, 9000)), 9090, 9000},
		"the processor's container, not a companion's": {made(container("proxy", 15000), container(pod.ContainerName, 9000)), 9090, 9000},
		"what the processor was told counts":           {told(container(pod.ContainerName, 9100, 9000), "9000"), 9090, 9000},
		"what it was told is no port":                  {told(container(pod.ContainerName, 9000), "none"), 9090, 9000},
		"the contract's port stands second":            {made(named(container(pod.ContainerName, 9100, 9000), "metrics", "http")), 9090, 9000},
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
