package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
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
	Pods      int   `json:"pods"`
	// Ignored lines are none of the counter's, such as the SDK's log.
	Ignored int64 `json:"ignored"`
}

func (r report) whole(allowUnlogged bool) bool {
	return r.Lines > 0 && r.Lost+r.Repeated+r.Broken+r.EpochFell == 0 && (allowUnlogged || r.Unlogged == 0)
}

func verifyCommand(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("counter verify", flag.ContinueOnError)
	flags.SetOutput(stderr)
	allowUnlogged := flags.Bool("allow-unlogged", false, "accept iterations without a line that the hash chain proves, such as where a pod's log is gone")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	r, err := verify(stdin)
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
}

func verify(in io.Reader) (report, error) {
	v := verifier{pods: make(map[string]bool)}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLineBytes)
	for lines.Scan() {
		if text := bytes.TrimSpace(lines.Bytes()); len(text) > 0 {
			v.read(text)
		}
	}
	if err := lines.Err(); err != nil {
		return report{}, fmt.Errorf("reading lines: %w", err)
	}
	v.Last, v.Pods = v.head.N, len(v.pods)
	return v.report, nil
}

// read ignores what is no line of the counter. A line torn by a crash is also none; the chain shows what it was.
func (v *verifier) read(text []byte) {
	var l line
	if json.Unmarshal(text, &l) != nil || l.N < 1 || l.Hash == "" {
		v.Ignored++
		return
	}
	v.Lines++
	v.pods[l.Pod] = true
	if l.Epoch < v.epoch {
		v.EpochFell++
	}
	v.epoch = max(v.epoch, l.Epoch)
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
