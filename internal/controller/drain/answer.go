package drain

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// conclusion is an answer and what follows from it.
type conclusion struct {
	Answer
	// attempt is the ProcessorMigration to make.
	attempt *doryv1alpha1.ProcessorMigration
	// displaces is the move that has to give way to the attempt, or to one that waits already.
	displaces *cancellation
	// processor is what it moves.
	processor *doryv1alpha1.Processor
	// doubtful says that the attempt, or the wait for it, comes after one that did not get through.
	doubtful bool
	// after is when something new is to be concluded although nothing happened; zero is never.
	after time.Duration
}

// triggered starts the messages of answers while a move is under way. The descheduler knows these words, and counts the
// eviction as one that is being carried out.
const triggered = "Eviction triggered evacuation"

// answer is what an asker is told about a pod.
func answer(r Request, v *view) conclusion {
	c := conclude(r, v)
	if r.DryRun {
		return v.tried(c)
	}
	return c
}

func conclude(r Request, v *view) conclusion {
	reason, message, free := v.free(r.UID)
	switch {
	case reason == ReasonTerminating && !r.DryRun && v.hurries(r.GracePeriodSeconds):
		return v.refuse(ReasonRetiring, nil, fmt.Sprintf("pod %s is ending and may be saving its state, for which it has time until %s",
			v.pod.Name, v.pod.DeletionTimestamp.UTC().Format(time.RFC3339)))
	case free:
		return allow(reason, message)
	}
	if v.aside != "" && running(v.pod) {
		return v.refuse(ReasonUndecodable, nil, fmt.Sprintf("pod %s cannot be moved: %s", v.pod.Name, v.aside))
	}
	if m := v.active(); m != nil {
		if c, yields := v.displace(m); yields {
			return c
		}
		if c, part := v.partOf(m); part {
			return c
		}
	}
	switch {
	case v.surplus():
		return allow(ReasonSurplus, fmt.Sprintf("pod %s does not act for Processor %s", v.pod.Name, v.name()))
	case !running(v.pod):
		return allow(ReasonNotStarted, fmt.Sprintf("the process of pod %s does not run, so that there is no state in it", v.pod.Name))
	case !v.holds():
		c := v.refuse(ReasonStarting, nil, fmt.Sprintf("pod %s is about to act for Processor %s", v.pod.Name, v.name()))
		c.after = hitchDelay
		return c
	default:
		return v.next()
	}
}

// free says why a pod is of no concern to a drain.
func (v *view) free(uid types.UID) (reason, message string, yes bool) {
	if v.pod == nil {
		return ReasonNotOurs, "there is no such pod of a processor", true
	}
	_, owned := processorOf(v.pod)
	switch name := v.pod.Name; {
	case uid != "" && uid != v.pod.UID:
		return ReasonAnotherPod, fmt.Sprintf("pod %s has the UID %s, and the request is about %s", name, v.pod.UID, uid), true
	case !owned:
		return ReasonNotOurs, fmt.Sprintf("pod %s is no processor's", name), true
	case ended(v.pod):
		return ReasonFinished, fmt.Sprintf("pod %s has ended", name), true
	case v.pod.DeletionTimestamp != nil:
		return ReasonTerminating, fmt.Sprintf("pod %s is ending", name), true
	case v.aside != "":
		return "", "", false
	case !v.owned() || v.processor.DeletionTimestamp != nil:
		return ReasonProcessorGone, fmt.Sprintf("the Processor of pod %s was deleted", name), true
	case v.processor.Suspended():
		return ReasonSuspended, fmt.Sprintf("spec.suspend of Processor %s is true", v.name()), true
	}
	return "", "", false
}

// hurries says whether a pod that is ending would have less time for it than it was given. The API server would take that for
// a new, shorter grace period.
func (v *view) hurries(graceSeconds *int64) bool {
	given := v.pod.DeletionGracePeriodSeconds
	return graceSeconds != nil && given != nil && *graceSeconds < *given && v.now.Before(v.pod.DeletionTimestamp.Time)
}

// partOf answers for a pod that is the source or the target of the move under way.
func (v *view) partOf(m *doryv1alpha1.ProcessorMigration) (conclusion, bool) {
	s := m.Status
	switch v.pod.Name {
	case s.SourcePod:
		switch {
		case v.committed(m):
			return v.refuse(ReasonRetiring, m, fmt.Sprintf("pod %s has taken over, and pod %s ends", s.TargetPod, s.SourcePod)), true
		case s.Phase == doryv1alpha1.MigrationRollingBack:
			return v.refuse(ReasonRollingBack, m, fmt.Sprintf("it is being given up (%s: %s), and another attempt follows", s.Reason, s.Message)), true
		}
		return v.refuse(ReasonMoving, m, v.progress(m)), true
	case s.TargetPod:
		if v.committed(m) {
			return v.refuse(ReasonTarget, m, fmt.Sprintf("it has just brought the processor to pod %s, which moves on after it", s.TargetPod)), true
		}
		return v.refuse(ReasonTarget, m, fmt.Sprintf("pod %s is its target, and acts only after it", s.TargetPod)), true
	}
	return conclusion{}, false
}

// progress says how far a move is.
func (v *view) progress(m *doryv1alpha1.ProcessorMigration) string {
	if waitsFor := v.waitsFor(m); waitsFor != "" {
		return waitsFor
	}
	return m.Status.Message
}

// waitsFor is what a move waits for that somebody else has to say or do; empty where nobody has.
func (v *view) waitsFor(m *doryv1alpha1.ProcessorMigration) string {
	target := m.Status.TargetPod
	switch m.Status.Phase {
	case doryv1alpha1.MigrationPlacing:
		if said, yes := unplaced(v.target); yes {
			return fmt.Sprintf("target pod %s finds no node: %s", target, said)
		}
		if refused(m) {
			return m.Status.Message
		}
		return fmt.Sprintf("target pod %s waits for a node", target)
	case doryv1alpha1.MigrationStarting:
		if v.target != nil && !pod.Ready(v.target) {
			return fmt.Sprintf("target pod %s on node %s is not ready yet: %s", target, v.target.Spec.NodeName, pod.Unreadiness(v.target))
		}
	case doryv1alpha1.MigrationPending, "":
		return m.Status.Message + v.unready()
	case doryv1alpha1.MigrationWarming, doryv1alpha1.MigrationHandingOff, doryv1alpha1.MigrationRetiring, doryv1alpha1.MigrationSucceeded,
		doryv1alpha1.MigrationRollingBack, doryv1alpha1.MigrationRolledBack, doryv1alpha1.MigrationFailed:
	}
	return ""
}

// unready is why a pod that was to be moved is not ready, which the move cannot know, and what a person can do where it never was.
func (v *view) unready() string {
	if v.pod == nil || pod.Ready(v.pod) {
		return ""
	}
	why := ""
	if ready := meta.FindStatusCondition(v.processor.Status.Conditions, doryv1alpha1.ConditionReady); ready != nil && ready.Status == metav1.ConditionFalse {
		why = ": " + ready.Message
	}
	if _, is := restartsFrom(v.processor); !is && v.mayRestart() {
		why += noCheckpoint
	}
	return why
}

func (v *view) name() string { return client.ObjectKeyFromObject(v.processor).String() }

func allow(reason, message string) conclusion {
	return conclusion{Answer: Answer{Allowed: true, Reason: reason, Message: message}}
}

// refuse lets the asker wait, for a move or for what is said.
func (v *view) refuse(reason string, m *doryv1alpha1.ProcessorMigration, said string) conclusion {
	if m == nil {
		return conclusion{Answer: Answer{Reason: reason, Message: said}}
	}
	phase := string(m.Status.Phase)
	if phase == "" {
		phase = string(doryv1alpha1.MigrationPending)
	}
	a := Answer{Reason: reason, Migration: m.Name}
	a.Message = fmt.Sprintf("%s of Processor %s: ProcessorMigration %s (%s) is %s: %s", triggered, v.name(), m.Name, m.Spec.Reason, phase, said)
	cause := func(kind metav1.CauseType, message string) {
		if message != "" {
			a.Causes = append(a.Causes, metav1.StatusCause{Type: kind, Message: message, Field: m.Name})
		}
	}
	cause(CausePhase, phase)
	cause(CauseReason, m.Status.Reason)
	cause(CauseTarget, targetText(m))
	cause(CauseWaitsFor, v.waitsFor(m))
	return conclusion{Answer: a}
}

func targetText(m *doryv1alpha1.ProcessorMigration) string {
	if m.Status.TargetNode == "" {
		return m.Status.TargetPod
	}
	return m.Status.TargetPod + " on node " + m.Status.TargetNode
}

// tried is the answer to whoever only tries. Whatever is known to be in the way is told; a move that nobody begins is not
// waited for.
func (v *view) tried(c conclusion) conclusion {
	c.attempt, c.displaces = nil, nil
	if c.Allowed || c.doubtful {
		return c
	}
	if v.aside != "" {
		return c
	}
	if hindrance := meta.FindStatusCondition(v.processor.Status.Conditions, doryv1alpha1.ConditionMigratable); hindrance != nil && hindrance.Status == metav1.ConditionFalse {
		c.Message += ". It would not get through: " + hindrance.Message
		return c
	}
	switch c.Reason {
	case ReasonQueued, ReasonMoving, ReasonRetiring, ReasonFallingBack:
		c.Allowed, c.Reason = true, ReasonWouldMove
	}
	return c
}
