package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"slices"
)

const (
	maxLineBytes = 1 << 20
	// maxGap bounds how many iterations without a line are worth computing.
	maxGap = 10_000_000
)

// report is what the lines prove.
type report struct {
	// Lines of iterations read.
	Lines int64 `json:"lines"`
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	// Lost iterations: their numbers are left out, and the hash chain does not go through them.
	Lost int64 `json:"lost"`
	// Repeated iterations: their numbers have been seen before.
	Repeated int64 `json:"repeated"`
	// Broken hashes do not follow from the line before, though the number does.
	Broken int64 `json:"broken"`
	// Unlogged iterations have no line, but the hash chain proves that they were done once.
	Unlogged int64 `json:"unlogged"`
	// EpochFell counts lines with a lower epoch than one before them.
	EpochFell int64 `json:"epochFell"`
	// Overlaps counts epochs in which an iteration was done at or after the time of a later epoch's first one: two instances
	// acted at once. Lines without a time prove nothing about it.
	Overlaps int64 `json:"overlaps"`
	// SharedEpochs counts epochs in which more than one pod acted.
	SharedEpochs int64 `json:"sharedEpochs"`
	// SequenceFell counts lines whose sequence is not higher than that of the iteration before them.
	SequenceFell int64 `json:"sequenceFell"`
	Pods         int   `json:"pods"`
	// Moves are changes of the acting pod. Their pauses, from the last iteration of the one to the first of the other,
	// are by the pods' own clocks, and so tell something only where that is the same clock.
	Moves      int     `json:"moves"`
	PauseP50MS float64 `json:"pauseP50Ms"`
	PauseP99MS float64 `json:"pauseP99Ms"`
	PauseMaxMS float64 `json:"pauseMaxMs"`
	// Ignored lines are none of the counter's, such as the SDK's log.
	Ignored int64 `json:"ignored"`
}

func (r report) whole(allowUnlogged bool) bool {
	return r.Lines > 0 && r.Lost+r.Repeated+r.Broken+r.EpochFell+r.Overlaps+r.SharedEpochs+r.SequenceFell == 0 && (allowUnlogged || r.Unlogged == 0)
}

func verifyCommand(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("counter verify", flag.ContinueOnError)
	flags.SetOutput(stderr)
	allowUnlogged := flags.Bool("allow-unlogged", false, "accept iterations without a line that the hash chain proves, such as where a pod's log is gone")
	unsorted := flags.Bool("sort", false, "put the lines into the order of their times first, where the logs of several pods come one after the other in any order")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	r, err := verify(stdin, *unsorted)
	if err != nil {
		say(stderr, "counter verify:", err)
		return 2
	}
	if err := json.NewEncoder(stdout).Encode(r); err != nil {
		say(stderr, "counter verify:", err)
		return 2
	}
	if r.Lines == 0 {
		say(stderr, "counter verify: no line of a counter was read, which proves nothing")
	}
	if !r.whole(*allowUnlogged) {
		return 1
	}
	return 0
}

// verifier goes along the chain. Lines of several pods must come in the order in which the pods acted.
type verifier struct {
	report

	started bool
	head    line // The line with the highest number.
	epoch   int64
	pods    map[string]bool
	acts    acts
}

func verify(in io.Reader, unsorted bool) (report, error) {
	v := verifier{pods: make(map[string]bool)}
	lines, err := v.read(in)
	if err != nil {
		return report{}, err
	}
	if unsorted {
		slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.Nanos, b.Nanos) })
	}
	for _, l := range lines {
		v.take(l)
	}
	v.Last, v.Pods = v.head.N, len(v.pods)
	v.acts.judge(&v.report)
	return v.report, nil
}

// read ignores what is no line of the counter. A line torn by a crash is also none; the chain shows what it was.
func (v *verifier) read(in io.Reader) (found []line, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLineBytes)
	for lines.Scan() {
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		var l line
		if json.Unmarshal(text, &l) != nil || l.N < 1 || l.Hash == "" {
			v.Ignored++
			continue
		}
		found = append(found, l)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading lines: %w", err)
	}
	return found, nil
}

func (v *verifier) take(l line) {
	v.Lines++
	v.pods[l.Pod] = true
	if l.Epoch < v.epoch {
		v.EpochFell++
	}
	v.epoch = max(v.epoch, l.Epoch)
	v.acts.add(l)
	v.follow(l)
}

func (v *verifier) follow(l line) {
	switch {
	case !v.started:
		v.started, v.First = true, l.N
		if l.N == 1 && l.Hash != chain("", 1) {
			v.Broken++
		}
	case l.N <= v.head.N:
		v.Repeated++
		return
	case l.N == v.head.N+1:
		if l.Hash != chain(v.head.Hash, l.N) {
			v.Broken++
		}
		if l.Sequence != 0 && l.Sequence <= v.head.Sequence {
			v.SequenceFell++
		}
	default:
		v.leap(l)
	}
	v.head = l
}

// leap tells iterations that left no line from those that were not done.
func (v *verifier) leap(l line) {
	missing := l.N - v.head.N - 1
	if missing <= maxGap && bridge(v.head, l.N) == l.Hash {
		v.Unlogged += missing
		return
	}
	v.Lost += missing
}

// bridge is the hash of iteration n, if all between it and the line from were done.
func bridge(from line, n int64) string {
	hash := from.Hash
	for i := from.N + 1; i <= n; i++ {
		hash = chain(hash, i)
	}
	return hash
}
