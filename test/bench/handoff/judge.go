package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/dory-io/dory/test/bench/meter"
)

// proof is what "counter verify" finds in the lines of one counter. Its words explain themselves there.
type proof struct {
	Lines        int64 `json:"lines"`
	Lost         int64 `json:"lost"`
	Repeated     int64 `json:"repeated"`
	Broken       int64 `json:"broken"`
	Unlogged     int64 `json:"unlogged"`
	EpochFell    int64 `json:"epochFell"`
	Overlaps     int64 `json:"overlaps"`
	SharedEpochs int64 `json:"sharedEpochs"`
	SequenceFell int64 `json:"sequenceFell"`
}

func (p *proof) add(other proof) {
	p.Lines += other.Lines
	p.Lost += other.Lost
	p.Repeated += other.Repeated
	p.Broken += other.Broken
	p.Unlogged += other.Unlogged
	p.EpochFell += other.EpochFell
	p.Overlaps += other.Overlaps
	p.SharedEpochs += other.SharedEpochs
	p.SequenceFell += other.SequenceFell
}

func (p *proof) whole() bool {
	return p.Lines > 0 && p.Lost+p.Repeated+p.Broken+p.EpochFell+p.Overlaps+p.SharedEpochs+p.SequenceFell == 0
}

// outcome is what became of all moves of a kind.
type outcome struct {
	kind  kind
	proof proof
	moves []move
	turns []turn
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
	var exact proof
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
		exact.add(o.proof)
		if !o.proof.whole() {
			verdict = errors.Join(verdict, fmt.Errorf("%w: %s: %+v", errNotWhole, k.name, o.proof))
		}
	}
	b.figures["moves"], b.figures["moves_not_succeeded"] = succeeded, failed
	b.figures["lost"], b.figures["repeated"], b.figures["unlogged"] = exact.Lost, exact.Repeated, exact.Unlogged
	ours := meter.Percentile(pauses(outcomes[live64k.name].turns), 0.5)
	theirs := meter.Percentile(pauses(outcomes[statefulSet.name].turns), 0.5)
	if ours > 0 {
		b.figures["statefulset_over_live"] = meter.Rounded(float64(theirs)/float64(ours), 1)
	}
	return verdict, nil
}

func (b *bench) addTo(ctx context.Context, o *outcome, s *story) error {
	files, err := b.logs.of(prefixOf(s))
	if err != nil {
		return err
	}
	all, err := chapters(files)
	if err != nil {
		return err
	}
	found, err := b.verify(ctx, s, all)
	if err != nil {
		return fmt.Errorf("verifying what %s printed: %w", s.name, err)
	}
	turned, err := turns(s, all)
	if err != nil {
		return err
	}
	o.proof.add(found)
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
	stood := pauses(o.turns)
	name := o.kind.name
	b.figures[name+"_moves"] = len(o.turns)
	b.figures[name+"_p50_ms"] = meter.Milliseconds(meter.Percentile(stood, 0.5))
	b.figures[name+"_p99_ms"] = meter.Milliseconds(meter.Percentile(stood, 0.99))
	b.figures[name+"_max_ms"] = meter.Milliseconds(longest(o.turns))
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
	if both := boths(o.turns); meter.Percentile(both, 1) > 0 {
		b.figures[name+"_both_worked_p50_ms"] = meter.Milliseconds(meter.Percentile(both, 0.5))
	}
	b.progress.Say("%s: %d moves, %d not succeeded, %+v", name, len(o.turns), o.failed, o.proof)
}

// verify lets the counter's own program prove what its lines say: those of one pod after those of the one before.
func (b *bench) verify(ctx context.Context, s *story, all []*chapter) (proof, error) {
	var found proof
	cmd := exec.CommandContext(ctx, filepath.Join(b.root, "bin", "counter"), "verify", "--allow-unlogged") //nolint:gosec // the repository's own
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return found, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return found, fmt.Errorf("starting bin/counter (was it built?): %w", err)
	}
	copied := b.copyLines(stdin, s, all)
	// It answers 1 where the lines are not whole, which is for the caller to judge.
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		return found, errors.Join(fmt.Errorf("%w: %s", err, stderr.String()), copied)
	}
	if copied != nil {
		return found, copied
	}
	if err := json.Unmarshal(stdout.Bytes(), &found); err != nil {
		return found, fmt.Errorf("its answer %q: %w", stdout.String(), err)
	}
	return found, nil
}

func (b *bench) copyLines(to io.WriteCloser, s *story, all []*chapter) error {
	var err error
	for _, c := range all {
		for _, f := range c.files {
			err = errors.Join(err, b.copyFile(to, s, f))
		}
	}
	return errors.Join(err, to.Close())
}

func (b *bench) copyFile(to io.Writer, s *story, f logFile) (err error) {
	if b.keepLogs != "" {
		dir := filepath.Join(b.keepLogs, s.name)
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
		path := filepath.Join(dir, f.pod+"."+f.uid)
		kept, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // the names are Kubernetes'
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, kept.Close()) }()
		to = io.MultiWriter(to, kept)
	}
	return f.lines(func(line []byte) error {
		_, err := to.Write(append(line, '\n'))
		return err
	})
}
