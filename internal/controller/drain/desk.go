package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/undecodable"
)

// DefaultPatience is cluster-autoscaler's, the most impatient of those who evict.
const DefaultPatience = 2 * time.Minute

// Options tune a drain.
type Options struct {
	// Patience is how long whoever drains a node waits for a pod; 2 minutes if zero. A move that cannot end within it
	// gives way to a restart from the state.
	Patience time.Duration
	// Proactive moves processors off a node that is cordoned, or tainted against them, before anybody evicts.
	Proactive bool
	// Workers is how many ProcessorMigrations are made at once; 8 if zero.
	Workers int
}

func (o Options) patience() time.Duration {
	if o.Patience <= 0 {
		return DefaultPatience
	}
	return o.Patience
}

// DeskConfig is what a Desk works with.
type DeskConfig struct {
	// Client reads from caches, and writes.
	Client   client.Client
	Clock    clock.PassiveClock
	Recorder events.EventRecorder
	Metrics  *Metrics
	// Versions know what runs; nil takes every pod for one of the present spec.
	Versions *Versions
	Options  Options
}

// Desk answers those who ask that a pod leaves its node. Its ProcessorMigrations are made once it is started.
type Desk struct {
	client    client.Client
	clock     clock.PassiveClock
	viewer    viewer
	events    narrator
	metrics   *Metrics
	orders    *orders
	options   Options
	letGo     once
	informers []cache.Informer
}

// NewDesk makes a Desk.
func NewDesk(c DeskConfig) *Desk {
	n := narrator{record.New(c.Recorder)}
	return &Desk{
		client: c.Client, clock: c.Clock, viewer: viewer{c.Client, c.Clock, c.Options, c.Versions}, events: n, metrics: c.Metrics,
		orders: newOrders(maker{c.Client, n}, c.Clock), options: c.Options,
	}
}

// SetupWithManager registers the caches and indexes that the Desk reads, and lets the manager start it on every replica.
func (d *Desk) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	if err := addIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	for _, object := range []client.Object{
		&corev1.Pod{}, &corev1.Node{}, &doryv1alpha1.Processor{}, &doryv1alpha1.ProcessorEpoch{}, &doryv1alpha1.ProcessorMigration{},
	} {
		informer, err := mgr.GetCache().GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("caching %T for the answers to evictions: %w", object, err)
		}
		d.informers = append(d.informers, informer)
	}
	d.metrics.moves.measure(d.countMoves)
	if err := mgr.Add(d); err != nil {
		return fmt.Errorf("adding the desk of drains: %w", err)
	}
	return nil
}

// errFilling says that nobody can be answered yet.
var errFilling = errors.New("the caches behind the answers to evictions are not filled yet")

// Ready says whether the caches that the Desk reads are filled. It does not block.
func (d *Desk) Ready() error {
	if len(d.informers) == 0 {
		return errFilling
	}
	for _, informer := range d.informers {
		if !informer.HasSynced() {
			return errFilling
		}
	}
	return nil
}

// NeedLeaderElection lets every replica make what it promised.
func (d *Desk) NeedLeaderElection() bool { return false }

// Start makes the ProcessorMigrations that were promised, until the context ends.
func (d *Desk) Start(ctx context.Context) error {
	workers := d.options.Workers
	if workers <= 0 {
		workers = defaultWorkers
	}
	d.orders.work(ctx, workers)
	return nil
}

// Ask answers from caches, but for what a pod of another version than the present spec was made from: that is read once. An error
// means that the answer is not known: ask again.
func (d *Desk) Ask(ctx context.Context, r Request) (Answer, error) {
	begun := d.clock.Now()
	v, err := d.viewer.ofName(ctx, r.Pod)
	if err != nil {
		d.metrics.answered(answerUnknown, d.clock.Since(begun))
		return Answer{}, fmt.Errorf("looking at pod %s, which is to leave its node: %w", r.Pod, err)
	}
	c := answer(r, v)
	if !r.DryRun {
		d.admit(&c)
		d.follow(ctx, r, v, c)
	}
	d.metrics.answered(c.Reason, d.clock.Since(begun))
	return c.Answer, nil
}

// admit says so where what is promised could not be done lately.
func (d *Desk) admit(c *conclusion) {
	if c.attempt == nil {
		return
	}
	if err := d.orders.trouble(client.ObjectKeyFromObject(c.attempt)); err != nil {
		c.Message += "; it could not be made so far, and is tried again: " + err.Error()
	}
}

// follow does what the answer promises.
func (d *Desk) follow(ctx context.Context, r Request, v *view, c conclusion) {
	if c.attempt != nil || c.displaces != nil {
		d.orders.add(v.order(c, r.By))
	}
	if c.Reason == ReasonRestartsFromCheckpoint && d.letGo.first(v.pod.UID) {
		d.events.letGo(v, c.Message)
		log.FromContext(ctx).Info("Letting a pod go that has not handed over", "namespace", v.pod.Namespace, "processor", v.processor.Name, "pod", v.pod.Name,
			"node", v.pod.Spec.NodeName, "epoch", epochOf(v.processor), "askedBy", r.By, "reason", c.Message)
	}
}

// once remembers which pods something was said of.
type once struct {
	mu   sync.Mutex
	said map[types.UID]bool
}

// onceLimit bounds that memory. What is forgotten is said once more.
const onceLimit = 1024

func (o *once) first(pod types.UID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.said[pod] {
		return false
	}
	if o.said == nil || len(o.said) >= onceLimit {
		o.said = map[types.UID]bool{}
	}
	o.said[pod] = true
	return true
}

func (v *view) order(c conclusion, by string) order {
	if by == "" {
		by = "somebody"
	}
	return order{attempt: c.attempt, displaces: c.displaces, processor: v.processor, node: v.pod.Spec.NodeName, by: by, message: c.Message, fallback: c.Reason == ReasonFallingBack}
}

// Withdraw takes a request back: a move that was made for it and is not committed is rolled back, unless the pod's node is
// being left anyway. Without such a move it does nothing.
func (d *Desk) Withdraw(ctx context.Context, r Request) error {
	v, err := d.viewer.ofName(ctx, r.Pod)
	if err != nil {
		return fmt.Errorf("looking at pod %s, which may stay: %w", r.Pod, err)
	}
	if v.pod == nil || v.processor == nil || v.aside != "" || (r.UID != "" && r.UID != v.pod.UID) || v.leave.yes() || r.DryRun {
		return nil
	}
	for _, m := range v.attempts() {
		if m.Ended() || settledFate(m) || v.committed(m) {
			continue
		}
		c := cancellation{migration: m, processor: v.processor, reason: EventWithdrawn, message: fmt.Sprintf("ProcessorMigration %s is called off: pod %s may stay", m.Name, v.pod.Name)}
		if err := callOff(ctx, d.client, c); err != nil {
			return err
		}
		d.events.calledOff(c)
	}
	return nil
}

// errOvertaken says that a move is not as it was when it was decided to call it off.
var errOvertaken = errors.New("it has changed since that was decided")

// callOff sets spec.cancel. What the migration does about it is its own affair: after the commit, nothing. It says which object it
// is about, as another may have the name by now; and what is displaced must not have changed: it may hand over by now, which this
// replica has not heard of yet.
func callOff(ctx context.Context, c client.Client, what cancellation) error {
	metadata := map[string]any{"uid": what.migration.UID}
	if what.misledTo != "" { // The next attempt goes by it.
		metadata["annotations"] = map[string]string{doryv1alpha1.AnnotationMisledTo: what.misledTo}
	}
	if what.supersededBy != "" { // Its status is to say so.
		metadata["annotations"] = map[string]string{doryv1alpha1.AnnotationSupersededBy: what.supersededBy}
		metadata["resourceVersion"] = what.migration.ResourceVersion
	}
	body, err := json.Marshal(map[string]any{"metadata": metadata, "spec": map[string]any{"cancel": true}})
	if err != nil {
		return fmt.Errorf("encoding the end of a move: %w", err)
	}
	patch := client.RawPatch(types.MergePatchType, body)
	m := &doryv1alpha1.ProcessorMigration{}
	m.Namespace, m.Name = what.migration.Namespace, what.migration.Name
	// gofail: var drainBeforeCallOff struct{}
	err = c.Patch(ctx, m, patch)
	// gofail: var drainAfterCallOff struct{}
	switch {
	case apierrors.IsConflict(err), apierrors.IsInvalid(err): // Invalid is another UID.
		return fmt.Errorf("calling off ProcessorMigration %s/%s: %w: %w", m.Namespace, m.Name, errOvertaken, err)
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("calling off ProcessorMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

// countMoves counts the moves of drains that are not over, by whether they have begun.
func (d *Desk) countMoves() (waiting, active int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) //nolint:forbidigo // a scrape has no context
	defer cancel()
	for _, state := range []struct {
		value string
		count *int
	}{{drainsWaiting, &waiting}, {drainsActive, &active}} {
		var list doryv1alpha1.ProcessorMigrationList
		if err := d.client.List(ctx, &list, client.MatchingFields{indexDrains: state.value}, client.UnsafeDisableDeepCopy, undecodable.Tolerate); err == nil {
			*state.count = len(list.Items)
		}
	}
	return waiting, active
}
