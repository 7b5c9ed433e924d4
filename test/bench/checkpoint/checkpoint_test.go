package main

import (
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/dory-io/dory/internal/statexfer"
)

func started(t *testing.T, clk *clocktesting.FakeClock, stateBytes int) (*fleet, statexfer.Endpoint) {
	t.Helper()
	f := newFleet(clk, stateBytes)
	t.Cleanup(func() {
		if err := f.close(); err != nil {
			t.Error(err)
		}
	})
	address, err := f.start(t.Context(), "cam-1", "pod-1", 7)
	if err != nil {
		t.Skipf("another program of this machine has the address: %v", err)
	}
	return f, statexfer.Endpoint{URL: "http://" + net.JoinHostPort(address, strconv.Itoa(port))}
}

// TestTheOperatorsClientReadsTheState: what is measured depends on it.
func TestTheOperatorsClientReadsTheState(t *testing.T) {
	clk := clocktesting.NewFakeClock(time.Now())
	for _, size := range []int{leastState, 16 << 10, mostState} {
		_, endpoint := started(t, clk, size)
		client := statexfer.NewClient(statexfer.ClientConfig{})
		clk.Step(time.Hour)
		first, err := client.Capture(t.Context(), endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if len(first.Data) != size || !json.Valid(first.Data) {
			t.Errorf("%d bytes, want %d: %.300s", len(first.Data), size, first.Data)
		}
		if first.PodName != "pod-1" || first.Position != (statexfer.Position{Epoch: 7, Sequence: 36001}) || first.Uptime != time.Hour || !first.CapturedAt.Equal(clk.Now().UTC().Truncate(time.Microsecond)) {
			t.Errorf("%+v", first)
		}
		clk.Step(iteration)
		second, err := client.Capture(t.Context(), endpoint)
		if err != nil || second.RawChecksum == first.RawChecksum || second.Position.Sequence != 36002 {
			t.Errorf("%v, %v", second.Position, err)
		}
		if _, err := second.Document("cam-1").Encode(); err != nil {
			t.Error(err)
		}
		status, err := client.Status(t.Context(), endpoint)
		if err != nil || status.Role != "primary" || status.Epoch != 7 {
			t.Errorf("%+v, %v", status, err)
		}
		if capabilities, err := client.Capabilities(t.Context(), endpoint); err != nil || capabilities.Handoff {
			t.Errorf("%+v, %v", capabilities, err)
		}
	}
}

func TestAStateIsNotTaken(t *testing.T) {
	f, endpoint := started(t, clocktesting.NewFakeClock(time.Now()), leastState)
	client := statexfer.NewClient(statexfer.ClientConfig{})
	if _, err := client.Restore(t.Context(), endpoint, &statexfer.State{Data: []byte("{}")}); !errors.Is(err, statexfer.ErrRefused) {
		t.Errorf("%v", err)
	}
	b := bench{fleet: f, interval: time.Second, figures: map[string]any{}}
	if err := b.tellAges(nil); err == nil || !strings.Contains(err.Error(), "1 requests to pod pod-1") {
		t.Errorf("%v", err)
	}
}

func TestAProcessOfTheNextPod(t *testing.T) {
	f, _ := started(t, clocktesting.NewFakeClock(time.Now()), leastState)
	again, err := f.start(t.Context(), "cam-1", "pod-1", 7)
	if err != nil || again != f.of("cam-1").address {
		t.Errorf("%s, %v", again, err)
	}
	next, err := f.start(t.Context(), "cam-1", "pod-2", 8)
	if err != nil || next == again || f.of("cam-1").pod != "pod-2" || len(f.all()) != 1 {
		t.Errorf("%s after %s, %v", next, again, err)
	}
}

func TestAges(t *testing.T) {
	clk := clocktesting.NewFakeClock(time.Now())
	p := newProcessor("cam-1", "pod-1", 1, clk, leastState)
	if _, safe := p.age(clk.Now()); safe {
		t.Error("safe before anything is stored")
	}
	read := func() { p.captured = clk.Now() }
	read()
	clk.Step(time.Second)
	if age := p.keep(clk.Now()); age != 0 {
		t.Errorf("the first replaced one of %s", age)
	}
	if age, safe := p.age(clk.Now()); !safe || age != time.Second {
		t.Errorf("%s, want the time since it was read, not since it was stored", age)
	}
	clk.Step(30 * time.Second)
	read()
	if age := p.keep(clk.Now()); age != 31*time.Second {
		t.Errorf("replaced at %s", age)
	}
}

func TestAddresses(t *testing.T) {
	for i, want := range map[int]string{0: "127.80.0.1", 253: "127.80.0.254", 254: "127.80.1.1", maxProcessors - 1: "127.80.255.254"} {
		if got := addressOf(i); got != want {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
	}
}

func TestFlagsAreChecked(t *testing.T) {
	good := func() *bench {
		return &bench{processors: 1, stateBytes: leastState, interval: time.Second, intervals: 1}
	}
	if err := good().validate(); err != nil {
		t.Error(err)
	}
	for flag, change := range map[string]func(*bench){
		"-processors":  func(b *bench) { b.processors = maxProcessors + 1 },
		"-state-bytes": func(b *bench) { b.stateBytes = mostState + 1 },
		"-interval":    func(b *bench) { b.interval = time.Millisecond },
		"-intervals":   func(b *bench) { b.intervals = 0 },
	} {
		bad := good()
		change(bad)
		if err := bad.validate(); err == nil || !strings.HasPrefix(err.Error(), flag+"=") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
