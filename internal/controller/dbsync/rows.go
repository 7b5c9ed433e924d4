package dbsync

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// workers write that many objects of a batch at once.
	workers = 16
	// lanes is how many batches are under way at once, so that a fresh hint does not wait for the slowest write of the
	// batch before it.
	lanes = 4
	// backlog is the priority of what a full pass finds, below that of a fresh hint.
	backlog = -1

	// firstRowRetry and lastRowRetry bound the wait before a failed or refused object is tried again.
	// The same bounds hold for passes that could not delete everything, next to those on the timer.
	firstRowRetry = 250 * time.Millisecond
	lastRowRetry  = 10 * time.Minute
)

// rowSync makes the rows of one table into objects.
type rowSync struct {
	kind    kind
	reader  client.Reader
	view    *view
	writer  writer
	events  narrator
	metrics *metrics
	health  *health
	options Options

	queue  priorityqueue.PriorityQueue[string]
	taking sync.Mutex
	claims *claims
	book   *book
	pass   *passes
	guard  *deletionGuard
	// unlisted is told of rows that do not know their object's name yet. May be nil.
	unlisted func(id string)
	// outage times the tries to read the table for a batch.
	outage *retry
	// refusals times the tries to delete what the API server keeps. Only passes use it.
	refusals *retry
}

// work serves the queue until it is shut down.
func (s *rowSync) work(ctx context.Context) {
	var running sync.WaitGroup
	for range lanes {
		running.Go(func() { s.workLane(ctx) })
	}
	running.Wait()
}

func (s *rowSync) workLane(ctx context.Context) {
	for {
		ids := s.next()
		if ids == nil || ctx.Err() != nil {
			return
		}
		s.reconcile(ctx, ids)
	}
}

// next lets one lane at a time take a batch, as nextBatch needs it.
func (s *rowSync) next() []string {
	s.taking.Lock()
	defer s.taking.Unlock()
	return nextBatch(s.queue)
}

// reconcile brings the objects of some rows to what the rows say now, but for the rows that another lane is busy with:
// these come again when it is done.
func (s *rowSync) reconcile(ctx context.Context, wanted []string) {
	claim := s.claims.open()
	defer func() { s.hint(claim.close()...) }()
	ids := claim.rows(wanted)
	if len(ids) == 0 {
		return
	}
	tasks, gone, err := s.observe(ctx, ids, claim)
	if err != nil {
		s.freeze(ids)
		return
	}
	s.decide(tasks)
	s.act(ctx, tasks)
	s.report(ctx, tasks)
	s.dismiss(ctx, gone)
}

// freeze comes back to the ids once the database may be there again. Until then nothing is known, so nothing is
// done.
func (s *rowSync) freeze(ids []string) {
	s.queue.AddWithOpts(priorityqueue.AddOpts{After: s.outage.next()}, ids...)
}

// task is the work on one row.
type task struct {
	situation
	decision
	// applied is the object as it is after the work; what was there before if nothing was written.
	applied client.Object
	// refused says that the problem is the API server's, which only another try can find mended.
	refused bool
	// err is a failure that another try may not meet.
	err error
}

// observe reads the rows and the objects that belong to them. gone are the ids that have no row any more.
func (s *rowSync) observe(ctx context.Context, ids []string, claim *claim) (tasks []*task, gone []string, err error) {
	found, err := s.kind.get(ctx, ids)
	s.health.report(ctx, err)
	if err != nil {
		return nil, nil, err
	}
	s.outage.reset()
	for row := range found.each {
		if !claim.object(row.key) {
			// Two rows of one name: the second is judged when the first one has its object.
			s.queue.AddWithOpts(priorityqueue.AddOpts{After: firstRowRetry}, row.id)
			continue
		}
		tasks = append(tasks, s.look(ctx, row))
	}
	for _, id := range ids {
		if _, ok := found.wanted[id]; !ok {
			gone = append(gone, id)
		}
	}
	return tasks, gone, nil
}

// look reads what a decision about one row needs, from the cache.
func (s *rowSync) look(ctx context.Context, row desired) *task {
	t := &task{situation: situation{row: row}}
	if t.current, t.err = s.view.get(ctx, row.key); t.err == nil && t.current == nil {
		t.current, t.err = s.elsewhere(ctx, row)
	}
	if t.err != nil {
		return t
	}
	if t.current != nil {
		t.compare(s.kind)
	} else if row.key.Namespace != "" {
		t.noNamespace, t.err = s.namespaceMissing(ctx, row.key.Namespace)
	}
	t.applied = t.current
	return t
}

// elsewhere finds the row's object under another key than the row's; nil if there is none.
func (s *rowSync) elsewhere(ctx context.Context, row desired) (client.Object, error) {
	if !s.kind.staysPut() {
		return nil, nil //nolint:nilnil // Nothing is there and nothing is wrong.
	}
	cached, err := byID(ctx, s.reader, s.kind, row.id)
	if err != nil {
		return nil, err
	}
	return settlement(row, s.view.withID(cached, func(o client.Object) bool { return s.kind.idOf(o) == row.id })), nil
}

func (s *rowSync) namespaceMissing(ctx context.Context, name string) (bool, error) {
	namespace := newNamespace()
	err := s.reader.Get(ctx, types.NamespacedName{Name: name}, namespace)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading namespace %s from the cache: %w", name, err)
	}
	return namespace.DeletionTimestamp != nil, nil
}

// newNamespace is enough of a Namespace: its metadata is all that is cached.
func newNamespace() *metav1.PartialObjectMetadata {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return namespace
}

func (s *rowSync) decide(tasks []*task) {
	for _, t := range tasks {
		if t.err == nil {
			t.decision = decide(t.situation)
		}
	}
}

// act carries the decisions out, each on its own: what goes wrong with one row concerns no other.
func (s *rowSync) act(ctx context.Context, tasks []*task) {
	workqueue.ParallelizeUntil(ctx, workers, len(tasks), func(i int) { s.actOn(ctx, tasks[i]) })
}

// dismiss handles ids without a row. That alone deletes nothing: if they have objects, a pass over everything
// will say what becomes of those.
func (s *rowSync) dismiss(ctx context.Context, gone []string) {
	for _, id := range gone {
		s.book.set(id, trouble{})
		s.queue.Forget(id)
		objects, err := byID(ctx, s.reader, s.kind, id)
		if err != nil {
			log.FromContext(ctx).Error(err, "Looking for the objects of a row that is gone", "id", id)
		}
		if slices.ContainsFunc(objects, owned) || err != nil {
			s.pass.request(deletionsOnly)
		}
	}
	s.countTroubles()
}

func (s *rowSync) countTroubles() {
	s.metrics.rowErrors.WithLabelValues(s.kind.table()).Set(float64(s.book.len()))
}

// hint queues rows to be looked at now.
func (s *rowSync) hint(ids ...string) { s.queue.AddWithOpts(priorityqueue.AddOpts{}, ids...) }

// later queues rows to be looked at when there are no hints.
func (s *rowSync) later(ids ...string) {
	s.queue.AddWithOpts(priorityqueue.AddOpts{Priority: new(backlog)}, ids...)
}

// again queues a row after a wait that grows with each time.
func (s *rowSync) again(id string) {
	s.queue.AddWithOpts(priorityqueue.AddOpts{RateLimited: true, Priority: new(backlog)}, id)
}
