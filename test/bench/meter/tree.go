package meter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// CPUSeconds says how much processor time this process and everything that it started took so far, by the programs'
// names.
func CPUSeconds() (map[string]float64, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	found := map[int]kin{}
	for _, path := range paths {
		text, err := os.ReadFile(path) //nolint:gosec // the kernel's own files
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("reading who uses the processors: %w", err)
		}
		pid, k, err := parseKin(string(text))
		if err != nil {
			return nil, err
		}
		found[pid] = k
	}
	return sumKin(found, os.Getpid()), nil
}

// kin is a process, with its parent.
type kin struct {
	name    string
	parent  int
	seconds float64
}

// parentField is the place of ppid in /proc/PID/stat, behind the name.
const parentField = 1

func parseKin(stat string) (int, kin, error) {
	head, behind, _ := strings.Cut(stat, " (")
	end := strings.LastIndex(behind, ")")
	process, err := parseProcess("", stat)
	if err != nil {
		return 0, kin{}, err
	}
	pid, pidErr := strconv.Atoi(head)
	parent, parentErr := strconv.Atoi(strings.Fields(behind[end+1:])[parentField])
	return pid, kin{behind[:end], parent, process.CPU.Seconds()}, errors.Join(pidErr, parentErr)
}

// sumKin adds up a process and its descendants.
func sumKin(all map[int]kin, root int) map[string]float64 {
	sums := map[string]float64{}
	for pid, k := range all {
		if descends(all, pid, root) {
			sums[k.name] += k.seconds
		}
	}
	return sums
}

func descends(all map[int]kin, pid, root int) bool {
	for range len(all) { // no longer than that, whatever the table says
		if pid == root {
			return true
		}
		k, ok := all[pid]
		if !ok {
			return false
		}
		pid = k.parent
	}
	return false
}
