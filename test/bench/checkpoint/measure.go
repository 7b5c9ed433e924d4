package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dory-io/dory/test/bench/meter"
)

// samplesPerInterval is how often all ages are looked at.
const samplesPerInterval = 30

// moment is what was counted up to a point in time.
type moment struct {
	at       time.Time
	operator meter.Operator
	api      map[string]float64
	database map[string]float64
	cpu      map[string]float64
}

func (b *bench) moment(ctx context.Context) (moment, error) {
	var m moment
	var err error
	if m.api, err = b.server.Writes(ctx); err != nil {
		return m, err
	}
	if m.database, err = b.database.Statements(ctx); err != nil {
		return m, err
	}
	if m.cpu, err = meter.CPUSeconds(); err != nil {
		return m, err
	}
	m.operator, err = meter.ReadOperator(ctx, b.process)
	m.at = b.clock.Now()
	return m, err
}

// measure watches the operator while every processor works and nothing else happens.
func (b *bench) measure(ctx context.Context) error {
	b.progress.Say("measuring for %d intervals of %s", b.intervals, b.interval)
	before, err := b.moment(ctx)
	if err != nil {
		return err
	}
	profiled := b.profiler.Take(ctx, b.process, "checkpoint")
	b.copies.count(true)
	ages, err := b.sampleAges(ctx)
	if err != nil {
		return err
	}
	b.copies.count(false)
	after, err := b.moment(ctx)
	if err != nil {
		return err
	}
	if err := <-profiled; err != nil {
		return err
	}
	b.tell(before, after)
	return b.tellAges(ages)
}

// sampleAges looks at the age of every stored state again and again.
func (b *bench) sampleAges(ctx context.Context) ([]time.Duration, error) {
	ages := make([]time.Duration, 0, b.intervals*samplesPerInterval*b.processors)
	for range b.intervals * samplesPerInterval {
		if err := b.sleep(ctx, b.interval/samplesPerInterval); err != nil {
			return nil, err
		}
		now := b.clock.Now()
		for _, p := range b.fleet.all() {
			age, _ := p.age(now)
			ages = append(ages, age)
		}
	}
	return ages, b.rig.Check()
}

func (b *bench) tell(before, after moment) {
	const mb = 1 << 20
	lasted := after.at.Sub(before.at)
	cpu := after.operator.Process.CPU - before.operator.Process.CPU
	writes := after.operator.Writes() - before.operator.Writes()
	api := meter.Difference(before.api, after.api)
	sql := meter.Difference(before.database, after.database)
	stored := float64(b.copies.stored)
	each := func(total float64) float64 { return meter.Rounded(total/max(stored, 1), 3) }

	b.figures["measured_s"] = meter.Rounded(lasted.Seconds(), 1)
	b.figures["cpu_pct"] = meter.Rounded(100*cpu.Seconds()/lasted.Seconds(), 1)
	b.figures["rss_mb"] = meter.Rounded(float64(after.operator.Process.RSS)/mb, 1)
	b.figures["peak_rss_mb"] = meter.Rounded(float64(after.operator.Process.Peak)/mb, 1)
	b.figures["heap_mb"] = meter.Rounded(after.operator.HeapBytes()/mb, 1)
	b.figures["checkpoints"] = b.copies.stored
	b.figures["cpu_ms_per_checkpoint"] = each(float64(cpu) / float64(time.Millisecond))
	b.figures["api_writes_per_checkpoint"] = each(writes)
	b.figures["api_reads_per_checkpoint"] = each(after.operator.Reads() - before.operator.Reads())
	b.figures["sql_per_checkpoint"] = each(meter.Total(sql))
	b.figures["results"] = meter.Difference(before.results(), after.results())
	b.progress.Table("processor seconds of all programs", meter.Difference(before.cpu, after.cpu), b.copies.stored)
	b.progress.Table("writes that the API server saw from all", api, b.copies.stored)
	b.progress.Table("SQL statements of the operator", sql, b.copies.stored)
}

// results are how the operator's looks at processors ended, by its own word.
func (m moment) results() map[string]float64 {
	return m.operator.Families.By("dory_checkpoints_total", func(l meter.Labels) string { return l["result"] })
}

// tellAges tells how old copies are at any moment, and how old they get before they are replaced.
func (b *bench) tellAges(ages []time.Duration) error {
	inIntervals := func(age time.Duration) float64 { return meter.Rounded(float64(age)/float64(b.interval), 3) }
	b.figures["age_p50_over_interval"] = inIntervals(meter.Percentile(ages, 0.5))
	b.figures["age_p99_over_interval"] = inIntervals(meter.Percentile(ages, 0.99))
	b.figures["age_max_over_interval"] = inIntervals(meter.Percentile(ages, 1))
	b.figures["age_when_replaced_p99_over_interval"] = inIntervals(meter.Percentile(b.copies.ages, 0.99))
	for _, p := range b.fleet.all() {
		p.mu.Lock()
		refused := p.refused
		p.mu.Unlock()
		if refused > 0 {
			return fmt.Errorf("the operator sent %d requests to pod %s that nobody should send to a healthy processor", refused, p.pod)
		}
	}
	return nil
}
