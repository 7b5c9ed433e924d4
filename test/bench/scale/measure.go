package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/workqueue"

	"github.com/dory-io/dory/test/bench/meter"
)

const (
	// creators is how many clients create objects at a time.
	creators = 16
	// phaseTimeout bounds one phase, and clearTimeout the end of what it made.
	phaseTimeout = 20 * time.Minute
	clearTimeout = 20 * time.Minute
	// calm is for how long nothing may be written before a phase begins.
	calm = 3 * time.Second
)

// outcome is how a phase went.
type outcome struct {
	// pods is the time from the first create until all pods run; status until all objects say so themselves.
	pods, status time.Duration
	// serverWrites counts the writes of everybody.
	serverWrites float64
	// cpu is the processor time of every program, in seconds, until nothing is written any more.
	cpu map[string]float64
}

func (b *bench) measure(ctx context.Context, p phase) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, phaseTimeout)
	defer cancel()
	if err := b.waitForCalm(ctx); err != nil {
		return outcome{}, err
	}
	before, err := b.server.Writes(ctx)
	if err != nil {
		return outcome{}, err
	}
	cpuBefore, err := meter.CPUSeconds()
	if err != nil {
		return outcome{}, err
	}
	running, err := b.watchRunning(ctx, p.name())
	if err != nil {
		return outcome{}, err
	}
	b.progress.Say("creating %d %s", b.n, p.name())
	began := b.clock.Now()
	if err := b.createAll(ctx, p); err != nil {
		return outcome{}, err
	}
	b.progress.Say("created; waiting until all run")
	if err := <-running; err != nil {
		return outcome{}, fmt.Errorf("waiting for %d running pods of %s: %w", b.n, p.name(), err)
	}
	took := outcome{pods: b.clock.Since(began)}
	if err := b.waitSettled(ctx, p); err != nil {
		return outcome{}, err
	}
	took.status = b.clock.Since(began)
	b.progress.Say("%d %s run after %.2f s, and say so after %.2f s", b.n, p.name(), took.pods.Seconds(), took.status.Seconds())
	if err := b.waitForCalm(ctx); err != nil {
		return outcome{}, err
	}
	after, err := b.server.Writes(ctx)
	if err != nil {
		return outcome{}, err
	}
	writes := meter.Difference(before, after)
	took.serverWrites = meter.Total(writes)
	b.progress.Table("writes that the API server saw from all", writes, b.n)
	cpuAfter, err := meter.CPUSeconds()
	took.cpu = meter.Difference(cpuBefore, cpuAfter)
	return took, err
}

func (b *bench) createAll(ctx context.Context, p phase) error {
	errs := make([]error, b.n)
	workqueue.ParallelizeUntil(ctx, creators, b.n, func(i int) { errs[i] = p.create(ctx, i) })
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("creating %s: %w", p.name(), err)
		}
	}
	return nil
}

// watchRunning tells when all pods of a namespace run. The API server filters, and sends metadata alone, so that
// watching costs little of what is measured.
func (b *bench) watchRunning(ctx context.Context, namespace string) (<-chan error, error) {
	client, err := metadata.NewForConfig(b.rig.Admin)
	if err != nil {
		return nil, err
	}
	pods := client.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	watching, err := pods.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, FieldSelector: "status.phase=Running"})
	if err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		defer watching.Stop()
		done <- b.awaitRunning(ctx, watching)
	}()
	return done, nil
}

func (b *bench) awaitRunning(ctx context.Context, watching watch.Interface) error {
	running := sets.New[types.UID]()
	for running.Len() < b.n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d run: %w", running.Len(), b.n, ctx.Err())
		case event, ok := <-watching.ResultChan():
			pod, isPod := event.Object.(*metav1.PartialObjectMetadata)
			if !ok || !isPod {
				return fmt.Errorf("the watch broke off with %d of %d: %v", running.Len(), b.n, event.Object)
			}
			if event.Type == watch.Added {
				running.Insert(pod.UID)
			}
		}
	}
	return nil
}

func (b *bench) waitSettled(ctx context.Context, p phase) error {
	return wait.PollUntilContextCancel(ctx, 500*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		n, err := p.settled(ctx)
		return n >= b.n, err
	})
}

// waitForCalm waits until nothing is written any more, by anybody.
func (b *bench) waitForCalm(ctx context.Context) error {
	last := -1.0
	err := wait.PollUntilContextCancel(ctx, calm, true, func(ctx context.Context) (bool, error) {
		writes, err := b.server.Writes(ctx)
		if err != nil {
			return false, err
		}
		now := meter.Total(writes)
		quiet := now == last
		last = now
		return quiet, b.rig.Check()
	})
	if err != nil {
		return fmt.Errorf("waiting until nothing is written any more: %w", err)
	}
	return nil
}

// clear ends what a phase made and waits until it is gone.
func (b *bench) clear(ctx context.Context, p phase) error {
	ctx, cancel := context.WithTimeout(ctx, clearTimeout)
	defer cancel()
	b.progress.Say("removing %s", p.name())
	if err := p.remove(ctx); err != nil {
		return fmt.Errorf("removing %s: %w", p.name(), err)
	}
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		pods, err := b.clients.CoreV1().Pods(p.name()).List(ctx, metav1.ListOptions{ResourceVersion: "0", Limit: 1})
		if err != nil {
			return false, err
		}
		return len(pods.Items) == 0, b.rig.Check()
	})
	if err != nil {
		return fmt.Errorf("waiting until all pods of %s are gone: %w", p.name(), err)
	}
	b.progress.Say("gone")
	return nil
}
