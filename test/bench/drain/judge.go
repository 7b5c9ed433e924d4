package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/dory-io/dory/test/bench/meter"
	"github.com/dory-io/dory/test/bench/podlog"
	"github.com/dory-io/dory/test/bench/report"
)

// outcome is what became of a side's counters.
type outcome struct {
	proof  podlog.Proof
	turns  []podlog.Turn
	drains []drained
}

func (b *bench) judge(ctx context.Context, s side) (outcome, error) {
	o := outcome{drains: *s.drains()}
	for _, prefix := range s.prefixes() {
		if err := b.judgeCounter(ctx, &o, prefix); err != nil {
			return o, fmt.Errorf("the pods %s…: %w", prefix, err)
		}
	}
	b.progress.Say("%s: %+v", s.name(), o.proof)
	if p, ours := s.(*processors); ours {
		b.progress.Say("%s: the moves: %v", s.name(), p.outcomes())
		b.figures["moves"] = len(p.moves)
	}
	return o, nil
}

func (b *bench) judgeCounter(ctx context.Context, o *outcome, prefix string) error {
	files, err := b.logs.Of(prefix)
	if err != nil {
		return err
	}
	all, err := podlog.Chapters(files)
	if err != nil {
		return err
	}
	if want := len(o.drains) + 1; len(all) < want {
		return fmt.Errorf("logs of %d pods, want those of %d", len(all), want)
	}
	kept := b.keepLogs
	if kept != "" {
		kept = filepath.Join(kept, prefix)
	}
	proof, err := podlog.Verify(ctx, filepath.Join(b.root, "bin", "counter"), all, kept)
	if err != nil {
		return err
	}
	o.proof.Add(proof)
	for i := 1; i < len(all); i++ {
		o.turns = append(o.turns, podlog.TurnOf(all[i-1], all[i]))
	}
	return nil
}

func (o *outcome) pause(p float64) time.Duration {
	return meter.Percentile(podlog.Pauses(o.turns), p)
}

// total is the time of all drains together.
func (o *outcome) total() time.Duration {
	var sum time.Duration
	for _, d := range o.drains {
		sum += d.whole
	}
	return sum
}

func (o *outcome) tell(figures report.Figures, side string) {
	const one = 1
	var kubectl time.Duration
	for _, d := range o.drains {
		kubectl += d.kubectl
	}
	figures[side+"_total_s"] = meter.Rounded(o.total().Seconds(), one)
	figures[side+"_kubectl_s"] = meter.Rounded(kubectl.Seconds(), one)
	figures[side+"_pause_p50_ms"] = meter.Milliseconds(o.pause(0.5))
	figures[side+"_pause_p99_ms"] = meter.Milliseconds(o.pause(0.99))
	figures[side+"_pause_max_ms"] = meter.Milliseconds(o.pause(1))
}
