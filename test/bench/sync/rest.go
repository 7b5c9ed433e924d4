package main

import (
	"context"

	"github.com/dory-io/dory/test/bench/meter"
)

// measureRest watches the operator while nothing changes.
func (b *bench) measureRest(ctx context.Context) error {
	b.progress.Say("at rest for %s", b.resting)
	before, err := b.count(ctx)
	if err != nil {
		return err
	}
	operatorBefore, err := meter.ReadOperator(ctx, b.process)
	if err != nil {
		return err
	}
	began := b.clock.Now()
	if err := b.sleep(ctx, b.resting); err != nil {
		return err
	}
	process, err := meter.ReadProcess(b.process.PID)
	if err != nil {
		return err
	}
	lasted := b.clock.Since(began)
	operatorAfter, err := meter.ReadOperator(ctx, b.process)
	if err != nil {
		return err
	}
	if err := b.sleep(ctx, meter.StatsDelay); err != nil {
		return err
	}
	after, err := b.count(ctx)
	if err != nil {
		return err
	}
	const mb = 1 << 20
	written := after.since(before)
	b.figures["rest_api_writes"] = meter.Total(written.api)
	b.figures["rest_db_writes"] = meter.Total(written.database)
	b.figures["rest_sql"] = meter.Total(written.statements)
	b.figures["rest_api_reads"] = operatorAfter.Reads() - operatorBefore.Reads()
	b.figures["rest_rss_mb"] = meter.Rounded(float64(process.RSS)/mb, 1)
	b.figures["peak_rss_mb"] = meter.Rounded(float64(process.Peak)/mb, 1)
	b.figures["empty_rss_mb"] = meter.Rounded(float64(b.emptyRSS)/mb, 1)
	b.figures["rest_heap_mb"] = meter.Rounded(operatorAfter.HeapBytes()/mb, 1)
	b.figures["rest_cpu_pct"] = meter.Rounded(100*(process.CPU-operatorBefore.Process.CPU).Seconds()/lasted.Seconds(), 2)
	b.show("at rest", written)
	return <-b.profiler.Take(ctx, b.process, "rest")
}
