package podlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"
)

// world is a node's directory of logs.
type world struct {
	t    *testing.T
	root string
	book *Book
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir()}
	var err error
	if w.book, err = Keep(t.Context(), w.root, "ns", clock.RealClock{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.book.Close)
	return w
}

// iterations are lines of a counter: first to last, one each millisecond from a start.
func iterations(first, last, atMS int) string {
	var text strings.Builder
	for n := first; n <= last; n++ {
		at := time.UnixMilli(int64(atMS + n - first)).UnixNano()
		fmt.Fprintf(&text, "2026-01-01T00:00:00Z stdout F {\"n\":%d,\"hash\":\"x\",\"ns\":%d}\n", n, at)
	}
	return text.String()
}

func (w *world) path(pod, uid string) string {
	return filepath.Join(w.root, "ns_"+pod+"_"+uid, "processor", "0.log")
}

func (w *world) write(pod, uid string, parts ...string) {
	w.t.Helper()
	path := w.path(pod, uid)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Join(parts, "")), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.book.look()
}

func TestLogsAreReadThoughTheyAreGone(t *testing.T) {
	w := newWorld(t)
	w.write("dory-a-1", "u1", iterations(1, 10, 1000))
	path := w.path("dory-a-1", "u1")
	if err := os.Rename(path, path+".20260101-000000"); err != nil { // As the kubelet does with a large one.
		t.Fatal(err)
	}
	w.write("dory-a-1", "u1", iterations(11, 15, 1010), "2026-01-01T00:00:00Z stdout P {\"n\":16,\"hash\":", "\n2026-01-01T00:00:00Z stdout F \"x\",\"ns\":1015000000}\n")
	if err := os.RemoveAll(w.root); err != nil {
		t.Fatal(err)
	}
	files, err := w.book.Of("dory-a-")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Chapters(files)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].iterations != 16 || !all[0].caughtUp.Equal(all[0].first) || !all[0].last.Equal(time.UnixMilli(1015)) {
		t.Errorf("%+v", all)
	}
}

func TestThereAreNoLogs(t *testing.T) {
	if _, err := Keep(t.Context(), filepath.Join(t.TempDir(), "none"), "ns", clock.RealClock{}); err == nil || !strings.Contains(err.Error(), "-pod-logs") {
		t.Errorf("%v", err)
	}
}

func TestAnOldCounterIsNoMeasure(t *testing.T) {
	w := newWorld(t)
	w.write("dory-a-1", "u1", "2026-01-01T00:00:00Z stdout F {\"n\":1,\"hash\":\"x\"}\n")
	files, err := w.book.Of("dory-a-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Chapters(files); err == nil || !strings.Contains(err.Error(), "nanoseconds") {
		t.Errorf("%v", err)
	}
}
