package meter

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc, which is the same on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// Process is what the kernel says about a process.
type Process struct {
	// RSS is the memory that it has now, and Peak the most that it had, in bytes.
	RSS, Peak int64
	// CPU is the processor time that it took so far.
	CPU time.Duration
}

// ReadProcess reads /proc.
func ReadProcess(pid int) (Process, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Process{}, fmt.Errorf("reading about the operator's process: %w", err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, fmt.Errorf("reading about the operator's process: %w", err)
	}
	return parseProcess(string(status), string(stat))
}

// The places of utime and stime in /proc/PID/stat, counted behind the name, which may contain anything.
const (
	utimeField = 11
	stimeField = 12
)

func parseProcess(status, stat string) (Process, error) {
	var p Process
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		target := map[string]*int64{"VmRSS": &p.RSS, "VmHWM": &p.Peak}[name]
		if target == nil {
			continue
		}
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return p, fmt.Errorf("/proc/PID/status: %q: %w", line, err)
		}
		*target = kilobytes << 10
	}
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) <= stimeField {
		return p, fmt.Errorf("/proc/PID/stat has %d fields, expected more: %q", len(fields), stat)
	}
	for _, i := range []int{utimeField, stimeField} {
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return p, fmt.Errorf("/proc/PID/stat, field %d: %w", i, err)
		}
		p.CPU += time.Duration(ticks) * tick
	}
	return p, nil
}
