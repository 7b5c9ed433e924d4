package drain

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// failure is why an attempt to move a processor did not get through, as far as it matters for the next one.
type failure int

const (
	// disturbed attempts were given up for reasons that say nothing about the next one.
	disturbed failure = iota
	// withdrawn attempts were called off. The next one is the first of another drain.
	withdrawn
	// unbegun attempts waited all the time, for their turn or another move.
	unbegun
	// sourceless attempts waited all the time for an instance that can hand over.
	sourceless
	// roomless attempts found no place for the target, or none that has its image: the instance works on, and nothing else
	// would help, as a restart needs the same.
	roomless
	// crowded attempts found no room in a quota for the target beside the instance, which makes room for it when it ends.
	crowded
	// uncaptured attempts did not get the source's state.
	uncaptured
	// incapable attempts met an image that knows no handoff: another one would, too.
	incapable
	// broken attempts failed for anything else.
	broken
)

const (
	// Waits between attempts double: from hitchDelay where nothing is known to be wrong, else from retryDelay, to lastDelay.
	hitchDelay = time.Second
	retryDelay = 5 * time.Second
	lastDelay  = time.Minute
)

// failureOf classifies an attempt that ended without having moved the processor.
func failureOf(m *doryv1alpha1.ProcessorMigration) failure {
	s := m.Status
	switch s.Reason {
	case doryv1alpha1.MigrationReasonCancelled:
		if m.Annotations[doryv1alpha1.AnnotationMisledTo] != "" {
			return roomless
		}
		return withdrawn
	case doryv1alpha1.MigrationReasonSuperseded, doryv1alpha1.MigrationReasonSourceReplaced, doryv1alpha1.MigrationReasonTargetLost:
		return disturbed
	case doryv1alpha1.MigrationReasonTargetOverQuota:
		return crowded
	case doryv1alpha1.MigrationReasonTargetUnschedulable, doryv1alpha1.MigrationReasonTargetRejected, doryv1alpha1.MigrationReasonTargetImage:
		return roomless
	case doryv1alpha1.MigrationReasonSourceUnavailable, doryv1alpha1.MigrationReasonStateUnauthorized,
		doryv1alpha1.MigrationReasonStateInvalid, doryv1alpha1.MigrationReasonStateTooLarge:
		return uncaptured
	case doryv1alpha1.MigrationReasonSourceHasNoHandoff, doryv1alpha1.MigrationReasonTargetHasNoHandoff:
		return incapable
	case doryv1alpha1.MigrationReasonWaitingForInstance, doryv1alpha1.MigrationReasonNothingToMove:
		return sourceless
	}
	switch {
	case s.StartTime == nil, s.Reason == doryv1alpha1.MigrationReasonDeadlineExceeded && waited(m):
		return unbegun
	case s.Reason == doryv1alpha1.MigrationReasonDeadlineExceeded && s.TargetNode == "" && s.Strategy != doryv1alpha1.MigrationStopAndCopy:
		return roomless
	default:
		return broken
	}
}

// waited says that a migration spent most of its time before it began.
func waited(m *doryv1alpha1.ProcessorMigration) bool {
	at, limited := m.Deadline()
	begun := m.Status.StartTime
	return limited && begun != nil && begun.Sub(m.CreationTimestamp.Time) > at.Sub(begun.Time)
}

// next answers for the instance that acts. It is not ended for an attempt that finds no place: that would win nothing.
func (v *view) next() conclusion {
	if hindrance := v.pinned(); hindrance != nil {
		return v.stay(hindrance.Message)
	}
	c := v.proceed()
	if !c.Allowed && (c.attempt == nil || !v.stops(c.attempt)) {
		return c
	}
	if hindrance := v.placeless(); hindrance != nil {
		c = v.refuse(ReasonWaiting, nil, fmt.Sprintf("%s of Processor %s: it can only be restarted elsewhere, and waits until there is a place: %s", triggered, v.name(), hindrance.Message))
		c.after, c.doubtful = retryDelay, true
	}
	return c
}

// stops says whether the attempt ends the instance before the next one is there.
func (v *view) stops(attempt *doryv1alpha1.ProcessorMigration) bool {
	return cmp.Or(attempt.Spec.Strategy, v.processor.MigrationStrategy()) == doryv1alpha1.MigrationStopAndCopy
}

// mayStop says whether the next attempt, or the one that waits, can be one that ends the instance first.
func (v *view) mayStop() bool {
	attempts := v.attempts()
	failed := len(attempts) > 0 && attempts[len(attempts)-1].Ended()
	waiting := v.waiting()
	return failed || waiting != nil && v.stops(waiting) || v.processor.MigrationStrategy() == doryv1alpha1.MigrationStopAndCopy || v.moveless() != nil
}

// waiting is the last attempt, if it has not ended; nil where there is none.
func (v *view) waiting() *doryv1alpha1.ProcessorMigration {
	attempts := v.attempts()
	if len(attempts) == 0 || attempts[len(attempts)-1].Ended() {
		return nil
	}
	return attempts[len(attempts)-1]
}

// proceed says what comes after the attempts that there are: another one is made, unless none can help.
func (v *view) proceed() conclusion {
	attempts := v.attempts()
	if len(attempts) == 0 {
		return v.first()
	}
	last := attempts[len(attempts)-1]
	number := numberOf(last.Name)
	switch {
	case !last.Ended() && last.Cancelled():
		return v.refuse(ReasonRollingBack, last, "it is being called off, and another attempt follows")
	case !last.Ended():
		c := v.refuse(ReasonQueued, last, v.queued(last))
		c.doubtful = number > 1
		return c
	case last.Status.Phase == doryv1alpha1.MigrationSucceeded:
		return v.refuse(ReasonRetiring, last, "it has brought the processor elsewhere")
	default:
		return v.again(last, number)
	}
}

func (v *view) queued(m *doryv1alpha1.ProcessorMigration) string {
	if m.Status.Message == "" {
		return "the move begins"
	}
	return m.Status.Message + v.unready()
}

// again says what follows an attempt that did not get through.
func (v *view) again(last *doryv1alpha1.ProcessorMigration, number int) conclusion {
	since := drainSince(last)
	stopped := last.Spec.Strategy == doryv1alpha1.MigrationStopAndCopy
	late := v.now.Sub(since) >= v.share()
	switch why := failureOf(last); {
	case why == withdrawn:
		return v.retry(last, number, v.now, "", hitchDelay)
	case why == roomless, why == crowded:
		return v.withoutRoom(last, number, since, why, late)
	case (why == sourceless && late && !pod.Ready(v.pod) || why == uncaptured && stopped) && v.mayRestart():
		return v.letGo(last)
	case why == unbegun, why == sourceless, why == disturbed && !late:
		return v.retry(last, number, since, last.Spec.Strategy, hitchDelay)
	case stopped, !v.mayRestart(), why == broken && !late:
		return v.retry(last, number, since, last.Spec.Strategy, retryDelay)
	default:
		return v.fallBack(last, number, since)
	}
}

// withoutRoom says what follows an attempt for whose target there was no room. A restart needs the same room on a node, but not in
// a quota, nor a second claim.
func (v *view) withoutRoom(last *doryv1alpha1.ProcessorMigration, number int, since time.Time, why failure, late bool) conclusion {
	strategy := last.Spec.Strategy
	switch {
	case strategy == doryv1alpha1.MigrationStopAndCopy, why == roomless && !v.restartOnly():
		return v.retry(last, number, since, strategy, retryDelay)
	case v.mayRestart() && (why == roomless || late || v.overQuota()):
		return v.fallBack(last, number, since)
	case v.mayRestart():
		return v.retry(last, number, since, strategy, hitchDelay)
	}
	c := v.retry(last, number, since, strategy, retryDelay)
	if !v.settled {
		c.Message += ". Only a restart would do, and spec.migration.drainFallback is Never"
	}
	return c
}

// stay lets the asker wait for a person: no attempt could get through.
func (v *view) stay(why string) conclusion {
	c := v.refuse(ReasonWaiting, nil, fmt.Sprintf("%s of Processor %s: nothing is moved, because it would not get through: %s", triggered, v.name(), why))
	c.after, c.doubtful = lastDelay, true
	return c
}

// foretold is what the condition Migratable says about the present spec; nil where it says nothing.
func (v *view) foretold() *metav1.Condition {
	c := meta.FindStatusCondition(v.processor.Status.Conditions, doryv1alpha1.ConditionMigratable)
	if c == nil || c.ObservedGeneration != v.processor.Generation {
		return nil
	}
	return c
}

// moveless is the condition Migratable where it says for certain that the processor cannot be moved while it works. A quota may
// have got room since.
func (v *view) moveless() *metav1.Condition {
	known := v.foretold()
	if known == nil {
		return nil
	}
	switch known.Reason {
	case doryv1alpha1.ReasonRestartOnly, doryv1alpha1.ReasonFallbackForbidden, doryv1alpha1.ReasonStateTooLarge:
		return known
	}
	return nil
}

// first is the first attempt. Where it is known that the processor cannot be moved while it works, nothing is started for that.
func (v *view) first() conclusion {
	known := v.moveless()
	switch {
	case known != nil && known.Reason == doryv1alpha1.ReasonStateTooLarge && v.mayRestart():
		return v.tooLarge(known.Message)
	case known == nil, v.processor.MigrationStrategy() == doryv1alpha1.MigrationStopAndCopy:
		return v.try(1, v.now, "", "the move begins")
	case !v.mayRestart():
		return v.stay(known.Message)
	}
	c := v.try(1, v.now, doryv1alpha1.MigrationStopAndCopy, "the processor is restarted elsewhere from its state: "+known.Message)
	c.Reason, c.doubtful = ReasonFallingBack, known.Status != metav1.ConditionTrue
	return c
}

// restartOnly says that the processor cannot be moved while it works, as its condition Migratable has it.
func (v *view) restartOnly() bool {
	c := v.foretold()
	return c != nil && c.Status == metav1.ConditionTrue && c.Reason == doryv1alpha1.ReasonRestartOnly
}

// overQuota says that there was no room in a quota either while nothing else moved.
func (v *view) overQuota() bool {
	c := v.foretold()
	return c != nil && c.Reason == doryv1alpha1.ReasonQuotaExceeded
}

// mayRestart says whether the instance may be ended without having been moved.
func (v *view) mayRestart() bool {
	return !v.settled && v.processor.DrainFallback() != doryv1alpha1.DrainFallbackNever
}

// retry makes another attempt, after a while.
func (v *view) retry(last *doryv1alpha1.ProcessorMigration, number int, since time.Time, strategy doryv1alpha1.MigrationStrategy, base time.Duration) conclusion {
	reason, message := last.Status.Reason, last.Status.Message
	if node := last.Annotations[doryv1alpha1.AnnotationMisledTo]; node != "" {
		reason, message = EventMisled, fmt.Sprintf("target pod %s came to node %s, which is being left, too", last.Status.TargetPod, node)
	}
	said := fmt.Sprintf("ProcessorMigration %s was given up (%s: %s)", last.Name, reason, message)
	if wait := v.backoff(last, number, base); wait > 0 {
		c := v.refuse(ReasonWaiting, nil, fmt.Sprintf("%s of Processor %s: %s; the next attempt is at %s", triggered, v.name(), said, v.now.Add(wait).UTC().Format(time.RFC3339)))
		c.Migration = last.Name
		c.Causes = []metav1.StatusCause{
			{Type: CausePhase, Message: string(last.Status.Phase), Field: last.Name},
			{Type: CauseReason, Message: reason, Field: last.Name},
			{Type: CauseWaitsFor, Message: message, Field: last.Name},
		}
		c.after, c.doubtful = wait, true
		return c
	}
	c := v.try(number+1, since, strategy, said+", and is tried again")
	c.doubtful = true
	return c
}

// fallBack restarts the processor elsewhere from its state.
func (v *view) fallBack(last *doryv1alpha1.ProcessorMigration, number int, since time.Time) conclusion {
	c := v.try(number+1, since, doryv1alpha1.MigrationStopAndCopy, fmt.Sprintf(
		"ProcessorMigration %s was given up (%s: %s), so the processor is restarted elsewhere from its state", last.Name, last.Status.Reason, last.Status.Message))
	c.Reason, c.doubtful = ReasonFallingBack, true
	return c
}

// letGo ends an instance whose state nobody can get any more, if there is an older state to go on from.
func (v *view) letGo(last *doryv1alpha1.ProcessorMigration) conclusion {
	why := fmt.Sprintf("ProcessorMigration %s was given up (%s: %s)", last.Name, last.Status.Reason, last.Status.Message)
	if from, is := restartsFrom(v.processor); is {
		return allow(ReasonRestartsFromCheckpoint, why+"; "+from)
	}
	c := v.retry(last, numberOf(last.Name), drainSince(last), last.Spec.Strategy, retryDelay)
	c.Message += noCheckpoint
	return c
}

const noCheckpoint = "; there is no checkpoint to restart it from: delete the pod if its state may be lost"

// tooLarge ends an instance whose state is known to be too large to be captured, if there is an older state to go on from. Nothing
// is tried for it, as that could only fail.
func (v *view) tooLarge(why string) conclusion {
	if from, is := restartsFrom(v.processor); is {
		return allow(ReasonRestartsFromCheckpoint, fmt.Sprintf("pod %s cannot hand over its state: %s; %s", v.pod.Name, v.foretoldBy(), from))
	}
	c := v.stay(why)
	c.Message += noCheckpoint
	return c
}

// foretoldBy is why the state cannot be captured, in the words of the condition Checkpointed.
func (v *view) foretoldBy() string {
	if c := meta.FindStatusCondition(v.processor.Status.Conditions, doryv1alpha1.ConditionCheckpointed); c != nil && c.Status == metav1.ConditionFalse {
		return c.Message
	}
	return "it is too large"
}

// backoff is how long the next attempt is to wait yet.
func (v *view) backoff(last *doryv1alpha1.ProcessorMigration, number int, base time.Duration) time.Duration {
	ended := last.CreationTimestamp.Time
	if last.Status.CompletionTime != nil {
		ended = last.Status.CompletionTime.Time
	}
	const most = 10 // doublings: past lastDelay in any case
	wait := min(lastDelay, base<<min(max(number-1, 0), most))
	return ended.Add(wait).Sub(v.now)
}

// share is the part of the patience after which a move that has not got through gives way to a restart, so that there is
// time for that.
func (v *view) share() time.Duration { return v.patience * 5 / 8 } //nolint:mnd // five eighths

// try asks for an attempt.
func (v *view) try(number int, since time.Time, strategy doryv1alpha1.MigrationStrategy, said string) conclusion {
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v.pod.Namespace, Name: attemptName(v.processor.Name, v.pod.Name, number),
			Labels:          map[string]string{doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy},
			Annotations:     map[string]string{doryv1alpha1.AnnotationDrainSince: since.UTC().Format(time.RFC3339)},
			OwnerReferences: []metav1.OwnerReference{pod.OwnerReference(v.processor)},
		},
		Spec: doryv1alpha1.ProcessorMigrationSpec{
			Processor: v.processor.Name, Reason: doryv1alpha1.MigrationDrain, SourcePod: v.pod.Name, Strategy: strategy,
			ActiveDeadlineSeconds: new(max(1, int64(v.share()/time.Second))),
		},
	}
	if v.leave.yes() {
		m.Labels[doryv1alpha1.LabelDrainedNode] = nodeLabel(v.pod.Spec.NodeName)
	}
	c := v.refuse(ReasonQueued, m, said)
	c.attempt, c.processor = m, v.processor
	return c
}

// drainSince is when the first of a row of attempts was made.
func drainSince(m *doryv1alpha1.ProcessorMigration) time.Time {
	since, err := time.Parse(time.RFC3339, m.Annotations[doryv1alpha1.AnnotationDrainSince])
	if err != nil || since.After(m.CreationTimestamp.Add(time.Minute)) {
		return m.CreationTimestamp.Time
	}
	return since
}

// tailLength is how much of the source pod's name is in the names of attempts. Pods of ours end in 8 random characters.
const tailLength = 8

// attemptName is the same for everyone who makes the attempt, so that it is made once.
func attemptName(processor, source string, number int) string {
	tail := source[max(0, len(source)-tailLength):]
	if source != pod.Name(processor, tail) || strings.ContainsAny(tail, "-.") {
		tail = doryv1alpha1.Hash(source) // A pod that was adopted: nothing says that its end is its own.
	}
	return doryv1alpha1.MigrationName(processor, "drain-"+tail, number)
}

func numberOf(name string) int {
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil {
		return 0
	}
	return n
}

// nodeLabel is a node's name as a label can hold it.
func nodeLabel(name string) string {
	if len(name) <= validation.LabelValueMaxLength {
		return name
	}
	const readable = 40
	return strings.TrimRight(name[:readable], "-.") + "-" + doryv1alpha1.Hash(name)
}
