package checkpoint

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statexfer"
)

// given is an observation of a processor whose instance has been ready for an hour.
func given(changes ...func(*observation)) *observation {
	o := &observation{
		processor: &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "cam", UID: "uid"}},
		epoch:     &doryv1alpha1.ProcessorEpoch{Spec: doryv1alpha1.ProcessorEpochSpec{Epoch: 3, Holder: "pod-3"}},
		holder: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "pod-3", UID: "pod-uid"},
			Status: corev1.PodStatus{
				Phase: corev1.PodRunning, PodIP: "10.0.0.7",
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon.Add(-time.Hour))}},
				ContainerStatuses: []corev1.ContainerStatus{{
					Name: pod.ContainerName, Ready: true, ContainerID: "c-1",
					State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(noon.Add(-time.Hour))}},
				}},
			},
		},
		now: noon,
	}
	for _, change := range changes {
		change(o)
	}
	return o
}

func migrating(phase doryv1alpha1.MigrationPhase) func(*observation) {
	return func(o *observation) {
		o.migration = &doryv1alpha1.ProcessorMigration{Status: doryv1alpha1.ProcessorMigrationStatus{Phase: phase}}
	}
}

func TestRunning(t *testing.T) {
	yes := true
	for name, test := range map[string]struct {
		change func(*observation)
		want   bool
	}{
		"ready":                        {func(*observation) {}, true},
		"deleted":                      {func(o *observation) { o.processor.DeletionTimestamp = new(metav1.NewTime(noon)) }, false},
		"suspended":                    {func(o *observation) { o.processor.Spec.Suspend = &yes }, false},
		"no holder":                    {func(o *observation) { o.holder = nil }, false},
		"the pod is not ready":         {func(o *observation) { o.holder.Status.Conditions[0].Status = corev1.ConditionFalse }, false},
		"the container is not ready":   {func(o *observation) { o.holder.Status.ContainerStatuses[0].Ready = false }, false},
		"no word about the container":  {func(o *observation) { o.holder.Status.ContainerStatuses = nil }, true},
		"the pod is being deleted":     {func(o *observation) { o.holder.DeletionTimestamp = new(metav1.NewTime(noon)) }, false},
		"the pod has ended":            {func(o *observation) { o.holder.Status.Phase = corev1.PodFailed }, false},
		"the pod has no address":       {func(o *observation) { o.holder.Status.PodIP = "" }, false},
		"a migration warms up":         {migrating(doryv1alpha1.MigrationWarming), true},
		"a migration hands off":        {migrating(doryv1alpha1.MigrationHandingOff), false},
		"a migration retires a source": {migrating(doryv1alpha1.MigrationRetiring), true},
	} {
		if got := given(test.change).running(); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

const interval = 30 * time.Second

func entryOf(o *observation) *entry {
	e := &entry{uid: o.processor.UID, interval: interval, since: o.now, runs: true}
	return e
}

func TestTheFirstTurn(t *testing.T) {
	justReady := func(o *observation) {
		o.holder.Status.Conditions[0].LastTransitionTime = metav1.NewTime(noon.Add(-time.Second))
	}
	t.Run("of a process that has just become ready is at once", func(t *testing.T) {
		o := given(justReady)
		if due, wait := entryOf(o).due(o); !due {
			t.Errorf("in %s", wait)
		}
	})
	t.Run("of one that was there before the operator is its turn", func(t *testing.T) {
		o := given()
		due, wait := entryOf(o).due(o)
		if due || wait <= 0 || wait > interval {
			t.Errorf("due %v, in %s", due, wait)
		}
	})
	t.Run("of another process in the same pod is at once", func(t *testing.T) {
		o := given()
		e := entryOf(o)
		e.due(o)
		o.holder.Status.ContainerStatuses[0].ContainerID = "c-2"
		if due, wait := e.due(o); !due {
			t.Errorf("in %s", wait)
		}
	})
	t.Run("is the only one without an interval", func(t *testing.T) {
		o := given(justReady)
		e := entryOf(o)
		e.interval = 0
		if due, _ := e.due(o); !due {
			t.Error("not due")
		}
		e.instance = instanceOf(o.holder)
		e.conclude(o, outcome{}, o.now)
		if due, wait := e.due(o); due || wait != 0 {
			t.Errorf("due %v, in %s", due, wait)
		}
	})
}

// TestTurnsAreRegular: whatever a look takes, the next turn is on the same grid, so that the age of a checkpoint stays
// within an interval and what a look takes.
func TestTurnsAreRegular(t *testing.T) {
	o := given()
	e := entryOf(o)
	_, wait := e.due(o)
	at := o.now.Add(wait)
	for _, took := range []time.Duration{0, time.Second, 3 * time.Second, 14 * time.Second} {
		e.conclude(o, outcome{}, at.Add(took))
		if got := e.next.Sub(at); got != interval {
			t.Errorf("after a look of %s the next one begins %s later, want %s", took, got, interval)
		}
		at = e.next
	}
}

func TestPhasesAreSpread(t *testing.T) {
	const n, slots = 3000, 30
	var count [slots]int
	for i := range n {
		p := phase(types.UID(fmt.Sprintf("%d-0000-4000-8000-%d", i, i*7919)), interval)
		if p < 0 || p >= interval {
			t.Fatalf("phase %s", p)
		}
		count[p*slots/interval]++
	}
	for slot, got := range count {
		if got < n/slots/2 || got > n/slots*2 {
			t.Errorf("second %d has %d of %d processors", slot, got, n)
		}
	}
}

func TestAShorterIntervalCountsAtOnce(t *testing.T) {
	o := given()
	e := entryOf(o)
	e.interval = 24 * time.Hour
	e.due(o)
	e.interval = time.Second
	if _, wait := e.due(o); wait > time.Second {
		t.Errorf("in %s", wait)
	}
}

func TestFailuresAreToldOnceTheyLast(t *testing.T) {
	broken := outcome{err: fmt.Errorf("dial: %w", statexfer.ErrUnavailable), uncaptured: true}
	o := given()
	e := entryOf(o)
	now := noon
	for n := 1; n <= 5; n++ {
		e.conclude(o, broken, now)
		if told := e.trouble != nil; told != (n >= failuresToTell) {
			t.Errorf("failure %d: told %v", n, told)
		}
		pause := e.next.Sub(now)
		if want := map[bool]time.Duration{true: interval / 4, false: interval}[n < failuresToTell]; pause != want {
			t.Errorf("failure %d: again in %s, want %s", n, pause, want)
		}
		now = e.next
	}
	if e.trouble.reason != doryv1alpha1.ReasonCaptureFailing || e.trouble.class != "Unavailable" {
		t.Errorf("%+v", e.trouble)
	}
	e.conclude(o, outcome{}, now)
	if e.trouble != nil || e.failures != 0 {
		t.Errorf("%+v after a success", e)
	}

	t.Run("after two intervals without a checkpoint, at the first", func(t *testing.T) {
		e := entryOf(o)
		e.conclude(o, broken, noon.Add(2*interval))
		if e.trouble == nil {
			t.Error("not told")
		}
	})
	t.Run("at once where state is at stake", func(t *testing.T) {
		e := entryOf(o)
		e.conclude(o, outcome{err: errNotRestored, reason: doryv1alpha1.ReasonStateNotRestored}, noon)
		if e.trouble == nil || e.trouble.reason != doryv1alpha1.ReasonStateNotRestored {
			t.Errorf("%+v", e.trouble)
		}
	})
	t.Run("not while it waits for the kubelet", func(t *testing.T) {
		e := entryOf(o)
		e.conclude(o, outcome{again: holdDelay}, noon)
		if e.trouble != nil || e.next.Sub(noon) != holdDelay {
			t.Errorf("%+v", e)
		}
	})
}

func TestTroubleSaysWhatIsWrongAndSinceWhen(t *testing.T) {
	o := given(func(o *observation) {
		o.processor.Status.Checkpoint = &doryv1alpha1.ProcessorCheckpoint{Time: metav1.NewTime(noon.Add(-time.Minute))}
	})
	e := entryOf(o)
	got := troubleOf(o, e, outcome{err: errors.New("the disk is full")})
	for _, part := range []string{"2026-11-21T12:00:00Z", "2026-11-21T11:59:00Z", "the disk is full"} {
		if !strings.Contains(got.message, part) {
			t.Errorf("%q does not say %q", got.message, part)
		}
	}
}

func TestLanes(t *testing.T) {
	l := newLanes(4)
	fresh := &observation{processor: &doryv1alpha1.Processor{}}
	slow, heavy, usual, huge := &entry{failures: 1}, &entry{}, &entry{}, &entry{}
	heavy.saved.Size, huge.saved.Size = heavyBytes+1, hugeBytes+1
	leave, ok := l.enter(fresh, slow)
	if !ok {
		t.Fatal("the slow lane is full at once")
	}
	if _, ok := l.enter(fresh, slow); ok {
		t.Error("the slow lane takes two of four workers")
	}
	for range heavyLanes {
		if _, ok := l.enter(fresh, heavy); !ok {
			t.Error("the heavy lane is full too soon")
		}
	}
	if _, ok := l.enter(fresh, heavy); ok {
		t.Error("the heavy lane is never full")
	}
	recorded := &observation{processor: &doryv1alpha1.Processor{}}
	recorded.processor.Status.Checkpoint = &doryv1alpha1.ProcessorCheckpoint{SizeBytes: heavyBytes + 1}
	if _, ok := l.enter(recorded, usual); ok {
		t.Error("an operator that has just started takes a large state for a small one")
	}
	if _, ok := l.enter(fresh, huge); !ok {
		t.Error("the single lane is full at once")
	}
	if _, ok := l.enter(recorded, &entry{failures: 1}); ok {
		t.Error("a large state that failed goes beside a huge one")
	}
	if _, ok := l.enter(fresh, usual); !ok {
		t.Error("the others must wait, too")
	}
	leave()
	if _, ok := l.enter(fresh, slow); !ok {
		t.Error("the slow lane stays full")
	}
}

func TestTimesOfOneInstanceRise(t *testing.T) {
	o := given()
	e := entryOf(o)
	e.saved = *copyAt(3, 0, noon, "c", "pod-3")
	for name, test := range map[string]struct{ captured, want time.Time }{
		"later":                  {noon.Add(time.Second), noon.Add(time.Second)},
		"the clock was set back": {noon.Add(-time.Hour), noon.Add(2 * time.Millisecond)},
	} {
		if got := e.document(o, &statexfer.State{CapturedAt: test.captured}).Metadata.Time; !got.Equal(test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
	e.saved.PodName = "pod-2"
	if got := e.document(o, &statexfer.State{CapturedAt: noon.Add(-time.Hour)}).Metadata.Time; !got.Equal(noon.Add(-time.Hour)) {
		t.Errorf("another pod's clock is its own: %s", got)
	}
}

func TestAgeCountsWhileThereIsAnInstance(t *testing.T) {
	b := newBook()
	o := given()
	e := b.entry(o)
	if got := b.oldest(noon.Add(time.Minute)); got != time.Minute {
		t.Errorf("oldest %s", got)
	}
	o.holder.Status.PodIP, o.now = "", noon.Add(time.Minute)
	b.entry(o)
	if got := b.oldest(noon.Add(time.Hour)); got != 0 {
		t.Errorf("oldest %s of one that does not run", got)
	}
	o.holder.Status.PodIP, o.now = "10.0.0.7", noon.Add(time.Hour)
	if b.entry(o) != e || b.oldest(noon.Add(time.Hour)) != 0 {
		t.Error("it starts anew with the instance")
	}
	if age := b.safe(e, noon.Add(time.Hour+interval)); age != interval {
		t.Errorf("age %s", age)
	}
	o.processor.UID = "another"
	if b.entry(o) == e {
		t.Error("a Processor that was made again inherits what is remembered of the old one")
	}
}
