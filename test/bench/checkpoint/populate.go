package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const (
	namespace = "bench"
	// creators is how many Processors are created at a time.
	creators = 16
	// populateTimeout is generous, for a machine that others use, too.
	populateTimeout = 20 * time.Minute
)

// populate makes the Processors and waits until all run.
func (b *bench) populate(ctx context.Context) error {
	scheme := runtime.NewScheme()
	if err := doryv1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	made, err := client.New(b.rig.Admin, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := b.clients.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating namespace %s: %w", namespace, err)
	}
	if err := newKubelet(b.clients, b.fleet, b.clock, b.report).start(ctx); err != nil {
		return err
	}
	if err := b.watchStored(ctx); err != nil {
		return err
	}
	b.progress.Say("creating %d Processors", b.processors)
	errs := make([]error, b.processors)
	workqueue.ParallelizeUntil(ctx, creators, b.processors, func(i int) { errs[i] = made.Create(ctx, b.processor(i)) })
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("creating a Processor: %w", err)
		}
	}
	return b.waitUntilAll(ctx, populateTimeout, "running instances", func() int { return len(b.fleet.all()) })
}

func (b *bench) processor(i int) *doryv1alpha1.Processor {
	return &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("cam-%05d", i)},
		Spec: doryv1alpha1.ProcessorSpec{
			Image: "registry.example/analytics/people-counter:1.4.2",
			Port:  port,
			State: &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{Duration: b.interval}},
		},
	}
}

// warmUp waits until every state has been stored once, and then for an interval more, so that nothing of the start is
// left in what is measured.
func (b *bench) warmUp(ctx context.Context) error {
	b.progress.Say("waiting for the first checkpoint of each")
	err := b.waitUntilAll(ctx, populateTimeout+2*b.interval, "first checkpoints", func() int {
		safe := 0
		for _, p := range b.fleet.all() {
			if _, ok := p.age(b.clock.Now()); ok {
				safe++
			}
		}
		return safe
	})
	if err != nil {
		return err
	}
	b.progress.Say("warming up for %s", b.interval)
	return b.sleep(ctx, b.interval)
}

// waitUntilAll waits until a number is that of all processors.
func (b *bench) waitUntilAll(ctx context.Context, timeout time.Duration, what string, count func() int) error {
	found := 0
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, timeout, true, func(context.Context) (bool, error) {
		select {
		case err := <-b.failed:
			return false, err
		default:
		}
		found = count()
		return found >= b.processors, b.rig.Check()
	})
	if err != nil {
		return fmt.Errorf("waiting for %s, of which there are %d of %d: %w", what, found, b.processors, err)
	}
	b.progress.Say("%d %s", found, what)
	return nil
}
