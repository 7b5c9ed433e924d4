package evictionresponder

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dory-io/dory/internal/controller/drain"
	"github.com/dory-io/dory/internal/message"
)

const (
	// Name is how pods name this responder in spec.evictionResponders.
	Name = "dory.io/drain"
	// Priority is the one of the controller that manages a pod.
	Priority int32 = 10000
	// heartbeat is the least time between two reports; the API asks for 20 s at least, and gives up after 20 min.
	heartbeat = 30 * time.Second
	// again is when the desk is asked next, as kubectl drain does. Events come sooner.
	again = 5 * time.Second
	// longest is the API's bound for a message.
	longest = 4000
)

// Responder is how a pod names this responder.
func Responder() corev1.EvictionResponder {
	return corev1.EvictionResponder{Name: Name, Priority: new(Priority)}
}

// role is what an Eviction wants of us.
type role int

const (
	// idle: it is another's turn, or it is over.
	idle role = iota
	// active: it is our turn.
	active
	// canceled: nobody wants the pod to go any more.
	canceled
)

// roleIn reads our role off an Eviction of a pod.
func roleIn(e *lifecyclev1alpha1.Eviction) role {
	i := slices.IndexFunc(e.Status.TargetResponders, func(r lifecyclev1alpha1.TargetResponder) bool { return r.Name == Name })
	if i < 0 || e.Spec.Target.Pod == nil {
		return idle
	}
	switch e.Status.TargetResponders[i].State {
	case lifecyclev1alpha1.ResponderStateActive:
		if reported(e).CompletionTime != nil {
			return idle
		}
		return active
	case lifecyclev1alpha1.ResponderStateCanceled:
		return canceled
	default:
		return idle
	}
}

// reported is what we said last.
func reported(e *lifecyclev1alpha1.Eviction) lifecyclev1alpha1.ResponderStatus {
	for _, s := range e.Status.Responders {
		if s.Name == Name {
			return s
		}
	}
	return lifecyclev1alpha1.ResponderStatus{Name: Name}
}

// done says whether our part is over: the pod has gone, or is none that we have to move. Whoever comes next evicts it.
func done(answer drain.Answer) bool {
	return answer.Allowed && answer.Reason != drain.ReasonTerminating
}

// report is what to say next, if anything is due, and when to look again.
func report(last lifecyclev1alpha1.ResponderStatus, answer drain.Answer, patience time.Duration, now time.Time) (next lifecyclev1alpha1.ResponderStatus, due bool, after time.Duration) {
	next = *last.DeepCopy()
	said := message.Shorten(fmt.Sprintf("%s: %s", answer.Reason, answer.Message), longest)
	at := metav1.NewTime(now.Truncate(time.Second))
	next.HeartbeatTime, next.Message = &at, &said
	if done(answer) {
		next.CompletionTime, next.ExpectedCompletionTime = &at, nil
		return next, true, 0
	}
	next.ExpectedCompletionTime = expected(last, patience, now)
	if last.HeartbeatTime != nil && now.Sub(last.HeartbeatTime.Time) < heartbeat {
		return last, false, again
	}
	return next, true, again
}

// expected is the end of the patience, while that is to come.
func expected(last lifecyclev1alpha1.ResponderStatus, patience time.Duration, now time.Time) *metav1.Time {
	if last.StartTime == nil {
		return nil
	}
	at := metav1.NewTime(last.StartTime.Add(patience))
	if !at.After(now) {
		return nil // The API takes no time in the past.
	}
	return &at
}
