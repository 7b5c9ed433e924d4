package lifecycle

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestReasonIn(t *testing.T) {
	for name, test := range map[string]struct{ body, want string }{
		"ours":       {`{"status":"not ready","reason":"state not restored: no right to read"}`, "state not restored: no right to read"},
		"an error":   {`{"error":"starting"}`, "starting"},
		"other JSON": {`{"ready":false}`, `{"ready":false}`},
		"text":       {"loading the model", "loading the model"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := reasonIn([]byte(test.body)); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// An instance is asked no sooner than half a minute after it could have been ready, no more often than that, and ever more
// seldom while it says the same.
func TestExplanationsPace(t *testing.T) {
	key := types.NamespacedName{Namespace: "n", Name: "cam"}
	start := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	instance := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "a", CreationTimestamp: metav1.NewTime(start)}}
	var e explanations
	if wait := e.due(key, instance, start.Add(10*time.Second)); wait != 20*time.Second {
		t.Errorf("asked after %s more", wait)
	}
	if wait := e.due(key, instance, start.Add(-time.Hour)); wait != readyPatience {
		t.Errorf("by a clock behind the kubelet's asked after %s more", wait)
	}
	at := start.Add(30 * time.Second)
	for i, step := range []struct {
		text string
		wait time.Duration
		news bool
	}{
		{"starting", 30 * time.Second, true},
		{"starting", time.Minute, false},
		{"starting", 2 * time.Minute, false},
		{"starting", readyLongest, false},
		{"starting", readyLongest, false},
		{"loading", 30 * time.Second, true},
		{"", 30 * time.Second, true},
	} {
		wait, news := e.set(key, instance, step.text, at)
		if wait != step.wait || news != step.news || e.of(key, instance) != step.text {
			t.Errorf("answer %d: again in %s, news %v, %q", i, wait, news, e.of(key, instance))
		}
		if due := e.due(key, instance, at.Add(time.Second)); due != step.wait-time.Second {
			t.Errorf("answer %d: due in %s", i, due)
		}
		at = at.Add(wait)
	}
	next := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "b", CreationTimestamp: metav1.NewTime(at)}}
	if e.of(key, next) != "" || len(e.known) != 0 {
		t.Error("one pod's words count for another")
	}
}

func TestExplanationsEndWithReadiness(t *testing.T) {
	key := types.NamespacedName{Namespace: "n", Name: "cam"}
	var e explanations
	instance := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "a"}}
	e.set(key, instance, "starting", time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC))
	instance.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if e.of(key, instance) != "" || len(e.known) != 0 {
		t.Error("what an instance said before it was ready is kept")
	}
}
