package pod_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// watching restarts on changes, and has seen the objects.
func watching(revision string, objects ...doryv1alpha1.ConfigObject) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) {
		p.Spec.Update = &doryv1alpha1.ProcessorUpdate{OnConfigChange: doryv1alpha1.ConfigChangeRestart}
		if len(objects) > 0 {
			p.Status.Config = &doryv1alpha1.ProcessorConfig{Revision: revision, Objects: objects}
		}
	}
}

func configMap(name, hash string) doryv1alpha1.ConfigObject {
	return doryv1alpha1.ConfigObject{Kind: doryv1alpha1.ConfigKindConfigMap, Name: name, Hash: hash}
}

func TestChangedConfig(t *testing.T) {
	ignoring := func(p *doryv1alpha1.Processor) { p.Spec.Update.OnConfigChange = doryv1alpha1.ConfigChangeIgnore }
	for name, test := range map[string]struct {
		started, now []func(*doryv1alpha1.Processor)
		want         bool
	}{
		"the same":                       {list(watching("", configMap("a", "1"))), list(watching("", configMap("a", "1"))), false},
		"another content":                {list(watching("", configMap("a", "1"))), list(watching("x", configMap("a", "2"))), true},
		"another content, ignored":       {list(watching("", configMap("a", "1"))), list(watching("x", configMap("a", "2")), ignoring), false},
		"started before it was watched":  {list(), list(watching("x", configMap("a", "2"))), false},
		"an object that came since":      {list(watching("", configMap("a", "1"))), list(watching("", configMap("a", "1"), configMap("b", "1"))), false},
		"an optional object appears":     {list(watching("", configMap("a", ""))), list(watching("x", configMap("a", "1"))), true},
		"an object is gone":              {list(watching("", configMap("a", "1"))), list(watching("", configMap("a", ""))), false},
		"not referred to any more":       {list(watching("", configMap("a", "1"))), list(watching("")), false},
		"the same name of another kind":  {list(watching("", configMap("a", "1"))), list(watching("", doryv1alpha1.ConfigObject{Kind: "Secret", Name: "a", Hash: "2"})), false},
		"nothing was seen when it began": {list(watching("")), list(watching("", configMap("a", "1"))), false},
	} {
		t.Run(name, func(t *testing.T) {
			built, now := build(t, processor(test.started...)), processor(test.now...)
			if got := pod.Outdated(built, now, ""); got != test.want {
				t.Errorf("Outdated = %t, want %t; the pod records %q", got, test.want, built.Annotations["dory.io/config"])
			}
			if test.want && pod.Cause(built, now, "") != "ConfigMap a changed" {
				t.Errorf("Cause = %q, which does not name the ConfigMap", pod.Cause(built, now, ""))
			}
			if pod.Outdated(build(t, now), now, "") {
				t.Error("the pod that a change leads to is outdated itself")
			}
			if pod.Revision(now, "") != pod.Revision(processor(), "") {
				t.Error("configuration changes the revision of the spec")
			}
		})
	}
	t.Run("a record that is none", func(t *testing.T) {
		built := build(t, processor())
		built.Annotations["dory.io/config"] = "nonsense"
		if pod.Outdated(built, processor(watching("x", configMap("a", "1"))), "") {
			t.Error("an instance is ended on the word of a broken record")
		}
	})
}

func list(changes ...func(*doryv1alpha1.Processor)) []func(*doryv1alpha1.Processor) { return changes }

// A move in progress is called off when its target changes, so what is only learned must not change it.
func TestTargetFollowsChangesAlone(t *testing.T) {
	seen := processor(watching("", configMap("a", "1")))
	if pod.Target(seen, "") != pod.Revision(seen, "") {
		t.Error("what is seen for the first time is another target")
	}
	if pod.Target(processor(watching("x", configMap("a", "2"))), "") == pod.Target(seen, "") {
		t.Error("a change is the same target, so that no Update would be made")
	}
}

func TestReferences(t *testing.T) {
	const overlay = `{
		"initContainers": [{"name": "i", "image": "i", "envFrom": [{"secretRef": {"name": "from-init"}}]}],
		"containers": [
			{"name": "processor", "envFrom": [{"configMapRef": {"name": "env-from", "optional": true}}]},
			{"name": "sidecar", "image": "s", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "a"}}},
				{"name": "B", "valueFrom": {"secretKeyRef": {"name": "key", "key": "b", "optional": true}}}]}],
		"volumes": [
			{"name": "v1", "configMap": {"name": "volume", "items": [{"key": "z", "path": "z"}, {"key": "y", "path": "y"}]}},
			{"name": "v2", "secret": {"secretName": "volume", "optional": true}},
			{"name": "v3", "projected": {"sources": [{"configMap": {"name": "projected"}}, {"secret": {"name": "projected"}}, {"serviceAccountToken": {"path": "t"}}]}},
			{"name": "v4", "configMap": {"name": "dory-state-cam-2"}},
			{"name": "v5", "configMap": {"name": "dory-checkpoint-cam"}},
			{"name": "v6", "emptyDir": {}}]}`
	p := processor(func(p *doryv1alpha1.Processor) {
		p.Spec.Env = []corev1.EnvVar{{Name: "C", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "env-from"}, Key: "c", Optional: new(true),
		}}}}
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(overlay)}}
	})
	built := build(t, p)
	found, total := pod.References(&built.Spec)
	want := []pod.Reference{
		{Kind: "ConfigMap", Name: "env-from", Optional: true},
		{Kind: "ConfigMap", Name: "projected"},
		{Kind: "ConfigMap", Name: "volume", Keys: []string{"y", "z"}},
		{Kind: "Secret", Name: "from-init"},
		{Kind: "Secret", Name: "key", Keys: []string{"a"}},
		{Kind: "Secret", Name: "projected"},
		{Kind: "Secret", Name: "volume", Optional: true},
	}
	if diff := cmp.Diff(want, found); diff != "" || total != len(want) {
		t.Errorf("%d references (-want +got):\n%s", total, diff)
	}
}

func TestReferencesAreBounded(t *testing.T) {
	var spec corev1.PodSpec
	for i := range 1000 {
		spec.Volumes = append(spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: fmt.Sprintf("c%d", i)}},
		}})
	}
	if found, total := pod.References(&spec); len(found) != pod.MaxReferences || total != 1000 {
		t.Errorf("%d of %d references", len(found), total)
	}
}

func TestRecordConfigIsJSON(t *testing.T) {
	var record map[string]string
	text := pod.RecordConfig(&doryv1alpha1.ProcessorConfig{Objects: []doryv1alpha1.ConfigObject{configMap("a", "1")}})
	if err := json.Unmarshal([]byte(text), &record); err != nil || record["ConfigMap a"] != "1" {
		t.Errorf("record %q: %v", text, err)
	}
	if got := pod.RecordConfig(nil); got != "" {
		t.Errorf("nothing is recorded as %q", got)
	}
}

func TestCause(t *testing.T) {
	many := []doryv1alpha1.ConfigObject{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		many = append(many, configMap(name, "1"))
	}
	changed := make([]doryv1alpha1.ConfigObject, len(many))
	for i, o := range many {
		changed[i] = configMap(o.Name, "2")
	}
	built := build(t, processor(watching("", many...)))
	for want, now := range map[string]*doryv1alpha1.Processor{
		"the spec changed":        processor(watching("x", changed...), func(p *doryv1alpha1.Processor) { p.Spec.Image = "counter:2" }),
		"a restart was asked for": processor(watching("x", changed...), asking("a", "")),
		"ConfigMap a, ConfigMap b, ConfigMap c and 2 others changed": processor(watching("x", changed...)),
		"its liveness is probed where it does not answer":            processor(watching("", many...), func(p *doryv1alpha1.Processor) { p.Status.LivenessPath = "/healthz" }),
	} {
		if got := pod.Cause(built, now, ""); got != want {
			t.Errorf("Cause = %q, want %q", got, want)
		}
	}
}
