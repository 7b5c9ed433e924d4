package placement

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// defaultConcurrency is how many bindings and reports are under way at once.
	defaultConcurrency = 64
	// defaultBufferPatience is how long a pod waits for a node to be provisioned before it may have what is kept free.
	// Autoscalers know of no buffer: they see room for the pod and provision nothing.
	defaultBufferPatience = 30 * time.Second
)

// Options are settings of the placement.
type Options struct {
	// SchedulerName is the spec.schedulerName of the pods that are placed here.
	SchedulerName string
	// BufferPercent of every node's CPU and memory is kept free.
	BufferPercent int32
	// BufferPatience is how long a pod that only the buffer would fit waits before it gets it; 30 s if zero.
	BufferPatience time.Duration
	// Concurrency is how many bindings are under way at once; 64 if zero.
	Concurrency int
	// Movable says which pods can be moved without being killed. Nil: none.
	Movable func(*corev1.Pod) bool
}

// Config is what the placement works with.
type Config struct {
	// API is the API server whose nodes and pods are watched.
	API *rest.Config
	// Client writes bindings and conditions. It reads nothing.
	Client   client.Client
	Clock    clock.WithTicker
	Recorder events.EventRecorder
	Metrics  *Metrics
	Options  Options
}

// Placer places pods. It is run by the manager, on the leader only.
type Placer struct {
	config Config
}

// New makes a Placer.
func New(c Config) *Placer {
	if c.Options.BufferPatience <= 0 {
		c.Options.BufferPatience = defaultBufferPatience
	}
	if c.Options.Concurrency <= 0 {
		c.Options.Concurrency = defaultConcurrency
	}
	if c.Options.Movable == nil {
		c.Options.Movable = func(*corev1.Pod) bool { return false }
	}
	return &Placer{config: c}
}

// +kubebuilder:rbac:groups="",resources=pods;nodes;namespaces;persistentvolumes;persistentvolumeclaims,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=pods/binding,verbs=create
// +kubebuilder:rbac:groups="",resources=pods/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// SetupWithManager lets the manager run it.
func (p *Placer) SetupWithManager(manager ctrl.Manager) error {
	if err := manager.Add(p); err != nil {
		return fmt.Errorf("adding the placement: %w", err)
	}
	return nil
}

// NeedLeaderElection keeps it to one replica. Two for a moment do no harm: the API server binds a pod once.
func (p *Placer) NeedLeaderElection() bool { return true }

// Start runs until the context ends. The caches of all pods and nodes live only for so long: a replica that does not lead
// has no use for them.
func (p *Placer) Start(ctx context.Context) error {
	watched, err := cache.New(p.config.API, cacheOptions(p.config.Client.Scheme()))
	if err != nil {
		return fmt.Errorf("making the cache of nodes and pods: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	box := newInbox()
	l := newLoop(p.config, box, watched)
	if err := l.listen(ctx, watched); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- watched.Start(ctx) }()
	if !watched.WaitForCacheSync(ctx) {
		return stopped(ctx, failed)
	}
	l.run(ctx)
	return stopped(ctx, failed)
}

// stopped is nil if it was wanted.
func stopped(ctx context.Context, failed <-chan error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Whoever ends the context wants no error for it.
	}
	return fmt.Errorf("filling the cache of nodes and pods: %w", <-failed)
}
