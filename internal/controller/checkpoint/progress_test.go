package checkpoint

import (
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

func TestProgress(t *testing.T) {
	silence := statexfer.Iterations{}
	fine := statexfer.Iterations{Known: true}
	fails := func(n int64, why string) statexfer.Iterations {
		return statexfer.Iterations{Known: true, Failures: n, Error: why}
	}
	for name, test := range map[string]struct {
		said []statexfer.Iterations
		// want are the keys that are not empty, each once.
		want []string
		// first are the looks that are an instance's first.
		first []int
	}{
		"does not tell":                     {[]statexfer.Iterations{silence, silence, silence, silence}, []string{"unknown"}, nil},
		"does not tell at first":            {[]statexfer.Iterations{silence, fine, fine}, []string{"fine"}, nil},
		"once a process starts":             {[]statexfer.Iterations{fine, silence, fine}, []string{"fine"}, nil},
		"no more":                           {[]statexfer.Iterations{fine, silence, silence, silence}, []string{"fine", "unknown"}, nil},
		"one that failed":                   {[]statexfer.Iterations{fine, fails(1, "busy"), fine, fails(2, "busy"), fine}, []string{"fine"}, nil},
		"found twice":                       {[]statexfer.Iterations{fine, fails(1, "busy"), fails(1, "busy")}, []string{"fine", "1/busy"}, nil},
		"several":                           {[]statexfer.Iterations{fine, fails(9, "down")}, []string{"fine", "1/down"}, nil},
		"more and more":                     {[]statexfer.Iterations{fails(9, "down"), fails(10, "down"), fails(11, "down"), fails(99, "down"), fails(100, "down"), fails(870, "down")}, []string{"1/down", "10/down", "100/down"}, nil},
		"with numbers in the text":          {[]statexfer.Iterations{fails(11, "try 11 of 99"), fails(12, "try 12 of 99")}, []string{"10/try  of "}, nil},
		"for another reason":                {[]statexfer.Iterations{fails(11, "down"), fails(12, "gone")}, []string{"10/down", "10/gone"}, nil},
		"over":                              {[]statexfer.Iterations{fails(11, "down"), fine, fine}, []string{"10/down", "fine"}, nil},
		"another instance, which is silent": {[]statexfer.Iterations{fails(11, "down"), silence, fine}, []string{"10/down", "unknown", "fine"}, []int{0, 1}},
		"another one after a fine one":      {[]statexfer.Iterations{fine, silence, fine}, []string{"fine"}, []int{0, 1}},
		"now and then":                      {[]statexfer.Iterations{fails(11, "down"), fine, fails(12, "down"), fine, fails(11, "down")}, []string{"10/down"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var p progress
			var keys []string
			for i, said := range test.said {
				p.learn(said, time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), slices.Contains(test.first, i))
				if key := p.key(); key != "" && (len(keys) == 0 || keys[len(keys)-1] != key) {
					keys = append(keys, key)
				}
			}
			if !slices.Equal(keys, test.want) {
				t.Errorf("%q, want %q", keys, test.want)
			}
		})
	}
}

func TestProgressSaysWhatFails(t *testing.T) {
	var p progress
	p.learn(statexfer.Iterations{Known: true, Failures: 9, Error: "sensor not reachable"}, time.Date(2026, 11, 30, 12, 3, 4, 0, time.UTC), true)
	c := p.condition()
	const want = "at 2026-11-30T12:03:04Z, 9 iterations in a row had failed and were undone, the last with: sensor not reachable"
	if c.Reason != "IterationsFailing" || c.Status != "False" || !strings.Contains(c.Message, want) {
		t.Errorf("%+v", c)
	}
}

// The condition follows what the real SDK tells, without a request or a write more than the looks cost anyway.
func TestGoSDKTellsThatIterationsFail(t *testing.T) {
	w := newWorld(t)
	c := w.startCounter(1, freePort(t), nil)
	c.works(1, "")
	w.pass()
	w.wantSpent(map[string]int{"get ConfigMap": 2, "create ConfigMap": 1, "patch status Processor": 1})
	w.wantProgress(metav1.ConditionTrue, doryv1alpha1.ReasonIterating, "")
	c.fails(t, 3, "camera 17 is not reachable")
	w.turn()
	w.wantProgress(metav1.ConditionFalse, doryv1alpha1.ReasonIterationsFailing, "3 iterations in a row had failed and were undone, the last with: camera 17 is not reachable")
	w.wantEvents("Warning IterationsFailing … camera 17 is not reachable")
	w.spent()
	c.fails(t, 1, "camera 18 is not reachable")
	w.turn()
	w.wantSpent(map[string]int{})
	w.restartOperator()
	w.pass()
	w.turn()
	w.wantProgress(metav1.ConditionFalse, doryv1alpha1.ReasonIterationsFailing, "3 iterations in a row")
	w.wantEvents()
	c.works(1, "")
	for range fineAfter {
		w.turn()
	}
	w.wantProgress(metav1.ConditionTrue, doryv1alpha1.ReasonIterating, "")
	w.wantEvents("Normal IterationsRecovered")
}

// Where an instance is not looked at any more, nothing is told.
func TestIterationsAreNotToldWithoutCheckpoints(t *testing.T) {
	w := newWorld(t)
	c := w.startCounter(1, freePort(t), nil)
	c.works(1, "")
	w.pass()
	c.fails(t, 3, "camera 17 is not reachable")
	w.turn()
	w.wantProgress(metav1.ConditionFalse, doryv1alpha1.ReasonIterationsFailing, "camera 17")
	w.update(every(0))
	w.pass()
	if c := meta.FindStatusCondition(w.fresh().Status.Conditions, doryv1alpha1.ConditionProgressing); c != nil {
		t.Errorf("it still says %+v", c)
	}
	w.spent()
	w.pass()
	w.wantSpent(map[string]int{})
}

// Those who wait for a condition after they changed the spec wait for its generation.
func TestConditionsFollowTheGeneration(t *testing.T) {
	w := newWorld(t)
	c := w.startCounter(1, freePort(t), nil)
	c.works(1, "")
	w.pass()
	w.spent()
	w.update(func(p *doryv1alpha1.Processor) { p.Spec.Image = "counter:2" })
	w.pass()
	w.wantSpent(map[string]int{}) // The next look is near, and will have something to write.
	c.works(1, "")
	w.turn()
	w.wantSpent(map[string]int{"update ConfigMap": 1, "patch status Processor": 1})
	w.wantGeneration()
	w.update(every(time.Hour))
	w.turn()
	w.spent()
	w.wantGeneration()
	w.update(func(p *doryv1alpha1.Processor) { p.Spec.Image = "counter:3" })
	w.pass()
	w.wantSpent(map[string]int{"patch status Processor": 1}) // The next look is far.
	w.wantGeneration()
	w.pass()
	w.wantSpent(map[string]int{})
}

func (w *world) wantGeneration() {
	w.t.Helper()
	p := w.fresh()
	for _, kind := range []string{doryv1alpha1.ConditionCheckpointed, doryv1alpha1.ConditionProgressing} {
		if c := meta.FindStatusCondition(p.Status.Conditions, kind); c == nil || c.ObservedGeneration != p.Generation {
			w.t.Errorf("%s: %+v, want generation %d", kind, c, p.Generation)
		}
	}
}

func (w *world) wantProgress(status metav1.ConditionStatus, reason, part string) {
	w.t.Helper()
	c := meta.FindStatusCondition(w.fresh().Status.Conditions, doryv1alpha1.ConditionProgressing)
	if c == nil || c.Status != status || c.Reason != reason || !strings.Contains(c.Message, part) {
		w.t.Errorf("condition %+v, want %s %s: … %s …", c, status, reason, part)
	}
}

// fails lets n iterations in a row fail.
func (c *counter) fails(t *testing.T, n int, why string) {
	t.Helper()
	for range n {
		select {
		case c.go1 <- failure + why:
		case <-time.After(20 * time.Second):
			t.Fatal("it does not work")
		}
	}
}
