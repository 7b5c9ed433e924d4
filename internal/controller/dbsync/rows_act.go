package dbsync

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/undecodable"
)

// actOn carries out one decision.
func (s *rowSync) actOn(ctx context.Context, t *task) {
	steps := []func(context.Context, *task) error{s.release, s.apply, s.keep, s.setCondition}
	for _, step := range steps {
		if t.err == nil {
			t.err = step(ctx, t)
		}
	}
}

// release leaves an object to Kubernetes, because its row says so.
func (s *rowSync) release(ctx context.Context, t *task) error {
	if !t.release {
		return nil
	}
	released, err := s.writer.release(ctx, t.current)
	if err != nil {
		return err
	}
	s.written(t, released)
	s.events.released(released, s.kind.table())
	return nil
}

// apply writes the object. A refusal is the row's problem from then on, and no failure.
func (s *rowSync) apply(ctx context.Context, t *task) error {
	if !t.apply {
		return nil
	}
	applied, err := s.write(ctx, t)
	switch {
	case err == nil:
		s.written(t, applied)
		s.tellApplied(t)
		return nil
	case refused(err):
		t.refused = true
		t.decision = decide(s.refusedSituation(t, err))
		return nil
	}
	return err
}

// write writes the row's object. One that cannot be decoded gets the row's spec as a whole first: what cannot be decoded may be in a
// field that the row does not name, which apply would leave.
func (s *rowSync) write(ctx context.Context, t *task) (client.Object, error) {
	if t.current != nil {
		if _, aside := undecodable.Of(t.current); aside {
			if err := s.writer.rewrite(ctx, s.kind, t.row.object, t.current); err != nil {
				return nil, err
			}
		}
	}
	return s.writer.apply(ctx, s.kind, t.row.object)
}

// keep takes a person's approval of the deletion off the object, if it is still there.
func (s *rowSync) keep(ctx context.Context, t *task) error {
	if !t.keep || !hasApproval(t.applied) {
		return nil
	}
	kept, err := s.writer.unannotate(ctx, t.applied, doryv1alpha1.AnnotationDeletionApproved)
	if err != nil {
		return err
	}
	s.written(t, kept)
	s.events.approvalExpired(kept, s.kind.table())
	return nil
}

// refusedSituation is what the decision is about once the API server has said no.
func (s *rowSync) refusedSituation(t *task, err error) situation {
	after := t.situation
	after.refusal = "the API server refuses it: " + err.Error()
	return after
}

// tellApplied counts what was written, and tells a person where the owner changed.
func (s *rowSync) tellApplied(t *task) {
	if t.current == nil {
		s.metrics.configChanges.WithLabelValues(changeCreated).Inc()
		return
	}
	s.metrics.configChanges.WithLabelValues(changeUpdated).Inc()
	if !onceOwned(t.current) {
		s.events.adopted(t.applied, s.kind.table())
	}
}

// setCondition writes what DatabaseSynced should say, on the object as it is by now.
func (s *rowSync) setCondition(ctx context.Context, t *task) error {
	p, ok := t.applied.(*doryv1alpha1.Processor)
	if !ok || p == nil || t.release || !t.conditionDiffers(p) {
		return nil
	}
	changed, err := s.writer.setCondition(ctx, p, t.condition)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	s.written(t, changed)
	reason, said := foundCondition(p)
	if c := t.condition; c != nil && c.Reason == doryv1alpha1.ReasonTemplateKeysIgnored && (reason != c.Reason || said != c.Message) {
		s.events.templateKeysIgnored(changed, c.Message)
	}
	return nil
}

func (s *rowSync) written(t *task, object client.Object) {
	t.applied = object
	s.view.wrote(object)
}

// report writes the rows' sync_errors, all at once, and tells what is new in them.
func (s *rowSync) report(ctx context.Context, tasks []*task) {
	messages := map[string]string{}
	for _, t := range tasks {
		s.requeue(ctx, t)
		if t.err == nil && !t.row.released && t.problem != t.row.told {
			messages[t.row.id] = t.problem
		}
	}
	s.countTroubles()
	if len(messages) == 0 {
		return
	}
	err := s.kind.setSyncErrors(ctx, messages)
	s.health.report(ctx, err)
	for _, t := range tasks {
		if _, changed := messages[t.row.id]; !changed {
			continue
		}
		if err != nil {
			s.again(t.row.id)
			continue
		}
		s.tellProblem(ctx, t)
	}
}

// requeue says when the row is looked at again without a hint, and keeps the book.
func (s *rowSync) requeue(ctx context.Context, t *task) {
	if t.err != nil {
		s.retryLater(ctx, t)
		return
	}
	s.book.set(t.row.id, trouble{problem: t.problem, key: t.row.key, revision: t.row.revision, refused: t.refused})
	if t.refused {
		s.again(t.row.id)
		return
	}
	s.queue.Forget(t.row.id)
	if s.unlisted != nil && t.problem == "" && !t.row.released && t.current != nil && t.row.knownName != t.current.GetName() {
		s.unlisted(t.row.id)
	}
}

// retryLater comes back to a row after a failure. A conflict only says that the cache is late.
func (s *rowSync) retryLater(ctx context.Context, t *task) {
	s.again(t.row.id)
	if apierrors.IsConflict(t.err) || ctx.Err() != nil {
		return
	}
	s.metrics.failed(t.err)
	log.FromContext(ctx).Error(t.err, "Applying a row failed; trying again", "table", s.kind.table(), "id", t.row.id, "object", describe(t.row.key))
}

// tellProblem tells people once that a row turned bad or good. Without a namespace there is no place for an
// event; the column, the metric and the log remain.
func (s *rowSync) tellProblem(ctx context.Context, t *task) {
	about := subject(s.kind.name(), t.row, t.applied)
	if t.problem == "" {
		s.events.rowMended(about, s.kind.table())
		return
	}
	s.metrics.errors.WithLabelValues(errorTypeRow).Inc()
	log.FromContext(ctx).Info("A row cannot be applied", "table", s.kind.table(), "id", t.row.id, "object", describe(t.row.key), "problem", t.problem)
	if !t.noNamespace {
		s.events.rowInvalid(about, s.kind.table(), t.row.id, t.problem)
	}
}

// foundCondition is what DatabaseSynced says on an object; empty if nothing.
func foundCondition(object client.Object) (reason, message string) {
	p, ok := object.(*doryv1alpha1.Processor)
	if !ok {
		return "", ""
	}
	if c := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionDatabaseSynced); c != nil {
		return c.Reason, c.Message
	}
	return "", ""
}
