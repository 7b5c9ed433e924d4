package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// EnsureCgroup makes the cgroup that a kubelet takes as its root: in each hierarchy of version 1, or in the one of version 2.
func EnsureCgroup(name string) error {
	if _, err := os.Stat(cgroupRoot + "/cgroup.controllers"); err == nil {
		return ensureUnified(name)
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return fmt.Errorf("list the cgroup hierarchies: %w", err)
	}
	for _, e := range entries {
		// The hybrid layout has an empty version 2 hierarchy beside; a symlink is another name of one already seen.
		if !e.IsDir() || e.Name() == "unified" {
			continue
		}
		if err := ensureV1(filepath.Join(cgroupRoot, e.Name()), name); err != nil {
			return err
		}
	}
	return nil
}

func ensureV1(hierarchy, name string) error {
	dir := filepath.Join(hierarchy, name)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as the kernel makes them
		return fmt.Errorf("make the cgroup: %w", err)
	}
	// A new cpuset is empty and takes no process until it has CPUs and memory nodes.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(hierarchy, file)) //nolint:gosec // the kernel's
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the machine's CPUs: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), value, 0o600); err != nil {
			return fmt.Errorf("give the cgroup its CPUs: %w", err)
		}
	}
	return nil
}

func ensureUnified(name string) error {
	available, err := os.ReadFile(cgroupRoot + "/cgroup.controllers")
	if err != nil {
		return fmt.Errorf("read the cgroup controllers: %w", err)
	}
	for controller := range strings.FieldsSeq(string(available)) {
		// One that this machine does not delegate is not fatal by itself: the kubelet names those that it misses.
		_ = os.WriteFile(cgroupRoot+"/cgroup.subtree_control", []byte("+"+controller), 0o600)
	}
	if err := os.MkdirAll(filepath.Join(cgroupRoot, name), 0o755); err != nil { //nolint:gosec // as the kernel makes them
		return fmt.Errorf("make the cgroup: %w", err)
	}
	return nil
}

// CgroupsOf lists the directories of the named cgroup in all hierarchies, children before their parents.
func CgroupsOf(name string) []string {
	roots, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", name)) //nolint:errcheck // the pattern is well-formed
	roots = append(roots, filepath.Join(cgroupRoot, name))
	var dirs []string
	for _, root := range roots {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // what is gone needs no visit
		})
	}
	slices.Reverse(dirs)
	return dirs
}

// KillCgroup kills every process in the named cgroup and its children, again until none is left.
func KillCgroup(ctx context.Context, name string) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		pids := processesOf(name)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("processes %v of cgroup %s do not end after SIGKILL", pids, name)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have gone
		}
	}
}

func processesOf(name string) []int {
	var pids []int
	for _, dir := range CgroupsOf(name) {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")) //nolint:gosec // the kernel's
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(data)) {
			// Pid 0 stands for a process of another pid namespace, and kill(0) would hit ourselves.
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// RemoveCgroup removes the named, empty cgroup from all hierarchies.
func RemoveCgroup(ctx context.Context, name string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var last error
		for _, dir := range CgroupsOf(name) {
			// A cgroup stays busy for a moment after its last process has ended.
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				last = fmt.Errorf("remove the cgroup: %w", err)
			}
		}
		if last == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return last
		}
	}
}
