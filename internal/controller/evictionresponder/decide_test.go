package evictionresponder

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dory-io/dory/internal/controller/drain"
)

var noon = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) *metav1.Time { return new(metav1.NewTime(noon.Add(d))) }

func eviction(responders ...lifecyclev1alpha1.TargetResponder) *lifecyclev1alpha1.Eviction {
	return &lifecyclev1alpha1.Eviction{
		Spec:   lifecyclev1alpha1.EvictionSpec{Target: lifecyclev1alpha1.EvictionTarget{Pod: &lifecyclev1alpha1.EvictionPodReference{Name: "p", UID: "u"}}},
		Status: lifecyclev1alpha1.EvictionStatus{TargetResponders: responders},
	}
}

func TestRole(t *testing.T) {
	in := func(state lifecyclev1alpha1.ResponderStateType) *lifecyclev1alpha1.Eviction {
		return eviction(
			lifecyclev1alpha1.TargetResponder{Name: "acme.io/first", State: lifecyclev1alpha1.ResponderStateActive},
			lifecyclev1alpha1.TargetResponder{Name: Name, State: state})
	}
	completed := in(lifecyclev1alpha1.ResponderStateActive)
	completed.Status.Responders = []lifecyclev1alpha1.ResponderStatus{{Name: Name, CompletionTime: at(0)}}
	notAPod := in(lifecyclev1alpha1.ResponderStateActive)
	notAPod.Spec.Target.Pod = nil
	for name, test := range map[string]struct {
		eviction *lifecyclev1alpha1.Eviction
		want     role
	}{
		"not ours":         {eviction(lifecyclev1alpha1.TargetResponder{Name: "acme.io/first", State: lifecyclev1alpha1.ResponderStateActive}), idle},
		"nobody's":         {eviction(), idle},
		"no pod":           {notAPod, idle},
		"not our turn yet": {in(lifecyclev1alpha1.ResponderStateInactive), idle},
		"our turn":         {in(lifecyclev1alpha1.ResponderStateActive), active},
		"our turn is over": {in(lifecyclev1alpha1.ResponderStateCompleted), idle},
		"we were late":     {in(lifecyclev1alpha1.ResponderStateInterrupted), idle},
		"we have finished, and nobody has read it yet": {completed, idle},
		"called off": {in(lifecyclev1alpha1.ResponderStateCanceled), canceled},
	} {
		t.Run(name, func(t *testing.T) {
			if got := roleIn(test.eviction); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

func TestReport(t *testing.T) {
	const patience = 2 * time.Minute
	moving := drain.Answer{Reason: drain.ReasonMoving, Message: "the target starts"}
	for name, test := range map[string]struct {
		last   lifecyclev1alpha1.ResponderStatus
		answer drain.Answer
		want   lifecyclev1alpha1.ResponderStatus
		due    bool
		after  time.Duration
	}{
		"the first word": {
			last: lifecyclev1alpha1.ResponderStatus{Name: Name, StartTime: at(-time.Second)}, answer: moving, due: true, after: again,
			want: lifecyclev1alpha1.ResponderStatus{
				Name: Name, StartTime: at(-time.Second), HeartbeatTime: at(0), ExpectedCompletionTime: at(patience - time.Second), Message: new("Moving: the target starts"),
			},
		},
		"too early for another word": {
			last: lifecyclev1alpha1.ResponderStatus{Name: Name, HeartbeatTime: at(-heartbeat + time.Second)}, answer: moving, after: again,
			want: lifecyclev1alpha1.ResponderStatus{Name: Name, HeartbeatTime: at(-heartbeat + time.Second)},
		},
		"a heartbeat": {
			last: lifecyclev1alpha1.ResponderStatus{Name: Name, HeartbeatTime: at(-heartbeat), Message: new("old")}, answer: moving, due: true, after: again,
			want: lifecyclev1alpha1.ResponderStatus{Name: Name, HeartbeatTime: at(0), Message: new("Moving: the target starts")},
		},
		"longer than expected": {
			last: lifecyclev1alpha1.ResponderStatus{Name: Name, StartTime: at(-patience), ExpectedCompletionTime: at(0)}, answer: moving, due: true, after: again,
			want: lifecyclev1alpha1.ResponderStatus{Name: Name, StartTime: at(-patience), HeartbeatTime: at(0), Message: new("Moving: the target starts")},
		},
		"the pod is ending": {
			last: lifecyclev1alpha1.ResponderStatus{Name: Name}, answer: drain.Answer{Allowed: true, Reason: drain.ReasonTerminating, Message: "it ends"}, due: true, after: again,
			want: lifecyclev1alpha1.ResponderStatus{Name: Name, HeartbeatTime: at(0), Message: new("Terminating: it ends")},
		},
		"the pod may go, right after a heartbeat": {
			last:   lifecyclev1alpha1.ResponderStatus{Name: Name, HeartbeatTime: at(-time.Second), ExpectedCompletionTime: at(time.Minute)},
			answer: drain.Answer{Allowed: true, Reason: drain.ReasonNotOurs, Message: "gone"}, due: true,
			want: lifecyclev1alpha1.ResponderStatus{Name: Name, HeartbeatTime: at(0), CompletionTime: at(0), Message: new("NotOurs: gone")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, due, after := report(test.last, test.answer, patience, noon)
			if diff := cmp.Diff(test.want, got); diff != "" || due != test.due || after != test.after {
				t.Errorf("due %t, after %s (-want +got):\n%s", due, after, diff)
			}
		})
	}
}

func TestALongMessageIsCut(t *testing.T) {
	got, _, _ := report(lifecyclev1alpha1.ResponderStatus{}, drain.Answer{Message: strings.Repeat("é", longest)}, time.Minute, noon)
	if n := len(*got.Message); n > longest || n < longest-2 || !strings.HasSuffix(*got.Message, "é…") {
		t.Errorf("%d bytes", n)
	}
}
