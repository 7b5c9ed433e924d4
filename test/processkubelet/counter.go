package processkubelet

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// CounterPackage is the processor whose output proves what happened to its state.
const CounterPackage = "github.com/dory-io/dory/examples/counter"

// Chain is what "counter verify" says of lines; see examples/counter.
type Chain struct {
	Lines     int64 `json:"lines"`
	First     int64 `json:"first"`
	Last      int64 `json:"last"`
	Lost      int64 `json:"lost"`
	Repeated  int64 `json:"repeated"`
	Broken    int64 `json:"broken"`
	Unlogged  int64 `json:"unlogged"`
	EpochFell int64 `json:"epochFell"`
	Pods      int   `json:"pods"`
	Ignored   int64 `json:"ignored"`
	// Whole says that nothing was lost or repeated.
	Whole bool `json:"-"`
}

// VerifyChain lets the counter's own binary judge lines, in the order of the times in them: two processes on one clock.
func VerifyChain(ctx context.Context, counter string, lines []Line) (Chain, error) {
	type stamped struct {
		time, text string
	}
	var ordered []stamped
	for _, line := range lines {
		var iteration struct {
			N    int64  `json:"n"`
			Time string `json:"time"`
		}
		if json.Unmarshal([]byte(line.Text), &iteration) == nil && iteration.N > 0 {
			ordered = append(ordered, stamped{padded(iteration.Time), line.Text})
		}
	}
	slices.SortStableFunc(ordered, func(a, b stamped) int { return cmp.Compare(a.time, b.time) })
	var input strings.Builder
	for _, line := range ordered {
		input.WriteString(line.text + "\n")
	}
	var chain Chain
	cmd := exec.CommandContext(ctx, counter, "verify")
	cmd.Stdin = strings.NewReader(input.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		return chain, fmt.Errorf("%s verify: %w\n%s", counter, err, &stderr)
	}
	chain.Whole = err == nil
	return chain, json.Unmarshal(output, &chain)
}

// padded gives an RFC 3339 time in UTC all of its nine digits, so that it sorts as text.
func padded(time string) string {
	const digits = 9
	seconds, fraction, _ := strings.Cut(strings.TrimSuffix(time, "Z"), ".")
	return seconds + "." + fraction + strings.Repeat("0", max(0, digits-len(fraction)))
}
