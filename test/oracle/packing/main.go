// Command packing replays a trace through Dory's engine and through the real kube-scheduler, with its default scoring and
// with that for bin packing, and reports on how many nodes each does with, beside a lower bound. See test/bench/packing
// for the trace and the rules.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/utils/clock"

	"github.com/dory-io/dory/internal/scheduler"
	"github.com/dory-io/dory/test/bench/meter"
	"github.com/dory-io/dory/test/bench/packing"
	"github.com/dory-io/dory/test/bench/report"
	"github.com/dory-io/dory/test/oracle/kube"
)

func main() {
	b := &bench{}
	flag.IntVar(&b.pods, "pods", 12000, "How many pods come.")
	flag.IntVar(&b.warmUp, "warm-up", 6000, "How many of them come before it is counted.")
	flag.Uint64Var(&b.traces, "traces", 8, "How many traces, with the seeds from 1 on. The average counts.")
	flag.Parse()
	if err := b.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench-packing:", err)
		os.Exit(1)
	}
}

type bench struct {
	pods, warmUp int
	traces       uint64
	progress     *report.Progress
}

// column is one of those that are compared.
type column struct {
	key  string
	make func() (packing.Packer, error)
}

func (b *bench) run(ctx context.Context) error {
	if b.warmUp < 0 || b.pods <= b.warmUp || b.traces == 0 {
		return fmt.Errorf("-pods=%d -warm-up=%d -traces=%d: let more come than for the warm-up, in 1 trace or more", b.pods, b.warmUp, b.traces)
	}
	b.progress = report.NewProgress(clock.RealClock{})
	bound := 0.0
	for seed := range b.traces {
		bound += packing.LowerBound(packing.Trace(b.pods, seed+1), b.warmUp).Mean
	}
	bound /= float64(b.traces)
	figures := report.Figures{"pods": b.pods, "traces": b.traces, "lower_bound": meter.Rounded(bound, 1)}
	for _, c := range []column{
		{"dory", func() (packing.Packer, error) { return packing.NewDory(0), nil }},
		{"dory_with_buffer", func() (packing.Packer, error) { return packing.NewDory(scheduler.DefaultBufferPercent), nil }},
		{"kube_scheduler_default", func() (packing.Packer, error) { return newKube(ctx, kube.Unchanged) }},
		{"kube_scheduler_most_allocated", func() (packing.Packer, error) { return newKube(ctx, kube.MostAllocated) }},
	} {
		used, err := b.measure(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.key, err)
		}
		b.progress.Say("%s: %.2f nodes on average, %.3f of the lower bound", c.key, used, used/bound)
		figures[c.key] = meter.Rounded(used, 2)
		if c.key == "dory" {
			figures["dory_over_bound"] = meter.Rounded(used/bound, 3)
		}
	}
	return figures.Print()
}

// measure replays every trace, each with nothing left of the one before.
func (b *bench) measure(ctx context.Context, c column) (float64, error) {
	sum := 0.0
	for seed := range b.traces {
		packer, err := c.make()
		if err != nil {
			return 0, err
		}
		used, err := packing.Replay(ctx, packing.Trace(b.pods, seed+1), b.warmUp, packer)
		if err != nil {
			return 0, fmt.Errorf("trace %d: %w", seed+1, err)
		}
		sum += used.Mean
	}
	return sum / float64(b.traces), nil
}

// packer is the real kube-scheduler.
type packer struct{ *kube.Scheduler }

func newKube(ctx context.Context, change func(*config.KubeSchedulerConfiguration)) (packing.Packer, error) {
	s, err := kube.New(ctx, change)
	return packer{s}, err
}

// AddNode implements packing.Packer.
func (p packer) AddNode(n *corev1.Node) { p.SetNode(n) }

// RemoveNode implements packing.Packer.
func (p packer) RemoveNode(n *corev1.Node) error { return p.DeleteNode(n) }

// Place implements packing.Packer. The scheduler keeps what it is given, and the trace reuses it.
func (p packer) Place(pod *corev1.Pod) error { return p.SetPod(pod.DeepCopy()) }

// Remove implements packing.Packer.
func (p packer) Remove(pod *corev1.Pod) error { return p.DeletePod(pod) }
