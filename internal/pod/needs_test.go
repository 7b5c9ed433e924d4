package pod_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

func overlaid(spec string) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) {
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(spec)}}
	}
}

// TestWhatDoryNeedsOutlivesAnyOverlay: whatever an overlay adds, changes or removes, the pod is one that Dory can work with.
func TestWhatDoryNeedsOutlivesAnyOverlay(t *testing.T) {
	for name, overlay := range map[string]string{
		"nothing":                           `{}`,
		"a metrics port":                    `{"containers":[{"name":"processor","ports":[{"name":"metrics","containerPort":9100}]}]}`,
		"a metrics port without a name":     `{"containers":[{"name":"processor","ports":[{"containerPort":9100}]}]}`,
		"all ports replaced":                `{"containers":[{"name":"processor","ports":[{"$patch":"replace"},{"name":"metrics","containerPort":9100}]}]}`,
		"our port deleted":                  `{"containers":[{"name":"processor","ports":[{"$patch":"delete","containerPort":8080}]}]}`,
		"ports null":                        `{"containers":[{"name":"processor","ports":null}]}`,
		"our port renamed":                  `{"containers":[{"name":"processor","ports":[{"name":"web","containerPort":8080}]}]}`,
		"our port renamed, its name reused": `{"containers":[{"name":"processor","ports":[{"name":"web","containerPort":8080},{"name":"http","containerPort":9100}]}]}`,
		"our port as UDP":                   `{"containers":[{"name":"processor","ports":[{"containerPort":8080,"protocol":"UDP"}]}]}`,
		"both protocols":                    `{"containers":[{"name":"processor","ports":[{"$patch":"replace"},{"containerPort":8080,"protocol":"UDP","name":"dns"},{"containerPort":8080,"protocol":"TCP","name":"web"}]}]}`,
		"a host port":                       `{"containers":[{"name":"processor","ports":[{"containerPort":8080,"hostPort":18080}]}]}`,
		"a container before ours":           `{"containers":[{"name":"proxy","image":"proxy:1","ports":[{"name":"http","containerPort":15000}],"env":[{"name":"POD_NAME","value":"x"}]}]}`,
		"a container with our port":         `{"containers":[{"name":"proxy","image":"proxy:1","ports":[{"name":"http","containerPort":8080}]}]}`,
		"containers replaced, ours among":   `{"containers":[{"$patch":"replace"},{"name":"proxy","image":"proxy:1"},{"name":"processor","image":"counter:2"}]}`,
		"an init container":                 `{"initContainers":[{"name":"setup","image":"setup:1","env":[{"name":"DORY_EPOCH","value":"9"}]}]}`,
		"reserved variables":                `{"containers":[{"name":"processor","env":[{"name":"DORY_HEALTH_PORT","value":"9100"},{"name":"DORY_STATE_CONFIGMAP","value":"x"},{"name":"POD_NAME","value":"x"},{"name":"DORY_INSTANCE","value":"x"},{"name":"DORY_IS_MIGRATING","value":"true"},{"name":"DORY_MIGRATED_FROM","value":"x"}]}]}`,
		"reserved variables from elsewhere": `{"containers":[{"name":"processor","env":[{"name":"DORY_EPOCH","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}]}]}`,
		"all variables replaced":            `{"containers":[{"name":"processor","env":[{"$patch":"replace"},{"name":"A","value":"b"}]}]}`,
		"a reserved variable deleted":       `{"containers":[{"name":"processor","env":[{"$patch":"delete","name":"DORY_EPOCH"}]}]}`,
		"env null":                          `{"containers":[{"name":"processor","env":null}]}`,
		"variables from a ConfigMap":        `{"containers":[{"name":"processor","envFrom":[{"configMapRef":{"name":"x"}}]}]}`,
		"readiness by command":              `{"containers":[{"name":"processor","readinessProbe":{"httpGet":null,"exec":{"command":["true"]}}}]}`,
		"readiness by both":                 `{"containers":[{"name":"processor","readinessProbe":{"exec":{"command":["true"]}}}]}`,
		"readiness elsewhere":               `{"containers":[{"name":"processor","readinessProbe":{"httpGet":{"path":"/","port":9100,"host":"other","scheme":"HTTPS"}}}]}`,
		"no readiness":                      `{"containers":[{"name":"processor","readinessProbe":null}]}`,
		"readiness deleted":                 `{"containers":[{"name":"processor","readinessProbe":{"$patch":"delete"}}]}`,
		"no lifecycle":                      `{"containers":[{"name":"processor","lifecycle":null}]}`,
		"no preStop":                        `{"containers":[{"name":"processor","lifecycle":{"preStop":null}}]}`,
		"another preStop":                   `{"containers":[{"name":"processor","lifecycle":{"preStop":{"exec":{"command":["sleep","5"]}}}}]}`,
		"a postStart":                       `{"containers":[{"name":"processor","lifecycle":{"postStart":{"exec":{"command":["true"]}}}}]}`,
		"volumes":                           `{"volumes":[{"name":"scratch","emptyDir":{}}],"containers":[{"name":"processor","volumeMounts":[{"name":"scratch","mountPath":"/scratch"}]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := processor(overlaid(overlay))
			want, got := build(t, processor()), build(t, p)
			if n := len(got.Spec.Containers); n == 0 || got.Spec.Containers[0].Name != pod.ContainerName {
				t.Fatalf("the first of %d containers is not the processor", n)
			}
			wantEnv, gotEnv := envOf(t, want), envOf(t, got)
			for name, value := range wantEnv {
				if gotEnv[name] != value {
					t.Errorf("%s is %q, want %q", name, gotEnv[name], value)
				}
			}
			for _, name := range []string{"DORY_IS_MIGRATING", "DORY_MIGRATED_FROM"} {
				if value, set := gotEnv[name]; set {
					t.Errorf("%s is %q on a pod that is no target of a move", name, value)
				}
			}
			if port := pod.Port(got, 1); port != 8080 {
				t.Errorf("the operator asks port %d", port)
			}
			checkContainer(t, got.Spec.Containers[0])
		})
	}
}

func checkContainer(t *testing.T, c corev1.Container) {
	t.Helper()
	if first := c.Ports[0]; first.ContainerPort != 8080 || first.Protocol != corev1.ProtocolTCP {
		t.Errorf("the first port is %+v", first)
	}
	for what, handler := range map[string]*corev1.HTTPGetAction{"/ready": c.ReadinessProbe.HTTPGet, "/prestop": c.Lifecycle.PreStop.HTTPGet} {
		if handler == nil || handler.Path != what || handler.Port.IntValue() != 8080 || handler.Host != "" || handler.Scheme != "" {
			t.Errorf("%s is asked by %+v", what, handler)
		}
	}
	if c.ReadinessProbe.Exec != nil || c.Lifecycle.PreStop.Exec != nil {
		t.Error("a command is run beside the request, which the API server refuses")
	}
	names := map[string]bool{}
	for _, port := range c.Ports {
		if names[port.Name] && port.Name != "" {
			t.Errorf("two ports are called %q", port.Name)
		}
		names[port.Name] = true
	}
}

func TestAnOverlayMayChangeTheRest(t *testing.T) {
	c := build(t, processor(overlaid(`{"containers":[{"name":"processor","image":"counter:2",
		"ports":[{"containerPort":8080,"name":"web","hostPort":18080},{"containerPort":9100,"name":"metrics"}],
		"readinessProbe":{"timeoutSeconds":9},"livenessProbe":{"httpGet":{"path":"/alive"}},
		"lifecycle":{"postStart":{"exec":{"command":["true"]}}}}]}`))).Spec.Containers[0]
	if c.Image != "counter:2" || c.Ports[0].Name != "web" || c.Ports[0].HostPort != 18080 || c.Ports[1].ContainerPort != 9100 ||
		c.ReadinessProbe.TimeoutSeconds != 9 || c.LivenessProbe.HTTPGet.Path != "/alive" || c.Lifecycle.PostStart == nil {
		t.Errorf("the overlay was not merged: %+v", c)
	}
}

func TestAnOverlayThatTakesTheNameOfThePortIsRefused(t *testing.T) {
	for name, ports := range map[string]string{
		"beside ours":     `[{"name":"http","containerPort":9100}]`,
		"instead of ours": `[{"$patch":"replace"},{"name":"http","containerPort":9100}]`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pod.Build(pod.Input{Processor: processor(overlaid(`{"containers":[{"name":"processor","ports":` + ports + `}]}`)), Name: "dory-cam-x"})
			if err == nil || !strings.Contains(err.Error(), `spec.podTemplate.spec.containers[name=processor].ports`) || !strings.Contains(err.Error(), "9100") {
				t.Errorf("error %v, want one that names the field and the port", err)
			}
		})
	}
}

// TestAnApplicationsNameFromElsewhere is as good as one that is written out.
func TestAnApplicationsNameFromElsewhere(t *testing.T) {
	source := &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}
	built := build(t, processor(func(p *doryv1alpha1.Processor) { p.Spec.Env = []corev1.EnvVar{{Name: "APP_NAME", ValueFrom: source}} }))
	if got := envOf(t, built)["APP_NAME"]; got != "field:metadata.namespace" {
		t.Errorf("APP_NAME is %q", got)
	}
}
