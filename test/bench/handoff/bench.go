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
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/bench/meter"
	"github.com/dory-io/dory/test/bench/report"
)

const (
	// timeToRun bounds every wait for pods: scheduler, kubelet and probes on busy cores, after one that may take its
	// whole grace period.
	timeToRun = 2 * time.Minute
	// poll is how often the API server is asked for what is waited for. It is no part of what is measured.
	poll = 100 * time.Millisecond
)

type bench struct {
	moves, others, transfers, lanes int
	interval                        time.Duration
	root, podLogs, keepLogs         string
	counterImage, peerImage         string
	clock                           clock.WithTicker

	progress  *report.Progress
	k8s       client.Client
	nodes     []string
	namespace string
	logs      *logbook
	figures   report.Figures
}

func (b *bench) validate() error {
	switch {
	case b.moves < 1 || b.others < 1 || b.transfers < 1:
		return fmt.Errorf("-moves=%d -others=%d -transfers=%d: use 1 or more of each", b.moves, b.others, b.transfers)
	case b.lanes < 1:
		return fmt.Errorf("-lanes=%d: use 1 or more", b.lanes)
	case b.interval < 0:
		return fmt.Errorf("-interval=%s is negative", b.interval)
	}
	return nil
}

func (b *bench) run(ctx context.Context) (err error) {
	if err := b.validate(); err != nil {
		return err
	}
	b.progress = report.NewProgress(b.clock)
	const watched = 2 * time.Second
	busy, err := meter.BusyPercent(ctx, b.clock, watched)
	if err != nil {
		return err
	}
	b.progress.Say("the machine is %.0f %% busy with other things", busy)
	b.figures = report.Figures{"machine_busy_before_pct": meter.Rounded(busy, 0), "lanes": b.lanes, "interval_ms": meter.Milliseconds(b.interval)}
	if err := b.connect(ctx); err != nil {
		return err
	}
	if err := b.makeNamespace(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.clear(context.WithoutCancel(ctx))) }()
	if b.logs, err = keepLogs(ctx, b.podLogs, b.namespace, b.clock); err != nil {
		return err
	}
	defer b.logs.close()
	if err := b.compareTransfers(ctx); err != nil {
		return err
	}
	stories, err := b.moveAll(ctx)
	if err != nil {
		return err
	}
	return b.conclude(ctx, stories)
}

// conclude prints the figures also where they are bad, and fails where an iteration was lost or done twice.
func (b *bench) conclude(ctx context.Context, stories []*story) error {
	b.progress.Say("reading what %d counters printed", len(stories))
	verdict, err := b.judge(ctx, stories)
	if err != nil {
		return err
	}
	if err := b.figures.Print(); err != nil {
		return err
	}
	return verdict
}

func (b *bench) connect(ctx context.Context) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("no cluster: run `make bench-handoff`, or set KUBECONFIG: %w", err)
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), doryv1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	if b.k8s, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	var nodes corev1.NodeList
	if err := b.k8s.List(ctx, &nodes, client.MatchingLabels{"workload-type": "application"}); err != nil {
		return fmt.Errorf("listing the nodes that run processors: %w", err)
	}
	for i := range nodes.Items {
		b.nodes = append(b.nodes, nodes.Items[i].Name)
	}
	if len(b.nodes) < 2 {
		return fmt.Errorf("nodes labelled workload-type=application: %v; a move needs two", b.nodes)
	}
	return nil
}

func (b *bench) makeNamespace(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-handoff-"}}
	if err := b.k8s.Create(ctx, namespace); err != nil {
		return fmt.Errorf("creating a namespace: %w", err)
	}
	b.namespace = namespace.Name
	return nil
}

// clear removes what was made: Processors first, because the operator ends their pods.
func (b *bench) clear(ctx context.Context) error {
	b.progress.Say("removing namespace %s", b.namespace)
	if err := b.k8s.DeleteAllOf(ctx, &doryv1alpha1.Processor{}, client.InNamespace(b.namespace)); err != nil {
		return fmt.Errorf("removing the Processors of namespace %s: %w", b.namespace, err)
	}
	err := b.until(ctx, "the end of all Processors", func(ctx context.Context) (bool, string, error) {
		var left doryv1alpha1.ProcessorList
		err := b.k8s.List(ctx, &left, client.InNamespace(b.namespace))
		return len(left.Items) == 0, fmt.Sprintf("%d are left", len(left.Items)), err
	})
	if err != nil {
		return err
	}
	return b.k8s.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}})
}

// until waits for a condition, and tells in its error how far it was.
func (b *bench) until(ctx context.Context, what string, met func(context.Context) (done bool, seen string, err error)) error {
	var last string
	err := wait.PollUntilContextTimeout(ctx, poll, timeToRun, true, func(ctx context.Context) (bool, error) {
		done, seen, err := met(ctx)
		last = seen
		return done, err
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w; seen last: %s", what, err, last)
	}
	return nil
}
