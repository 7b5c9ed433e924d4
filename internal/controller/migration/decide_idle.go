package migration

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// idle is for a processor of which no migration is active.
func idle(o *observation) decision {
	if d, found := rescue(o); found {
		return d
	}
	if next := o.next(); next != nil {
		return admit(o, next)
	}
	return await()
}

// rescue wakes a source that was quiesced for a migration which no longer exists: somebody took its finalizer off. A
// holder that stands by is the checkpoint controller's to wake.
func rescue(o *observation) (decision, bool) {
	k := &o.know
	if !o.wanted() || over(o.holder) || going(o.holder) || !aside(o.holder) || !pod.Ready(o.holder) {
		return none()
	}
	switch {
	case !o.live:
		return first(do(stepLook, nil))
	case k.forsaken:
		return none()
	case k.trouble != nil:
		return first(wait(retryDelay))
	case k.sourceIs == nil:
		return first(do(stepCheckSource, nil))
	case k.awake:
		return first(do(stepBack, nil))
	case !quiescible(k.sourceIs.Role):
		return none()
	case !o.barred(nil):
		return first(do(stepBar, nil))
	default:
		return first(do(stepResume, nil))
	}
}

// pending are the migrations that wait for their turn.
func (o *observation) pending() []*doryv1alpha1.ProcessorMigration {
	var found []*doryv1alpha1.ProcessorMigration
	for _, m := range o.migrations {
		if _, hopeless := inVain(o, m); !hopeless && !m.Active() && !m.Ended() {
			found = append(found, m)
		}
	}
	return found
}

// inVain says why a migration that has not begun is not to begin any more.
func inVain(o *observation, m *doryv1alpha1.ProcessorMigration) (outcome, bool) {
	if cause, off := calledOff(m); off {
		return cause, true
	}
	cause, late := overdue(o, m)
	switch m.Status.Reason {
	case ReasonSourceUnavailable, ReasonWaitingForInstance:
		cause.reason = m.Status.Reason // It says more than that the time is up, and the drain goes by it.
	}
	return cause, late
}

// next is the oldest that was not superseded.
func (o *observation) next() *doryv1alpha1.ProcessorMigration {
	for _, m := range o.pending() {
		if o.successor(m) == nil {
			return m
		}
	}
	return nil
}

// successor is the newest pending migration of the same reason, if that is another one.
func (o *observation) successor(m *doryv1alpha1.ProcessorMigration) *doryv1alpha1.ProcessorMigration {
	for _, other := range slices.Backward(o.pending()) {
		if other.Spec.Reason == m.Spec.Reason {
			if other.UID == m.UID {
				return nil
			}
			return other
		}
	}
	return nil
}

// admit lets a migration begin, or says why not.
func admit(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	if !o.live && (o.processor == nil || replaced(o, m)) {
		return do(stepLook, m)
	}
	if phase, cause, refused := refuse(o, m); refused {
		return enter(o, m, phase, cause)
	}
	if cause, unmovable := unmovable(o); unmovable {
		return attend(o, m, cause, doryv1alpha1.MigrationFailed, ReasonNothingToMove)
	}
	if cause, needless := needless(o, m); needless {
		return enter(o, m, doryv1alpha1.MigrationRolledBack, cause)
	}
	strategy, d, undecided := choose(o, m)
	if undecided {
		return d
	}
	revision, d, undecided := o.version(m)
	if undecided {
		return d
	}
	if cause, bad := discredited(o, m, strategy, revision); bad {
		return enter(o, m, doryv1alpha1.MigrationRolledBack, cause)
	}
	switch {
	case o.turns && !o.know.turnAsked:
		return do(stepAskTurn, m)
	case o.know.waitsFor != "":
		return queueUp(o, m)
	case !slices.Contains(m.Finalizers, Finalizer):
		return do(stepHold, m)
	default:
		return begin(o, m, strategy, revision)
	}
}

// turnDelay is when to ask again for a turn, for the case that nobody says that it has come.
const turnDelay = 5 * time.Second

// queueUp waits in Pending until other processors have moved.
func queueUp(o *observation, m *doryv1alpha1.ProcessorMigration) decision {
	cause := outcome{ReasonQueued, o.know.waitsFor}
	if m.Status.Phase != doryv1alpha1.MigrationPending || m.Status.Reason != cause.reason || m.Status.Message != cause.message {
		return note(o, m, cause)
	}
	return wait(turnDelay)
}

// replaced says that another pod acts than the one that is to be left.
func replaced(o *observation, m *doryv1alpha1.ProcessorMigration) bool {
	return m.Spec.SourcePod != "" && o.holderName() != m.Spec.SourcePod
}

// refuse is what no waiting can mend.
func refuse(o *observation, m *doryv1alpha1.ProcessorMigration) (doryv1alpha1.MigrationPhase, outcome, bool) {
	failed, back := doryv1alpha1.MigrationFailed, doryv1alpha1.MigrationRolledBack
	p := o.processor
	switch {
	case p == nil:
		return failed, outcome{ReasonProcessorNotFound, fmt.Sprintf("there is no Processor %q in namespace %q", m.Spec.Processor, m.Namespace)}, true
	case p.DeletionTimestamp != nil:
		return failed, outcome{ReasonNothingToMove, "the Processor is being deleted"}, true
	case o.undecodable() != "":
		return failed, outcome{ReasonProcessorUndecodable, "the Processor cannot be decoded: " + o.undecodable() + ". Mend it, and create another ProcessorMigration"}, true
	case p.Suspended():
		return failed, outcome{ReasonNothingToMove, "spec.suspend of the Processor is true"}, true
	case replaced(o, m):
		return back, outcome{ReasonSourceReplaced, fmt.Sprintf("spec.sourcePod names pod %q, and pod %q acts", m.Spec.SourcePod, o.holderName())}, true
	case len(m.Name) > validation.LabelValueMaxLength:
		return back, outcome{ReasonNameTooLong, fmt.Sprintf("the name has %d characters, and the target's label %s can hold %d: create a ProcessorMigration with a shorter name",
			len(m.Name), doryv1alpha1.LabelMigration, validation.LabelValueMaxLength)}, true
	case o.edgeNodeUnknown:
		return back, outcome{ReasonEdgeNodeUnknown, fmt.Sprintf("spec.placement.edgeNode of the Processor names EdgeNode %q, which does not exist", p.Spec.Placement.EdgeNode)}, true
	case m.Spec.TargetRevision != "" && m.Spec.TargetRevision != o.revision:
		return back, outcome{ReasonSuperseded, fmt.Sprintf("the Processor is of revision %s now and no longer of %s", o.revision, m.Spec.TargetRevision)}, true
	case m.Spec.TargetNode != "":
		cause, refused := refuseNode(o, m)
		return back, cause, refused
	}
	return "", outcome{}, false
}

// refuseNode says why the node that the move is to lead to cannot take the target, whatever room it has.
func refuseNode(o *observation, m *doryv1alpha1.ProcessorMigration) (outcome, bool) {
	node, known := o.targetNodes[m.Spec.TargetNode]
	if !known {
		return outcome{}, false
	}
	if node == nil {
		return outcome{ReasonTargetNodeNotFound, fmt.Sprintf("spec.targetNode names node %q, which does not exist", m.Spec.TargetNode)}, true
	}
	if !m.Brings() && o.holder != nil && pod.RevisionOf(o.holder) != o.present {
		return outcome{}, false // It is the version that runs that moves; where it fits, the scheduler says.
	}
	target, err := pod.Build(pod.Input{Processor: o.processor, EdgeNode: o.edgeNode})
	if err != nil {
		return outcome{ReasonTargetInvalid, err.Error()}, true
	}
	why := pod.Excluded(target, node)
	return outcome{ReasonTargetNodeExcluded, why}, why != ""
}

// unmovable says why there is no instance that could hand over.
func unmovable(o *observation) (outcome, bool) {
	switch {
	case over(o.holder):
		return outcome{ReasonWaitingForInstance, "the processor has no instance yet"}, true
	case going(o.holder):
		return outcome{ReasonWaitingForInstance, fmt.Sprintf("pod %s is ending", o.holder.Name)}, true
	case aside(o.holder):
		return outcome{ReasonWaitingForInstance, fmt.Sprintf("pod %s stands by and does not act yet", o.holder.Name)}, true
	case pod.EpochOf(o.holder) == 0:
		return outcome{ReasonWaitingForInstance, fmt.Sprintf("pod %s does not carry its epoch yet", o.holder.Name)}, true
	case !pod.Ready(o.holder):
		return outcome{ReasonWaitingForInstance, fmt.Sprintf("pod %s is not ready, so that it cannot hand over its state", o.holder.Name)}, true
	}
	return outcome{}, false
}

// needless is an Update that another migration has brought about.
func needless(o *observation, m *doryv1alpha1.ProcessorMigration) (outcome, bool) {
	if m.Spec.Reason != doryv1alpha1.MigrationUpdate || m.Spec.TargetRevision == "" || pod.Outdated(o.holder, o.processor, o.edgeNode) {
		return outcome{}, false
	}
	return outcome{ReasonAlreadyCurrent, fmt.Sprintf("pod %s is of revision %s already", o.holder.Name, m.Spec.TargetRevision)}, true
}

// attend waits in Pending, says why, and gives up in time.
func attend(o *observation, m *doryv1alpha1.ProcessorMigration, cause outcome, giveUp doryv1alpha1.MigrationPhase, reason string) decision {
	if m.Status.Reason != cause.reason || m.Status.Phase == "" {
		return note(o, m, cause)
	}
	remaining := left(o, m, o.policy().StartTimeout())
	if remaining <= 0 {
		return enter(o, m, giveUp, outcome{reason, cause.message})
	}
	if m.Status.Message != cause.message {
		return note(o, m, cause)
	}
	return wait(remaining)
}

// choose finds the strategy, for which it may have to ask the source. It is undecided where its decision comes first.
func choose(o *observation, m *doryv1alpha1.ProcessorMigration) (doryv1alpha1.MigrationStrategy, decision, bool) {
	said := m.Spec.Strategy
	if said == "" {
		said = o.processor.MigrationStrategy()
	}
	if said == doryv1alpha1.MigrationOverlap || said == doryv1alpha1.MigrationStopAndCopy {
		return said, decision{}, false
	}
	if o.know.trouble != nil {
		cause := outcome{ReasonSourceUnavailable, fmt.Sprintf("pod %s does not say what it can do", o.holder.Name)}
		d := attend(o, m, cause, doryv1alpha1.MigrationRolledBack, ReasonSourceUnavailable)
		if d.step == "" {
			d.after = min(d.after, retryDelay)
		}
		return "", d, true
	}
	switch {
	case o.know.sourceCan == nil:
		return "", do(stepAskSource, m), true
	case o.know.sourceCan.Handoff:
		return doryv1alpha1.MigrationLive, decision{}, false
	case said == doryv1alpha1.MigrationAuto:
		return doryv1alpha1.MigrationOverlap, decision{}, false
	default:
		return "", enter(o, m, doryv1alpha1.MigrationRolledBack, outcome{ReasonSourceHasNoHandoff, fmt.Sprintf(
			"strategy Live needs the handoff, which pod %s does not list in GET /: use Overlap, StopAndCopy or Auto", o.holder.Name)}), true
	}
}

// begin writes down all that the move goes by. Live and Overlap start with the target, StopAndCopy with the state.
func begin(o *observation, m *doryv1alpha1.ProcessorMigration, strategy doryv1alpha1.MigrationStrategy, revision string) decision {
	phase := doryv1alpha1.MigrationPlacing
	if strategy == doryv1alpha1.MigrationStopAndCopy {
		phase = doryv1alpha1.MigrationWarming
	}
	d := enter(o, m, phase, outcome{ReasonMoving, fmt.Sprintf("moving from pod %s by strategy %s%s", o.holder.Name, strategy, because(m))})
	s := d.status
	s.Strategy, s.Revision, s.StartTime = strategy, revision, s.PhaseTime
	s.SourcePod, s.SourceNode, s.SourceEpoch = o.holder.Name, o.holder.Spec.NodeName, o.epoch.Spec.Epoch
	s.TargetPod = pod.Name(o.processor.Name, o.suffix)
	return d
}

// because tells what an Update brings.
func because(m *doryv1alpha1.ProcessorMigration) string {
	if cause := m.Annotations[doryv1alpha1.AnnotationCause]; cause != "" {
		return ", because " + cause
	}
	return ""
}

// housekeep is what can be done while nothing more urgent is.
func housekeep(o *observation) (decision, bool) {
	if i := slices.IndexFunc(o.migrations, releasable); i >= 0 {
		return first(do(stepRelease, o.migrations[i]))
	}
	for _, m := range o.migrations {
		if cause, hopeless := inVain(o, m); hopeless && m.DeletionTimestamp == nil && !m.Active() && !m.Ended() {
			return first(enter(o, m, doryv1alpha1.MigrationRolledBack, cause))
		}
	}
	for _, m := range o.pending() {
		if newer := o.successor(m); newer != nil {
			return first(enter(o, m, doryv1alpha1.MigrationRolledBack, outcome{ReasonSuperseded, fmt.Sprintf("ProcessorMigration %s of the same reason is newer", newer.Name)}))
		}
		if d, found := queue(o, m); found {
			return first(d)
		}
	}
	for _, m := range o.migrations {
		if d, found := acknowledge(m); found {
			return first(d)
		}
	}
	return collect(o)
}

// releasable says whether a migration is held although nothing is left to do for it.
func releasable(m *doryv1alpha1.ProcessorMigration) bool {
	return slices.Contains(m.Finalizers, Finalizer) && (m.Ended() || (!m.Active() && m.DeletionTimestamp != nil))
}

// acknowledge takes up a spec that changed after the end, as by a cancel that came too late: those who wait for the condition
// would otherwise wait for ever.
func acknowledge(m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	if !m.Ended() || m.DeletionTimestamp != nil || m.Status.ObservedGeneration == m.Generation {
		return none()
	}
	status := m.Status.DeepCopy()
	status.ObservedGeneration = m.Generation
	for i := range status.Conditions {
		status.Conditions[i].ObservedGeneration = m.Generation
	}
	return first(decision{step: stepNote, migration: m, status: status})
}

// queue says in a waiting migration for which one it waits.
func queue(o *observation, m *doryv1alpha1.ProcessorMigration) (decision, bool) {
	before := o.active()
	if before == nil {
		before = o.next()
	}
	if before == nil || before.UID == m.UID {
		return none()
	}
	cause := outcome{ReasonQueued, fmt.Sprintf("ProcessorMigration %s goes first", before.Name)}
	if m.Status.Phase == doryv1alpha1.MigrationPending && m.Status.Reason == cause.reason && m.Status.Message == cause.message {
		return none()
	}
	return first(note(o, m, cause))
}

// collect deletes the oldest of too many ended migrations.
func collect(o *observation) (decision, bool) {
	var ended []*doryv1alpha1.ProcessorMigration
	for _, m := range o.migrations {
		if m.Ended() && m.DeletionTimestamp == nil && !o.remembered(m) {
			ended = append(ended, m)
		}
	}
	if len(ended) <= o.policy().HistoryLimit() {
		return none()
	}
	oldest := slices.MinFunc(ended, func(a, b *doryv1alpha1.ProcessorMigration) int {
		return completion(a).Compare(completion(b))
	})
	return first(do(stepCollect, oldest))
}

func completion(m *doryv1alpha1.ProcessorMigration) time.Time {
	if m.Status.CompletionTime == nil {
		return m.CreationTimestamp.Time
	}
	return m.Status.CompletionTime.Time
}

// remembered migrations are what others decide by: lifecycle by the last Update to the current spec, which says whether it
// works or when to try it again, the drain by the last attempt to leave the pod that acts.
func (o *observation) remembered(m *doryv1alpha1.ProcessorMigration) bool {
	return o.lastUpdate(m) || o.lastAttempt(m)
}

func (o *observation) lastAttempt(m *doryv1alpha1.ProcessorMigration) bool {
	attempt := func(m *doryv1alpha1.ProcessorMigration) bool {
		return m.Spec.Reason == doryv1alpha1.MigrationDrain && m.Spec.SourcePod != "" && m.Spec.SourcePod == o.holderName() && m.DeletionTimestamp == nil
	}
	if !attempt(m) {
		return false
	}
	for _, other := range slices.Backward(o.migrations) {
		if attempt(other) {
			return other.UID == m.UID
		}
	}
	return false
}

// lastUpdate leaves out one that succeeded: the pod says by itself that it is of the current spec.
func (o *observation) lastUpdate(m *doryv1alpha1.ProcessorMigration) bool {
	update := func(m *doryv1alpha1.ProcessorMigration) bool {
		return m.Spec.Reason == doryv1alpha1.MigrationUpdate && m.Spec.TargetRevision == o.revision && m.DeletionTimestamp == nil
	}
	if o.processor == nil || !update(m) || m.Status.Phase == doryv1alpha1.MigrationSucceeded {
		return false
	}
	for _, other := range slices.Backward(o.migrations) {
		if update(other) && other.Ended() {
			return other.UID == m.UID
		}
	}
	return false
}

// bound says whether the pod has a node.
func bound(p *corev1.Pod) bool { return p != nil && p.Spec.NodeName != "" }
