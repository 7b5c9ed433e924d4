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
)

type bench struct {
	moves, others, transfers, lanes int
	interval                        time.Duration
	root, podLogs, keepLogs         string
	counterImage, peerImage         string
	clock                           clock.WithTicker

	progress *report.Progress
	cluster  *cluster.Cluster
	logs     *podlog.Book
	figures  report.Figures
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
	busy, err := meter.Busy(ctx, b.clock, b.progress.Say)
	if err != nil {
		return err
	}
	b.figures = report.Figures{"machine_busy_before_pct": busy, "lanes": b.lanes, "interval_ms": meter.Milliseconds(b.interval)}
	if b.cluster, err = cluster.Connect(ctx, "bench-handoff-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.clear(context.WithoutCancel(ctx))) }()
	if b.logs, err = podlog.Keep(ctx, b.podLogs, b.cluster.Namespace, b.clock); err != nil {
		return err
	}
	defer b.logs.Close()
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

func (b *bench) clear(ctx context.Context) error {
	b.progress.Say("removing namespace %s", b.cluster.Namespace)
	return b.cluster.Clear(ctx)
}
