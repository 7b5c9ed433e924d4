package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dory-io/dory/sdk"
)

// output is what counters print that do the iterations from first to last.
func output(first, last int64) []line {
	hash := ""
	var lines []line
	for n := int64(1); n <= last; n++ {
		hash = chain(hash, n)
		if n >= first {
			lines = append(lines, line{N: n, Hash: hash, Epoch: 1, Pod: "a"})
		}
	}
	return lines
}

func text(lines ...[]line) string {
	var b strings.Builder
	for _, some := range lines {
		for _, l := range some {
			fmt.Fprintf(&b, `{"n":%d,"hash":%q,"epoch":%d,"pod":%q,"sequence":%d,"time":"2026-01-01T00:00:00Z","ns":%d}`+"\n",
				l.N, l.Hash, l.Epoch, l.Pod, l.Sequence, l.Nanos)
		}
	}
	return b.String()
}

// under is the lines as another instance prints them.
func under(epoch int64, pod string, lines []line) []line {
	for i := range lines {
		lines[i].Epoch, lines[i].Pod = epoch, pod
	}
	return lines
}

func TestVerify(t *testing.T) {
	otherChain := output(1, 20)
	for i := range otherChain {
		otherChain[i].Hash = chain("other", otherChain[i].N)
	}
	for name, test := range map[string]struct {
		in    string
		want  report
		whole bool
	}{
		"one pod":                   {text(output(1, 10)), report{Lines: 10, First: 1, Last: 10, Pods: 1}, true},
		"the log begins later":      {text(output(5, 10)), report{Lines: 6, First: 5, Last: 10, Pods: 1}, true},
		"three pods":                {text(output(1, 3), under(2, "b", output(4, 7)), under(3, "c", output(8, 9))), report{Lines: 9, First: 1, Last: 9, Pods: 3}, true},
		"repeated after a crash":    {text(output(1, 7), under(2, "b", output(5, 9))), report{Lines: 12, First: 1, Last: 9, Repeated: 3, Pods: 2}, false},
		"started empty":             {text(output(1, 7), under(2, "b", output(1, 3))), report{Lines: 10, First: 1, Last: 7, Repeated: 3, Pods: 2}, false},
		"lines are missing":         {text(output(1, 3), output(6, 9)), report{Lines: 7, First: 1, Last: 9, Unlogged: 2, Pods: 1}, false},
		"iterations are missing":    {text(output(1, 3), otherChain[5:6]), report{Lines: 4, First: 1, Last: 6, Lost: 2, Pods: 1}, false},
		"another chain":             {text(output(1, 3), otherChain[3:4]), report{Lines: 4, First: 1, Last: 4, Broken: 1, Pods: 1}, false},
		"another chain from 1":      {text(otherChain[:1]), report{Lines: 1, First: 1, Last: 1, Broken: 1, Pods: 1}, false},
		"two instances at a time":   {text(output(1, 3), under(2, "b", output(4, 4)), output(4, 4)), report{Lines: 5, First: 1, Last: 4, Repeated: 1, EpochFell: 1, Pods: 2}, false},
		"an older instance is back": {text(under(2, "b", output(1, 3)), output(4, 4)), report{Lines: 4, First: 1, Last: 4, EpochFell: 1, Pods: 2}, false},
		"among other lines": {
			`{"level":"INFO","msg":"state restored"}` + "\n\n" + text(output(1, 2)) + `{"n":3,"ha` + "\n" + text(output(3, 3)) + "3\n",
			report{Lines: 3, First: 1, Last: 3, Pods: 1, Ignored: 3},
			true,
		},
		"torn line, not repeated": {text(output(1, 2)) + `{"n":3,"ha` + "\n" + text(output(4, 4)), report{Lines: 3, First: 1, Last: 4, Unlogged: 1, Pods: 1, Ignored: 1}, false},
		"nothing":                 {"", report{}, false},
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

func TestVerifyCommand(t *testing.T) {
	gap := text(output(1, 3), output(6, 9))
	for name, test := range map[string]struct {
		args   []string
		in     string
		code   int
		stdout string
		stderr string
	}{
		"whole":       {[]string{"verify"}, text(output(1, 3)), 0, `"lost":0,"repeated":0`, ""},
		"repeated":    {[]string{"verify"}, text(output(1, 3), output(3, 4)), 1, `"lost":0,"repeated":1`, ""},
		"unlogged":    {[]string{"verify"}, gap, 1, `"unlogged":2`, ""},
		"allowed":     {[]string{"verify", "--allow-unlogged"}, gap, 0, `"unlogged":2`, ""},
		"nothing":     {[]string{"verify"}, "", 1, `"lines":0`, "proves nothing"},
		"long line":   {[]string{"verify"}, strings.Repeat("x", 2<<20), 2, "", "too long"},
		"sorted":      {[]string{"verify", "--sort"}, text(timed(10, 1, output(3, 4)), timed(0, 1, output(1, 2))), 0, `"lines":4`, ""},
		"unsorted":    {[]string{"verify"}, text(timed(10, 1, output(3, 4)), timed(0, 1, output(1, 2))), 1, `"repeated":2`, ""},
		"bad flag":    {[]string{"verify", "--no-such"}, "", 2, "", "no-such"},
		"bad command": {[]string{"prove"}, "", 2, "", `unknown command "prove"`},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), test.args, strings.NewReader(test.in), &stdout, &stderr)
			if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("code %d\n%s\n%s", code, &stdout, &stderr)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	for name, test := range map[string]struct {
		interval, payload string
		want              config
		says              string
	}{
		"defaults":          {want: config{interval: time.Second}},
		"set":               {interval: "0s", payload: "65536", want: config{payloadBytes: 65536}},
		"no unit":           {interval: "5", says: `COUNTER_INTERVAL is "5"`},
		"negative":          {interval: "-1s", says: `COUNTER_INTERVAL is "-1s"`},
		"payload":           {payload: "1k", says: `COUNTER_PAYLOAD_BYTES is "1k"`},
		"payload too large": {payload: "10000001", says: `COUNTER_PAYLOAD_BYTES is "10000001", not a whole number from 0 to 10000000`},
	} {
		t.Run(name, func(t *testing.T) {
			vars := map[string]string{"COUNTER_INTERVAL": test.interval, "COUNTER_PAYLOAD_BYTES": test.payload}
			got, err := readConfig(func(name string) (string, bool) { return vars[name], true })
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%v does not say %s", err, test.says)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestBadEnvironmentIsExitCode2(t *testing.T) {
	for name, value := range map[string]string{"COUNTER_INTERVAL": "soon", "DORY_EPOCH": "first"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			var stderr bytes.Buffer
			if code := run(t.Context(), nil, nil, nil, &stderr); code != 2 || !strings.Contains(stderr.String(), name) {
				t.Errorf("code %d: %s", code, &stderr)
			}
		})
	}
}

// volatile is a backend in memory, shared by the instances of a test.
type volatile struct{ doc *sdk.Document }

func (v *volatile) Load(context.Context) (sdk.Document, error) {
	if v.doc == nil {
		return sdk.Document{}, sdk.ErrNoState
	}
	return *v.doc, nil
}

func (v *volatile) Save(_ context.Context, doc sdk.Document) error {
	v.doc = &doc
	return nil
}

func (v *volatile) String() string { return "memory" }

func freePort(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func TestInstancesMakeOneChain(t *testing.T) {
	var out bytes.Buffer
	backend := &volatile{}
	for epoch := 1; epoch <= 3; epoch++ {
		env := map[string]string{
			"PROCESSOR_ID": "counter", "POD_NAME": fmt.Sprint("pod-", epoch), "DORY_EPOCH": strconv.Itoa(epoch), "DORY_HEALTH_PORT": freePort(t),
			"DORY_STATE_BACKEND": "none",
		}
		p, err := sdk.New(sdk.WithBackend(backend), sdk.WithEnv(func(name string) (string, bool) { v, ok := env[name]; return v, ok }))
		if err != nil {
			t.Fatal(err)
		}
		c := newCounter(p, config{payloadBytes: 100}, &out)
		ctx, stop := context.WithCancel(t.Context())
		failed := false
		err = p.Run(ctx, func(ctx context.Context) error {
			if c.n.Get() == 15 && !failed {
				failed = true
				return errors.New("broken on purpose")
			}
			if c.n.Get()%10 == 9 {
				stop()
			}
			return c.iterate(ctx)
		})
		stop()
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := verify(&out, false)
	if err != nil || !r.whole(false) || r.Lines < 30 || r.Pods != 3 || r.First != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	var state struct {
		N       int64  `json:"n"`
		Payload string `json:"payload"`
	}
	if err := json.Unmarshal(backend.doc.Payload, &state); err != nil || state.N != r.Last || len(state.Payload) != 100 {
		t.Errorf("%s, %v", backend.doc.Payload, err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken on purpose") }

func TestALineThatCannotBeWrittenFailsTheIteration(t *testing.T) {
	p, err := sdk.New(sdk.WithBackend(sdk.NoBackend()))
	if err != nil {
		t.Fatal(err)
	}
	if err := newCounter(p, config{}, brokenWriter{}).iterate(t.Context()); err == nil {
		t.Error("no error")
	}
}
