package migration

import (
	"context"
	"fmt"
	"time"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// Which version of the processor a target is. Who only wants another place does not get another version: a move that is not to
// bring the present spec keeps what runs, be the present spec broken, not applied yet, or only just written.

// version chooses the revision of the target. It is undecided where something has to be read first.
func (o *observation) version(m *doryv1alpha1.ProcessorMigration) (revision string, d decision, undecided bool) {
	running := pod.RevisionOf(o.holder)
	switch {
	case m.Brings():
		return o.revision, decision{}, false
	case running == "", running == o.present:
		return o.present, decision{}, false
	case !o.know.recalled:
		return "", do(stepRecall, m), true
	case o.know.origin == nil: // An older operator made the pod, and did not say from what.
		return o.present, decision{}, false
	}
	return running, decision{}, false
}

// unrecalled says that the target is of another version than the present spec, and that it is not known yet what that is made
// from.
func unrecalled(o *observation, m *doryv1alpha1.ProcessorMigration) bool {
	return !m.Brings() && m.Status.Revision != o.present && !o.know.recalled
}

// originOf is what the target is made from; nil is the present spec.
func (o *observation) originOf(m *doryv1alpha1.ProcessorMigration) *pod.Origin {
	origin := o.know.origin
	if m.Brings() || origin == nil || m.Status.Revision == o.present || m.Status.Revision != origin.Revision {
		return nil
	}
	return origin
}

func (r *Reconciler) recall(ctx context.Context, o *observation, d decision) error {
	name, revision := d.migration.Status.SourcePod, d.migration.Status.Revision
	if !d.migration.Active() {
		name, revision = o.holder.Name, pod.RevisionOf(o.holder)
	}
	origin, err := r.cluster.origin(ctx, o.processor, name, revision)
	if err != nil {
		return err
	}
	o.know.recalled, o.know.origin = true, origin
	if d.migration.Active() && origin == nil {
		return o.troubled(d.step, fmt.Errorf("%w: it brings revision %s, which pod %s was of, and not the present spec", errForgotten, revision, name))
	}
	return nil
}

// keepSource is for a source that has no successor yet when it ends.
func (r *Reconciler) keepSource(ctx context.Context, o *observation, d decision) error {
	origin, err := r.cluster.origin(ctx, o.processor, o.source.Name, pod.RevisionOf(o.source))
	if err != nil {
		return err
	}
	next, trial := d.migration.Status.Revision, ""
	if d.migration.Brings() {
		next, trial = o.present, o.present
	}
	kept, err := r.cluster.keep(ctx, o.processor, origin, o.epoch.Spec.Epoch, trial, o.now)
	if err != nil {
		return err
	}
	if !kept && next != pod.RevisionOf(o.source) {
		r.events.unrecorded(o, d.migration)
	}
	o.know.kept = true
	return nil
}

// superseded says that the target is of a version that is not wanted: neither the present one nor the one that runs.
func superseded(o *observation, m *doryv1alpha1.ProcessorMigration) bool {
	if m.Brings() {
		return m.Status.Revision != o.revision
	}
	return m.Status.Revision != o.present && m.Status.Revision != pod.RevisionOf(o.source)
}

// placingPatience is how long a target seeks a node before its move gives way to a spec that waits to be applied.
const placingPatience = 10 * time.Second

// stranded says of a move that keeps the version which runs when it gives way to a spec that changed since: it finds no node, and
// that spec was not tried yet. What was tried, or waits for a person, is no reason.
func stranded(o *observation, m *doryv1alpha1.ProcessorMigration) (after time.Duration, yes bool) {
	if m.Brings() || m.Status.Phase != doryv1alpha1.MigrationPlacing || m.Status.Revision == o.present || o.target == nil || bound(o.target) ||
		o.processor.UpdateStrategy() == doryv1alpha1.UpdateOnDelete {
		return 0, false
	}
	for _, other := range o.migrations {
		if other.Spec.Reason == doryv1alpha1.MigrationUpdate && other.Spec.TargetRevision == o.revision {
			return 0, false
		}
	}
	return left(o, m, placingPatience), true
}

// overtaken says of an Update which ends its source that the spec has become another one since, before its target worked.
func overtaken(o *observation, m *doryv1alpha1.ProcessorMigration) (outcome, bool) {
	if !m.Brings() || m.Status.Revision == o.revision || (o.target != nil && pod.Ready(o.target)) {
		return outcome{}, false
	}
	return outcome{ReasonSuperseded, fmt.Sprintf("the Processor's spec changed before a pod of revision %s worked; lifecycle starts the next instance", m.Status.Revision)}, true
}

// discredited says of a move that would end its source for the present spec, without being told to bring it, that the last
// Update to that spec was given up for what is wrong with it.
func discredited(o *observation, m *doryv1alpha1.ProcessorMigration, strategy doryv1alpha1.MigrationStrategy, revision string) (outcome, bool) {
	if strategy != doryv1alpha1.MigrationStopAndCopy || m.Brings() || revision == pod.RevisionOf(o.holder) {
		return outcome{}, false
	}
	for _, other := range o.migrations {
		if o.lastUpdate(other) && other.Faulty() {
			return outcome{doryv1alpha1.ReasonUpdateRolledBack, fmt.Sprintf(
				"pod %s is not ended for the present spec: ProcessorMigration %s was given up (%s), and what the pod was made from is not known, because an older operator made it",
				o.holder.Name, other.Name, other.Status.Reason)}, true
		}
	}
	return outcome{}, false
}
