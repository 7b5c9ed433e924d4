package workload

import (
	"testing"
	"time"
)

func TestBothSidesRunTheSamePod(t *testing.T) {
	counter := Counter{Namespace: "ns", Name: "s", Image: "counter:dev", Interval: time.Millisecond, StateBytes: 64 << 10, CPU: "50m", Memory: "64Mi"}
	set, err := counter.StatefulSet()
	if err != nil {
		t.Fatal(err)
	}
	template := set.Spec.Template
	if len(template.Finalizers) > 0 || len(template.Labels) != 1 || len(template.OwnerReferences) > 0 {
		t.Errorf("the template has what is Dory's own: %+v", template.ObjectMeta)
	}
	container := template.Spec.Containers[0]
	env := map[string]string{}
	for _, e := range container.Env {
		env[e.Name] = e.Value
	}
	for _, name := range []string{"DORY_INSTANCE", "DORY_EPOCH"} {
		if _, set := env[name]; set {
			t.Errorf("%s is set: the pod of a StatefulSet would take itself for a copy", name)
		}
	}
	if env["PROCESSOR_ID"] != "s" || env["DORY_STATE_CONFIGMAP"] != "dory-state-s" || env["COUNTER_INTERVAL"] != "1ms" || env["COUNTER_PAYLOAD_BYTES"] != "65408" {
		t.Errorf("%v", env)
	}
	if container.Lifecycle == nil || container.ReadinessProbe == nil || container.ReadinessProbe.HTTPGet.Path != "/ready" {
		t.Errorf("%+v", container)
	}
}
