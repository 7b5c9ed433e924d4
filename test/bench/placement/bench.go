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
	clients  *kubernetes.Clientset
	figures  report.Figures
	busy     float64 // percent of the machine that others take
}

// side is one of the two that are compared.
type side struct {
	// process is the program that places the pods.
	key, scheduler, process string
	start                   func(context.Context) (placer, error)
	// backlogs were there before the placer, streams came while it worked.
	backlogs, streams []round
}

// placer is the running program of a side.
type placer struct {
	operator *rig.Operator // nil for kube-scheduler
	stop     func() error
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.nodes < 1 || b.pods < 2 || b.rounds < 1 {
		return fmt.Errorf("-nodes=%d -pods=%d -rounds=%d: use 1, 2 and 1 or more", b.nodes, b.pods, b.rounds)
	}
	b.progress = report.NewProgress(b.clock)
	if b.busy, err = meter.Busy(ctx, b.clock, b.progress.Say); err != nil {
		return err
	}
	b.figures = report.Figures{"nodes": b.nodes, "pods": b.pods, "rounds": b.rounds, "machine_busy_before_pct": b.busy}
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
		Root: b.root, Operator: b.operator, Nodes: b.nodes, NodeSize: nodeSize, Idle: true, Unscheduled: true, Controllers: []string{"serviceaccount-controller", "node-lifecycle-controller"},
		Clock: b.clock, Progress: b.progress.Say,
	})
	if err != nil {
		return err
	}
	if b.clients, err = kubernetes.NewForConfig(b.rig.Admin); err != nil {
		return err
	}
	b.profiler.Clients = b.clients
	return nil
}

func (b *bench) sides() []*side {
	return []*side{
		{key: "kube_scheduler", scheduler: corev1.DefaultSchedulerName, process: "kube-scheduler", start: func(context.Context) (placer, error) {
			stop, err := b.rig.StartScheduler()
			return placer{stop: stop}, err
		}},
		{key: "dory", scheduler: pod.SchedulerName, process: "dory-operator", start: func(ctx context.Context) (placer, error) {
			operator, err := b.rig.StartOperator(ctx, "--placement")
			if err != nil {
				return placer{}, err
			}
			return placer{operator: operator, stop: operator.Stop}, nil
		}},
	}
}

// compare takes turns, so that what the machine does meanwhile meets both. Only the side whose turn it is runs.
func (b *bench) compare(ctx context.Context) error {
	sides := b.sides()
	for n := range b.rounds {
		for _, s := range sides {
			if err := b.play(ctx, s, n); err != nil {
				return fmt.Errorf("round %d of %s: %w", n, s.key, err)
			}
		}
	}
	for _, s := range sides {
		b.figures[s.key+"_per_s"] = meter.Rounded(median(s.backlogs, round.rate), 1)
		b.figures[s.key+"_cpu_s"] = meter.Rounded(median(s.backlogs, round.cpu), 2)
		b.figures[s.key+"_stream_per_s"] = meter.Rounded(median(s.streams, round.rate), 1)
		b.figures[s.key+"_p50_ms"] = meter.Rounded(median(s.streams, round.p50), 1)
		b.figures[s.key+"_p99_ms"] = meter.Rounded(median(s.streams, round.p99), 1)
	}
	theirs, ours := sides[0], sides[1]
	b.figures["rate_ratio"] = ratio(ours.backlogs, theirs.backlogs, round.rate)
	b.figures["stream_rate_ratio"] = ratio(ours.streams, theirs.streams, round.rate)
	b.figures["p99_ratio"] = ratio(ours.streams, theirs.streams, round.p99)
	return nil
}

func ratio(ours, theirs []round, of func(round) float64) float64 {
	return meter.Rounded(median(ours, of)/median(theirs, of), 2)
}

func median(rounds []round, of func(round) float64) float64 {
	values := make([]float64, 0, len(rounds))
	for _, r := range rounds {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
