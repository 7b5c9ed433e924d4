package dbsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/undecodable"
)

// entry is one Processor of people, as its row knows it.
type entry struct{ id, namespace, name string }

func (e entry) key() types.NamespacedName {
	return types.NamespacedName{Namespace: e.namespace, Name: e.name}
}

func (e entry) row() store.KubernetesProcessor {
	return store.KubernetesProcessor{ID: e.id, Namespace: e.namespace, Name: e.name}
}

// registrar gives the Processors that people applied to Kubernetes a row, so that the database lists them all,
// and ends the row when the Processor is gone. The object decides; the row only tells.
type registrar struct {
	store   Store
	reader  client.Reader
	view    *view
	writer  writer
	events  narrator
	metrics *metrics
	health  *health
	queue   priorityqueue.PriorityQueue[entry]
	outage  *retry
	// listed is told of a Processor that has its row now.
	listed func(id string)

	mu sync.Mutex
	// rows has the id under which each Processor has its row, and conflicts that of each whose id is another's.
	rows      map[types.NamespacedName]string
	conflicts map[types.NamespacedName]string
}

// work serves the queue until it is shut down.
func (r *registrar) work(ctx context.Context) {
	for {
		entries := nextBatch(r.queue)
		if entries == nil || ctx.Err() != nil {
			return
		}
		r.reconcile(ctx, entries)
	}
}

// reconcile brings the rows of some Processors to what the Processors are now.
func (r *registrar) reconcile(ctx context.Context, entries []entry) {
	present, gone, err := r.observe(ctx, entries)
	var done outcome
	if err == nil {
		done, err = r.write(ctx, present, gone)
		r.health.report(ctx, err)
	}
	if err != nil {
		r.queue.AddWithOpts(priorityqueue.AddOpts{After: r.outage.next()}, entries...)
		return
	}
	r.outage.reset()
	for _, e := range r.judge(ctx, present, gone, done) {
		r.queue.AddWithOpts(priorityqueue.AddOpts{RateLimited: true}, e)
	}
	r.queue.AddWithOpts(priorityqueue.AddOpts{}, r.freed(gone)...)
}

// observe sorts entries into Processors that are there and ones that are not, or not under that id, or not
// people's any more.
func (r *registrar) observe(ctx context.Context, entries []entry) (present []*doryv1alpha1.Processor, gone []entry, err error) {
	for _, e := range entries {
		object, err := r.view.get(ctx, e.key())
		if err != nil {
			return nil, nil, err
		}
		p, ok := object.(*doryv1alpha1.Processor)
		if ok && p != nil {
			if _, aside := undecodable.Of(p); aside {
				continue // Its row stays as it is.
			}
		}
		switch {
		case !ok || p.ID() != e.id || owned(p):
			gone = append(gone, e)
		case onceOwned(p):
			// Somebody took the label away; its row is about to bring it back.
		default:
			present = append(present, p)
		}
	}
	return present, gone, nil
}

// outcome is what came of bringing the table up to date.
type outcome struct {
	conflicts []store.Conflict
	// lost are the Processors that the database did not take.
	lost map[types.NamespacedName]bool
}

// write brings the table up to date. If the batch fails as a whole, each entry is tried alone, so that one that
// the database cannot take stands in nobody's way.
func (r *registrar) write(ctx context.Context, present []*doryv1alpha1.Processor, gone []entry) (outcome, error) {
	rows := make([]store.KubernetesProcessor, len(present))
	for i, p := range present {
		rows[i] = kubernetesRow(p)
	}
	ended := make([]store.KubernetesProcessor, len(gone))
	for i, e := range gone {
		ended[i] = e.row()
	}
	// Ending comes first: the id of a Processor that is gone may be another's by now.
	err := inOneOrAlone(ended, func(batch []store.KubernetesProcessor) error {
		return r.store.TerminateKubernetesProcessors(ctx, batch)
	}, func(row store.KubernetesProcessor, err error) {
		r.failed(ctx, row, err, "The database does not end the row of a Processor that is gone; trying again")
	})
	if err != nil {
		return outcome{}, fmt.Errorf("ending the rows of %d Processors: %w", len(ended), err)
	}
	done := outcome{lost: map[types.NamespacedName]bool{}}
	err = inOneOrAlone(rows, func(batch []store.KubernetesProcessor) error {
		found, err := r.store.UpsertKubernetesProcessors(ctx, batch)
		done.conflicts = append(done.conflicts, found...)
		return err
	}, func(row store.KubernetesProcessor, err error) {
		done.lost[types.NamespacedName{Namespace: row.Namespace, Name: row.Name}] = true
		r.failed(ctx, row, err, "The database does not take a Processor; trying again")
	})
	if err != nil {
		return outcome{}, fmt.Errorf("listing %d Processors in the database: %w", len(rows), err)
	}
	return done, nil
}

// failed says that the database did not take one entry. The next full pass finds it again.
func (r *registrar) failed(ctx context.Context, row store.KubernetesProcessor, err error, message string) {
	r.metrics.failed(err)
	log.FromContext(ctx).Error(err, message, "id", row.ID, "namespace", row.Namespace, "name", row.Name)
}

// inOneOrAlone hands a batch over in one, and one by one if it fails for its content. An unavailable database
// fails it as a whole.
func inOneOrAlone[T any](batch []T, do func([]T) error, lost func(T, error)) error {
	if len(batch) == 0 {
		return nil
	}
	err := do(batch)
	if err == nil || errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.Canceled) {
		return err
	}
	for _, one := range batch {
		err := do([]T{one})
		if errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.Canceled) {
			return err
		}
		if err != nil {
			lost(one, err)
		}
	}
	return nil
}

// judge keeps book of who has a row, tells the ones that have none why, and returns whom that could not be told.
// Of a Processor that the database did not take nothing new is known.
func (r *registrar) judge(ctx context.Context, present []*doryv1alpha1.Processor, gone []entry, done outcome) (again []entry) {
	held := make(map[types.NamespacedName]store.Conflict, len(done.conflicts))
	for _, c := range done.conflicts {
		held[types.NamespacedName{Namespace: c.Namespace, Name: c.Name}] = c
	}
	for _, e := range gone {
		r.note(e.key(), "", false)
	}
	for _, p := range present {
		if done.lost[client.ObjectKeyFromObject(p)] {
			continue
		}
		conflict, isHeld := held[client.ObjectKeyFromObject(p)]
		if r.note(client.ObjectKeyFromObject(p), p.ID(), isHeld) {
			r.listed(p.ID())
		}
		if err := r.tell(ctx, p, conflict, isHeld); err != nil {
			again = append(again, entryOf(p))
		}
	}
	return again
}

// note records whether a Processor has a row, and says whether that is news.
func (r *registrar) note(key types.NamespacedName, id string, conflict bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conflicts, key)
	defer func() { r.metrics.rowConflicts.Set(float64(len(r.conflicts))) }()
	if id == "" || conflict {
		delete(r.rows, key)
		if conflict {
			r.conflicts[key] = id
		}
		return false
	}
	news := r.rows[key] != id
	r.rows[key] = id
	return news
}

// freed are the Processors whose id was another's that is gone by now: they need not wait for the next pass.
func (r *registrar) freed(gone []entry) []entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var waiting []entry
	for key, id := range r.conflicts {
		if slices.ContainsFunc(gone, func(e entry) bool { return e.id == id }) {
			waiting = append(waiting, entry{id: id, namespace: key.Namespace, name: key.Name})
		}
	}
	return waiting
}

// has says whether a Processor of people has its row.
func (r *registrar) has(p *doryv1alpha1.Processor) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rows[client.ObjectKeyFromObject(p)] == p.ID()
}

// tell makes the condition say whether the Processor has a row.
func (r *registrar) tell(ctx context.Context, p *doryv1alpha1.Processor, conflict store.Conflict, isHeld bool) error {
	var want *metav1.Condition
	if isHeld {
		want = conflictCondition(conflict)
	}
	if sameCondition(p, want) {
		return nil
	}
	changed, err := r.writer.setCondition(ctx, p, want)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		if !apierrors.IsConflict(err) {
			r.metrics.failed(err)
			log.FromContext(ctx).Error(err, "Writing a condition failed; trying again", "object", describe(client.ObjectKeyFromObject(p)))
		}
		return err
	}
	r.view.wrote(changed)
	if reason, said := foundCondition(p); want != nil && (reason != want.Reason || said != want.Message) {
		r.events.rowConflict(changed, want.Message)
	}
	return nil
}

func conflictCondition(c store.Conflict) *metav1.Condition {
	return &metav1.Condition{
		Type: doryv1alpha1.ConditionDatabaseSynced, Status: metav1.ConditionFalse, Reason: doryv1alpha1.ReasonRowConflict,
		Message: fmt.Sprintf("The database does not list this Processor: the id %q belongs to %s. Give this Processor another spec.processorID, or delete the other's row", c.ID, c.HeldBy),
	}
}

func entryOf(p *doryv1alpha1.Processor) entry {
	return entry{id: p.ID(), namespace: p.Namespace, name: p.Name}
}

func kubernetesRow(p *doryv1alpha1.Processor) store.KubernetesProcessor {
	nodeType := store.NodeTypeManaged
	if p.Spec.Location == doryv1alpha1.LocationEdge {
		nodeType = store.NodeTypeEdge
	}
	return store.KubernetesProcessor{ID: p.ID(), Namespace: p.Namespace, Name: p.Name, Image: p.Spec.Image, NodeType: nodeType}
}
