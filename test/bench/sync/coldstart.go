package main

import (
	"context"
	"time"

	"github.com/dory-io/dory/test/bench/meter"
)

// counters are all writes at one moment.
type counters struct{ api, database, statements map[string]float64 }

func (b *bench) count(ctx context.Context) (counters, error) {
	var c counters
	var err error
	if c.api, err = b.server.Writes(ctx); err != nil {
		return c, err
	}
	if c.database, err = b.database.Writes(ctx); err != nil {
		return c, err
	}
	c.statements, err = b.database.Statements(ctx)
	return c, err
}

func (c counters) since(before counters) counters {
	return counters{
		api:        meter.Difference(before.api, c.api),
		database:   meter.Difference(before.database, c.database),
		statements: meter.Difference(before.statements, c.statements),
	}
}

// measureColdStart restarts the operator when nothing has changed.
func (b *bench) measureColdStart(ctx context.Context) error {
	b.progress.Say("waiting for calm")
	if err := b.calm(ctx); err != nil {
		return err
	}
	if err := b.process.Stop(); err != nil {
		return err
	}
	if err := b.sleep(ctx, meter.StatsDelay); err != nil {
		return err
	}
	before, err := b.count(ctx)
	if err != nil {
		return err
	}
	b.progress.Say("starting the operator again")
	began := b.clock.Now()
	if b.process, err = b.rig.StartOperator(ctx, b.operatorFlags...); err != nil {
		return err
	}
	var converged time.Time
	if converged, err = b.convergedAt(ctx, &converged); err != nil {
		return err
	}
	if err := b.sleep(ctx, meter.StatsDelay); err != nil {
		return err
	}
	after, err := b.count(ctx)
	if err != nil {
		return err
	}
	written := after.since(before)
	b.figures["cold_start_s"] = meter.Rounded(converged.Sub(began).Seconds(), 2)
	b.figures["cold_start_writes"] = meter.Total(written.api) + meter.Total(written.database)
	b.figures["cold_start_sql"] = meter.Total(written.statements)
	b.progress.Say("converged after %.2f s", converged.Sub(began).Seconds())
	b.show("cold start", written)
	return b.profiler.Heap(ctx, b.process, "cold")
}

func (b *bench) show(when string, c counters) {
	b.progress.Table(when+": writes to the API server", c.api, b.rows)
	b.progress.Table(when+": rows written", c.database, b.rows)
	b.progress.Table(when+": SQL statements", c.statements, b.rows)
}
