package dbsync

import (
	"fmt"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// rendered is a Processor with every field that a row can set, and others as the API has them.
func rendered(t *testing.T) *doryv1alpha1.Processor {
	t.Helper()
	p, _, err := Render(rowWith(config(typicalConfig), edgeNode("gw"), selector(`{"a": "b"}`)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Every field of a spec is changed in turn, also those that will be added one day.
func TestEveryChangeOfASpecIsSeen(t *testing.T) {
	want := rendered(t)
	if !sameProcessor(want, roundTrip(t, want)) {
		t.Fatal("a Processor is not the same after it went through JSON")
	}
	changed := 0
	walk(reflect.ValueOf(&want.DeepCopy().Spec).Elem(), "spec", func(path string, set func(spec *doryv1alpha1.ProcessorSpec)) {
		have := want.DeepCopy()
		set(&have.Spec)
		changed++
		if sameProcessorSpec(&want.Spec, &have.Spec) {
			t.Errorf("a change of %s is not seen", path)
		}
		if sameProcessorSpec(&have.Spec, &want.Spec) {
			t.Errorf("a change of %s is not seen the other way", path)
		}
	})
	if fields := reflect.TypeFor[doryv1alpha1.ProcessorSpec]().NumField() + reflect.TypeFor[doryv1alpha1.ProcessorProbes]().NumField() - 1; changed < fields {
		t.Errorf("%d changes were tried, want at least %d", changed, fields)
	}
}

// walk changes each field of a spec, and each one of a struct in it.
func walk(v reflect.Value, path string, try func(string, func(*doryv1alpha1.ProcessorSpec))) {
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if v.Field(i).Kind() == reflect.Struct {
			for j := range v.Field(i).NumField() {
				try(path+"."+name+"."+v.Field(i).Type().Field(j).Name, func(s *doryv1alpha1.ProcessorSpec) {
					change(reflect.ValueOf(s).Elem().Field(i).Field(j))
				})
			}
			continue
		}
		try(path+"."+name, func(s *doryv1alpha1.ProcessorSpec) { change(reflect.ValueOf(s).Elem().Field(i)) })
	}
}

// change makes a value another one.
func change(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		} else {
			v.SetZero()
		}
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	default:
		panic(fmt.Sprintf("a field of kind %s: teach this test to change it", v.Kind()))
	}
}

func TestChangesInsideOfFieldsAreSeen(t *testing.T) {
	want := rendered(t)
	for what, change := range map[string]func(*doryv1alpha1.Processor){
		"a variable's value":  func(p *doryv1alpha1.Processor) { p.Spec.Env[0].Value = "other" },
		"a variable's source": func(p *doryv1alpha1.Processor) { p.Spec.Env[0].ValueFrom = &corev1.EnvVarSource{} },
		"a variable less":     func(p *doryv1alpha1.Processor) { p.Spec.Env = p.Spec.Env[1:] },
		"a request":           func(p *doryv1alpha1.Processor) { p.Spec.Resources.Requests["cpu"] = resource.MustParse("251m") },
		"a resource more":     func(p *doryv1alpha1.Processor) { p.Spec.Resources.Limits["x"] = resource.MustParse("1") },
		"a resource less":     func(p *doryv1alpha1.Processor) { delete(p.Spec.Resources.Limits, "cpu") },
		"suspend":             func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(true) },
		"the delay":           func(p *doryv1alpha1.Processor) { p.Spec.Probes.InitialDelaySeconds = ptr.To[int32](6) },
		"the edge node":       func(p *doryv1alpha1.Processor) { p.Spec.Placement.EdgeNode = "other" },
		"the selector":        func(p *doryv1alpha1.Processor) { p.Spec.Placement.NodeSelector["a"] = "c" },
		"the overlay": func(p *doryv1alpha1.Processor) {
			p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(`{}`)}}
		},
		"the label":             func(p *doryv1alpha1.Processor) { p.Labels[doryv1alpha1.LabelSource] = "" },
		"the id's annotation":   func(p *doryv1alpha1.Processor) { delete(p.Annotations, doryv1alpha1.AnnotationProcessorID) },
		"the revision, removed": func(p *doryv1alpha1.Processor) { delete(p.Annotations, doryv1alpha1.AnnotationRowRevision) },
		"warnings":              func(p *doryv1alpha1.Processor) { p.Annotations[doryv1alpha1.AnnotationTemplateWarnings] = "x" },
	} {
		have := want.DeepCopy()
		change(have)
		if sameProcessor(want, have) {
			t.Errorf("a change of %s is not seen", what)
		}
	}
	for what, change := range map[string]func(*doryv1alpha1.Processor){
		"the revision":           func(p *doryv1alpha1.Processor) { p.Annotations[doryv1alpha1.AnnotationRowRevision] = "99" },
		"others' labels":         func(p *doryv1alpha1.Processor) { p.Labels["team"] = "blue" },
		"others' annotations":    func(p *doryv1alpha1.Processor) { p.Annotations["note"] = "x" },
		"the spelling of a unit": func(p *doryv1alpha1.Processor) { p.Spec.Resources.Limits["cpu"] = resource.MustParse("1") },
		"the status":             func(p *doryv1alpha1.Processor) { p.Status.Phase = doryv1alpha1.ProcessorRunning },
	} {
		have := want.DeepCopy()
		change(have)
		if !sameProcessor(want, have) {
			t.Errorf("%s is taken for a change of ours", what)
		}
	}
}

// What is applied holds exactly what is rendered: a zero more, and it would be ours for ever.
func TestApplyFields(t *testing.T) {
	p := rendered(t)
	fields, err := applyFields(processors{}, p)
	if err != nil {
		t.Fatal(err)
	}
	if fields.GetKind() != "Processor" || fields.GetAPIVersion() != "dory.io/v1alpha1" {
		t.Errorf("kind is %s %s", fields.GetAPIVersion(), fields.GetKind())
	}
	for _, key := range []string{"status"} {
		if _, ok := fields.Object[key]; ok {
			t.Errorf("%s is applied", key)
		}
	}
	metadata, _ := fields.Object["metadata"].(map[string]any)
	if len(metadata) != 4 {
		t.Errorf("metadata has %v, want name, namespace, labels and annotations", metadata)
	}
	back := &doryv1alpha1.Processor{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields.Object, back); err != nil || !sameProcessor(p, back) {
		t.Errorf("what is applied reads back as %+v, %v", back.Spec, err)
	}
}
