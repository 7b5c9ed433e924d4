package main

import (
	"context"
	"fmt"
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

// round is one burst of pods.
type round struct {
	// took is from the first create until the last binding was seen; waited are each pod's.
	took    time.Duration
	waited  []time.Duration
	seconds map[string]float64 // of processor time
	process string
}

func (r round) rate() float64 { return float64(len(r.waited)) / r.took.Seconds() }
func (r round) p50() float64  { return meter.Milliseconds(meter.Percentile(r.waited, p50)) }
func (r round) p99() float64  { return meter.Milliseconds(meter.Percentile(r.waited, p99)) }
func (r round) cpu() float64  { return r.seconds[r.process] }

// play creates pods for one side as fast as the API server takes them, and sees when each is bound.
func (b *bench) play(ctx context.Context, s *side, n int) (round, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	namespace, err := b.namespace(ctx, fmt.Sprintf("%s-%d", s.scheduler, n))
	if err != nil {
		return round{}, err
	}
	bound, err := b.watchBound(ctx, namespace)
	if err != nil {
		return round{}, err
	}
	defer bound.Stop()
	before, err := meter.CPUSeconds()
	if err != nil {
		return round{}, err
	}
	profiled := b.profiler.Take(ctx, b.process, namespace)
	created := make([]time.Time, b.pods)
	failed := make(chan error, 1)
	began := b.clock.Now()
	go func() { failed <- b.create(ctx, namespace, s.scheduler, created) }()
	seen, err := b.awaitBound(ctx, bound)
	if err != nil {
		return round{}, err
	}
	took := b.clock.Since(began)
	if err := <-failed; err != nil {
		return round{}, err
	}
	after, err := meter.CPUSeconds()
	if err != nil {
		return round{}, err
	}
	if err := <-profiled; err != nil {
		return round{}, err
	}
	r := round{took: took, seconds: meter.Difference(before, after), process: s.process}
	for i, at := range seen {
		r.waited = append(r.waited, at.Sub(created[i]))
	}
	b.progress.Say("%s: %d pods bound in %.2f s, %.0f a second; from create to bound p50 %.0f ms, p99 %.0f ms; processor time %v",
		namespace, b.pods, took.Seconds(), r.rate(), r.p50(), r.p99(), r.seconds)
	return r, b.clear(ctx, namespace)
}

func (b *bench) namespace(ctx context.Context, name string) (string, error) {
	if _, err := b.clients.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		return "", fmt.Errorf("creating namespace %s: %w", name, err)
	}
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := b.clients.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
	return name, err
}

func podName(i int) string { return fmt.Sprintf("p%05d", i) }

func (b *bench) create(ctx context.Context, namespace, scheduler string, created []time.Time) error {
	errs := make([]error, b.pods)
	workqueue.ParallelizeUntil(ctx, creators, b.pods, func(i int) {
		created[i] = b.clock.Now()
		_, errs[i] = b.clients.CoreV1().Pods(namespace).Create(ctx, newPod(podName(i), scheduler), metav1.CreateOptions{})
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
func (b *bench) awaitBound(ctx context.Context, bound watch.Interface) ([]time.Time, error) {
	seen := make([]time.Time, b.pods)
	for left := b.pods; left > 0; {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d pods are not bound: %w", left, b.pods, ctx.Err())
		case event, ok := <-bound.ResultChan():
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
