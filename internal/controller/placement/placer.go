package placement

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	toolswatch "k8s.io/client-go/tools/watch"
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
// +kubebuilder:rbac:groups="",resources=persistentvolumes;persistentvolumeclaims,verbs=patch
// +kubebuilder:rbac:groups=storage.k8s.io,resources=storageclasses,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=delete
// +kubebuilder:rbac:groups="",resources=pods/binding,verbs=create
// +kubebuilder:rbac:groups="",resources=pods/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=dory.io,resources=processormigrations,verbs=create

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
	if err := p.awaitWork(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	box := newInbox()
	l := newLoop(p.config, box, watched)
	sent, err := l.listen(ctx, watched)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- watched.Start(ctx) }()
	if watched.WaitForCacheSync(ctx) && toolscache.WaitForCacheSync(ctx.Done(), sent...) {
		l.run(ctx)
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("filling the cache of nodes and pods: %w", <-failed)
}

// awaitWork returns when there is a pod to place, or the context has ended. Until then all the nodes and pods of the
// cluster are not worth the memory.
func (p *Placer) awaitWork(ctx context.Context) error {
	clients, err := metadata.NewForConfig(p.config.API)
	if err != nil {
		return fmt.Errorf("making a client of pods: %w", err)
	}
	pods := clients.Resource(corev1.SchemeGroupVersion.WithResource("pods"))
	ours := fields.OneTermEqualSelector("spec.schedulerName", p.config.Options.SchedulerName).String()
	_, err = toolswatch.UntilWithSync(ctx, &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = ours
			return pods.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = ours
			return pods.Watch(ctx, options)
		},
	}, &metav1.PartialObjectMetadata{}, nil, func(event watch.Event) (bool, error) { return event.Type != watch.Deleted, nil })
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("waiting for a pod of scheduler %s: %w", p.config.Options.SchedulerName, err)
	}
	return nil
}
