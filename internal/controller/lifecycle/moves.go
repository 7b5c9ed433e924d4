package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/undecodable"
)

// What lifecycle leaves to moves: the pods of one that is under way, and the way of a changed spec to the instance.

const (
	// The first retry of an update that was rolled back for a reason outside of the new spec, and the longest wait;
	// in between it doubles.
	updateRetryBase = 30 * time.Second
	updateRetryCap  = 10 * time.Minute
)

func (r *Reconciler) observeMigrations(ctx context.Context, o *observation) error {
	var migrations doryv1alpha1.ProcessorMigrationList
	if err := r.client.List(ctx, &migrations, client.InNamespace(o.key.Namespace), client.MatchingFields{indexMigrationProcessor: o.key.Name}, undecodable.Tolerate); err != nil {
		return fmt.Errorf("listing the migrations of Processor %s: %w", o.key, err)
	}
	for i := range migrations.Items {
		o.migrations = append(o.migrations, &migrations.Items[i])
	}
	if aside, yes := undecodable.As(undecodable.Unended(o.migrations)); yes && o.wanted() {
		o.aside = aside.Error()
	}
	return nil
}

// move is the migration that is under way.
func (o *observation) move() *doryv1alpha1.ProcessorMigration {
	for _, m := range o.migrations {
		if m.Active() {
			return m
		}
	}
	return nil
}

// moving says whether the pod is the source or the target of a move that is not over, and so not ours to end.
func (o *observation) moving(pod *corev1.Pod) bool {
	if !o.wanted() {
		return false
	}
	for _, m := range o.migrations {
		if !m.Ended() && (pod.Labels[doryv1alpha1.LabelMigration] == m.Name || (m.Active() && m.Status.SourcePod == pod.Name)) {
			return true
		}
	}
	return false
}

// handedTo says whether the holder is the target of a move that has yet to mark it as such.
func (o *observation) handedTo(holder *corev1.Pod) bool {
	m := o.move()
	return m != nil && m.Status.TargetPod == holder.Name && !hasEpoch(holder, o)
}

// underWay explains that the next instance is a move's to start.
func underWay(m *doryv1alpha1.ProcessorMigration) *hindrance {
	return &hindrance{doryv1alpha1.ReasonMigrating, fmt.Sprintf("ProcessorMigration %s is under way (%s)", m.Name, m.Status.Phase)}
}

// update brings an instance of an older spec to the current one, as spec.update says.
func update(o *observation, p *plan, holder *corev1.Pod) {
	switch {
	case o.move() != nil:
		p.hindrance = underWay(o.move())
	case o.reverted():
		restartLastGood(o, p, holder)
	case o.processor.UpdateStrategy() == doryv1alpha1.UpdateOnDelete:
		p.hindrance = &hindrance{doryv1alpha1.ReasonOnDelete, fmt.Sprintf("spec.update.strategy is OnDelete: delete pod %s, or create a ProcessorMigration with the reason Update", holder.Name)}
	case sameRevision(o, holder):
		p.remove = append(p.remove, removal{holder, removeOutdated})
	case o.faultyUpdate():
		moveToRevision(o, p, holder) // Which says why not. What is known not to work is worth no instance's end.
	case o.processor.UpdateStrategy() == doryv1alpha1.UpdateRecreate, !movable(o, holder):
		p.remove = append(p.remove, removal{holder, removeOutdated})
	default:
		moveToRevision(o, p, holder)
	}
}

// movable: an instance that does not answer has no state to hand over.
func movable(o *observation, holder *corev1.Pod) bool {
	return pod.Ready(holder) && o.nodes[holder.Spec.NodeName] == nodeReady
}

// sameRevision: only the liveness path is wrong, as it was learned after the first start. The kubelet would end the
// instance for it soon, and there is little state yet.
func sameRevision(o *observation, holder *corev1.Pod) bool {
	return holder.Annotations[doryv1alpha1.AnnotationRevision] == pod.Revision(o.processor, o.edgeNode) &&
		!pod.RestartDue(holder, o.processor) && len(pod.ChangedConfig(holder, o.processor)) == 0
}

// moveToRevision plans an Update, unless one is on its way, or was rolled back for what is wrong with the new spec.
func moveToRevision(o *observation, p *plan, holder *corev1.Pod) {
	revision := pod.Target(o.processor, o.edgeNode)
	tried := o.updatesTo(revision)
	last := newest(tried)
	switch {
	case last == nil:
		p.update = updateName(o, revision)
	case !last.Ended():
		p.hindrance = &hindrance{doryv1alpha1.ReasonReplacing, fmt.Sprintf(
			"ProcessorMigration %s brings the current spec: %s", last.Name, pod.Cause(holder, o.processor, o.edgeNode))}
	case last.Status.Phase == doryv1alpha1.MigrationSucceeded && (holder.Name == last.Status.SourcePod || holder.Name == last.Status.TargetPod):
		// The instance is not yet seen as what it is.
	case last.Status.Phase == doryv1alpha1.MigrationSucceeded:
		p.update = updateName(o, revision) // The spec has been another one since, and is back.
	case last.Faulty():
		p.hindrance = &hindrance{doryv1alpha1.ReasonUpdateRolledBack, fmt.Sprintf(
			"ProcessorMigration %s was given up (%s): %s. Change the spec, or delete that ProcessorMigration to have it tried again",
			last.Name, last.Status.Reason, last.Status.Message)}
	default:
		again(o, p, revision, last, max(len(tried), lastUpdate(o, revision)))
	}
}

// again waits ever longer before the next attempt. Those that were tried may not all be there any more.
func again(o *observation, p *plan, revision string, last *doryv1alpha1.ProcessorMigration, tried int) {
	wait := min(updateRetryCap, updateRetryBase<<min(tried-1, 10)) //nolint:mnd // Past the cap in any case.
	if last.Status.CompletionTime != nil {
		wait = last.Status.CompletionTime.Add(wait).Sub(o.now)
	}
	if wait <= 0 || last.Status.Reason == doryv1alpha1.MigrationReasonSuperseded {
		p.update = updateName(o, revision)
		return
	}
	p.requeueAfter = wait
	p.hindrance = &hindrance{doryv1alpha1.ReasonUpdateRolledBack, fmt.Sprintf("ProcessorMigration %s was given up (%s): %s. The next attempt is at %s",
		last.Name, last.Status.Reason, last.Status.Message, o.now.Add(wait).UTC().Format(time.RFC3339))}
}

func newest(migrations []*doryv1alpha1.ProcessorMigration) *doryv1alpha1.ProcessorMigration {
	if len(migrations) == 0 {
		return nil
	}
	return slices.MaxFunc(migrations, func(a, b *doryv1alpha1.ProcessorMigration) int {
		if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
			return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
		}
		return numberOf(a.Name) - numberOf(b.Name)
	})
}

// updateName counts the attempts of a revision, so that two passes of one mind make one object.
func updateName(o *observation, revision string) string {
	return doryv1alpha1.MigrationName(o.key.Name, updateTo(revision), lastUpdate(o, revision)+1)
}

// updateTo is what an Update is for, as its name says.
func updateTo(revision string) string {
	const revisionLength = 8
	return "update-" + revision[:min(len(revision), revisionLength)]
}

// lastUpdate is the highest number of an attempt that is there.
func lastUpdate(o *observation, revision string) int {
	prefix, last := doryv1alpha1.MigrationPrefix(o.key.Name, updateTo(revision)), 0
	for _, m := range o.migrations {
		if strings.HasPrefix(m.Name, prefix) {
			last = max(last, numberOf(m.Name))
		}
	}
	return last
}

func numberOf(name string) int {
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil {
		return 0
	}
	return n
}

// createUpdate asks for the move, once the API server took a pod of the new spec on trial.
func (r *Reconciler) createUpdate(ctx context.Context, o *observation, p *plan) error {
	next, err := r.unmade(ctx, o, nil)
	if err == nil {
		err = r.rehearsal.Beside(ctx, next)
	}
	if err != nil {
		return p.unlessRefused(err)
	}
	_, holder := o.holder()
	cause := pod.Cause(holder, o.processor, o.edgeNode)
	err = r.client.Create(ctx, &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.key.Namespace, Name: p.update, Labels: managed(), Annotations: map[string]string{doryv1alpha1.AnnotationCause: cause},
			OwnerReferences: []metav1.OwnerReference{pod.OwnerReference(o.processor)},
		},
		Spec: doryv1alpha1.ProcessorMigrationSpec{
			Processor: o.key.Name, Reason: doryv1alpha1.MigrationUpdate, TargetRevision: pod.Target(o.processor, o.edgeNode),
		},
	})
	switch {
	case apierrors.IsAlreadyExists(err):
		return fmt.Errorf("ProcessorMigration %s: %w", p.update, fence.ErrConflict)
	case err != nil:
		return fmt.Errorf("creating ProcessorMigration %s/%s: %w", o.key.Namespace, p.update, err)
	}
	p.hindrance = &hindrance{doryv1alpha1.ReasonReplacing, fmt.Sprintf("ProcessorMigration %s brings the current spec: %s", p.update, cause)}
	return nil
}

// confirmNoMove asks the API server itself whether the move is over whose pod is to go.
func (r *Reconciler) confirmNoMove(ctx context.Context, o *observation, surplus *corev1.Pod) error {
	name := surplus.Labels[doryv1alpha1.LabelMigration]
	if name == "" {
		return nil
	}
	m, err := lookup.Get[doryv1alpha1.ProcessorMigration](ctx, r.apiReader, types.NamespacedName{Namespace: o.key.Namespace, Name: name})
	if err != nil || m == nil || m.Ended() {
		return err
	}
	return fmt.Errorf("pod %s belongs to ProcessorMigration %s, which the cache does not have yet: %w", surplus.Name, name, fence.ErrConflict)
}
