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
	processors, stateBytes, intervals int
	interval                          time.Duration
	root, operator                    string
	operatorFlags                     []string
	profiler                          profile.Profiler
	clock                             clock.WithTicker

	progress *report.Progress
	rig      *rig.Rig
	fleet    *fleet
	process  *rig.Operator
	server   *meter.APIServer
	database *meter.Database
	clients  *kubernetes.Clientset
	figures  report.Figures
	copies   copies
	// failed tells of the goroutines that work in the background.
	failed chan error
}

// shortestInterval is the API's.
const shortestInterval = time.Second

func (b *bench) validate() error {
	switch {
	case b.processors < 1 || b.processors > maxProcessors:
		return fmt.Errorf("-processors=%d: use 1 to %d", b.processors, maxProcessors)
	case b.stateBytes < leastState || b.stateBytes > mostState:
		return fmt.Errorf("-state-bytes=%d: use %d to %d", b.stateBytes, leastState, mostState)
	case b.interval < shortestInterval:
		return fmt.Errorf("-interval=%s: use %s or more", b.interval, shortestInterval)
	case b.intervals < 1:
		return fmt.Errorf("-intervals=%d: use 1 or more", b.intervals)
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
	b.figures = report.Figures{
		"processors": b.processors, "state_bytes": b.stateBytes, "interval_s": b.interval.Seconds(),
		"machine_busy_before_pct": busy,
	}
	b.failed = make(chan error, 1)
	b.fleet = newFleet(b.clock, b.stateBytes)
	defer func() {
		if b.rig != nil {
			err = errors.Join(err, b.rig.Close())
		}
		err = errors.Join(err, b.fleet.close())
	}()
	// What works in the background ends before the API server does.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, step := range []func(context.Context) error{b.start, b.populate, b.warmUp, b.measure} {
		if err := step(ctx); err != nil {
			return errors.Join(err, b.rig.Check())
		}
	}
	return b.figures.Print()
}

func (b *bench) start(ctx context.Context) error {
	var err error
	b.rig, err = rig.Start(ctx, rig.Options{Root: b.root, Operator: b.operator, Bare: true, Clock: b.clock, Progress: b.progress.Say})
	if err != nil {
		return err
	}
	if b.server, err = meter.NewAPIServer(b.rig.Admin); err != nil {
		return err
	}
	if b.clients, err = kubernetes.NewForConfig(b.rig.Admin); err != nil {
		return err
	}
	b.profiler.Clients = b.clients
	b.database = meter.NewDatabase(b.rig.Database.Pool())
	b.progress.Say("starting the operator")
	// Here every instance answers, so the operator may ask for its SDK, as it does in a cluster.
	b.process, err = b.rig.StartOperator(ctx, append([]string{"--discover-sdk=true"}, b.operatorFlags...)...)
	return err
}

// report passes on why something in the background ended. Only the first reason counts.
func (b *bench) report(err error) {
	select {
	case b.failed <- err:
	default:
	}
}

func (b *bench) sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-b.failed:
		return err
	case <-b.clock.After(d):
		return nil
	}
}
