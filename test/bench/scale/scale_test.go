package main

import (
	"strings"
	"testing"
)

// TestBothSidesRunTheSamePod: what the comparison is worth depends on it.
func TestBothSidesRunTheSamePod(t *testing.T) {
	template, err := (&processors{}).podTemplate()
	if err != nil {
		t.Fatal(err)
	}
	spec := template.Spec
	if spec.ServiceAccountName != "" || len(template.Finalizers) > 0 || len(template.Labels) > 0 {
		t.Errorf("the template has what is Dory's own: %+v", template)
	}
	if spec.NodeSelector["workload-type"] != "application" || len(spec.Containers) != 1 {
		t.Errorf("the template is no processor's: %+v", spec)
	}
	container := spec.Containers[0]
	if container.LivenessProbe == nil || container.ReadinessProbe == nil || container.Lifecycle == nil || len(container.Env) < 10 {
		t.Errorf("the container lacks what a processor's has: %+v", container)
	}
}

func TestOrderIsChecked(t *testing.T) {
	b := bench{order: "random"}
	if err := b.run(t.Context()); err == nil || !strings.Contains(err.Error(), orderDoryFirst) {
		t.Errorf("error %v, want one that names the orders", err)
	}
}
