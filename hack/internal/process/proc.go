package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") //nolint:errcheck // empty compares equal to empty
	return strings.TrimSpace(string(id))
}

// startTime is when the process started, in ticks since boot; false when it has ended, also as a zombie.
func startTime(pid int) (uint64, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	start, state, err := parseStat(string(data))
	return start, err == nil && state != "Z" && state != "X"
}

// parseStat reads state and start time (field 22) of /proc/PID/stat; the name before them may hold blanks and parentheses.
func parseStat(line string) (start uint64, state string, err error) {
	_, rest, found := cutLast(line, ")")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return 0, "", errors.New("not a line of /proc/PID/stat")
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0], err
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// CommandLine is the process's arguments, joined for people; its bare name when it has none.
func CommandLine(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) //nolint:errcheck // gone is empty
	return strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", " "))
}

// WithArguments finds every process whose program has the given base name and that has the given words among its arguments.
func WithArguments(program string, words ...string) []int {
	var found []int
	dirs, _ := filepath.Glob("/proc/[0-9]*") //nolint:errcheck // the pattern is well-formed
	for _, dir := range dirs {
		data, err := os.ReadFile(filepath.Join(dir, "cmdline")) //nolint:gosec // proc
		if err != nil || !matches(string(data), program, words) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// matches judges a command line as /proc gives it, with NUL after each argument.
func matches(cmdline, program string, words []string) bool {
	args := strings.Split(strings.TrimRight(cmdline, "\x00"), "\x00")
	if filepath.Base(args[0]) != program {
		return false
	}
	has := make(map[string]bool, len(args))
	for _, arg := range args[1:] {
		has[arg] = true
	}
	for _, word := range words {
		if !has[word] {
			return false
		}
	}
	return true
}

// Tail is the end of a file, for people who want to know why something failed.
func Tail(path string, lines int) string {
	data, err := os.ReadFile(path) //nolint:gosec // a log of ours
	if err != nil {
		return fmt.Sprintf("(no log: %v)", err)
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Running says whether a process with this id runs. One that has ended does not, even if its parent has not asked for its
// status yet; kill(2) would still find that one.
func Running(pid int) bool {
	_, running := startTime(pid)
	return running
}

// WorkingIn lists the running processes whose working directory is dir.
func WorkingIn(dir string) []int {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd") //nolint:errcheck // the pattern is well-formed
	var found []int
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != dir {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil && Running(pid) {
			found = append(found, pid)
		}
	}
	return found
}
