package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
)

// A version that took the place of one that works, without having shown before that it works, too, is on trial: what worked is
// kept until then, and comes back if it does not.

const (
	// provenAfter is for how long an instance must be ready without a break before its version counts as one that works. Many
	// that fail do so just after they were ready.
	provenAfter = 10 * time.Second
	// failuresOnTrial are as many as a version may have before it is given up. The kubelet takes about 15 s for them.
	failuresOnTrial = 3
	// patienceOnTrial is for what the kubelet cannot start at all, such as an image that cannot be pulled, to pass.
	patienceOnTrial = 30 * time.Second
)

func (r *Reconciler) observeRecord(ctx context.Context, o *observation) error {
	if o.processor == nil {
		return nil
	}
	var err error
	o.record, err = r.lastGood.Cached(ctx, o.processor)
	return err
}

func (o *observation) present() string { return pod.Revision(o.processor, o.edgeNode) }

// reverted says that the present spec was given up for what worked before it.
func (o *observation) reverted() bool { return o.record != nil && o.record.Reverted == o.present() }

// onTrial says whether pods of the present spec have yet to show that they work.
func (o *observation) onTrial() bool {
	return o.record != nil && !o.reverted() && o.record.Origin.Revision != o.present()
}

// judgeTrial forgets the version before once the instance works, or gives the instance up for it.
func judgeTrial(o *observation, p *plan, holder *corev1.Pod) (givenUp bool) {
	if o.record == nil || o.move() != nil || pod.RevisionOf(holder) != o.present() || o.nodes[holder.Spec.NodeName] != nodeReady {
		return false // Of a node that is silent or gone, nothing is known.
	}
	if wait := provenIn(holder, o.now); wait <= 0 {
		p.forget = true
		return false
	} else if pod.Ready(holder) {
		p.lookAgain(wait)
	}
	switch {
	case o.reverted() && pod.Ready(holder): // It was brought all the same, and it may work this time.
		return false
	case !o.reverted() && !o.onTrial():
		return false
	case !o.reverted():
		cause, wait := failing(o, holder)
		if cause == "" {
			p.lookAgain(wait)
			return false
		}
		p.revert = cause
		if pod.CrashLooping(holder) {
			p.doubt = holder // It may be for its epoch that it fails, and not for its version.
		}
	}
	p.remove = append(p.remove, removal{holder, removeFailed})
	return true
}

// lookAgain keeps the sooner of two moments.
func (p *plan) lookAgain(wait time.Duration) {
	if wait > 0 && (p.requeueAfter == 0 || wait < p.requeueAfter) {
		p.requeueAfter = wait
	}
}

// provenIn is when the instance has been ready for long enough.
func provenIn(holder *corev1.Pod, now time.Time) time.Duration {
	if !pod.Ready(holder) {
		return provenAfter
	}
	return readySince(holder).Add(provenAfter).Sub(now)
}

// failing says why the version on trial is given up or, as long as it is not, when to look again.
func failing(o *observation, holder *corev1.Pod) (cause string, wait time.Duration) {
	if m := o.failedUpdate(); m != nil && m.Faulty() && m.Status.TargetPod == holder.Name {
		return fmt.Sprintf("ProcessorMigration %s: %s: %s", m.Name, m.Status.Reason, m.Status.Message), 0
	}
	wait = o.trialBegan(holder).Add(o.processor.StartTimeout()).Sub(o.now)
	for _, status := range slices.Concat(holder.Status.InitContainerStatuses, holder.Status.ContainerStatuses) {
		if failures := failuresOf(&status); failures >= failuresOnTrial {
			return fmt.Sprintf("container %s of pod %s failed %d times%s", status.Name, holder.Name, failures, lastWords(&status)), 0
		}
		if waiting := status.State.Waiting; pod.Unstartable(&status) {
			left := latest(scheduledAt(holder), o.readySince[holder.Spec.NodeName]).Add(patienceOnTrial).Sub(o.now)
			if left <= 0 {
				return fmt.Sprintf("container %s of pod %s cannot start: %s: %s", status.Name, holder.Name, waiting.Reason, waiting.Message), 0
			}
			wait = min(wait, left)
		}
	}
	if wait <= 0 && !pod.Ready(holder) {
		return fmt.Sprintf("pod %s was not ready within %s (spec.migration.startTimeoutSeconds): %s", holder.Name, o.processor.StartTimeout(), describeUnready(o, holder).message), 0
	}
	return "", max(wait, time.Second)
}

// trialBegan is since when the pod has had the chance to become ready: before it was there, or while its node was away, nothing
// could be tried.
func (o *observation) trialBegan(holder *corev1.Pod) time.Time {
	return latest(holder.CreationTimestamp.Time, o.record.Since, o.readySince[holder.Spec.NodeName])
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// failingUnborn is the same while no pod lives. A version that is about to be tried has not failed, and time in which no pod
// could be made, as in a suspension or while its state is waited for, says nothing against it.
func failingUnborn(o *observation, p *plan, holder *corev1.Pod) string {
	if !o.onTrial() || o.record.Trial != o.present() || (holder != nil && pod.RevisionOf(holder) != o.present()) {
		return ""
	}
	if b := p.backoff; b != nil && b.Failures >= failuresOnTrial && b.LastFailureTime.After(o.record.Since) {
		return fmt.Sprintf("%d instances failed in a row, the last one was pod %s", b.Failures, b.LastPod)
	}
	return ""
}

// failuresOf counts how often a container has ended that should not have.
func failuresOf(s *corev1.ContainerStatus) int32 {
	ended := s.State.Terminated != nil && s.State.Terminated.ExitCode != 0
	if ended || (s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff") {
		return s.RestartCount + 1
	}
	return s.RestartCount
}

func lastWords(s *corev1.ContainerStatus) string {
	last := s.State.Terminated
	if last == nil {
		last = s.LastTerminationState.Terminated
	}
	if last == nil {
		return ""
	}
	return fmt.Sprintf(", the last time with exit code %d (%s)", last.ExitCode, last.Reason)
}

func scheduledAt(p *corev1.Pod) time.Time {
	if condition := pod.Condition(p, corev1.PodScheduled); condition != nil && condition.Status == corev1.ConditionTrue {
		return condition.LastTransitionTime.Time
	}
	return p.CreationTimestamp.Time
}

// worked says whether the instance ever worked: it is ready, was so before its process ended, or has given a state.
func worked(o *observation, holder *corev1.Pod) bool {
	if pod.Ready(holder) {
		return true
	}
	if c := o.processor.Status.Checkpoint; c != nil && c.Epoch != 0 && c.Epoch == pod.EpochOf(holder) {
		return true
	}
	container := pod.ContainerStatus(holder)
	return container != nil && wasReady(holder, container)
}

// failedUpdate is the last Update to the present spec, if its version is why it was given up.
func (o *observation) failedUpdate() *doryv1alpha1.ProcessorMigration {
	last := o.lastUpdateToPresent()
	if last == nil || !last.Ended() || last.Status.Phase == doryv1alpha1.MigrationSucceeded {
		return nil
	}
	switch last.Status.Reason {
	case doryv1alpha1.MigrationReasonTargetImage, doryv1alpha1.MigrationReasonTargetRejected, doryv1alpha1.MigrationReasonTargetUnschedulable:
		return last
	}
	if last.Faulty() {
		return last
	}
	return nil
}

// lastUpdateToPresent also counts one to the present spec that no restart was asked for with.
func (o *observation) lastUpdateToPresent() *doryv1alpha1.ProcessorMigration {
	return newest(o.updatesTo(o.present(), pod.Target(o.processor, o.edgeNode)))
}

func (o *observation) faultyUpdate() bool {
	last := o.lastUpdateToPresent()
	return last != nil && last.Faulty()
}

func (o *observation) updatesTo(revisions ...string) []*doryv1alpha1.ProcessorMigration {
	var found []*doryv1alpha1.ProcessorMigration
	for _, m := range o.migrations {
		if m.Spec.Reason == doryv1alpha1.MigrationUpdate && slices.Contains(revisions, m.Spec.TargetRevision) {
			found = append(found, m)
		}
	}
	return found
}

// backToLastGood explains why the present spec is not applied.
func backToLastGood(o *observation, holder *corev1.Pod) *hindrance {
	said := fmt.Sprintf("revision %s of the spec did not work, so that revision %s is back, which did: %s. Change the spec, or delete ControllerRevision %s to have it tried again",
		o.record.Reverted, o.record.Origin.Revision, o.record.Because, o.record.Name())
	if c := o.processor.Status.Checkpoint; holder != nil && !pod.Ready(holder) && c != nil && c.Epoch > o.record.Epoch && c.Epoch < pod.EpochOf(holder) {
		said += fmt.Sprintf("; pod %s is not ready either, and may refuse the state, which the newer version saved under epoch %d", holder.Name, c.Epoch)
	}
	return &hindrance{doryv1alpha1.ReasonRevertedToLastGood, said}
}

// restartLastGood starts the instance anew as it is where a restart is asked for while the present spec is not applied. Where it is
// to move instead, and may save its state only in a move, it is said how.
func restartLastGood(o *observation, p *plan, holder *corev1.Pod) {
	p.hindrance = backToLastGood(o, holder)
	due := pod.RestartDue(holder, o.processor) || len(pod.ChangedConfig(holder, o.processor)) > 0
	switch strategy := o.processor.UpdateStrategy(); {
	case !due || pod.RevisionOf(holder) != o.record.Origin.Revision:
	case strategy == doryv1alpha1.UpdateOnDelete:
		p.hindrance.message += "; the restart that was asked for waits: spec.update.strategy is OnDelete, so delete pod " + holder.Name
	case strategy == doryv1alpha1.UpdateRecreate, !movable(o, holder):
		p.remove = append(p.remove, removal{holder, removeRestarted})
	default:
		p.hindrance.message += fmt.Sprintf("; the restart that was asked for waits, too: to have it now, delete pod %s, or create a ProcessorMigration with the reason Manual", holder.Name)
	}
}

// unsaid says that the instance does not say what it was made from, as those of older operators do not, and that it is known.
func unsaid(o *observation, holder *corev1.Pod) bool {
	return holder.Annotations[doryv1alpha1.AnnotationSeal] == "" && !o.edgeNodeUnknown && pod.RevisionOf(holder) == o.present()
}

// stamp writes into a pod what it was made from, where there is room for that.
func (r *Reconciler) stamp(ctx context.Context, o *observation, holder *corev1.Pod) error {
	stamped := holder.DeepCopy()
	pod.StampOrigin(stamped, pod.NewOrigin(o.processor, o.edgeNode, r.tokens))
	if stamped.Annotations[doryv1alpha1.AnnotationSeal] == "" {
		return nil // An event says so when it matters.
	}
	if err := r.client.Patch(ctx, stamped, client.MergeFromWithOptions(holder, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("writing into pod %s/%s what it was made from: %w", holder.Namespace, holder.Name, err)
	}
	return nil
}

// keepGood makes durable what an instance was made from, before it is ended or followed by one of another version.
func (r *Reconciler) keepGood(ctx context.Context, o *observation, holder *corev1.Pod) error {
	if pod.RevisionOf(holder) == o.present() || (o.record == nil && !worked(o, holder)) {
		return nil
	}
	return r.keepOrigin(ctx, o, holder, o.present())
}

func (r *Reconciler) keepOrigin(ctx context.Context, o *observation, holder *corev1.Pod, trial string) error {
	// The cache leaves out what a pod was made from.
	whole, err := lookup.Get[corev1.Pod](ctx, r.apiReader, types.NamespacedName{Namespace: holder.Namespace, Name: holder.Name})
	if err != nil {
		return err
	}
	// gofail: var lifecycleBeforeKeep struct{}
	o.record, err = r.lastGood.Keep(ctx, o.processor, pod.OriginOf(whole, o.processor, r.tokens), pod.EpochOf(holder), trial, r.clock.Now())
	// gofail: var lifecycleAfterKeep struct{}
	if err == nil && o.record == nil {
		r.events.unrecorded(o, holder)
	}
	return err
}

// giveUp makes durable that the present spec is given up, before what it started is ended.
func (r *Reconciler) giveUp(ctx context.Context, o *observation, p *plan, because string) error {
	// gofail: var lifecycleBeforeRevert struct{}
	if err := r.lastGood.Revert(ctx, o.record, o.present(), because); err != nil {
		return err
	}
	// gofail: var lifecycleAfterRevert struct{}
	r.events.reverted(o)
	p.hindrance = backToLastGood(o, nil)
	return nil
}

// forget removes the record of the version before, once the present one works.
func (r *Reconciler) forget(ctx context.Context, o *observation) error {
	// gofail: var lifecycleBeforeForget struct{}
	return r.lastGood.Forget(ctx, o.record)
}

// fresh makes sure that the cache has the record as it is, before an instance is started by it.
func (r *Reconciler) fresh(ctx context.Context, o *observation) error {
	now, err := r.lastGood.Live(ctx, o.processor)
	if err != nil {
		return err
	}
	if !now.Same(o.record) {
		return fmt.Errorf("what is kept of Processor %s has changed: %w", o.key, fence.ErrConflict)
	}
	return nil
}

// settle says what the next instance is made from: the version that worked where the present one is known not to, else the
// present one, on trial. What that needs to be durable becomes so first.
func (r *Reconciler) settle(ctx context.Context, o *observation, p *plan) error {
	s, known := p.start, o.record != nil
	if err := r.retain(ctx, o, s); err != nil {
		return err
	}
	if p.revert != "" {
		if err := r.giveUp(ctx, o, p, p.revert); err != nil {
			return err
		}
		p.hindrance = nil // Which there was only for as long as what failed was there.
	}
	switch {
	case s.lastGood && o.record != nil:
		s.origin = o.record.Origin
	case s.blocked != nil:
		p.hindrance = s.blocked
	case known && o.onTrial() && (s.anew || o.record.Trial != o.present()):
		return r.lastGood.Try(ctx, o.record, o.present(), r.clock.Now())
	}
	return nil
}

// retain keeps the version that worked, unless it is kept already: then it must not have changed.
func (r *Reconciler) retain(ctx context.Context, o *observation, s *start) error {
	if o.record != nil {
		return r.fresh(ctx, o)
	}
	if s.record == nil {
		return nil
	}
	trial := o.present()
	if s.lastGood {
		trial = ""
	}
	return r.keepOrigin(ctx, o, s.record, trial)
}

// blameSpec gives the present spec up where the API server takes no pod of it, and one that worked is known.
func (r *Reconciler) blameSpec(ctx context.Context, o *observation, p *plan, because error) error {
	if err := r.giveUp(ctx, o, p, because.Error()); err != nil {
		return err
	}
	return fmt.Errorf("%w: going back to revision %s", fence.ErrConflict, o.record.Origin.Revision)
}
