package placement

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/scheduler"
)

func waitingPod(b *waiting, name string) *waiter {
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
	b.add(object, scheduler.NewPod(object, scheduler.PodOptions{}), volumes{})
	w := b.pods[scheduler.Key("n", name)]
	b.ready.Remove(w.pod.Key)
	return w
}

func TestWhoWasNotBoundWaitsLongerEachTime(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newWaiting(now)
	w := waitingPod(b, "p")
	for _, want := range []time.Duration{firstRetry, 2 * firstRetry, 4 * firstRetry} {
		b.putOff(w, now)
		if got := b.next.Sub(now); got != want {
			t.Fatalf("waits %s, want %s", got, want)
		}
		b.due(now.Add(want - 1))
		if b.ready.Len() != 0 {
			t.Fatal("ready too early")
		}
		now = now.Add(want)
		b.due(now)
		if b.ready.Len() != 1 {
			t.Fatal("not ready in time")
		}
		b.ready.Pop()
	}
	for range 30 {
		b.putOff(w, now)
	}
	if got := w.again.Sub(now); got != lastRetry {
		t.Errorf("waits %s at last, want %s", got, lastRetry)
	}
}

func TestABindingThatFailsBringsNoBuffer(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newWaiting(now)
	w := waitingPod(b, "p")
	b.sleep(w, scheduler.Refusal{OnlyBuffer: true}, now.Add(time.Minute), true)
	b.wake(w)
	b.ready.Pop()
	b.putOff(w, now)
	b.due(now.Add(time.Second))
	if w.useBuffer {
		t.Error("the buffer was given away by a retry")
	}
	b.due(now.Add(time.Minute))
	if !w.useBuffer {
		t.Error("the buffer was not given after the wait")
	}
}

func TestEverybodyTriesAgainNowAndThen(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newWaiting(now)
	b.sleep(waitingPod(b, "p"), scheduler.Refusal{}, time.Time{}, false)
	b.due(now.Add(wakeAll - 1))
	if b.ready.Len() != 0 {
		t.Error("woken too early")
	}
	b.due(now.Add(wakeAll))
	if b.ready.Len() != 1 || len(b.sleepers) != 0 {
		t.Error("not woken")
	}
}

func TestTheSameIsNotSaidTwiceNorOftenInOtherWords(t *testing.T) {
	now := time.Unix(1000, 0)
	w := &waiter{}
	for _, c := range []struct {
		after time.Duration
		text  string
		news  bool
	}{
		{0, "3 nodes", true}, {0, "3 nodes", false}, {time.Second, "4 nodes", false}, {quiet, "4 nodes", true}, {time.Hour, "4 nodes", false},
	} {
		if got := w.news(c.text, now.Add(c.after)); got != c.news {
			t.Errorf("after %s: %q is news: %t", c.after, c.text, got)
		}
	}
}

func TestANewLeaderDoesNotRepeatWhatWasSaid(t *testing.T) {
	b := newWaiting(time.Unix(1000, 0))
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}}
	object.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no room"}}
	b.add(object, scheduler.NewPod(object, scheduler.PodOptions{}), volumes{})
	if b.pods["n/p"].news("no room", time.Unix(1000, 0)) {
		t.Error("it is said again")
	}
}

// noNodes is a cache in which there are none.
type noNodes struct{ client.Reader }

func (noNodes) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, key.Name)
}

// The API server would bind a pod to a node that is gone. Client is nil: nothing is sent.
func TestNoPodIsBoundToANodeThatWentAfterTheDecision(t *testing.T) {
	l := newLoop(Config{Clock: clocktesting.NewFakeClock(time.Unix(1000, 0)), Options: Options{Concurrency: 1}}, newInbox(), noNodes{})
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	l.snapshot.SetNode(node)
	w := waitingPod(l.waiting, "p")
	if err := l.snapshot.Assume(w.pod, "a"); err != nil {
		t.Fatal(err)
	}
	err := l.clerks.writeBinding(t.Context(), w.object, "a")
	if !apierrors.IsNotFound(err) {
		t.Fatalf("error %v, want that there is no node a", err)
	}
	l.bound(w.pod, err)
	if _, assumed := l.snapshot.Assumed(w.pod.Key); assumed {
		t.Error("it is still assumed to run there")
	}
	if w.again.IsZero() {
		t.Error("it is not tried again")
	}
}

// A node that an autoscaler makes comes with a taint, which goes when it is registered.
func TestANodeThatComesTaintedHelpsWhenTheTaintGoes(t *testing.T) {
	l := newLoop(Config{Clock: clocktesting.NewFakeClock(time.Unix(1000, 0)), Options: Options{Concurrency: 1}}, newInbox(), noNodes{})
	w := waitingPod(l.waiting, "p")
	l.snapshot.SetPod(w.pod)
	l.waiting.sleep(w, l.snapshot.Explain(w.pod, scheduler.How{}), time.Time{}, false)
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "karpenter.sh/unregistered", Effect: corev1.TaintEffectNoExecute}}},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("10")},
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
	l.changed(l.snapshot.SetNode(node))
	l.wakeHelped()
	if !w.asleep {
		t.Fatal("woken for a node that it does not tolerate")
	}
	registered := node.DeepCopy()
	registered.Spec.Taints = nil
	l.changed(l.snapshot.SetNode(registered))
	l.wakeHelped()
	if w.asleep {
		t.Error("not woken for a node that fits")
	}
}

func TestAPodIsForgottenOnlyByItsOwnFailure(t *testing.T) {
	l := newLoop(Config{Clock: clocktesting.NewFakeClock(time.Unix(1000, 0)), Options: Options{Concurrency: 1}}, newInbox(), noNodes{})
	first := waitingPod(l.waiting, "p")
	next := first.object.DeepCopy()
	next.UID = "another"
	l.waiting.add(next, scheduler.NewPod(next, scheduler.PodOptions{}), volumes{})
	l.bound(first.pod, errors.New("the first of this name is gone"))
	if !l.waiting.pods["n/p"].again.IsZero() {
		t.Error("the second is put off for the first's failure")
	}
}
