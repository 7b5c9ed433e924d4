package host

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Bind shows source under target too, as a mount of its own peer group: what is mounted below target does not appear in source.
func Bind(source, target string) error {
	mounted, err := MountsBelow(target)
	if err != nil || slices.Contains(mounted, target) {
		return err
	}
	if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // the database's user must pass through
		return fmt.Errorf("make the mount point %s: %w", target, err)
	}
	if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("show %s as %s: %w", source, target, err)
	}
	// Private leaves the group of source, shared founds a group of its own.
	for _, flag := range []uintptr{syscall.MS_PRIVATE, syscall.MS_SHARED} {
		if err := syscall.Mount("", target, "", flag, ""); err != nil {
			return fmt.Errorf("set the propagation of %s: %w", target, err)
		}
	}
	return nil
}

// MountsBelow lists the mount points at and under dir, the innermost first.
func MountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list the mounts: %w", err)
	}
	return mountsBelow(string(data), dir), nil
}

func mountsBelow(mountinfo, dir string) []string {
	var found []string
	for line := range strings.SplitSeq(mountinfo, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			found = append(found, point)
		}
	}
	slices.Reverse(found)
	return found
}

// UnmountBelow unmounts everything at and under dir. A mount that is still busy gets a moment, then is detached.
func UnmountBelow(ctx context.Context, dir string) error {
	deadline := time.Now().Add(2 * time.Second)
	for {
		mounts, err := MountsBelow(dir)
		if err != nil || len(mounts) == 0 {
			return err
		}
		flags := 0
		if time.Now().After(deadline) {
			flags = syscall.MNT_DETACH
		}
		for _, point := range mounts {
			if err = syscall.Unmount(point, flags); err != nil {
				err = fmt.Errorf("unmount %s: %w", point, err)
			}
		}
		if err != nil && (flags != 0 || ctx.Err() != nil) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
