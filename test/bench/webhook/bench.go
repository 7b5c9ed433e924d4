package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/bench/meter"
	"github.com/dory-io/dory/test/bench/profile"
	"github.com/dory-io/dory/test/bench/report"
	"github.com/dory-io/dory/test/bench/rig"
)

const (
	namespace = "bench"
	image     = "registry.example/analytics/people-counter:1.4.2"
	// creators is how many objects are created at a time.
	creators = 16
	// patience is generous, for a machine that others use, too.
	patience = 20 * time.Minute
)

type bench struct {
	processors, evictions, others, connections, nodes int
	root, operator                                    string
	operatorFlags                                     []string
	profiler                                          profile.Profiler
	clock                                             clock.WithTicker

	progress *report.Progress
	rig      *rig.Rig
	process  *rig.Operator
	clients  *kubernetes.Clientset
	typed    client.Client
	figures  report.Figures
}

func (b *bench) validate() error {
	switch {
	case b.evictions < 1 || b.evictions > b.processors:
		return fmt.Errorf("-evictions=%d: use 1 to -processors, %d", b.evictions, b.processors)
	case b.others < 0:
		return fmt.Errorf("-others=%d: use 0 or more", b.others)
	case b.connections < 1:
		return fmt.Errorf("-connections=%d: use 1 or more", b.connections)
	case b.nodes < 1:
		return fmt.Errorf("-nodes=%d: use 1 or more", b.nodes)
	}
	return nil
}

func (b *bench) run(ctx context.Context) (err error) {
	if err := b.validate(); err != nil {
		return err
	}
	b.progress = report.NewProgress(b.clock)
	busy, err := meter.Busy(ctx, b.clock, b.progress.Say)
	if err != nil {
		return err
	}
	b.figures = report.Figures{"processors": b.processors, "others": b.others, "machine_busy_before_pct": busy}
	defer func() {
		if b.rig != nil {
			err = errors.Join(err, b.rig.Close())
		}
	}()
	for _, step := range []func(context.Context) error{b.start, b.populate, b.evictOthers, b.burst} {
		if err := step(ctx); err != nil {
			return errors.Join(err, b.rig.Check())
		}
	}
	return b.figures.Print()
}

func (b *bench) start(ctx context.Context) error {
	var err error
	b.rig, err = rig.Start(ctx, rig.Options{
		Root: b.root, Operator: b.operator, Nodes: b.nodes, Controllers: []string{"*"}, Webhook: true, Clock: b.clock, Progress: b.progress.Say,
	})
	if err != nil {
		return err
	}
	if b.clients, err = kubernetes.NewForConfig(b.rig.Admin); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := doryv1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	if b.typed, err = client.New(b.rig.Admin, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	b.profiler.Clients = b.clients
	b.progress.Say("starting the operator")
	b.process, err = b.rig.StartOperator(ctx, b.operatorFlags...)
	return err
}

// populate makes the processors and the other pods, and waits until all run.
func (b *bench) populate(ctx context.Context) error {
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := b.clients.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating namespace %s: %w", namespace, err)
	}
	b.progress.Say("creating %d Processors and %d other pods", b.processors, b.others)
	err := parallel(ctx, b.processors, func(i int) error { return b.typed.Create(ctx, processor(i)) })
	if err != nil {
		return fmt.Errorf("creating a Processor: %w", err)
	}
	err = wait.PollUntilContextTimeout(ctx, time.Second, patience, true, func(ctx context.Context) (bool, error) {
		_, err := b.clients.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the namespace's ServiceAccount: %w", err)
	}
	err = parallel(ctx, b.others, func(i int) error {
		_, err := b.clients.CoreV1().Pods(namespace).Create(ctx, other(i), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("creating a pod: %w", err)
	}
	return b.waitUntilAllRun(ctx)
}

func parallel(ctx context.Context, n int, do func(int) error) error {
	errs := make([]error, n)
	workqueue.ParallelizeUntil(ctx, creators, n, func(i int) { errs[i] = do(i) })
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func processor(i int) *doryv1alpha1.Processor {
	return &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("cam-%05d", i)},
		Spec:       doryv1alpha1.ProcessorSpec{Image: image},
	}
}

// other is a pod of a Deployment that happens to have our prefix.
func other(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("dory-web-5d8f7c9b6-%05d", i)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: image}}},
	}
}

func (b *bench) waitUntilAllRun(ctx context.Context) error {
	b.progress.Say("waiting until all run, and the webhook is ready")
	running := 0
	err := wait.PollUntilContextTimeout(ctx, time.Second, patience, true, func(ctx context.Context) (bool, error) {
		pods, err := b.clients.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return false, err
		}
		running = len(names(pods.Items, nil))
		return running >= b.processors+b.others && b.ready(ctx), b.rig.Check()
	})
	if err != nil {
		return fmt.Errorf("waiting for %d running pods, of which there are %d: %w", b.processors+b.others, running, err)
	}
	b.progress.Say("%d pods run", running)
	return nil
}

func (b *bench) ready(ctx context.Context) bool {
	body, err := rig.Get(ctx, b.process.Ready)
	return err == nil && body.Close() == nil
}

// names are those of the running pods that a filter lets through; nil lets all through.
func names(pods []corev1.Pod, filter func(*corev1.Pod) bool) []string {
	var running []string
	for i := range pods {
		if pods[i].Status.Phase == corev1.PodRunning && (filter == nil || filter(&pods[i])) {
			running = append(running, pods[i].Name)
		}
	}
	return running
}

func isProcessors(pod *corev1.Pod) bool {
	return pod.Labels[doryv1alpha1.LabelManagedBy] == doryv1alpha1.ManagedBy
}
