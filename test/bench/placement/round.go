package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
	"k8s.io/client-go/util/workqueue"

	"github.com/dory-io/dory/test/bench/meter"
)

// creators is how many pods are created at a time.
const creators = 16

// restTime is longer than the pause before events are written.
const restTime = 2 * time.Second

// settleTimeout is more than the events of 20,000 pods take.
const settleTimeout = 2 * time.Minute

// idlePercent is how much more than before all the machine does when nothing goes on.
const idlePercent = 10

// burst is many pods of one namespace.
type burst struct {
	namespace, scheduler string
	created              []time.Time
	bound                watch.Interface
}

// round is what became of a burst.
type round struct {
	took    time.Duration      // from the first binding to the last
	waited  []time.Duration    // each pod, from its create until its binding was seen
	seconds map[string]float64 // of processor time
	process string
}

func (r round) rate() float64 { return float64(len(r.waited)) / r.took.Seconds() }
func (r round) p50() float64  { return meter.Milliseconds(meter.Percentile(r.waited, p50)) }
func (r round) p99() float64  { return meter.Milliseconds(meter.Percentile(r.waited, p99)) }
func (r round) cpu() float64  { return r.seconds[r.process] }

// play lets a side place a backlog and then a stream. Nobody else places pods meanwhile.
func (b *bench) play(ctx context.Context, s *side, n int) (err error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	pods, err := b.open(ctx, s, fmt.Sprintf("%s-backlog-%d", s.scheduler, n))
	if err != nil {
		return err
	}
	defer pods.bound.Stop()
	if err := errors.Join(b.create(ctx, pods), b.settle(ctx)); err != nil {
		return err
	}
	before, err := meter.CPUSeconds()
	if err != nil {
		return err
	}
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	backlog, err := b.measure(ctx, s, pods, p, before)
	if err != nil {
		return fmt.Errorf("the backlog: %w", err)
	}
	stream, err := b.stream(ctx, s, n, p)
	if err != nil {
		return fmt.Errorf("the stream: %w", err)
	}
	s.backlogs, s.streams = append(s.backlogs, backlog), append(s.streams, stream)
	return nil
}

// stream creates pods as fast as the API server takes them.
func (b *bench) stream(ctx context.Context, s *side, n int, p placer) (round, error) {
	pods, err := b.open(ctx, s, fmt.Sprintf("%s-stream-%d", s.scheduler, n))
	if err != nil {
		return round{}, err
	}
	defer pods.bound.Stop()
	before, err := meter.CPUSeconds()
	if err != nil {
		return round{}, err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	created := make(chan struct{})
	go func() {
		defer close(created)
		if err := b.create(ctx, pods); err != nil {
			fail(err)
		}
	}()
	r, err := b.measure(ctx, s, pods, p, before)
	<-created
	return r, errors.Join(err, context.Cause(ctx))
}

// measure waits until all pods of the burst are bound, and removes them. Processor time is counted until all has settled: one
// of the sides writes its events after the bindings.
func (b *bench) measure(ctx context.Context, s *side, pods *burst, p placer, before map[string]float64) (round, error) {
	profiled := b.profiler.Take(ctx, p.operator, pods.namespace)
	seen, err := b.awaitBound(ctx, pods)
	if err != nil {
		return round{}, err
	}
	if err := errors.Join(<-profiled, b.settle(ctx)); err != nil {
		return round{}, err
	}
	after, err := meter.CPUSeconds()
	if err != nil {
		return round{}, err
	}
	r := round{
		took:    slices.MaxFunc(seen, time.Time.Compare).Sub(slices.MinFunc(seen, time.Time.Compare)),
		seconds: meter.Difference(before, after), process: s.process,
	}
	for i, at := range seen {
		r.waited = append(r.waited, at.Sub(pods.created[i]))
	}
	b.progress.Say("%s: %d pods bound in %.2f s, %.0f a second; from create to bound p50 %.0f ms, p99 %.0f ms; processor time %v",
		pods.namespace, b.pods, r.took.Seconds(), r.rate(), r.p50(), r.p99(), r.seconds)
	return r, b.clear(ctx, pods.namespace)
}

// settle waits until nothing of an earlier burst is left to do, such as its events.
func (b *bench) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		busy, err := meter.BusyPercent(ctx, b.clock, restTime)
		if err == nil && busy < b.busy+idlePercent {
			return nil
		}
		if err != nil {
			return fmt.Errorf("waiting for the machine to be at rest, which was %.0f %% busy before: %w", b.busy, err)
		}
	}
}

// open makes the namespace of a burst, and watches which of its pods are bound.
func (b *bench) open(ctx context.Context, s *side, namespace string) (*burst, error) {
	if err := b.settle(ctx); err != nil {
		return nil, err
	}
	if err := b.makeNamespace(ctx, namespace); err != nil {
		return nil, err
	}
	bound, err := b.watchBound(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return &burst{namespace: namespace, scheduler: s.scheduler, created: make([]time.Time, b.pods), bound: bound}, nil
}

func (b *bench) makeNamespace(ctx context.Context, name string) error {
	if _, err := b.clients.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating namespace %s: %w", name, err)
	}
	return wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := b.clients.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
}

func podName(i int) string { return fmt.Sprintf("p%05d", i) }

func (b *bench) create(ctx context.Context, pods *burst) error {
	errs := make([]error, b.pods)
	workqueue.ParallelizeUntil(ctx, creators, b.pods, func(i int) {
		pods.created[i] = b.clock.Now()
		_, errs[i] = b.clients.CoreV1().Pods(pods.namespace).Create(ctx, newPod(podName(i), pods.scheduler), metav1.CreateOptions{})
	})
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("creating a pod: %w", err)
		}
	}
	return nil
}

func newPod(name, scheduler string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}},
		Spec: corev1.PodSpec{
			SchedulerName: scheduler, NodeSelector: map[string]string{"workload-type": "application"},
			Containers: []corev1.Container{{Name: "main", Image: "registry.example/app:1", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("512Mi"),
			}}}},
		},
	}
}

// watchBound lets the API server filter, and send metadata alone, so that watching costs little of what is measured.
func (b *bench) watchBound(ctx context.Context, namespace string) (watch.Interface, error) {
	client, err := metadata.NewForConfig(b.rig.Admin)
	if err != nil {
		return nil, err
	}
	pods := client.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	// A busy API server ends watches that do not keep up.
	watching, err := toolswatch.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = "spec.nodeName!="
			return pods.Watch(ctx, options)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	return watching, nil
}

// awaitBound answers when each pod was seen to be bound.
func (b *bench) awaitBound(ctx context.Context, pods *burst) ([]time.Time, error) {
	seen := make([]time.Time, b.pods)
	alive := b.clock.NewTicker(time.Second)
	defer alive.Stop()
	for left := b.pods; left > 0; {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d pods are not bound: %w", left, b.pods, ctx.Err())
		case <-alive.C():
			if err := b.rig.Check(); err != nil {
				return nil, err
			}
		case event, ok := <-pods.bound.ResultChan():
			object, isObject := event.Object.(*metav1.PartialObjectMetadata)
			if !ok || !isObject {
				return nil, fmt.Errorf("the watch broke off with %d pods left: %v", left, event.Object)
			}
			var i int
			if _, err := fmt.Sscanf(object.Name, "p%05d", &i); err != nil {
				return nil, fmt.Errorf("reading the name %s: %w", object.Name, err)
			}
			if seen[i].IsZero() {
				seen[i] = b.clock.Now()
				left--
			}
		}
	}
	return seen, nil
}

// clear removes the pods and waits until they are gone and nodes are free again.
func (b *bench) clear(ctx context.Context, namespace string) error {
	var now int64
	if err := b.clients.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("removing pods: %w", err)
	}
	return wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		pods, err := b.clients.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0", Limit: 1})
		return err == nil && len(pods.Items) == 0, b.rig.Check()
	})
}
