//go:build unix

package sdk

import (
	"errors"
	"os"
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

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // The processor's author chose the path.
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
