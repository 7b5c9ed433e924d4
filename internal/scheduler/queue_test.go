package scheduler_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dory-io/dory/internal/scheduler"
)

func madeAt(seconds int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(time.Unix(seconds, 0)) }
}

func TestTheQueueGoesByPriorityThenAgeThenName(t *testing.T) {
	q := scheduler.NewQueue()
	for _, p := range []*corev1.Pod{
		aPod("young", madeAt(9)), aPod("b", madeAt(5)), aPod("a", madeAt(5)), aPod("low", priority(-1)),
		aPod("high", priority(7), madeAt(99)), aPod("gone", priority(9)), aPod("raised", madeAt(1)),
	} {
		q.Push(read(p))
	}
	q.Remove(scheduler.Key("default", "gone"))
	q.Remove(scheduler.Key("default", "never there"))
	q.Push(read(aPod("raised", priority(8))))
	if !q.Has("default/raised") || q.Has("default/gone") || q.Len() != 6 {
		t.Errorf("%d pods wait", q.Len())
	}
	var got []string
	for p, found := q.Pop(); found; p, found = q.Pop() {
		got = append(got, p.Key)
	}
	want := []string{"default/raised", "default/high", "default/a", "default/b", "default/young", "default/low"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}
