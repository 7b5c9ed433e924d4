package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/dory-io/dory/test/bench/meter"
	"github.com/dory-io/dory/test/bench/podlog"
)

// outcome is what became of all moves of a kind.
type outcome struct {
	kind  kind
	proof podlog.Proof
	moves []move
	turns []podlog.Turn
	// failed counts the moves that did not succeed.
	failed int
}

var errNotWhole = errors.New("iterations were lost or done twice where none may be")

// judge makes the figures. The verdict is the error that the figures show; err is why there are none.
func (b *bench) judge(ctx context.Context, stories []*story) (verdict, err error) {
	outcomes := map[string]*outcome{}
	for _, k := range kinds {
		outcomes[k.name] = &outcome{kind: k}
	}
	for _, s := range stories {
		if err := b.addTo(ctx, outcomes[s.kind.name], s); err != nil {
			return nil, err
		}
	}
	var exact podlog.Proof
	succeeded, failed := 0, 0
	for _, k := range kinds {
		o := outcomes[k.name]
		b.tell(o)
		failed += o.failed
		if k.strategy != "" {
			succeeded += len(o.turns)
		}
		if !k.exact {
			continue
		}
		exact.Add(o.proof)
		if !o.proof.Whole() {
			verdict = errors.Join(verdict, fmt.Errorf("%w: %s: %+v", errNotWhole, k.name, o.proof))
		}
	}
	b.figures["moves"], b.figures["moves_not_succeeded"] = succeeded, failed
	b.figures["lost"], b.figures["repeated"], b.figures["unlogged"] = exact.Lost, exact.Repeated, exact.Unlogged
	ours := meter.Percentile(podlog.Pauses(outcomes[live64k.name].turns), 0.5)
	theirs := meter.Percentile(podlog.Pauses(outcomes[statefulSet.name].turns), 0.5)
	if ours > 0 {
		b.figures["statefulset_over_live"] = meter.Rounded(float64(theirs)/float64(ours), 1)
	}
	return verdict, nil
}

func (b *bench) addTo(ctx context.Context, o *outcome, s *story) error {
	files, err := b.logs.Of(prefixOf(s))
	if err != nil {
		return err
	}
	all, err := podlog.Chapters(files)
	if err != nil {
		return err
	}
	found, err := podlog.Verify(ctx, filepath.Join(b.root, "bin", "counter"), all, b.kept(s))
	if err != nil {
		return fmt.Errorf("verifying what %s printed: %w", s.name, err)
	}
	turned, err := turns(s, all)
	if err != nil {
		return err
	}
	o.proof.Add(found)
	o.turns = append(o.turns, turned...)
	for _, m := range s.ended {
		if m.succeeded() {
			o.moves = append(o.moves, m)
		} else {
			o.failed++
		}
	}
	return nil
}

// prefixOf is how the names of a story's pods begin.
func prefixOf(s *story) string {
	if s.kind.strategy == "" {
		return s.name + "-"
	}
	return "dory-" + s.name + "-"
}

func (b *bench) tell(o *outcome) {
	stood := podlog.Pauses(o.turns)
	name := o.kind.name
	b.figures[name+"_moves"] = len(o.turns)
	b.figures[name+"_p50_ms"] = meter.Milliseconds(meter.Percentile(stood, 0.5))
	b.figures[name+"_p99_ms"] = meter.Milliseconds(meter.Percentile(stood, 0.99))
	b.figures[name+"_max_ms"] = meter.Milliseconds(meter.Percentile(stood, 1))
	if !o.kind.exact {
		b.figures[name+"_lost"], b.figures[name+"_repeated"] = o.proof.Lost, o.proof.Repeated
	}
	durations := collect(o.moves, func(m move) time.Duration { return m.duration })
	b.figures[name+"_whole_move_p50_s"] = meter.Rounded(meter.Percentile(durations, 0.5).Seconds(), 1)
	if o.kind.strategy != "" {
		seen := collect(o.moves, func(m move) time.Duration { return m.pause })
		b.figures[name+"_operator_saw_p50_ms"] = meter.Milliseconds(meter.Percentile(seen, 0.5))
		b.figures[name+"_operator_saw_p99_ms"] = meter.Milliseconds(meter.Percentile(seen, 0.99))
	}
	if both := podlog.Boths(o.turns); meter.Percentile(both, 1) > 0 {
		b.figures[name+"_both_worked_p50_ms"] = meter.Milliseconds(meter.Percentile(both, 0.5))
	}
	b.progress.Say("%s: %d moves, %d not succeeded, %+v", name, len(o.turns), o.failed, o.proof)
}

// kept is where the lines of a story are kept; empty for nowhere.
func (b *bench) kept(s *story) string {
	if b.keepLogs == "" {
		return ""
	}
	return filepath.Join(b.keepLogs, s.name)
}

func collect(moves []move, value func(move) time.Duration) []time.Duration {
	values := make([]time.Duration, 0, len(moves))
	for _, m := range moves {
		values = append(values, value(m))
	}
	return values
}
