package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/dory-io/dory/test/bench/cluster"
)

// patience is for one drain. Kubectl itself has none.
const patience = 5 * time.Minute

// drained is one drain.
type drained struct {
	// kubectl is until kubectl had ended, whole until every counter worked on the other node.
	kubectl, whole time.Duration
}

// drainAll starts a side's counters on one node, and drains that node and the other by turns.
func (b *bench) drainAll(ctx context.Context, s side) error {
	here, there := b.cluster.Nodes[0], b.cluster.Nodes[1]
	b.progress.Say("%s: starting %d on %s", s.name(), b.processors, here)
	if err := b.start(ctx, s, here); err != nil {
		return err
	}
	for round := range b.rounds {
		for range 2 {
			if err := b.drain(ctx, s, here, there); err != nil {
				return fmt.Errorf("round %d, %s: %w", round, here, err)
			}
			here, there = there, here
		}
		last := (*s.drains())[len(*s.drains())-1]
		b.progress.Say("%s: round %d: the last drain took %.1f s, of which kubectl %.1f s", s.name(), round, last.whole.Seconds(), last.kubectl.Seconds())
	}
	return s.remove(ctx)
}

// start leaves the counters no other node to start on.
func (b *bench) start(ctx context.Context, s side, node string) error {
	for _, other := range b.cluster.Nodes {
		if other == node {
			continue
		}
		if err := b.kubectlRun(ctx, "cordon", other); err != nil {
			return err
		}
	}
	if err := s.create(ctx); err != nil {
		return err
	}
	if err := b.settle(ctx, s, node); err != nil {
		return err
	}
	return b.uncordon(ctx, b.cluster.Nodes...)
}

func (b *bench) settle(ctx context.Context, s side, node string) error {
	return cluster.Until(ctx, "all of "+s.name()+" on "+node, func(ctx context.Context) (bool, string, error) {
		return s.settled(ctx, node)
	})
}

// drain does what a platform engineer does, without flags.
func (b *bench) drain(ctx context.Context, s side, from, to string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := b.clock.Now()
	if err := b.kubectlRun(ctx, "drain", from); err != nil {
		return err
	}
	ended := drained{kubectl: b.clock.Since(began)}
	if err := b.settle(ctx, s, to); err != nil {
		return err
	}
	ended.whole = b.clock.Since(began)
	*s.drains() = append(*s.drains(), ended)
	return errors.Join(s.note(ctx), b.uncordon(ctx, from))
}

func (b *bench) uncordon(ctx context.Context, nodes ...string) error {
	return b.kubectlRun(ctx, append([]string{"uncordon"}, nodes...)...)
}

func (b *bench) kubectlRun(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, b.kubectl, args...) //nolint:gosec // a path of the Makefile, arguments of ours
	cmd.Env = os.Environ()
	output, err := cmd.CombinedOutput()
	if err != nil {
		const last = 4096
		return fmt.Errorf("kubectl %v: %w\n%s", args, err, output[max(0, len(output)-last):])
	}
	return nil
}
