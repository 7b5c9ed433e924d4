package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dory-io/dory/test/bench/meter"
)

// convergeTimeout bounds the wait until a started operator has nothing to do.
const convergeTimeout = 10 * time.Minute

// converge waits until the operator has compared both tables with Kubernetes, has looked at every Processor, and has
// nothing left to do. It must say so twice in a row, because work moves from one queue to another.
func (b *bench) converge(ctx context.Context) error {
	var idleSince time.Time
	_, err := b.convergedAt(ctx, &idleSince)
	return err
}

// convergedAt answers the first moment of that.
func (b *bench) convergedAt(ctx context.Context, first *time.Time) (time.Time, error) {
	const confirmations = 5
	idle := 0
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, convergeTimeout, true, func(ctx context.Context) (bool, error) {
		now := b.clock.Now()
		operator, err := meter.ReadOperator(ctx, b.process)
		if err != nil {
			return false, err
		}
		if !operator.Compared() || operator.Busy() > 0 {
			idle = 0
			return false, b.rig.Check()
		}
		if idle++; idle == 1 {
			*first = now
		}
		return idle == confirmations, nil
	})
	if err != nil {
		return *first, fmt.Errorf("waiting until the operator has nothing to do: %w", err)
	}
	return *first, nil
}

// calm waits until the operator writes nothing any more, and PostgreSQL's statistics tell of everything.
func (b *bench) calm(ctx context.Context) error {
	last := -1.0
	err := wait.PollUntilContextTimeout(ctx, 3*time.Second, convergeTimeout, true, func(ctx context.Context) (bool, error) {
		writes, err := b.server.Writes(ctx)
		if err != nil {
			return false, err
		}
		operator, err := meter.ReadOperator(ctx, b.process)
		if err != nil {
			return false, err
		}
		now := meter.Total(writes)
		quiet := now == last && operator.Busy() == 0
		last = now
		return quiet, b.rig.Check()
	})
	if err != nil {
		return fmt.Errorf("waiting until nothing is written any more: %w", err)
	}
	return b.sleep(ctx, meter.StatsDelay)
}
