package pod_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// asking asks for restarts by the annotation and by the field.
func asking(annotation, field string) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) {
		p.Annotations = nil
		if annotation != "" {
			p.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": annotation}
		}
		p.Spec.RestartedAt = field
	}
}

func TestRestartRequests(t *testing.T) {
	const first, second = "2026-01-31T12:00:00Z", "2026-01-31T12:00:01Z"
	nothing := func(*doryv1alpha1.Processor) {}
	for name, test := range map[string]struct {
		started, now func(*doryv1alpha1.Processor)
		want         bool
	}{
		"nothing asked":                  {nothing, nothing, false},
		"the first annotation":           {nothing, asking(first, ""), true},
		"the first field":                {nothing, asking("", first), true},
		"the same annotation":            {asking(first, ""), asking(first, ""), false},
		"the same field":                 {asking("", first), asking("", first), false},
		"a later annotation":             {asking(first, ""), asking(second, ""), true},
		"an earlier annotation":          {asking(second, ""), asking(first, ""), true},
		"an earlier field":               {asking("", second), asking("", first), true},
		"the annotation removed":         {asking(first, ""), nothing, false},
		"the field removed":              {asking("", first), nothing, false},
		"the field instead":              {asking(first, ""), asking("", first), true},
		"the annotation besides":         {asking("", first), asking(first, first), true},
		"words":                          {nothing, asking("now", ""), true},
		"more than a pod's metadata has": {nothing, asking(strings.Repeat("x", 300<<10), ""), true},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := processor(test.started), processor(test.now)
			built := build(t, before)
			if got := pod.Outdated(built, after, ""); got != test.want {
				t.Errorf("Outdated = %t, want %t", got, test.want)
			}
			if pod.Outdated(build(t, after), after, "") {
				t.Error("the pod that a restart leads to is outdated itself: it would restart for ever")
			}
			if pod.Revision(before, "") != pod.Revision(after, "") {
				t.Error("a request to restart changes the revision of the spec")
			}
			if test.want && pod.Target(before, "") == pod.Target(after, "") {
				t.Error("a request has the same target as the one before, so that no second Update would be made")
			}
			if test.want && pod.SameRequests(before, after) {
				t.Error("the request would go unnoticed")
			}
			for key, value := range built.Annotations {
				if len(value) > 64 && strings.Contains(strings.ToLower(key), "restarted") {
					t.Errorf("annotation %s has %d characters", key, len(value))
				}
			}
		})
	}
}

// Without this, every processor moves when the operator is updated.
func TestTargetWithoutRequestsIsTheRevision(t *testing.T) {
	if got, want := pod.Target(processor(), ""), pod.Revision(processor(), ""); got != want {
		t.Errorf("Target = %s, want the revision %s", got, want)
	}
}

func TestOverlaysDoNotAnswerRequests(t *testing.T) {
	p := processor(asking("a", "b"), func(p *doryv1alpha1.Processor) {
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Metadata: doryv1alpha1.PodTemplateMetadata{
			Annotations: map[string]string{"kubectl.kubernetes.io/restartedAt": "x", "dory.io/restarted-at": "y"},
		}}
	})
	if built := build(t, p); pod.RestartDue(built, p) {
		t.Errorf("the overlay's annotations stay on the pod: %v", built.Annotations)
	}
}

func TestRequestsFromBeforeAnAdoptionAreMet(t *testing.T) {
	p, adopted := processor(asking("a", "b")), &corev1.Pod{}
	pod.StampRestarts(adopted, p)
	if pod.RestartDue(adopted, p) {
		t.Error("an adopted pod would be restarted at once")
	}
}
