package drain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// order is a ProcessorMigration that is to be made.
type order struct {
	// attempt is nil where it waits already for the move that it displaces.
	attempt *doryv1alpha1.ProcessorMigration
	// displaces is the move that gives way to it.
	displaces *cancellation
	processor *doryv1alpha1.Processor
	node      string
	by        string
	message   string
	fallback  bool
}

const (
	defaultWorkers = 8
	// maxTries is how often an order is tried. Whoever asked asks again, and orders anew.
	maxTries   = 6
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	// makeTimeout bounds one try.
	makeTimeout = 10 * time.Second
)

// maker makes ProcessorMigrations.
type maker struct {
	client client.Client
	events narrator
}

// orders are made one by one by a few workers, each name once.
type orders struct {
	maker maker
	clock clock.PassiveClock
	queue workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu   sync.Mutex
	open map[types.NamespacedName]order
	// refused are those that could not be made lately, and why.
	refused map[types.NamespacedName]refusal
}

// refusal is why a ProcessorMigration could not be made.
type refusal struct {
	err error
	at  time.Time
}

// refusalMemory is how long that is told to those who ask.
const refusalMemory = time.Minute

func newOrders(m maker, clk clock.PassiveClock) *orders {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](firstRetry, lastRetry)
	return &orders{
		maker: m, clock: clk, open: map[types.NamespacedName]order{}, refused: map[types.NamespacedName]refusal{},
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{Name: "drain-desk"}),
	}
}

// add takes an order. One that is open already stays as it is.
func (q *orders) add(o order) {
	named := o.attempt
	if named == nil {
		named = o.displaces.migration
	}
	key := client.ObjectKeyFromObject(named)
	q.mu.Lock()
	if _, is := q.open[key]; !is {
		q.open[key] = o
	}
	q.mu.Unlock()
	q.queue.Add(key)
}

// work makes what is ordered, until the context ends.
func (q *orders) work(ctx context.Context, workers int) {
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for q.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	q.queue.ShutDown()
	group.Wait()
}

func (q *orders) next(ctx context.Context) bool {
	key, down := q.queue.Get()
	if down {
		return false
	}
	defer q.queue.Done(key)
	q.mu.Lock()
	o, open := q.open[key]
	q.mu.Unlock()
	if !open {
		q.queue.Forget(key)
		return true
	}
	err := q.maker.make(ctx, o)
	if errors.Is(err, errOvertaken) {
		log.FromContext(ctx).V(1).Info("leaving a move alone until it is asked for again", "cause", err.Error())
		err = nil // Whoever waits asks again, and is answered by what is so then.
	}
	q.remember(key, err)
	if err != nil && q.queue.NumRequeues(key) < maxTries && ctx.Err() == nil {
		log.FromContext(ctx).V(1).Info("trying again to make a ProcessorMigration", "cause", err.Error())
		q.queue.AddRateLimited(key)
		return true
	}
	switch {
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err): // A quota or a policy: no fault of the operator's.
		log.FromContext(ctx).Info("A ProcessorMigration for a drain is refused, until it is asked for again", "namespace", key.Namespace, "migration", key.Name, "cause", err.Error())
	case err != nil:
		log.FromContext(ctx).Error(err, "giving up to make a ProcessorMigration, until it is asked for again", "migration", key)
	}
	q.mu.Lock()
	delete(q.open, key)
	q.mu.Unlock()
	q.queue.Forget(key)
	return true
}

// remember keeps the last error, and forgets those that nobody asks about any more.
func (q *orders) remember(key types.NamespacedName, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	maps.DeleteFunc(q.refused, func(_ types.NamespacedName, r refusal) bool { return now.Sub(r.at) > refusalMemory })
	delete(q.refused, key)
	if err != nil {
		q.refused[key] = refusal{err, now}
	}
}

// trouble is why the ProcessorMigration could not be made lately; nil if nothing is known to be wrong.
func (q *orders) trouble(key types.NamespacedName) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.refused[key]; q.clock.Since(r.at) <= refusalMemory {
		return r.err
	}
	return nil
}

// make creates the migration, and then calls off the one that has to give way: in this order, so that no other comes
// between.
func (k maker) make(ctx context.Context, o order) error {
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	if o.attempt != nil {
		if err := k.create(ctx, o); err != nil {
			return err
		}
	}
	if o.displaces == nil {
		return nil
	}
	if err := callOff(ctx, k.client, *o.displaces); err != nil {
		return err
	}
	k.events.calledOff(*o.displaces)
	return nil
}

// create makes the migration. That it is there already is as good: its name says what it is for.
func (k maker) create(ctx context.Context, o order) error {
	made := o.attempt.DeepCopy()
	// gofail: var drainBeforeMake struct{}
	err := k.client.Create(ctx, made)
	// gofail: var drainAfterMake struct{}
	switch {
	case apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err): // Not found is a namespace that is gone.
		return nil
	case err != nil:
		if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) { // A quota or a policy: what a person has to mend.
			k.events.refused(o, err)
		}
		return fmt.Errorf("creating ProcessorMigration %s/%s: %w", o.attempt.Namespace, o.attempt.Name, err)
	}
	o.attempt = made
	k.events.requested(o)
	log.FromContext(ctx).Info("Moving a processor off a node", "namespace", made.Namespace, "processor", o.processor.Name, "migration", made.Name,
		"pod", made.Spec.SourcePod, "node", o.node, "epoch", epochOf(o.processor), "strategy", made.Spec.Strategy, "askedBy", o.by, "reason", o.message)
	return nil
}

func epochOf(p *doryv1alpha1.Processor) int64 {
	if p.Status.Instance == nil {
		return 0
	}
	return p.Status.Instance.Epoch
}
