package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dory-io/dory/test/bench/meter"
)

// change is one changed row.
type change struct {
	id     string
	insert bool
	// at is the moment before the statement was sent, so that the commit itself is part of what is measured.
	at time.Time
	// revision is the row's, as the database answered it.
	revision int64
}

// answerTimeout is how long the last changes may take.
const answerTimeout = 2 * time.Minute

// changes is how many rows change.
func (b *bench) changes() int { return int(b.changing.Seconds()) * b.rate }

// measureChanges changes rows at a steady rate, whatever the answers take.
func (b *bench) measureChanges(ctx context.Context) error {
	if err := b.calm(ctx); err != nil {
		return err
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	seen, err := watchAll(watching, b.rig.Admin, b.clock)
	if err != nil {
		return err
	}
	before, err := b.count(ctx)
	if err != nil {
		return err
	}
	operatorBefore, err := meter.ReadOperator(ctx, b.process)
	if err != nil {
		return err
	}
	cpuBefore, err := meter.CPUSeconds()
	if err != nil {
		return err
	}
	b.progress.Say("changing %d rows, %d a second", b.changes(), b.rate)
	profiled := b.profiler.Take(ctx, b.process, "changes")
	made, err := b.changeRows(ctx)
	if err != nil {
		return err
	}
	cpuAfter, err := meter.CPUSeconds()
	if err != nil {
		return err
	}
	b.progress.Table("seconds of processor time, of "+b.changing.String(), meter.Difference(cpuBefore, cpuAfter), b.changes())
	b.progress.Say("changed; waiting for the last answers")
	if err := b.evaluate(ctx, made, seen); err != nil {
		return err
	}
	if err := <-profiled; err != nil {
		return err
	}
	return b.chargeChanges(ctx, before, operatorBefore)
}

// changeRows sends a statement at every tick, without waiting for the one before.
func (b *bench) changeRows(ctx context.Context) ([]change, error) {
	made := make([]change, b.changes())
	errs := make([]error, b.changes())
	ticker := b.clock.NewTicker(time.Second / time.Duration(b.rate))
	defer ticker.Stop()
	var sending sync.WaitGroup
	for i := range made {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C():
		}
		sending.Go(func() { made[i], errs[i] = b.changeRow(ctx, i) })
	}
	sending.Wait()
	return made, errors.Join(errs...)
}

// changeRow inserts a row, or changes that of a suspended processor.
func (b *bench) changeRow(ctx context.Context, i int) (change, error) {
	pool := b.rig.Database.Pool()
	if b.isInsert(i) {
		number := b.rows + 1 + i
		c := change{id: rowID(number), insert: true, at: b.clock.Now()}
		template, sensor := fmt.Sprintf("template-%d", 1+number%templates), fmt.Sprintf("sensor-%d", number)
		err := pool.QueryRow(ctx, insertSQL, c.id, template, sensor, namespaceOf(number)).Scan(&c.revision)
		return c, wrap(err, "inserting row %s", c.id)
	}
	c := change{id: rowID(suspendedEvery * (1 + i%(b.rows/suspendedEvery))), at: b.clock.Now()}
	err := pool.QueryRow(ctx, updateSQL, c.id, strconv.Itoa(i)).Scan(&c.revision)
	return c, wrap(err, "changing row %s", c.id)
}

// isInsert spreads the inserts evenly over the changes.
func (b *bench) isInsert(i int) bool { return (i+1)*b.inserts/100 > i*b.inserts/100 }

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// latencies are what the changes took.
type latencies struct{ processors, pods []time.Duration }

func (b *bench) evaluate(ctx context.Context, made []change, seen *journal) error {
	var found latencies
	missing := ""
	err := wait.PollUntilContextTimeout(ctx, time.Second, answerTimeout, true, func(context.Context) (bool, error) {
		var err error
		found, missing, err = collect(made, seen)
		return missing == "", errors.Join(err, b.rig.Check())
	})
	if err != nil {
		return fmt.Errorf("waiting for what follows the changes; %s: %w", missing, err)
	}
	b.figures["changes"] = len(made)
	b.figures["changes_per_s"] = b.rate
	b.figures["inserts"] = len(found.pods)
	for key, durations := range map[string][]time.Duration{
		"row_to_cr": found.processors, "row_to_pod": found.pods,
	} {
		b.figures[key+"_p50_ms"] = meter.Milliseconds(meter.Percentile(durations, 0.5))
		b.figures[key+"_p99_ms"] = meter.Milliseconds(meter.Percentile(durations, 0.99))
		b.figures[key+"_max_ms"] = meter.Milliseconds(meter.Percentile(durations, 1))
	}
	b.progress.Say("row to Processor: p50 %v ms, p99 %v ms; row to new pod: p50 %v ms, p99 %v ms",
		b.figures["row_to_cr_p50_ms"], b.figures["row_to_cr_p99_ms"], b.figures["row_to_pod_p50_ms"], b.figures["row_to_pod_p99_ms"])
	return nil
}

// collect gathers the answers to all changes; missing names one that has none yet.
func collect(made []change, seen *journal) (found latencies, missing string, err error) {
	for _, c := range made {
		processor, pod, err := seen.answers(c)
		if err != nil {
			return found, "", err
		}
		if processor < 0 || (c.insert && pod < 0) {
			missing = fmt.Sprintf("row %s (insert: %v) has its Processor after %s and its pod after %s (negative: not yet)", c.id, c.insert, processor, pod)
			continue
		}
		found.processors = append(found.processors, processor)
		if c.insert {
			found.pods = append(found.pods, pod)
		}
	}
	return found, missing, nil
}

// chargeChanges says what the changes cost, once all that they set off is over.
func (b *bench) chargeChanges(ctx context.Context, before counters, operatorBefore meter.Operator) error {
	if err := b.waitRunning(ctx, b.rows-b.rows/suspendedEvery+b.changes()*b.inserts/100); err != nil {
		return err
	}
	if err := b.calm(ctx); err != nil {
		return err
	}
	after, err := b.count(ctx)
	if err != nil {
		return err
	}
	operator, err := meter.ReadOperator(ctx, b.process)
	if err != nil {
		return err
	}
	each := func(total float64) float64 { return meter.Rounded(total/float64(b.changes()), 2) }
	written := after.since(before)
	b.figures["api_writes_per_change"] = each(operator.Writes() - operatorBefore.Writes())
	b.figures["api_reads_per_change"] = each(operator.Reads() - operatorBefore.Reads())
	b.figures["sql_per_change"] = each(meter.Total(written.statements))
	b.figures["changes_cpu_ms_each"] = each(float64((operator.Process.CPU - operatorBefore.Process.CPU).Milliseconds()))
	b.progress.Table("changes: writes to the API server, by all", written.api, b.changes())
	b.progress.Table("changes: SQL statements", written.statements, b.changes())
	return nil
}
