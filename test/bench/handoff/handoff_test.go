package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/bench/podlog"
	"github.com/dory-io/dory/test/bench/report"
)

// world is a node's directory of logs.
type world struct {
	t    *testing.T
	root string
	book *podlog.Book
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir()}
	var err error
	if w.book, err = podlog.Keep(t.Context(), w.root, "ns", clock.RealClock{}); err != nil {
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
	if _, err := w.book.Of(pod); err != nil { // It keeps what it has seen.
		w.t.Fatal(err)
	}
}

func (w *world) chapters(prefix string) []*podlog.Chapter {
	w.t.Helper()
	files, err := w.book.Of(prefix)
	if err != nil {
		w.t.Fatal(err)
	}
	all, err := podlog.Chapters(files)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func live(moves ...move) *story {
	return &story{kind: live64k, name: "a", moves: len(moves), ended: moves}
}

func succeeded(source, target string) move {
	return move{phase: doryv1alpha1.MigrationSucceeded, source: source, target: target}
}

func TestPausesOfMoves(t *testing.T) {
	w := newWorld(t)
	w.write("dory-a-1", "u1", "2026-01-01T00:00:00Z stderr F {\"msg\":\"serving\"}\n", iterations(1, 100, 1000))
	w.write("dory-a-2", "u2") // It was rolled back, and never worked.
	w.write("dory-a-3", "u3", iterations(101, 200, 1110))
	w.write("dory-a-4", "u4", iterations(201, 300, 1217))
	w.write("dory-ab-1", "u5", iterations(1, 9, 0))

	all := w.chapters("dory-a-")
	rolledBack := move{phase: doryv1alpha1.MigrationRolledBack, source: "dory-a-1", target: "dory-a-2"}
	found, err := turns(live(rolledBack, succeeded("dory-a-1", "dory-a-3"), succeeded("dory-a-3", "dory-a-4")), all)
	if err != nil || len(found) != 2 || found[0] != (podlog.Turn{Pause: 11 * time.Millisecond}) || found[1] != (podlog.Turn{Pause: 8 * time.Millisecond}) {
		t.Errorf("%+v, %v", found, err)
	}
	if _, err := turns(live(succeeded("dory-a-4", "dory-a-2")), all); err == nil || !strings.Contains(err.Error(), "dory-a-2") {
		t.Errorf("a move to a pod that did nothing: %v", err)
	}
}

// TestPausesOfOverlap: what the target does before it is given the state is no continuation.
func TestPausesOfOverlap(t *testing.T) {
	w := newWorld(t)
	w.write("dory-a-1", "u1", iterations(1, 500, 1000))
	w.write("dory-a-2", "u2", iterations(1, 100, 1200), iterations(350, 900, 1360))
	found, err := turns(live(succeeded("dory-a-1", "dory-a-2")), w.chapters("dory-a-"))
	if err != nil || found[0] != (podlog.Turn{Both: 139 * time.Millisecond}) {
		t.Errorf("%+v, %v: the source worked until 1499, the target with its state from 1360", found, err)
	}
}

func TestPausesOfAStatefulSet(t *testing.T) {
	w := newWorld(t)
	s := &story{kind: statefulSet, name: "s", ended: []move{{}, {}}}
	w.write("s-0", "u9", iterations(1, 100, 1000))
	w.write("s-0", "u1", iterations(101, 200, 3000))
	if _, err := turns(s, w.chapters(prefixOf(s))); err == nil {
		t.Error("the log of a pod is missing")
	}
	w.write("s-0", "u5", iterations(201, 300, 4000))
	found, err := turns(s, w.chapters(prefixOf(s)))
	if err != nil || found[0].Pause != 1901*time.Millisecond || found[1].Pause != 901*time.Millisecond {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestEveryMoveIsDealtOutOnce(t *testing.T) {
	for _, b := range []bench{{moves: 100, others: 10, lanes: 1}, {moves: 101, others: 3, lanes: 4}, {moves: 1, others: 1, lanes: 3}} {
		dealt, names := map[string]int{}, map[string]bool{}
		for _, s := range b.plan() {
			dealt[s.kind.name] += s.moves
			if names[s.name] || s.moves == 0 {
				t.Errorf("%s, %d times", s.name, s.moves)
			}
			names[s.name] = true
		}
		want := map[string]int{"live_64k": b.moves, "live_8m": b.moves, "overlap": b.others, "stopandcopy": b.others, "statefulset": b.others}
		if fmt.Sprint(dealt) != fmt.Sprint(want) {
			t.Errorf("dealt %v, want %v", dealt, want)
		}
	}
}

func TestFiguresAndVerdict(t *testing.T) {
	w := newWorld(t)
	// It stands for the counter's program, which is tested where it is.
	if err := os.MkdirAll(filepath.Join(w.root, "bin"), 0o750); err != nil {
		t.Fatal(err)
	}
	program := "#!/bin/sh\nif grep -q '\"n\":3,'; then echo '{\"lines\":2,\"repeated\":1}'; exit 1; fi; echo '{\"lines\":2}'\n"
	if err := os.WriteFile(filepath.Join(w.root, "bin", "counter"), []byte(program), 0o700); err != nil {
		t.Fatal(err)
	}
	w.write("dory-a-1", "u1", iterations(1, 1, 1000))
	w.write("dory-a-2", "u2", iterations(2, 2, 1010))
	w.write("s-0", "u3", iterations(1, 1, 1000))
	w.write("s-0", "u4", iterations(2, 2, 3000))
	w.write("dory-o-1", "u5", iterations(1, 2, 1000))
	w.write("dory-o-2", "u6", iterations(2, 3, 1001))
	moved := succeeded("dory-a-1", "dory-a-2")
	moved.pause, moved.duration = 7*time.Millisecond, 3*time.Second
	stories := []*story{
		live(moved),
		{kind: statefulSet, name: "s", ended: []move{{phase: doryv1alpha1.MigrationSucceeded}}},
		{kind: overlap, name: "o", ended: []move{succeeded("dory-o-1", "dory-o-2"), {phase: doryv1alpha1.MigrationFailed}}},
	}
	judged := func(stories []*story) (*bench, error) {
		b := &bench{root: w.root, logs: w.book, keepLogs: filepath.Join(w.root, "kept"), figures: report.Figures{}, progress: report.NewProgress(clock.RealClock{})}
		verdict, err := b.judge(context.Background(), stories)
		if err != nil {
			t.Fatal(err)
		}
		return b, verdict
	}
	b, _ := judged(stories)
	for key, want := range map[string]any{
		"moves": 2, "moves_not_succeeded": 1, "lost": int64(0), "repeated": int64(0), "live_64k_p50_ms": 10.0, "live_64k_operator_saw_p50_ms": 7.0,
		"live_64k_whole_move_p50_s": 3.0, "statefulset_p50_ms": 2000.0, "statefulset_over_live": 200.0, "overlap_repeated": int64(1),
		"overlap_p50_ms": 0.0,
	} {
		if b.figures[key] != want {
			t.Errorf("%s is %v, want %v", key, b.figures[key], want)
		}
	}
	if kept, err := os.ReadFile(filepath.Join(w.root, "kept", "a", "dory-a-2.u2")); err != nil || !strings.Contains(string(kept), `"n":2`) {
		t.Errorf("%s, %v", kept, err)
	}

	// Kinds without a single line prove nothing, so the verdict above is bad; what counts is why it is bad here.
	bad := live(succeeded("dory-o-1", "dory-o-2"))
	bad.name = "o"
	b, verdict := judged([]*story{bad})
	if verdict == nil || !strings.Contains(verdict.Error(), "live_64k: {Lines:2 Lost:0 Repeated:1") || b.figures["repeated"] != int64(1) {
		t.Errorf("%v, %v", verdict, b.figures["repeated"])
	}
}
