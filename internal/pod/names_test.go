package pod_test

import (
	"math"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// Whatever a pod carries of the longest names and ids that there can be is legal where it is written.
func TestLongestNamesAreLegal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := processor()
		p.Name = rapid.StringMatching(`[a-z][a-z0-9-]{43}[a-z0-9]`).Draw(t, "name")
		p.Spec.ProcessorID = rapid.OneOf(rapid.StringN(1, 512, 512), rapid.StringMatching(`[a-z0-9]{238,253}`), rapid.StringMatching(`[A-Za-z0-9]{63,64}`)).Draw(t, "id")
		move := &pod.Move{
			Migration: doryv1alpha1.MigrationName(p.Name, "update-0123abcd", math.MaxInt32), From: pod.Name(p.Name, "aaaabbbb"),
			Node: rapid.StringMatching(`[a-z0-9]{253}`).Draw(t, "node"),
		}
		made, err := pod.Build(pod.Input{Processor: p, Name: pod.Name(p.Name, "ccccdddd"), Epoch: math.MaxInt64, Move: move})
		if err != nil {
			t.Fatal(err)
		}
		if problems := validation.IsDNS1123Label(made.Name); len(problems) > 0 {
			t.Errorf("pod %q, whose name becomes its host name: %v", made.Name, problems)
		}
		for key, value := range made.Labels {
			if problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(problems) > 0 {
				t.Errorf("label %s=%q: %v", key, value, problems)
			}
		}
		for _, name := range []string{pod.StateConfigMapName(p), doryv1alpha1.ObjectName(p.ID())} {
			if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
				t.Errorf("object %q of id %q: %v", name, p.ID(), problems)
			}
		}
		if id := made.Annotations[doryv1alpha1.AnnotationProcessorID]; id != p.ID() {
			t.Errorf("pod %q of id %q carries the id %q", made.Name, p.ID(), id)
		}
	})
}
