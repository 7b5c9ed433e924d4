package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/dory-io/dory/test/bench/meter"
	"github.com/dory-io/dory/test/bench/profile"
	"github.com/dory-io/dory/test/bench/report"
	"github.com/dory-io/dory/test/bench/rig"
)

type bench struct {
	rows, nodes, rate, inserts int
	changing, resting          time.Duration
	root, operator             string
	operatorFlags              []string
	profiler                   profile.Profiler
	clock                      clock.WithTicker

	progress *report.Progress
	rig      *rig.Rig
	process  *rig.Operator
	server   *meter.APIServer
	database *meter.Database
	figures  report.Figures
	// emptyRSS is the operator's memory before there was anything, in bytes.
	emptyRSS int64
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.rows < suspendedEvery || b.rate < 1 || b.inserts < 0 || b.inserts > 100 {
		return fmt.Errorf("-rows=%d -rate=%d -inserts=%d: use 10 or more rows, 1 or more changes a second, and 0 to 100 inserts of 100", b.rows, b.rate, b.inserts)
	}
	b.progress = report.NewProgress(b.clock)
	busy, err := meter.Busy(ctx, b.clock, b.progress.Say)
	if err != nil {
		return err
	}
	b.figures = report.Figures{"rows": b.rows, "nodes": b.nodes, "machine_busy_before_pct": busy}
	defer func() {
		if b.rig != nil {
			err = errors.Join(err, b.rig.Close())
		}
	}()
	for _, step := range []func(context.Context) error{b.start, b.populate, b.measureChanges, b.measureColdStart, b.measureRest} {
		if err := step(ctx); err != nil {
			return errors.Join(err, b.rig.Check())
		}
	}
	return b.figures.Print()
}

func (b *bench) start(ctx context.Context) error {
	var err error
	b.rig, err = rig.Start(ctx, rig.Options{
		Root: b.root, Operator: b.operator, Nodes: b.nodes, Clock: b.clock, Progress: b.progress.Say,
		// Only what nodes and pods need. The garbage collector and the quotas watch every object, and would take a good
		// part of two cores from what is measured.
		Controllers: []string{"serviceaccount-controller", "node-lifecycle-controller", "namespace-controller"},
	})
	if err != nil {
		return err
	}
	if b.server, err = meter.NewAPIServer(b.rig.Admin); err != nil {
		return err
	}
	if b.profiler.Clients, err = kubernetes.NewForConfig(b.rig.Admin); err != nil {
		return err
	}
	b.database = meter.NewDatabase(b.rig.Database.Pool())
	b.progress.Say("starting the operator")
	if b.process, err = b.rig.StartOperator(ctx, b.operatorFlags...); err != nil {
		return err
	}
	if err := b.converge(ctx); err != nil {
		return err
	}
	empty, err := meter.ReadOperator(ctx, b.process)
	b.emptyRSS = empty.Process.RSS
	return err
}

func (b *bench) sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.clock.After(d):
		return nil
	}
}
