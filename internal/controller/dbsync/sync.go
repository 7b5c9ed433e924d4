package dbsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/store"
)

// Defaults of Options.
const (
	// DefaultResync is how often everything is compared, whatever was told.
	DefaultResync = 30 * time.Second
	// DefaultDeletionWindow is for how long a deletion counts towards the share that may go at once.
	DefaultDeletionWindow = 10 * time.Second
	// DefaultStatusInterval is for how long statuses are gathered before they are written.
	DefaultStatusInterval = 250 * time.Millisecond
	// DefaultStatusBatch is how many statuses are written by one statement.
	DefaultStatusBatch = 500
)

// Options tune the sync. Zero values mean the defaults.
type Options struct {
	// Resync is the time between two full comparisons. It bounds for how long a lost hint goes unnoticed.
	Resync time.Duration
	// DeletionShare is the share of all objects, above 0 and up to 1, that may lose their rows at once and be
	// deleted without a person's word. One object may always go.
	DeletionShare float64
	// DeletionWindow is for how long a deletion counts towards that share.
	DeletionWindow time.Duration
	// StatusInterval is for how long statuses are gathered before they are written back.
	StatusInterval time.Duration
	// StatusBatch is how many statuses are written back by one statement, and how many dirty ones end the
	// gathering early.
	StatusBatch int
	// Clock is for tests.
	Clock clock.Clock
}

func (o Options) withDefaults() Options {
	o.Resync = cmp.Or(o.Resync, DefaultResync)
	o.DeletionShare = cmp.Or(o.DeletionShare, DefaultDeletionShare)
	o.DeletionWindow = cmp.Or(o.DeletionWindow, DefaultDeletionWindow)
	o.StatusInterval = cmp.Or(o.StatusInterval, DefaultStatusInterval)
	o.StatusBatch = cmp.Or(o.StatusBatch, DefaultStatusBatch)
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return o
}

func (o Options) check() error {
	switch {
	case o.Resync < 0 || o.DeletionWindow < 0 || o.StatusInterval < 0 || o.StatusBatch < 0:
		return fmt.Errorf("options of db-sync: a negative value in %+v", o)
	case o.DeletionShare < 0 || o.DeletionShare > 1:
		return fmt.Errorf("options of db-sync: the deletion share is %g, expected a number above 0 and up to 1, such as 0.2", o.DeletionShare)
	}
	return nil
}

// Config is what the sync works with.
type Config struct {
	// Client reads from the informer cache and writes to the API server.
	Client client.Client
	// Store is the database.
	Store Store
	// Prepare makes the database fit to be read, such as by bringing its schema up to date. It is tried until it
	// succeeds, and nothing else is asked of the database before. Nil for nothing to do.
	Prepare func(context.Context) error
	// Recorder takes the events.
	Recorder events.EventRecorder
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
	// Options tune the sync.
	Options Options
}

// Syncer keeps the database and Kubernetes in step. It runs on the leader only.
type Syncer struct {
	store     Store
	prepare   func(context.Context) error
	health    *health
	options   Options
	informers cache.Informers

	processors *rowSync
	edgeNodes  *rowSync
	registrar  *registrar
	registered *passes
	statuses   *statusWriter
}

// +kubebuilder:rbac:groups=dory.io,resources=processors,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=dory.io,resources=processors/status,verbs=get;update;patch
// +kubebuilder:rbac:groups=dory.io,resources=edgenodes,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch

// New makes a Syncer. SetupWithManager sets it to work.
func New(c Config) (*Syncer, error) {
	c.Options = c.Options.withDefaults()
	if err := c.Options.check(); err != nil {
		return nil, err
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	parts := shared{
		reader: c.Client, writer: writer{client: c.Client, clock: c.Options.Clock}, events: narrator{record.New(c.Recorder)},
		metrics: m, health: &health{metrics: m}, options: c.Options,
	}
	s := &Syncer{store: c.Store, prepare: c.Prepare, health: parts.health, options: c.Options, registered: newPasses(c.Options.Clock, c.Options.Resync)}
	s.processors = parts.rowSync(processors{store: c.Store, reader: c.Client})
	s.edgeNodes = parts.rowSync(edgeNodes{store: c.Store})
	s.registrar = parts.registrar(c.Store, s.processors.view)
	s.statuses = parts.statusWriter(c.Store)
	s.processors.unlisted = s.statuses.refresh
	s.registrar.listed = s.statuses.refresh
	s.statuses.hasRow = s.registrar.has
	return s, nil
}

// shared is what all parts of the sync have in common.
type shared struct {
	reader  client.Reader
	writer  writer
	events  narrator
	metrics *metrics
	health  *health
	options Options
}

func (c shared) rowSync(k kind) *rowSync {
	now := c.options.Clock
	return &rowSync{
		kind: k, reader: c.reader, view: newView(c.reader, k.newObject, now), writer: c.writer, events: c.events,
		metrics: c.metrics, health: c.health, options: c.options, queue: newQueue[string]("db-sync-" + k.table()),
		claims: newClaims(), book: newBook(), pass: newPasses(now, c.options.Resync), guard: newDeletionGuard(now, c.options.DeletionWindow),
		outage: newRetry(), refusals: newRetryBetween(firstRowRetry, lastRowRetry),
	}
}

func (c shared) registrar(s Store, v *view) *registrar {
	return &registrar{
		store: s, reader: c.reader, view: v, writer: c.writer, events: c.events, metrics: c.metrics, health: c.health,
		queue: newQueue[entry]("db-sync-registrar"), outage: newRetry(),
		rows: map[types.NamespacedName]string{}, conflicts: map[types.NamespacedName]string{},
	}
}

func (c shared) statusWriter(s Store) *statusWriter {
	return &statusWriter{
		store: s, reader: c.reader, clock: c.options.Clock, metrics: c.metrics, health: c.health, options: c.options,
		dirty: map[string]bool{}, wake: make(chan struct{}, 1), full: make(chan struct{}, 1),
		last: map[string]store.ProcessorStatus{},
	}
}

func newQueue[T comparable](name string) priorityqueue.PriorityQueue[T] {
	return priorityqueue.New(name, func(o *priorityqueue.Opts[T]) {
		o.RateLimiter = workqueue.NewTypedItemExponentialFailureRateLimiter[T](firstRowRetry, lastRowRetry)
	})
}

// SetupWithManager registers the sync and its indexes with a manager that has not started.
func (s *Syncer) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	for _, k := range []kind{s.processors.kind, s.edgeNodes.kind} {
		err := mgr.GetFieldIndexer().IndexField(ctx, k.newObject(), indexID, func(o client.Object) []string { return []string{k.idOf(o)} })
		if err != nil {
			return fmt.Errorf("adding the index %s of %s: %w", indexID, k.name(), err)
		}
	}
	// The informers are made now, so that a standby has its cache filled when it becomes the leader.
	for _, o := range []client.Object{&doryv1alpha1.Processor{}, &doryv1alpha1.EdgeNode{}, newNamespace()} {
		if _, err := mgr.GetCache().GetInformer(ctx, o, cache.BlockUntilSynced(false)); err != nil {
			return fmt.Errorf("watching %T: %w", o, err)
		}
	}
	s.informers = mgr.GetCache()
	if err := mgr.Add(s); err != nil {
		return fmt.Errorf("adding db-sync to the manager: %w", err)
	}
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (s *Syncer) NeedLeaderElection() bool { return true }

// Start runs the sync until ctx ends. A Syncer runs once.
func (s *Syncer) Start(ctx context.Context) error {
	ctx = log.IntoContext(ctx, log.FromContext(ctx).WithName("db-sync"))
	if s.informers == nil {
		return errors.New("db-sync was not set up: call SetupWithManager first")
	}
	if !s.prepared(ctx) {
		return nil // We were told to stop.
	}
	unwatch, err := s.watch(ctx, s.informers)
	if err != nil {
		return err
	}
	defer unwatch()
	s.runAll(ctx,
		s.processors.work, s.edgeNodes.work, s.registrar.work, s.statuses.run,
		func(ctx context.Context) { s.processors.pass.run(ctx, s.processors.runPass) },
		func(ctx context.Context) { s.edgeNodes.pass.run(ctx, s.edgeNodes.runPass) },
		func(ctx context.Context) { s.registered.run(ctx, s.registrar.runPass) },
		s.listen, s.shutDownQueues,
	)
	return nil
}

// runAll runs functions at once and returns when all have.
func (s *Syncer) runAll(ctx context.Context, functions ...func(context.Context)) {
	var running sync.WaitGroup
	for _, f := range functions {
		running.Go(func() { f(ctx) })
	}
	running.Wait()
}

func (s *Syncer) shutDownQueues(ctx context.Context) {
	<-ctx.Done()
	s.processors.queue.ShutDown()
	s.edgeNodes.queue.ShutDown()
	s.registrar.queue.ShutDown()
}

// listen takes the database's hints. Listen itself reconnects; an error of it is about its use, and leaves the
// sync with its timer.
func (s *Syncer) listen(ctx context.Context) {
	if err := s.store.Listen(ctx, s.deliver); err != nil && ctx.Err() == nil {
		log.FromContext(ctx).Error(err, "Not listening for changes of the database; they wait for the next full comparison", "resync", s.options.Resync.String())
	}
}

func (s *Syncer) deliver(change store.Change) {
	s.processors.hint(change.Processors...)
	s.edgeNodes.hint(change.EdgeNodes...)
	if change.Resync {
		s.processors.pass.request(contents)
		s.edgeNodes.pass.request(contents)
	}
}
