package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/test/bench/meter"
	"github.com/dory-io/dory/test/bench/profile"
	"github.com/dory-io/dory/test/bench/report"
	"github.com/dory-io/dory/test/bench/rig"
)

const (
	p50 = 0.50
	p99 = 0.99
	// roundTimeout bounds one round, the removal of its pods included.
	roundTimeout = 10 * time.Minute
)

// nodeSize is that of a common virtual machine.
var nodeSize = corev1.ResourceList{
	corev1.ResourceCPU: resource.MustParse("16"), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("110"),
}

type bench struct {
	nodes, pods, rounds int
	root, operator      string
	clock               clock.WithTicker
	profiler            profile.Profiler

	progress *report.Progress
	rig      *rig.Rig
	process  *rig.Operator
	clients  *kubernetes.Clientset
	figures  report.Figures
}

// side is one of the two that are compared.
type side struct {
	// process is the program that places the pods.
	key, scheduler, process string
	rounds                  []round
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.nodes < 1 || b.pods < 2 || b.rounds < 1 {
		return fmt.Errorf("-nodes=%d -pods=%d -rounds=%d: use 1, 2 and 1 or more", b.nodes, b.pods, b.rounds)
	}
	b.progress = report.NewProgress(b.clock)
	busy, err := meter.Busy(ctx, b.clock, b.progress.Say)
	if err != nil {
		return err
	}
	b.figures = report.Figures{"nodes": b.nodes, "pods": b.pods, "rounds": b.rounds, "machine_busy_before_pct": busy}
	defer func() {
		if b.rig != nil {
			err = errors.Join(err, b.rig.Close())
		}
	}()
	if err := b.start(ctx); err != nil {
		return err
	}
	if err := b.compare(ctx); err != nil {
		return errors.Join(err, b.rig.Check())
	}
	return b.figures.Print()
}

func (b *bench) start(ctx context.Context) error {
	var err error
	b.rig, err = rig.Start(ctx, rig.Options{
		Root: b.root, Operator: b.operator, Nodes: b.nodes, NodeSize: nodeSize, Idle: true, Controllers: []string{"serviceaccount-controller", "node-lifecycle-controller"},
		Clock: b.clock, Progress: b.progress.Say,
	})
	if err != nil {
		return err
	}
	if b.clients, err = kubernetes.NewForConfig(b.rig.Admin); err != nil {
		return err
	}
	b.profiler.Clients = b.clients
	b.progress.Say("starting the operator")
	b.process, err = b.rig.StartOperator(ctx, "--placement")
	return err
}

// compare takes turns, so that what the machine does meanwhile meets both.
func (b *bench) compare(ctx context.Context) error {
	sides := []*side{
		{key: "kube_scheduler", scheduler: corev1.DefaultSchedulerName, process: "kube-scheduler"},
		{key: "dory", scheduler: pod.SchedulerName, process: "dory-operator"},
	}
	for n := range b.rounds {
		for _, s := range sides {
			r, err := b.play(ctx, s, n)
			if err != nil {
				return fmt.Errorf("round %d of %s: %w", n, s.key, err)
			}
			s.rounds = append(s.rounds, r)
		}
	}
	for _, s := range sides {
		b.figures[s.key+"_per_s"] = meter.Rounded(s.median(round.rate), 1)
		b.figures[s.key+"_p50_ms"] = meter.Rounded(s.median(round.p50), 1)
		b.figures[s.key+"_p99_ms"] = meter.Rounded(s.median(round.p99), 1)
		b.figures[s.key+"_cpu_s"] = meter.Rounded(s.median(round.cpu), 2)
	}
	theirs, ours := sides[0], sides[1]
	b.figures["rate_ratio"] = meter.Rounded(ours.median(round.rate)/theirs.median(round.rate), 2)
	b.figures["p99_ratio"] = meter.Rounded(ours.median(round.p99)/theirs.median(round.p99), 2)
	return nil
}

func (s *side) median(of func(round) float64) float64 {
	var values []float64
	for _, r := range s.rounds {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
