package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dory-io/dory/test/bench/meter"
)

const (
	p50 = 0.50
	p99 = 0.99
)

// evictOthers has the webhook's own count of requests say that it was not asked.
func (b *bench) evictOthers(ctx context.Context) error {
	pods, err := b.running(ctx, func(pod *corev1.Pod) bool { return !isProcessors(pod) })
	if err != nil {
		return err
	}
	before, err := b.reviews(ctx)
	if err != nil {
		return err
	}
	if err := parallel(ctx, len(pods), func(i int) error { return evict(ctx, b.clients, pods[i]) }); err != nil {
		return fmt.Errorf("evicting another pod: %w", err)
	}
	after, err := b.reviews(ctx)
	if err != nil {
		return err
	}
	b.figures["other_evictions"], b.figures["other_reviews"] = len(pods), after-before
	b.progress.Say("%d evictions of other pods, the webhook was asked %.0f times", len(pods), after-before)
	if after != before {
		return errors.New("evictions of other pods are not free")
	}
	return nil
}

// reviews is how many requests the webhook has answered.
func (b *bench) reviews(ctx context.Context) (float64, error) {
	families, err := meter.Scrape(ctx, b.process.Metrics)
	if err != nil {
		return 0, err
	}
	return families.Sum("controller_runtime_webhook_requests_total", nil), nil
}

func (b *bench) running(ctx context.Context, filter func(*corev1.Pod) bool) ([]string, error) {
	pods, err := b.clients.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	return names(pods.Items, filter), nil
}

// burst evicts all at once. Two things are measured: how long the webhook took for each answer, by its own metric, and how
// long each asker waited, through an API server that has a thousand requests in hand on the same machine.
func (b *bench) burst(ctx context.Context) error {
	pods, err := b.running(ctx, isProcessors)
	if err != nil {
		return err
	}
	pods = pods[:min(b.evictions, len(pods))]
	clients, err := b.connect(ctx)
	if err != nil {
		return err
	}
	profiled := b.profiler.Take(ctx, b.process, "burst")
	waited, err := b.evictAll(ctx, clients, pods)
	if err != nil {
		return err
	}
	answers, err := scrapeHistogram(ctx, b.process.Metrics, "controller_runtime_webhook_latency_seconds")
	if err != nil {
		return err
	}
	if answers.count != uint64(len(pods)) {
		return fmt.Errorf("the webhook has answered %d times, not %d", answers.count, len(pods))
	}
	b.figures["evictions"] = len(pods)
	b.figures["p50_ms"], b.figures["p99_ms"] = meter.Milliseconds(answers.quantile(p50)), meter.Milliseconds(answers.quantile(p99))
	if err := <-profiled; err != nil {
		return err
	}
	b.figures["asker_p50_ms"], b.figures["asker_p99_ms"] = meter.Milliseconds(meter.Percentile(waited, p50)), meter.Milliseconds(meter.Percentile(waited, p99))
	return nil
}

// connect makes the connections before the burst, each with a transport of its own.
func (b *bench) connect(ctx context.Context) ([]*kubernetes.Clientset, error) {
	var clients []*kubernetes.Clientset
	for range b.connections {
		config := rest.CopyConfig(b.rig.Admin)
		config.Dial = (&net.Dialer{}).DialContext
		connected, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		if _, err := connected.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); err != nil {
			return nil, fmt.Errorf("connecting to the API server: %w", err)
		}
		clients = append(clients, connected)
	}
	return clients, nil
}

// evictAll answers how long each asker waited.
func (b *bench) evictAll(ctx context.Context, clients []*kubernetes.Clientset, pods []string) ([]time.Duration, error) {
	waited, errs := make([]time.Duration, len(pods)), make([]error, len(pods))
	begin := make(chan struct{})
	var group sync.WaitGroup
	for i, pod := range pods {
		group.Go(func() {
			<-begin
			began := b.clock.Now()
			err := evict(ctx, clients[i%len(clients)], pod)
			waited[i] = b.clock.Since(began)
			errs[i] = expected(pod, err)
		})
	}
	began := b.clock.Now()
	close(begin)
	group.Wait()
	b.progress.Say("%d evictions are answered within %s", len(pods), b.clock.Since(began).Round(time.Millisecond))
	return waited, errors.Join(errs...)
}

func evict(ctx context.Context, clients *kubernetes.Clientset, pod string) error {
	return clients.PolicyV1().Evictions(namespace).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod}})
}

// expected is that the asker is told to come again.
func expected(pod string, err error) error {
	switch {
	case err == nil:
		return fmt.Errorf("pod %s was let go", pod)
	case !apierrors.IsTooManyRequests(err), !strings.Contains(err.Error(), "evacuation"):
		return fmt.Errorf("evicting pod %s: %w", pod, err)
	default:
		return nil
	}
}
