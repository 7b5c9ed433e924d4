package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/sdk"
)

// timed gives the lines times in milliseconds.
func timed(from, step int64, lines []line) []line {
	for i := range lines {
		lines[i].Nanos = 1_000_000 * (from + 1 + int64(i)*step)
	}
	return lines
}

func sequenced(from int64, lines []line) []line {
	for i := range lines {
		lines[i].Sequence = from + int64(i)
	}
	return lines
}

func TestVerifyOfMoves(t *testing.T) {
	for name, test := range map[string]struct {
		in    string
		want  report
		whole bool
	}{
		"one move": {
			text(timed(0, 10, output(1, 3)), timed(25, 10, under(2, "b", output(4, 6)))),
			report{Lines: 6, First: 1, Last: 6, Pods: 2, Moves: 1, PauseP50MS: 5, PauseP99MS: 5, PauseMaxMS: 5},
			true,
		},
		"there and back": {
			text(timed(0, 10, output(1, 3)), timed(25, 10, under(2, "b", output(4, 5))), timed(55, 10, under(3, "a", output(6, 6)))),
			report{Lines: 6, First: 1, Last: 6, Pods: 2, Moves: 2, PauseP50MS: 5, PauseP99MS: 20, PauseMaxMS: 20},
			true,
		},
		"the source goes on": {
			text(timed(0, 10, output(1, 3)), timed(15, 10, under(2, "b", output(4, 5)))),
			report{Lines: 5, First: 1, Last: 5, Pods: 2, Overlaps: 1, Moves: 1, PauseP50MS: -5, PauseP99MS: -5, PauseMaxMS: -5},
			false,
		},
		"an old instance comes back late": {
			text(timed(0, 10, output(1, 3)), timed(25, 10, under(2, "b", output(4, 5))), timed(40, 10, under(3, "c", output(6, 6))), timed(60, 10, output(7, 7))),
			report{Lines: 7, First: 1, Last: 7, Pods: 3, EpochFell: 1, Overlaps: 1, Moves: 2, PauseP50MS: -35, PauseP99MS: 5, PauseMaxMS: 5},
			false,
		},
		"two pods under one epoch": {
			text(timed(0, 10, output(1, 3)), timed(25, 10, under(1, "b", output(4, 5)))),
			report{Lines: 5, First: 1, Last: 5, Pods: 2, SharedEpochs: 1},
			false,
		},
		"a new epoch of the same pod is no move": {
			text(timed(0, 10, output(1, 3)), timed(25, 10, under(2, "a", output(4, 5)))),
			report{Lines: 5, First: 1, Last: 5, Pods: 1},
			true,
		},
		"the sequence stands still": {
			text(sequenced(1, output(1, 3)), sequenced(3, under(2, "b", output(4, 5)))),
			report{Lines: 5, First: 1, Last: 5, Pods: 2, SequenceFell: 1},
			false,
		},
		"no times prove nothing of it": {
			text(output(1, 3), under(2, "b", output(4, 5))),
			report{Lines: 5, First: 1, Last: 5, Pods: 2},
			true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := verify(strings.NewReader(test.in), false)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if got.whole(false) != test.whole {
				t.Errorf("whole: %v", got.whole(false))
			}
		})
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for p, want := range map[float64]float64{0: 1, 1: 1, 50: 50, 99: 99, 100: 100} {
		if got := percentile(hundred, p); got != want {
			t.Errorf("p%v is %v", p, got)
		}
	}
	if percentile(nil, 50) != 0 || percentile([]float64{7}, 1) != 7 {
		t.Error("none, or one")
	}
}

// paper is what several counters print on.
type paper struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *paper) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(line)
}

func (p *paper) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Len()
}

// startCounter starts a counter that ends with the test, and waits until it is ready.
func startCounter(t *testing.T, out *paper, c config, env map[string]string) statexfer.Endpoint {
	t.Helper()
	env["PROCESSOR_ID"], env["DORY_STATE_BACKEND"], env["DORY_STATE_TOKEN"] = "counter", "none", "secret"
	env["DORY_HEALTH_PORT"], env["DORY_BIND_ADDRESS"] = freePort(t), "127.0.0.1"
	p, err := sdk.New(sdk.WithInterval(c.interval), sdk.WithLogger(slog.New(slog.DiscardHandler)),
		sdk.WithEnv(func(name string) (string, bool) { v, ok := env[name]; return v, ok }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, newCounter(p, c, out).iterate) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	url := "http://127.0.0.1:" + env["DORY_HEALTH_PORT"]
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if response, err := http.Get(url + "/ready"); err == nil { //nolint:noctx // A test's poll.
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return statexfer.Endpoint{URL: url, Token: "secret"}
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("not ready within 10 s")
		}
	}
}

// What the operator does, with the operator's client.
func move(t *testing.T, client *statexfer.Client, from, to statexfer.Endpoint, epoch int64) {
	t.Helper()
	ctx := t.Context()
	deliver := func(state *statexfer.State, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		restored, err := client.Restore(ctx, to, state)
		if err != nil {
			t.Fatal(err)
		}
		if restored.Checksum != state.RawChecksum {
			t.Errorf("the target writes %s, the source %s: every move would read the state back", restored.Checksum, state.RawChecksum)
		}
		if err := client.Verify(ctx, to, state, restored); err != nil {
			t.Fatal(err)
		}
	}
	deliver(client.Capture(ctx, from))
	deliver(client.Quiesce(ctx, from, epoch))
	if err := client.Promote(ctx, to, epoch+1); err != nil {
		t.Fatal(err)
	}
	if err := client.Promote(ctx, to, epoch+1); err != nil { // As after an answer that was lost.
		t.Fatal(err)
	}
}

func TestMovedCountersMakeOneChain(t *testing.T) {
	for _, size := range []int{64 << 10, 8 << 20} {
		t.Run(fmt.Sprint(size>>10, "KiB"), func(t *testing.T) {
			out := &paper{}
			c := config{interval: time.Millisecond, payloadBytes: size}
			client := statexfer.NewClient(statexfer.ClientConfig{})
			source := startCounter(t, out, c, map[string]string{"POD_NAME": "pod-1", "DORY_EPOCH": "1", "DORY_ROLE_FILE": filepath.Join(t.TempDir(), "role")})
			if can, err := client.Capabilities(t.Context(), source); err != nil || !can.Handoff || !can.HandoffStatus {
				t.Fatalf("%+v, %v", can, err)
			}
			const moves = 10
			for epoch := range int64(moves) {
				target := startCounter(t, out, c, map[string]string{
					"POD_NAME": fmt.Sprint("pod-", epoch+2), "DORY_ROLE": "standby", "DORY_ROLE_FILE": filepath.Join(t.TempDir(), "role"),
				})
				for before := out.len(); out.len() < before+2000; time.Sleep(time.Millisecond) {
				}
				move(t, client, source, target, epoch+1)
				source = target
			}
			for before := out.len(); out.len() < before+2000; time.Sleep(time.Millisecond) {
			}
			out.mu.Lock()
			defer out.mu.Unlock()
			r, err := verify(bytes.NewReader(out.text.Bytes()), false)
			if err != nil || !r.whole(false) || r.Moves != moves || r.First != 1 {
				t.Errorf("%+v, %v", r, err)
			}
			t.Logf("pauses: p50 %.1f ms, max %.1f ms", r.PauseP50MS, r.PauseMaxMS)
		})
	}
}
