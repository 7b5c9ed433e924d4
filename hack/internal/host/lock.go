package host

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// ErrLocked says that another call is at work on the cluster.
var ErrLocked = errors.New("the cluster is locked")

// Lock keeps others from changing the cluster at the same time. It ends with this process, however that ends.
func Lock(path, who string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // others may read who holds it
		if err != nil {
			return nil, fmt.Errorf("open the lock: %w", err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			holder, _ := os.ReadFile(path) //nolint:errcheck,gosec // for the message only
			_ = f.Close()
			return nil, fmt.Errorf("%w by %s: wait until it is done, or stop it", ErrLocked, strings.TrimSpace(string(holder)))
		}
		// The holder removes the file when it is done: what was locked here may be a file that nobody else will see.
		if !sameFile(f, path) {
			_ = f.Close()
			continue
		}
		_ = f.Truncate(0)
		fmt.Fprintf(f, "pid %d (%s)\n", os.Getpid(), who) //nolint:errcheck // only a message
		return func() { removeAndClose(path, f) }, nil
	}
}

func sameFile(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(ours, there)
}

func removeAndClose(path string, f *os.File) {
	_ = os.Remove(path) // without it, the next one locks the same file
	_ = f.Close()       // which ends the lock
}
