package dbsync

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// deletionGuard remembers what was deleted lately, and what people were told about.
type deletionGuard struct {
	clock  clock.PassiveClock
	window time.Duration

	mu      sync.Mutex
	deleted []time.Time
	told    map[types.UID]bool
	holding bool
}

func newDeletionGuard(c clock.PassiveClock, window time.Duration) *deletionGuard {
	return &deletionGuard{clock: c, window: window, told: map[types.UID]bool{}}
}

// recent counts the deletions of the last moments.
func (g *deletionGuard) recent() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	start := g.clock.Now().Add(-g.window)
	for len(g.deleted) > 0 && !g.deleted[0].After(start) {
		g.deleted = g.deleted[1:]
	}
	return len(g.deleted)
}

func (g *deletionGuard) count() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deleted = append(g.deleted, g.clock.Now())
}

// news says whether an object is held for the first time since it was last free.
func (g *deletionGuard) news(object client.Object) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := !g.told[object.GetUID()]
	g.told[object.GetUID()] = true
	return first
}

// begins says whether this is the first pass that holds anything since none was.
func (g *deletionGuard) begins() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := !g.holding
	g.holding = true
	return first
}

func (g *deletionGuard) isHolding() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.holding
}

// keepTold forgets the objects that are not held any more.
func (g *deletionGuard) keepTold(held []client.Object) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = g.holding && len(held) > 0
	told := make(map[types.UID]bool, len(held))
	for _, o := range held {
		told[o.GetUID()] = g.told[o.GetUID()]
	}
	g.told = told
}

// sweep deletes the objects whose rows are gone, as far as the guard lets it.
func (s *rowSync) sweep(ctx context.Context, found listing, inv *inventory, what scope) error {
	orphans, total := inv.orphans(found.wanted)
	approved, rest := splitApproved(s.notYetDeleted(orphans))
	// What a person has approved counts neither way: it must not make room for the deletion of others.
	action, why, err := s.judge(ctx, found, len(rest), total-len(approved))
	if err != nil {
		return err
	}
	var held []client.Object
	switch action {
	case Delete:
	case Wait:
		log.FromContext(ctx).V(1).Info("Deletions wait", "kind", s.kind.name(), "count", len(rest), "reason", why)
		s.pass.in(ctx, s.guard.window, deletionsOnly)
		rest = nil
	case Hold:
		held, rest = rest, nil
	}
	s.metrics.deletionsHeld.WithLabelValues(s.kind.table()).Set(float64(len(held)))
	s.guard.keepTold(held)
	s.hold(ctx, held, why, what)
	return s.remove(ctx, inv, approved, rest)
}

// notYetDeleted leaves out what we have deleted and the cache still shows.
func (s *rowSync) notYetDeleted(orphans []client.Object) []client.Object {
	var left []client.Object
	for _, o := range orphans {
		if s.view.latest(client.ObjectKeyFromObject(o), o) != nil {
			left = append(left, o)
		}
	}
	return left
}

// judge asks the guard. Whether the table has any rows is asked of the database only where it matters.
func (s *rowSync) judge(ctx context.Context, found listing, orphans, total int) (Action, string, error) {
	census := Census{Owned: total, Orphans: orphans, Recent: s.guard.recent(), Share: s.options.DeletionShare}
	if orphans > 0 && found.owning == 0 {
		empty, err := s.kind.empty(ctx)
		s.health.report(ctx, err)
		if err != nil {
			return Hold, "", fmt.Errorf("counting the rows of %s: %w", s.kind.table(), err)
		}
		census.TableEmpty = empty
	}
	action, why := Judge(census)
	return action, why, nil
}

// remove deletes objects after a last look at the database: the row of one may have come since the table was read.
func (s *rowSync) remove(ctx context.Context, inv *inventory, approved, rest []client.Object) error {
	all := append(append([]client.Object(nil), approved...), rest...)
	if len(all) == 0 {
		s.refusals.reset()
		return nil
	}
	ids := make([]string, len(all))
	for i, o := range all {
		ids[i] = s.kind.idOf(o)
	}
	found, err := s.kind.get(ctx, ids)
	s.health.report(ctx, err)
	if err != nil {
		return err
	}
	var failed atomic.Bool
	workqueue.ParallelizeUntil(ctx, workers, len(all), func(i int) {
		if !inv.orphaned(client.ObjectKeyFromObject(all[i]), ids[i], found.wanted) {
			return
		}
		if err := s.removeOne(ctx, all[i], i < len(approved)); err != nil {
			failed.Store(true)
		}
	})
	if !failed.Load() {
		s.refusals.reset()
		return nil
	}
	s.pass.in(ctx, s.refusals.next(), deletionsOnly)
	return nil
}

// removeOne deletes one object. Its error has been told.
func (s *rowSync) removeOne(ctx context.Context, object client.Object, approved bool) error {
	key := client.ObjectKeyFromObject(object)
	there, err := s.writer.remove(ctx, object)
	switch {
	case apierrors.IsConflict(err):
		s.pass.request(deletionsOnly) // Changed since the cache saw it; the next pass sees how.
		return nil
	case err != nil:
		s.metrics.failed(err)
		log.FromContext(ctx).Error(err, "Deleting an object whose row is gone failed; trying again", "object", describe(key))
		return err
	case !there:
		return nil
	}
	if len(object.GetFinalizers()) == 0 {
		s.view.removed(object)
	}
	if !approved {
		s.guard.count()
	}
	s.metrics.configChanges.WithLabelValues(changeDeleted).Inc()
	s.events.rowGone(object, s.kind.table(), approved)
	log.FromContext(ctx).Info("Deleted an object whose row is gone", "object", describe(key), "id", s.kind.idOf(object), "approved", approved)
	return nil
}

// hold tells people why objects stay whose rows are gone.
func (s *rowSync) hold(ctx context.Context, held []client.Object, why string, what scope) {
	if len(held) == 0 {
		return
	}
	message := heldMessage(s.kind, why)
	workqueue.ParallelizeUntil(ctx, workers, len(held), func(i int) {
		err := s.holdOne(ctx, held[i], message, what)
		switch {
		case err == nil || apierrors.IsNotFound(err):
		case apierrors.IsConflict(err):
			s.pass.request(deletionsOnly) // Changed since the cache saw it; the next pass sees how.
		default:
			s.metrics.failed(err)
			log.FromContext(ctx).Error(err, "Marking an object as held failed", "object", describe(client.ObjectKeyFromObject(held[i])))
		}
	})
	if s.guard.begins() {
		log.FromContext(ctx).Info("Deletions are held", "kind", s.kind.name(), "count", len(held), "reason", why)
	}
}

// holdOne says on an object that it is held. Where it says so already, it is left alone while more rows vanish:
// the numbers are brought up to date by the pass that runs on a timer.
func (s *rowSync) holdOne(ctx context.Context, object client.Object, message string, what scope) error {
	news := s.guard.news(object)
	p, ok := object.(*doryv1alpha1.Processor)
	if !ok {
		if news {
			s.events.deletionHeld(object, message)
		}
		return nil
	}
	if latest, ok := s.view.latest(client.ObjectKeyFromObject(p), p).(*doryv1alpha1.Processor); ok {
		p = latest
	}
	reason, said := foundCondition(p)
	isHeld := reason == doryv1alpha1.ReasonDeletionHeld
	if isHeld && (said == message || what < everything) {
		return nil
	}
	changed, err := s.writer.setCondition(ctx, p, &metav1.Condition{
		Type: doryv1alpha1.ConditionDatabaseSynced, Status: metav1.ConditionFalse,
		Reason: doryv1alpha1.ReasonDeletionHeld, Message: message,
	})
	if err != nil {
		return err
	}
	s.view.wrote(changed)
	if !isHeld {
		s.events.deletionHeld(changed, message)
	}
	return nil
}

// heldMessage says what is held, and what a person can do about it.
func heldMessage(k kind, why string) string {
	return fmt.Sprintf("Not deleted, although its row in %s is gone or ended: %s. If the rows were lost, restore them; if they are to go, "+
		"delete the objects with kubectl, or annotate them with %s=true", k.table(), why, doryv1alpha1.AnnotationDeletionApproved)
}
