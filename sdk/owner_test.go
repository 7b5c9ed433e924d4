package sdk

import (
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Two `go run .` in one folder would both act on one state: on a developer's machine there are no epochs to keep them apart.
func TestTheSecondProcessOfAFileWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "state.json")
	first := startChild(t, "fast", path, "DORY_EPOCH=")
	first.readUntil(5)
	second := startChild(t, "fast", path, "DORY_EPOCH=")
	o := &operator{t: t}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		a, err := o.try(http.MethodGet, second, "/ready", "")
		if err == nil && a.code == http.StatusServiceUnavailable && strings.Contains(a.body, "another process") && strings.Contains(a.body, path) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the second process does not say that it waits: %v %+v", err, a)
		}
	}
	first.signal(syscall.SIGTERM)
	last, code := first.last()
	if n := second.read(); code != 0 || n != last+1 {
		t.Errorf("the second process goes on with %d after %d of the first, which ended with %d", n, last, code)
	}
}
