//go:build unix

package sdk

import (
	"cmp"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// lockFile waits for the lock on path, which ends with the process at the latest.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, stateFileMode) //nolint:gosec // The processor's author chose the path.
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil //nolint:errcheck // Nothing was written; the lock ends in any case.
}

// tryLockFile takes the lock on path until the process ends, and writes into it whose it is. Where another process has it, it
// says which.
func tryLockFile(path string) (heldBy string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, stateFileMode) //nolint:gosec // The processor's author chose the path.
	if err != nil {
		return "", err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		text, err := io.ReadAll(io.LimitReader(f, 20))
		return cmp.Or(string(text), "unknown"), errors.Join(err, f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteString(strconv.Itoa(os.Getpid()))
	}
	if err != nil {
		return "", errors.Join(err, f.Close())
	}
	owned.Store(path, f) // A file that nothing refers to is closed, and its lock with it.
	return "", nil
}

// owned are the files that are locked until the process ends.
var owned sync.Map

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // The processor's author chose the path.
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
