// Package report hands a benchmark's figures over: progress for people on standard error, and one line of JSON, the
// last, on standard output.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"k8s.io/utils/clock"
)

// Progress tells what goes on, and since when.
type Progress struct {
	out   io.Writer
	clock clock.PassiveClock
	began time.Time
}

// NewProgress starts the time.
func NewProgress(clk clock.PassiveClock) *Progress {
	return &Progress{out: os.Stderr, clock: clk, began: clk.Now()}
}

// Say writes one line.
func (p *Progress) Say(format string, args ...any) {
	p.write("%6.1f s  %s\n", p.clock.Since(p.began).Seconds(), fmt.Sprintf(format, args...))
}

// write ignores errors: a benchmark whose progress nobody reads goes on.
func (p *Progress) write(format string, args ...any) {
	_, err := fmt.Fprintf(p.out, format, args...)
	_ = err
}

// Table writes counters for a number of objects, the largest first.
func (p *Progress) Table(title string, counters map[string]float64, objects int) {
	p.Say("%s:", title)
	names := slices.SortedFunc(maps.Keys(counters), func(a, b string) int {
		if counters[a] != counters[b] {
			return int(counters[b] - counters[a])
		}
		return 1
	})
	for _, name := range names {
		p.write("%20.0f %8.2f each  %s\n", counters[name], counters[name]/float64(objects), name)
	}
}

// Figures are the keys and values of the last line.
type Figures map[string]any

// Print writes the line.
func (f Figures) Print() error {
	line, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("writing the figures as JSON: %w", err)
	}
	_, err = fmt.Fprintf(os.Stdout, "%s\n", line)
	return err
}
