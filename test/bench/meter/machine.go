package meter

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"k8s.io/utils/clock"
)

// watched is how long the machine is looked at before a benchmark begins.
const watched = 2 * time.Second

// Busy looks at the machine before a benchmark starts its own processes, tells how busy it is with other things, and answers
// that in whole percent.
func Busy(ctx context.Context, clk clock.Clock, say func(format string, args ...any)) (float64, error) {
	busy, err := BusyPercent(ctx, clk, watched)
	if err != nil {
		return 0, err
	}
	say("the machine is %.0f %% busy with other things", busy)
	return Rounded(busy, 0), nil
}

// BusyPercent says how busy all processors of the machine are together, from 0 to 100, watched for a while. Before a
// benchmark starts its own processes, this is what others take from it.
func BusyPercent(ctx context.Context, clk clock.Clock, during time.Duration) (float64, error) {
	before, err := readCPU()
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-clk.After(during):
	}
	after, err := readCPU()
	if err != nil {
		return 0, err
	}
	total, idle := after.total-before.total, after.idle-before.idle
	if total == 0 {
		return 0, nil
	}
	return 100 * (total - idle) / total, nil
}

type cpuTime struct{ total, idle float64 }

func readCPU() (cpuTime, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTime{}, fmt.Errorf("reading how busy the machine is: %w", err)
	}
	return parseCPU(string(text))
}

// parseCPU reads the first line of /proc/stat: "cpu user nice system idle iowait irq softirq steal ...".
func parseCPU(text string) (cpuTime, error) {
	line, _, _ := strings.Cut(text, "\n")
	var t cpuTime
	fields := strings.Fields(line)
	const idle, iowait, last = 4, 5, 8 // what follows is part of the earlier ones
	for i := 1; i < len(fields) && i <= last; i++ {
		value, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return t, fmt.Errorf("/proc/stat: %q: %w", line, err)
		}
		t.total += value
		if i == idle || i == iowait {
			t.idle += value
		}
	}
	return t, nil
}
