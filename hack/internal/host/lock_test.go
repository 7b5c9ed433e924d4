package host

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestLockNamesItsHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(path, "cluster up")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(path, "cluster down")
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "pid "+strconv.Itoa(os.Getpid())+" (cluster up)") {
		t.Errorf("second lock: %v", err)
	}
	unlock()
	if _, err := os.Stat(path); err == nil {
		t.Error("the lock file was left behind")
	}
	unlock, err = Lock(path, "cluster down")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
