package pod

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var sealing = NewTokens([]byte("a key"))

func versioned(image string) *doryv1alpha1.Processor {
	p := &doryv1alpha1.Processor{}
	p.Namespace, p.Name, p.UID = "vision", "cam", "uid-1"
	p.Spec.Image, p.Spec.Port, p.Spec.Probes.PeriodSeconds = image, 8080, 10
	return p
}

func built(t *testing.T, in Input) *corev1.Pod {
	t.Helper()
	made, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// A pod is made again as it was, after everything in the spec has changed.
func TestOriginMakesTheSamePodAgain(t *testing.T) {
	was := versioned("counter:1")
	was.Spec.Env = []corev1.EnvVar{{Name: "A", Value: "1"}}
	was.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Metadata: doryv1alpha1.PodTemplateMetadata{Labels: map[string]string{"team": "a"}}}
	first := built(t, Input{Processor: was, Name: "dory-cam-1", Epoch: 1, Tokens: sealing, EdgeNode: "e1"})

	now := versioned("counter:2")
	now.Spec.State = &doryv1alpha1.ProcessorState{OnMissing: doryv1alpha1.OnMissingRequire}
	made := OriginOf(first, now, sealing)
	if made == nil {
		t.Fatal("the pod does not say what it was made from")
	}
	if got := made.Processor(now).Spec.State; got == nil || got.OnMissing != doryv1alpha1.OnMissingRequire {
		t.Errorf("spec.state is %+v: how a processor is looked after is what its spec says now", got)
	}
	second := built(t, Input{Processor: now, Name: "dory-cam-1", Epoch: 1, Tokens: sealing, EdgeNode: "e2", Origin: made})
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("what is made again differs (-first +second):\n%s", diff)
	}
}

// Only the operator says what a pod was made from: not one who may write annotations, not another Processor's pod.
func TestOriginIsSealed(t *testing.T) {
	p := versioned("counter:1")
	honest := built(t, Input{Processor: p, Name: "dory-cam-1", Tokens: sealing})
	evil := versioned("evil:1")
	evil.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Metadata: doryv1alpha1.PodTemplateMetadata{Labels: map[string]string{"x": "y"}}}
	forged := NewOrigin(evil, "", NewTokens([]byte("another key")))
	elsewhere := versioned("evil:1")
	elsewhere.UID = "uid-2"
	moved := NewOrigin(elsewhere, "", sealing)
	for name, change := range map[string]func(map[string]string){
		"content": func(a map[string]string) { a[doryv1alpha1.AnnotationSpec] = forged.Content },
		"content and revision": func(a map[string]string) {
			a[doryv1alpha1.AnnotationSpec], a[doryv1alpha1.AnnotationRevision] = forged.Content, forged.Revision
		},
		"all, by another key":        func(a map[string]string) { stamp(a, forged) },
		"all, of another Processor":  func(a map[string]string) { stamp(a, moved) },
		"revision":                   func(a map[string]string) { a[doryv1alpha1.AnnotationRevision] = "0123456789abcdef" },
		"no seal":                    func(a map[string]string) { delete(a, doryv1alpha1.AnnotationSeal) },
		"content of an older format": func(a map[string]string) { a[doryv1alpha1.AnnotationSpec] = "{}" },
	} {
		t.Run(name, func(t *testing.T) {
			forgery := honest.DeepCopy()
			change(forgery.Annotations)
			if got := OriginOf(forgery, p, sealing); got != nil {
				t.Errorf("it is believed: %s", got.Content)
			}
		})
	}
	if OriginOf(honest, p, sealing) == nil {
		t.Error("what the operator wrote is not believed")
	}
	if OriginOf(honest, p, Tokens{}) != nil {
		t.Error("without a key, anybody could have sealed it")
	}
}

func stamp(a map[string]string, o *Origin) {
	a[doryv1alpha1.AnnotationSpec], a[doryv1alpha1.AnnotationRevision], a[doryv1alpha1.AnnotationSeal] = o.Content, o.Revision, o.Seal
}

// The annotations of a pod have a limit, which the spec must not break: a pod that cannot be made is worse than one that
// does not say what it was made from.
func TestOriginLeavesRoom(t *testing.T) {
	incompressible := func(n int) string {
		var b strings.Builder
		for x := uint32(1); b.Len() < n; {
			x = x*1664525 + 1013904223
			b.WriteByte(' ' + byte(x>>24)%94)
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		spec, annotations int
		kept              bool
	}{
		"small":                       {100, 0, true},
		"large, compressed":           {100 << 10, 0, true},
		"too large":                   {400 << 10, 0, false},
		"no room beside the template": {100, 230 << 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := versioned("counter:1")
			p.Spec.Args = []string{incompressible(test.spec)}
			p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Metadata: doryv1alpha1.PodTemplateMetadata{
				Annotations: map[string]string{"note": strings.Repeat("x", test.annotations)},
			}}
			made := built(t, Input{Processor: p, Name: "dory-cam-1", Tokens: sealing})
			total := 0
			for key, value := range made.Annotations {
				total += len(key) + len(value)
			}
			if total > 256<<10 {
				t.Errorf("the annotations have %d bytes", total)
			}
			if got := OriginOf(made, p, sealing) != nil; got != test.kept {
				t.Errorf("the pod says what it was made from: %t", got)
			}
			if RevisionOf(made) != Revision(p, "") {
				t.Errorf("revision %q", RevisionOf(made))
			}
		})
	}
}

// An overlay cannot say what a pod was made from.
func TestOverlaySaysNoOrigin(t *testing.T) {
	p := versioned("counter:1")
	p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Metadata: doryv1alpha1.PodTemplateMetadata{
		Annotations: map[string]string{doryv1alpha1.AnnotationSpec: "{}", doryv1alpha1.AnnotationSeal: "x"},
	}}
	made := built(t, Input{Processor: p, Name: "dory-cam-1"})
	if made.Annotations[doryv1alpha1.AnnotationSpec] != "" || made.Annotations[doryv1alpha1.AnnotationSeal] != "" {
		t.Errorf("%v", made.Annotations)
	}
}
