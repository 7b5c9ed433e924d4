package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/dory-io/dory/test/bench/podlog"
	"github.com/dory-io/dory/test/bench/report"
)

func TestFlagsThatMakeNoSense(t *testing.T) {
	for _, b := range []bench{{processors: 0, rounds: 1}, {processors: 1, rounds: 0}, {processors: 1, rounds: 1, interval: -1}, {processors: 1, rounds: 1, flush: -1}} {
		if err := b.validate(); err == nil {
			t.Errorf("%+v is accepted", b)
		}
	}
}

// TestFigures: two drains of one processor, which stood still for 10 and for 20 ms, and a pod without a log.
func TestFigures(t *testing.T) {
	root := t.TempDir()
	write := func(pod, uid, text string) {
		t.Helper()
		path := filepath.Join(root, "ns_"+pod+"_"+uid, "processor", "0.log")
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// It stands for the counter's program, which is tested where it is.
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "counter"), []byte("#!/bin/sh\ncat >/dev/null; echo '{\"lines\":3,\"repeated\":1}'; exit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("dory-proc-00-a", "u1", "2026-01-01T00:00:00Z stdout F {\"n\":1,\"hash\":\"x\",\"ns\":1000000000}\n")
	write("dory-proc-00-b", "u2", "2026-01-01T00:00:00Z stdout F {\"n\":2,\"hash\":\"x\",\"ns\":1010000000}\n")
	write("dory-proc-00-c", "u3", "2026-01-01T00:00:00Z stdout F {\"n\":3,\"hash\":\"x\",\"ns\":1030000000}\n")
	book, err := podlog.Keep(t.Context(), root, "ns", clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	b := &bench{processors: 1, root: root, logs: book, clock: clock.RealClock{}, progress: report.NewProgress(clock.RealClock{}), figures: report.Figures{}}
	ours := &processors{bench: b, moves: map[string]string{}}
	ours.ended = []drained{{kubectl: time.Second, whole: 2 * time.Second}, {kubectl: time.Second, whole: 3 * time.Second}}

	o, err := b.judge(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	o.tell(b.figures, "dory")
	for key, want := range map[string]any{"dory_total_s": 5.0, "dory_kubectl_s": 2.0, "dory_pause_p50_ms": 10.0, "dory_pause_p99_ms": 20.0} {
		if b.figures[key] != want {
			t.Errorf("%s is %v, want %v", key, b.figures[key], want)
		}
	}
	if o.proof.Whole() || o.proof.Repeated != 1 {
		t.Errorf("%+v", o.proof)
	}
	ours.ended = append(ours.ended, drained{})
	if _, err := b.judge(t.Context(), ours); err == nil || !strings.Contains(err.Error(), "logs of 3 pods, want those of 4") {
		t.Errorf("a pod without a log: %v", err)
	}
}
