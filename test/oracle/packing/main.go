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
	b := bench{}
	flag.IntVar(&b.pods, "pods", 12000, "How many pods come.")
	flag.IntVar(&b.warmUp, "warm-up", 6000, "How many of them come before it is counted.")
	flag.Uint64Var(&b.seed, "seed", 1, "Seed of the trace.")
	flag.Parse()
	if err := b.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench-packing:", err)
		os.Exit(1)
	}
}

type bench struct {
	pods, warmUp int
	seed         uint64
}

func (b bench) run(ctx context.Context) error {
	if b.warmUp < 0 || b.pods <= b.warmUp {
		return fmt.Errorf("-pods=%d -warm-up=%d: let more come than for the warm-up", b.pods, b.warmUp)
	}
	progress := report.NewProgress(clock.RealClock{})
	bound := packing.LowerBound(packing.Trace(b.pods, b.seed), b.warmUp)
	figures := report.Figures{"pods": b.pods, "lower_bound": meter.Rounded(bound.Mean, 1), "lower_bound_most": bound.Most}
	for _, column := range []struct {
		key  string
		make func() (packing.Packer, error)
	}{
		{"dory", func() (packing.Packer, error) { return packing.NewDory(0), nil }},
		{"dory_with_buffer", func() (packing.Packer, error) { return packing.NewDory(scheduler.DefaultBufferPercent), nil }},
		{"kube_scheduler_default", func() (packing.Packer, error) { return newKube(ctx, kube.Unchanged) }},
		{"kube_scheduler_most_allocated", func() (packing.Packer, error) { return newKube(ctx, kube.MostAllocated) }},
	} {
		packer, err := column.make()
		if err != nil {
			return err
		}
		used, err := packing.Replay(ctx, packing.Trace(b.pods, b.seed), b.warmUp, packer)
		if err != nil {
			return fmt.Errorf("%s: %w", column.key, err)
		}
		progress.Say("%s: %.1f nodes on average, %.3f of the lower bound; at most %.0f", column.key, used.Mean, used.Mean/bound.Mean, used.Most)
		figures[column.key], figures[column.key+"_most"] = meter.Rounded(used.Mean, 1), used.Most
		if column.key == "dory" {
			figures["dory_over_bound"] = meter.Rounded(used.Mean/bound.Mean, 3)
		}
	}
	return figures.Print()
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
