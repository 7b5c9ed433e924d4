package placement

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/scheduler"
)

// keepsRoom makes placeholders of this world's pods.
func (w *world) keepsRoom() func(*corev1.Pod) {
	w.Helper()
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: w.name + "-headroom"}, Value: -10}
	w.must(w.client.Create(w.Context(), class))
	return func(p *corev1.Pod) {
		p.Labels, p.Spec.PriorityClassName = map[string]string{doryv1alpha1.LabelPlaceholder: "true"}, class.Name
	}
}

// ending says whether a pod was told to end.
func (w *world) ending(name string) bool { return w.get(name).DeletionTimestamp != nil }

// ends is what a kubelet does in the end.
func (w *world) ends(name string) {
	w.Helper()
	w.must(w.client.Delete(w.Context(), w.get(name), client.GracePeriodSeconds(0)))
}

func (w *world) isNowhere(pod string) {
	w.Helper()
	if node := w.get(pod).Spec.NodeName; node != "" {
		w.Errorf("pod %s is on %s", pod, node)
	}
}

func TestPlaceholdersMakeRoom(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.node("b", "4")
	keepsRoom := w.keepsRoom()
	w.start(0)
	w.pod("room-1", "3", keepsRoom)
	w.runsOn("room-1", "a")
	w.pod("room-2", "3", keepsRoom)
	w.runsOn("room-2", "b")

	w.pod("first", "4")
	w.pod("second", "4")
	w.eventually("each of the two gets the room of one", func() bool { return w.ending("room-1") && w.ending("room-2") })
	for _, name := range []string{"first", "second"} {
		w.isNowhere(name) // The room is still taken.
		if refusal := refusalOf(w.get(name)); refusal != nil {
			t.Errorf("whoever provisions nodes is told of pod %s, which has one: %s", name, refusal.Message)
		}
	}
	w.ends("room-1")
	w.ends("room-2")
	w.eventually("both have it", func() bool { return w.get("first").Spec.NodeName != "" && w.get("second").Spec.NodeName != "" })
}

// What is made free for a pod is its own, also while only a part of it is free: a placeholder that waits takes none of it.
func TestRoomIsKeptForWhomItIsMade(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	keepsRoom := w.keepsRoom()
	w.start(0)
	for i := range 4 {
		w.pod(fmt.Sprintf("room-%d", i), "1", keepsRoom)
		w.runsOn(fmt.Sprintf("room-%d", i), "a")
	}
	w.pod("waits", "1", keepsRoom)
	w.isRefused("waits")
	w.pod("p", "4")
	for i := range 4 {
		name := fmt.Sprintf("room-%d", i)
		w.eventually(name+" ends", func() bool { return w.ending(name) })
	}
	for i := range 4 {
		w.isNowhere("p")
		w.ends(fmt.Sprintf("room-%d", i))
	}
	w.runsOn("p", "a")
	w.isNowhere("waits")
}

// Two that come at once share the room of one placeholder, also where another one would have cost the second less.
func TestTheRestOfARoomIsSharedAtOnce(t *testing.T) {
	w := newWorld(t)
	keepsRoom := w.keepsRoom()
	a, b := w.node("a", "4"), w.node("b", "4")
	w.pod("large-room", "4", keepsRoom, func(p *corev1.Pod) { p.Spec.NodeName = a.Name })
	w.pod("small-room", "1", keepsRoom, func(p *corev1.Pod) { p.Spec.NodeName = b.Name })
	w.pod("others", "3", func(p *corev1.Pod) { p.Spec.NodeName, p.Spec.SchedulerName = b.Name, "another" })
	w.pod("p-1", "3")
	w.pod("p-2", "1")
	w.start(0)
	w.eventually("the large one ends", func() bool { return w.ending("large-room") })
	w.ends("large-room")
	w.runsOn("p-1", "a")
	w.runsOn("p-2", "a")
	if w.ending("small-room") || w.deletions() != 1 {
		t.Errorf("%d deletions, want that of the large one alone", w.deletions())
	}
}

// Whoever only looks like a placeholder stays: another's pod, a processor's, one that is as important.
func TestNobodyElseIsDisplaced(t *testing.T) {
	w := newWorld(t)
	looks := w.keepsRoom()
	for i, also := range []func(*corev1.Pod){
		func(p *corev1.Pod) { p.Spec.SchedulerName = "another" },
		func(p *corev1.Pod) { p.Labels[doryv1alpha1.LabelProcessor] = "cam" },
		func(p *corev1.Pod) { p.Spec.PriorityClassName = "" },
		func(p *corev1.Pod) { delete(p.Labels, doryv1alpha1.LabelPlaceholder) },
		func(p *corev1.Pod) { p.Labels[doryv1alpha1.LabelPlaceholder] = "false" },
	} {
		node := w.node(fmt.Sprintf("n%d", i), "4")
		w.pod(fmt.Sprintf("stays-%d", i), "3", looks, also, func(p *corev1.Pod) { p.Spec.NodeName = node.Name })
	}
	w.start(0)
	w.pod("large", "4")
	w.isRefused("large") // Whoever makes room for a pod is told before that is said.
	for i := range 5 {
		if name := fmt.Sprintf("stays-%d", i); w.ending(name) {
			t.Errorf("pod %s was told to end", name)
		}
	}
	if w.deletions() != 0 {
		t.Errorf("%d pods were deleted", w.deletions())
	}
}

func TestAPlaceholderThatCannotBeDeletedIsAskedAgain(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.keep(errors.New("the API server has a bad day"))
	w.start(0)
	w.pod("room", "3", w.keepsRoom())
	w.runsOn("room", "a")
	w.pod("p", "4")
	w.eventually("its end was refused", func() bool { return w.deletions() > 0 })
	w.keep(nil)
	w.eventually("it is asked again", func() bool {
		w.clock.Step(firstRetry)
		return w.ending("room")
	})
	w.ends("room")
	w.runsOn("p", "a")
}

func TestAPlaceholderThatDoesNotEndIsNotWaitedForForEver(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.node("b", "4")
	keepsRoom := w.keepsRoom()
	w.start(0)
	for _, node := range []string{"a", "b"} {
		w.pod("room-"+node, "4", keepsRoom)
		w.runsOn("room-"+node, node)
	}
	w.pod("p", "4")
	w.eventually("the first is told to end", func() bool { return w.ending("room-a") })
	w.eventually("the second is, because the first does not", func() bool {
		w.clock.Step(endPatience)
		return w.ending("room-b")
	})
	w.ends("room-b")
	w.eventually("pod p is on b", func() bool {
		w.clock.Step(endPatience) // It may be the turn of the first again.
		return w.get("p").Spec.NodeName == w.name+"-b"
	})
}

// A placeholder never gets the buffer, and whoever may have the buffer may have it together with a placeholder's room.
func TestPlaceholdersAndTheBuffer(t *testing.T) {
	w := newWorld(t)
	keepsRoom := w.keepsRoom()
	w.node("a", "4")
	w.start(10)
	w.pod("room", "3", keepsRoom)
	w.runsOn("room", "a")
	w.pod("greedy", "900m", keepsRoom)
	w.isRefused("greedy")
	w.clock.Step(2 * defaultBufferPatience)
	w.pod("p", "4")
	w.isRefused("p") // The other has been looked at by then.
	w.isNowhere("greedy")
	w.eventually("it has waited long enough", func() bool {
		w.clock.Step(defaultBufferPatience)
		return w.ending("room")
	})
	w.ends("room")
	w.runsOn("p", "a")
	w.isNowhere("greedy")
}

// A pod that is deleted while placeholders end for it leaves the room to the next.
func TestWhoIsDeletedMeanwhileNeedsNoRoom(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.refuse = func(pod, node string) error {
		if pod == "held" {
			t.Errorf("pod %s, which is deleted, is bound to %s", pod, node)
		}
		return nil
	}
	w.start(0)
	w.pod("room", "4", w.keepsRoom())
	w.runsOn("room", "a")
	w.pod("held", "4", func(p *corev1.Pod) { p.Finalizers = []string{"example.com/held"} })
	w.eventually("the room is made", func() bool { return w.ending("room") })
	w.pod("next", "4")
	w.isRefused("next")
	w.must(w.client.Delete(t.Context(), w.get("held")))
	w.ends("room")
	w.runsOn("next", "a")
	w.isNowhere("held")
	held := w.get("held")
	held.Finalizers = nil
	w.must(w.client.Update(t.Context(), held))
}

// made is a loop with a node a, on which a placeholder ends for pod p.
func made(t *testing.T) (*loop, *waiter, *scheduler.Pod) {
	t.Helper()
	l := newLoop(Config{Clock: clocktesting.NewFakeClock(time.Unix(1000, 0)), Options: Options{Concurrency: 1}}, newInbox(), noNodes{})
	l.ctx = t.Context()
	l.config.Options.Movable = func(*corev1.Pod) bool { return false }
	l.snapshot.SetNode(ready("a"))
	w := waitingPod(l.waiting, "p")
	if err := l.snapshot.Assume(w.pod, "a"); err != nil {
		t.Fatal(err)
	}
	placeholder := scheduler.NewPod(placeholderOf("1", corev1.PodRunning), scheduler.PodOptions{Placeholder: true})
	l.waiting.await(w, []*scheduler.Pod{placeholder}, l.clock.Now().Add(endPatience))
	return l, w, placeholder
}

func ready(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("10")},
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}

func placeholderOf(uid types.UID, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "room", UID: uid}, Spec: corev1.PodSpec{NodeName: "a"}, Status: corev1.PodStatus{Phase: phase},
	}
}

func TestWhatCountsAsTheEndOfAPlaceholder(t *testing.T) {
	for name, test := range map[string]struct {
		news func(*loop)
		want bool
	}{
		"it is gone":                    {func(l *loop) { l.podGone("n/room") }, true},
		"it has failed":                 {func(l *loop) { l.podChanged(placeholderOf("1", corev1.PodFailed)) }, true},
		"it has succeeded":              {func(l *loop) { l.podChanged(placeholderOf("1", corev1.PodSucceeded)) }, true},
		"another one has its name":      {func(l *loop) { l.podChanged(placeholderOf("2", corev1.PodRunning)) }, true},
		"it still runs":                 {func(l *loop) { l.podChanged(placeholderOf("1", corev1.PodRunning)) }, false},
		"somebody else of another name": {func(l *loop) { l.podGone("n/another") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, w, _ := made(t)
			test.news(l)
			if woken := l.waiting.ready.Has(w.pod.Key); woken != test.want || (len(l.waiting.awaiting) == 0) != test.want {
				t.Errorf("woken: %t, %d wait", woken, len(l.waiting.awaiting))
			}
		})
	}
}

// Much can happen to a node while placeholders end on it.
func TestThePodIsBoundOnlyWhereItStillFits(t *testing.T) {
	cordoned := ready("a")
	cordoned.Spec.Unschedulable = true
	for name, test := range map[string]struct {
		news func(*loop)
		want bool
	}{
		"nothing happens": {func(*loop) {}, true},
		"it is cordoned":  {func(l *loop) { l.snapshot.SetNode(cordoned) }, false},
		"it is gone":      {func(l *loop) { l.snapshot.DeleteNode("a") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, w, _ := made(t)
			l.podGone("n/room")
			test.news(l)
			got := l.takesRoom(w, "a", scheduler.How{})
			if _, assumed := l.snapshot.Assumed(w.pod.Key); got != test.want || assumed != test.want {
				t.Errorf("it goes there: %t, assumed: %t, want %t", got, assumed, test.want)
			}
		})
	}
}

// A binding that fails for no reason of its own is no reason to give the room away; one that cannot be is.
func TestRoomIsKeptForAFewTries(t *testing.T) {
	l, w, _ := made(t)
	l.podGone("n/room")
	if !l.takesRoom(w, "a", scheduler.How{}) {
		t.Fatal("it does not take its room")
	}
	for i := range 5 {
		l.bound(w.pod, errors.New("the API server has a bad day"))
		if _, assumed := l.snapshot.Assumed(w.pod.Key); !assumed || w.again.IsZero() {
			t.Fatalf("try %d: assumed %t, again at %s", i, assumed, w.again)
		}
	}
	l.bound(w.pod, errors.New("the API server has a bad day"))
	if _, assumed := l.snapshot.Assumed(w.pod.Key); assumed {
		t.Error("the room is kept for ever")
	}

	l, w, _ = made(t)
	l.podGone("n/room")
	l.takesRoom(w, "a", scheduler.How{})
	l.bound(w.pod, apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, "a"))
	if _, assumed := l.snapshot.Assumed(w.pod.Key); assumed {
		t.Error("the room is kept on a node that is gone")
	}
}

// Two pods that wait for the end of one placeholder learn both that it stays, and look elsewhere next.
func TestEverybodyLearnsThatAPlaceholderStays(t *testing.T) {
	l, first, placeholder := made(t)
	second := waitingPod(l.waiting, "q")
	if err := l.snapshot.Assume(second.pod, "a"); err != nil {
		t.Fatal(err)
	}
	l.waiting.await(second, []*scheduler.Pod{placeholder}, l.clock.Now().Add(endPatience))
	l.stayed([]*scheduler.Pod{placeholder})
	for _, w := range []*waiter{first, second} {
		_, assumed := l.snapshot.Assumed(w.pod.Key)
		if assumed || !w.avoid["a"] || w.again.IsZero() || len(l.waiting.awaiting) != 0 {
			t.Errorf("%s: assumed %t, avoids %v, again at %s", w.pod.Key, assumed, w.avoid, w.again)
		}
	}
}

// Somebody who waits for placeholders takes a place that comes free meanwhile.
func TestAPlaceThatComesFreeIsTakenMeanwhile(t *testing.T) {
	l, w, _ := made(t)
	l.changed(l.snapshot.SetNode(ready("b")))
	l.wakeHelped()
	if !l.waiting.ready.Has(w.pod.Key) {
		t.Error("it waits on, though there is a node b")
	}
	if l.takesRoom(w, "a", scheduler.How{}) {
		t.Error("it goes where the placeholder still is")
	}
}
