package placement

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
)

var backlogBegan = time.Unix(1000, 0)

// holding has so many events, a millisecond apart.
func holding(count int) *backlog {
	b := &backlog{}
	for i := range count {
		b.add(&corev1.Pod{}, "a", backlogBegan.Add(time.Duration(i)*time.Millisecond))
	}
	return b
}

func TestEventsOfBindingsWait(t *testing.T) {
	const second = time.Second
	for _, c := range []struct {
		name  string
		held  int
		after time.Duration
		busy  bool
		due   int
		next  time.Duration // from the beginning; 0: never
	}{
		{name: "none", after: time.Hour},
		{name: "one, at once", held: 1, next: lull},
		{name: "one, shortly before the lull is over", held: 1, after: lull - 1, next: lull},
		{name: "one, after the lull", held: 1, after: lull, due: 1},
		{name: "one, while others are bound", held: 1, after: longestHeld - 1, busy: true, next: longestHeld},
		{name: "one, while others are bound for too long", held: 1, after: longestHeld, busy: true, due: 1},
		{name: "many, after the lull, and the rest after a pause", held: 100, after: second, due: mostAtOnce, next: second + pause},
		{name: "many, of which two are too old, while others are bound", held: 100, after: longestHeld + time.Millisecond, busy: true, due: 2, next: longestHeld + 2*time.Millisecond},
		{name: "many that are too old, and nobody is bound", held: 100, after: time.Hour, due: 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := holding(c.held)
			if due := b.due(backlogBegan.Add(c.after), !c.busy); len(due) != c.due {
				t.Errorf("%d are due, want %d", len(due), c.due)
			}
			if len(b.held) != c.held-c.due {
				t.Errorf("%d are still held, want %d", len(b.held), c.held-c.due)
			}
			next, some := b.next(!c.busy)
			if some != (c.next != 0) || (some && next.Sub(backlogBegan) != c.next) {
				t.Errorf("the next is due after %s (%t), want %s", next.Sub(backlogBegan), some, c.next)
			}
		})
	}
}

func TestABindingAmongTheEventsOfABurstHoldsThemBack(t *testing.T) {
	b := holding(100)
	now := backlogBegan.Add(time.Second)
	b.due(now, true)
	b.add(&corev1.Pod{}, "a", now.Add(pause))
	if due := b.due(now.Add(pause), true); len(due) != 0 {
		t.Errorf("%d are due right after a binding", len(due))
	}
	if due := b.due(now.Add(pause+lull), true); len(due) != mostAtOnce {
		t.Errorf("%d are due after the lull, want %d", len(due), mostAtOnce)
	}
}

func TestABindingIsToldAMomentLater(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.start(0)
	w.pod("p", "1")
	w.runsOn("p", "a")
	w.eventually("it is told", func() bool {
		w.clock.Step(lull)
		return w.wasTold("Scheduled")
	})
}

func TestEveryBindingIsToldOnceOldestFirst(t *testing.T) {
	clk := clocktesting.NewFakeClock(backlogBegan)
	recorder := events.NewFakeRecorder(10)
	l := newLoop(Config{Clock: clk, Recorder: recorder, Options: Options{Concurrency: 1}}, newInbox(), noNodes{})
	for _, name := range []string{"first", "second"} {
		l.backlog.add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}, "a", clk.Now())
	}
	if !l.clerks.take() {
		t.Fatal("no clerk")
	}
	clk.Step(lull)
	l.tellOfBound()
	if len(recorder.Events) != 0 {
		t.Fatal("told while a pod is being bound")
	}
	l.clerks.free()
	l.tellOfBound()
	l.tellOfBound()
	close(recorder.Events)
	var told []string
	for event := range recorder.Events {
		told = append(told, event)
	}
	want := []string{"Normal Scheduled Assigned n/first to a", "Normal Scheduled Assigned n/second to a"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
