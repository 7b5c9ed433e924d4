package drain

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/undecodable"
)

const (
	// DefaultPerNode is how many moves off one node may be under way where no limit is set. It was measured with make
	// bench-drain: 10 at once took no less time, and each processor stood still for twice as long; 4 took a little longer.
	DefaultPerNode = 6
	// DefaultTotal is how many moves of all drains may be.
	DefaultTotal = 40

	// grantPatience is how long a move may take to begin once it may. What takes longer has met another obstacle.
	grantPatience = 10 * time.Second
	// waitPatience is after how long whoever has not asked again is taken for gone. Waiting moves ask every 5 s.
	waitPatience = 20 * time.Second
	// wakeBuffer is how many moves can be woken before the migration controller has taken the first. Whoever does not fit in
	// asks by itself.
	wakeBuffer = 256
)

// Turns lets the moves of drains begin in order, and no more of them at once than its limits say. It is the leader's: a
// replica that takes over counts anew what is under way.
type Turns struct {
	reader client.Reader
	clock  clock.PassiveClock
	limits Limits
	wake   chan event.GenericEvent

	mu sync.Mutex
	// waiting have asked in vain; granted may begin, and are not seen to have begun.
	waiting map[types.UID]*asker
	granted map[types.UID]*asker
}

// asker is a migration that asked for its turn.
type asker struct {
	Mover
	uid types.UID
	// at is when it asked last, or when its turn came.
	at time.Time
}

// NewTurns makes Turns.
func NewTurns(reader client.Reader, clk clock.PassiveClock, limits Limits) *Turns {
	if limits.PerNode <= 0 {
		limits.PerNode = DefaultPerNode
	}
	if limits.Total <= 0 {
		limits.Total = DefaultTotal
	}
	return &Turns{
		reader: reader, clock: clk, limits: limits, wake: make(chan event.GenericEvent, wakeBuffer),
		waiting: map[types.UID]*asker{}, granted: map[types.UID]*asker{},
	}
}

// Turn says what a migration that could begin has to wait for; nothing lets it begin. It is for migration.Config.
func (t *Turns) Turn(ctx context.Context, m *doryv1alpha1.ProcessorMigration) (waitsFor string, err error) {
	if m.Spec.Reason != doryv1alpha1.MigrationDrain {
		return "", nil
	}
	mover, err := t.mover(ctx, m)
	if err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	active, err := t.active(ctx)
	if err != nil {
		return "", err
	}
	now := t.clock.Now()
	if granted := t.granted[m.UID]; granted != nil {
		granted.at = now
		return "", nil
	}
	t.waiting[m.UID] = &asker{mover, m.UID, now}
	if waitsFor := t.limits.full(active, mover.Node); waitsFor != "" {
		return waitsFor, nil
	}
	for _, next := range NextTurns(t.queue(now), active, t.limits) {
		if next.Key == mover.Key {
			delete(t.waiting, m.UID)
			t.granted[m.UID] = &asker{mover, m.UID, now}
			return "", nil
		}
	}
	return "the moves of other processors go first", nil
}

// full says so where no move off the node can begin, in words that seldom change.
func (l Limits) full(active []Mover, node string) string {
	fromNode := 0
	for _, m := range active {
		if m.Node == node {
			fromNode++
		}
	}
	switch {
	case len(active) >= l.Total:
		return fmt.Sprintf("%d processors are being moved by drains, as many as --drain-parallel allows", l.Total)
	case fromNode >= l.PerNode:
		return fmt.Sprintf("%d processors are being moved off node %s, as many as --drain-parallel-per-node allows", l.PerNode, node)
	}
	return ""
}

// Wake tells the migration controller of migrations whose turn has come. It is for migration.Config.
func (t *Turns) Wake() <-chan event.GenericEvent { return t.wake }

// ended wakes those whose turn comes because a move takes none any more.
func (t *Turns) ended(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		return
	}
	active, err := t.active(ctx)
	if err != nil {
		log.FromContext(ctx).Error(err, "counting the moves of drains; those that wait ask by themselves")
		return
	}
	for _, next := range NextTurns(t.queue(t.clock.Now()), active, t.limits) {
		m := &doryv1alpha1.ProcessorMigration{ObjectMeta: metav1.ObjectMeta{Namespace: next.Key.Namespace, Name: next.Key.Name}}
		m.Spec.Processor = next.processor
		select {
		case t.wake <- event.GenericEvent{Object: m}:
		default:
		}
	}
}

// queue are those that still wait.
func (t *Turns) queue(now time.Time) []Mover {
	var found []Mover
	for uid, a := range t.waiting {
		if now.Sub(a.at) > waitPatience {
			delete(t.waiting, uid)
			continue
		}
		found = append(found, a.Mover)
	}
	return found
}

// active are the moves under way, and those that may begin and are not seen to have done so.
func (t *Turns) active(ctx context.Context) ([]Mover, error) {
	var list doryv1alpha1.ProcessorMigrationList
	if err := t.reader.List(ctx, &list, client.MatchingFields{indexDrains: drainsActive}, client.UnsafeDisableDeepCopy, undecodable.Tolerate); err != nil {
		return nil, fmt.Errorf("listing the moves of drains: %w", err)
	}
	var found []Mover
	for i := range list.Items {
		m := &list.Items[i]
		delete(t.granted, m.UID)
		delete(t.waiting, m.UID)
		if _, aside := undecodable.Of(m); aside {
			continue // It does not go on, and must not take the turns of others.
		}
		idle, err := t.findsNoNode(ctx, m)
		if err != nil {
			return nil, err
		}
		if idle || handedOver(m) {
			continue
		}
		found = append(found, Mover{Key: client.ObjectKeyFromObject(m), Node: m.Status.SourceNode})
	}
	for uid, a := range t.granted {
		m, err := lookup.Get[doryv1alpha1.ProcessorMigration](ctx, t.reader, a.Key)
		if undecodable.Is(err) {
			delete(t.granted, uid)
			continue
		}
		if err != nil {
			return nil, err
		}
		if m == nil || m.UID != uid || m.Ended() || t.clock.Since(a.at) > grantPatience {
			delete(t.granted, uid)
			continue
		}
		found = append(found, a.Mover)
	}
	return found, nil
}

// handedOver says of a move that all it waits for is the end of the source: the next one may begin meanwhile.
func handedOver(m *doryv1alpha1.ProcessorMigration) bool {
	return m.Status.Phase == doryv1alpha1.MigrationRetiring
}

// findsNoNode says of a move that it takes no turn away from others: the scheduler has found no node for its target, or the API
// server does not take it, and all it does is wait.
func (t *Turns) findsNoNode(ctx context.Context, m *doryv1alpha1.ProcessorMigration) (bool, error) {
	if m.Status.Phase != doryv1alpha1.MigrationPlacing || m.Status.TargetPod == "" {
		return false, nil
	}
	if refused(m) {
		return true, nil
	}
	target, err := lookup.Get[corev1.Pod](ctx, t.reader, types.NamespacedName{Namespace: m.Namespace, Name: m.Status.TargetPod})
	_, yes := unplaced(target)
	return yes, err
}

// mover describes whom a migration moves, as far as the caches know.
func (t *Turns) mover(ctx context.Context, m *doryv1alpha1.ProcessorMigration) (Mover, error) {
	found := Mover{Key: client.ObjectKeyFromObject(m), Since: drainSince(m), processor: m.Spec.Processor}
	p, err := lookup.Get[doryv1alpha1.Processor](ctx, t.reader, types.NamespacedName{Namespace: m.Namespace, Name: m.Spec.Processor})
	if err != nil || p == nil {
		return found, err
	}
	if p.Status.Checkpoint != nil {
		found.StateBytes = p.Status.Checkpoint.SizeBytes
	}
	source := m.Spec.SourcePod
	if instance := p.Status.Instance; instance != nil {
		found.Node = instance.Node
		if source == "" {
			source = instance.Pod
		}
	}
	instance, err := lookup.Get[corev1.Pod](ctx, t.reader, types.NamespacedName{Namespace: m.Namespace, Name: source})
	if err != nil || instance == nil {
		return found, err
	}
	found.Node = instance.Spec.NodeName
	if instance.Spec.Priority != nil {
		found.Priority = *instance.Spec.Priority
	}
	return found, nil
}
