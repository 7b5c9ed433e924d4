package dbsync

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/undecodable"
)

// statusWriter writes what Processors are like back into their rows: what changed within a short while goes in
// one statement. What was written last is remembered, so that nothing is written that the row says already.
type statusWriter struct {
	store   Store
	reader  client.Reader
	clock   clock.Clock
	metrics *metrics
	health  *health
	options Options
	// hasRow says whether a Processor of people has its row; without one, the row of that id is another's.
	hasRow func(*doryv1alpha1.Processor) bool

	mu    sync.Mutex
	dirty map[string]bool
	wake  chan struct{}
	full  chan struct{}

	// last is what was written, by id. Only the writing goroutine uses it.
	last map[string]store.ProcessorStatus
}

// mark queues an id to be looked at. Marked again, also what was written last is doubted if refresh is set.
func (w *statusWriter) mark(id string, refresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty[id] = w.dirty[id] || refresh
	signal(w.wake)
	if len(w.dirty) >= w.options.StatusBatch {
		signal(w.full)
	}
}

// refresh queues an id whose row does not know what was written, because it is new.
func (w *statusWriter) refresh(id string) { w.mark(id, true) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes batches until ctx ends.
func (w *statusWriter) run(ctx context.Context) {
	failures := newRetry()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		w.gather(ctx)
		err := w.flush(ctx)
		w.health.report(ctx, err)
		if err == nil {
			failures.reset()
			continue
		}
		select {
		case <-ctx.Done():
		case <-w.clock.After(failures.next()):
		}
	}
}

// gather lets changes come together for a while.
func (w *statusWriter) gather(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-w.full:
	case <-w.clock.After(w.options.StatusInterval):
	}
}

// flush writes all that is dirty. What could not be written stays dirty.
func (w *statusWriter) flush(ctx context.Context) error {
	dirty := w.take()
	var batch []store.ProcessorStatus
	for id, refresh := range dirty {
		status, known, err := w.observe(ctx, id)
		if err != nil {
			w.putBack(dirty)
			return err
		}
		if known && (refresh || w.last[id] != status) {
			batch = append(batch, status)
		}
	}
	for len(batch) > 0 {
		part := batch[:min(len(batch), w.options.StatusBatch)]
		if err := w.write(ctx, part); err != nil {
			w.putBack(dirty)
			return err
		}
		batch = batch[len(part):]
	}
	return nil
}

// write writes one batch. If the database does not take it for its content, each status is tried alone.
func (w *statusWriter) write(ctx context.Context, batch []store.ProcessorStatus) error {
	now := w.clock.Now()
	err := inOneOrAlone(batch, func(statuses []store.ProcessorStatus) error {
		stamped := make([]store.ProcessorStatus, len(statuses))
		for i := range statuses {
			stamped[i] = statuses[i]
			stamped[i].CheckedAt = now
		}
		changed, err := w.store.UpdateStatuses(ctx, stamped)
		w.metrics.statusWrites.Add(float64(changed))
		return err
	}, func(status store.ProcessorStatus, err error) {
		w.metrics.failed(err)
		log.FromContext(ctx).Error(err, "The database does not take a status; it is dropped until it changes", "id", status.ID)
	})
	if err != nil {
		return fmt.Errorf("writing %d statuses back: %w", len(batch), err)
	}
	for _, status := range batch {
		w.last[status.ID] = status
		if status.K8sName == "" {
			delete(w.last, status.ID)
		}
	}
	return nil
}

func (w *statusWriter) take() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	dirty := w.dirty
	w.dirty = map[string]bool{}
	select {
	case <-w.full:
	default:
	}
	w.metrics.statusPending.Set(0)
	return dirty
}

// putBack makes ids dirty again, next to those that became so meanwhile.
func (w *statusWriter) putBack(ids map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, refresh := range ids {
		w.dirty[id] = w.dirty[id] || refresh
	}
	w.metrics.statusPending.Set(float64(len(w.dirty)))
	signal(w.wake)
}

// observe reads what an id's row is to say. known is false where the row, if any, is not the Processor's.
func (w *statusWriter) observe(ctx context.Context, id string) (status store.ProcessorStatus, known bool, err error) {
	var list doryv1alpha1.ProcessorList
	if err := w.reader.List(ctx, &list, client.MatchingFields{indexID: id}, client.UnsafeDisableDeepCopy, undecodable.Tolerate); err != nil {
		return status, false, fmt.Errorf("listing the Processors with id %q from the cache: %w", id, err)
	}
	var speaker *doryv1alpha1.Processor
	for i := range list.Items {
		p := &list.Items[i]
		if _, aside := undecodable.Of(p); aside && w.speaks(p) {
			return status, false, nil // The row keeps what it was told last.
		}
		if w.speaks(p) && (speaker == nil || speaksBefore(p, speaker)) {
			speaker = p
		}
	}
	switch {
	case speaker != nil:
		return StatusOf(speaker), true, nil
	case len(list.Items) > 0:
		return status, false, nil
	}
	return goneStatus(id), true, nil
}

// speaks says whether the row of the Processor's id is the Processor's.
func (w *statusWriter) speaks(p *doryv1alpha1.Processor) bool { return owned(p) || w.hasRow(p) }

// speaksBefore chooses between two Processors of one id, of which one is about to replace the other: the one that
// stays, or else the newer one.
func speaksBefore(p, other *doryv1alpha1.Processor) bool {
	if leaving := p.DeletionTimestamp != nil; leaving != (other.DeletionTimestamp != nil) {
		return !leaving
	}
	return other.CreationTimestamp.Before(&p.CreationTimestamp)
}
