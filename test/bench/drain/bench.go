package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/utils/clock"

	"github.com/dory-io/dory/test/bench/cluster"
	"github.com/dory-io/dory/test/bench/meter"
	"github.com/dory-io/dory/test/bench/podlog"
	"github.com/dory-io/dory/test/bench/report"
	"github.com/dory-io/dory/test/bench/workload"
)

type bench struct {
	processors, rounds int
	interval, flush    time.Duration
	root, kubectl      string
	podLogs, keepLogs  string
	counterImage       string
	clock              clock.WithTicker

	cluster            *cluster.Cluster
	progress           *report.Progress
	logs               *podlog.Book
	figures            report.Figures
	dory, statefulSets side
}

func (b *bench) validate() error {
	switch {
	case b.processors < 1 || b.rounds < 1:
		return fmt.Errorf("-processors=%d -rounds=%d: use 1 or more of each", b.processors, b.rounds)
	case b.interval < 0 || b.flush < 0:
		return fmt.Errorf("-interval=%s -flush=%s: neither can be negative", b.interval, b.flush)
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
	b.figures = report.Figures{"machine_busy_before_pct": busy, "processors": b.processors, "rounds": b.rounds}
	if b.cluster, err = cluster.Connect(ctx, "bench-drain-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.clear(context.WithoutCancel(ctx))) }()
	if b.logs, err = podlog.Keep(ctx, b.podLogs, b.cluster.Namespace, b.clock); err != nil {
		return err
	}
	defer b.logs.Close()
	if err := b.drainBoth(ctx); err != nil {
		return err
	}
	return b.conclude(ctx)
}

// drainBoth drains the processors first: the operator makes the ServiceAccount that both sides use.
func (b *bench) drainBoth(ctx context.Context) error {
	b.dory = &processors{bench: b, moves: map[string]string{}}
	b.statefulSets = &statefulSets{bench: b}
	for _, s := range []side{b.dory, b.statefulSets} {
		if err := b.drainAll(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
	}
	return nil
}

// conclude prints the figures also where they are bad, and fails where an iteration was lost or done twice.
func (b *bench) conclude(ctx context.Context) error {
	b.progress.Say("reading what %d counters printed", 2*b.processors)
	ours, err := b.judge(ctx, b.dory)
	if err != nil {
		return err
	}
	theirs, err := b.judge(ctx, b.statefulSets)
	if err != nil {
		return err
	}
	b.figures["lost"], b.figures["repeated"], b.figures["unlogged"] = ours.proof.Lost, ours.proof.Repeated, ours.proof.Unlogged
	b.figures["statefulset_lost"], b.figures["statefulset_repeated"] = theirs.proof.Lost, theirs.proof.Repeated
	ours.tell(b.figures, "dory")
	theirs.tell(b.figures, "statefulset")
	b.figures["pause_ratio"] = ratio(ours.pause(0.99), theirs.pause(0.99))
	b.figures["total_ratio"] = ratio(ours.total(), theirs.total())
	if err := b.figures.Print(); err != nil {
		return err
	}
	switch {
	case !ours.proof.Whole():
		return fmt.Errorf("iterations of processors were lost or done twice: %+v", ours.proof)
	case b.flush > 0 && ours.proof.Unlogged > 0:
		return fmt.Errorf("a counter was killed with lines held back, which may hide that iterations were done twice (use -flush=0s): %+v", ours.proof)
	}
	return nil
}

func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	const digits = 3
	return meter.Rounded(float64(a)/float64(b), digits)
}

func (b *bench) clear(ctx context.Context) error {
	b.progress.Say("removing namespace %s", b.cluster.Namespace)
	return errors.Join(b.uncordon(ctx, b.cluster.Nodes...), b.cluster.Clear(ctx))
}

func (b *bench) counter(name string) workload.Counter {
	return workload.Counter{
		Namespace: b.cluster.Namespace, Name: name, Image: b.counterImage, Interval: b.interval, Flush: b.flush, StateBytes: 1 << 10,
		CPU: "10m", Memory: "32Mi",
	}
}
