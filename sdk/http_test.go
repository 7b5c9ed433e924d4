package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dory-io/dory/internal/statexfer"
)

func TestIndexGolden(t *testing.T) {
	p := newProcessor(t, &memory{})
	get(p, "/").want(t, http.StatusOK,
		`{"service":"dory-processor","endpoints":["/","/health","/healthz","/ready","/metrics","/state","/prestop",`+
			`"/handoff","/handoff/quiesce","/handoff/promote","/handoff/resume"]}`)
}

func TestHealth(t *testing.T) {
	var sick error
	p := newProcessor(t, &memory{}, WithHealthCheck(func(context.Context) error { return sick }))
	for _, path := range []string{"/health", "/healthz"} {
		sick = nil
		a := get(p, path)
		a.want(t, http.StatusOK, `{"status":"healthy"}`)
		if got := a.header.Get("X-Dory-SDK-Version"); got != Version {
			t.Errorf("%s: X-Dory-SDK-Version is %q", path, got)
		}
		sick = errBroken
		get(p, path).want(t, http.StatusServiceUnavailable, `{"status":"unhealthy","reason":"broken on purpose"}`)
	}
}

func TestReadyThroughALife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{loadErr: func(call int) error {
			if call == 1 {
				return errBroken
			}
			return nil
		}}
		p := newProcessor(t, backend)
		get(p, "/ready").want(t, http.StatusServiceUnavailable, `{"status":"not ready","reason":"restoring state"}`)
		r := start(t, p, func(context.Context) error { time.Sleep(time.Second); return nil })
		get(p, "/ready").want(t, http.StatusServiceUnavailable, `{"status":"not ready","reason":"state not restored: broken on purpose"}`)
		time.Sleep(2 * time.Second)
		get(p, "/ready").want(t, http.StatusOK, `{"status":"ready"}`)
		go get(p, "/prestop")
		synctest.Wait()
		get(p, "/ready").want(t, http.StatusServiceUnavailable, `{"status":"not ready","reason":"stopping: GET /prestop"}`)
		if err := r.ended(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestGetStateGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // Where it is midnight of 2000-01-01.
		p := newProcessor(t, &memory{doc: document(`{"count":5}`, 6, 41)}, WithInterval(time.Hour))
		Var(p, "count", 0)
		Var(p, "names", []string{"a<b", "é"})
		r := start(t, p, nothing)
		time.Sleep(1500 * time.Millisecond)
		const golden = `{"pod_name":"dory-p-1-a","app_name":"app","captured_at":"2000-01-01T00:00:01.500000Z","state_version":"1.0",` +
			`"data":{"count":5,"names":["a\u003cb","é"]},"metrics":{"iteration_failures":0},"connections":[],"active_sessions":0,"session_data":{},` +
			`"uptime_seconds":1.5,"request_count":%d,"last_health_time":%s}`
		a := get(p, "/state")
		a.want(t, http.StatusOK, fmt.Sprintf(golden, 1, "null"))
		if a.header.Get("X-Dory-Epoch") != "7" || a.header.Get("X-Dory-Sequence") != "42" || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("headers: %v", a.header)
		}
		get(p, "/health")
		get(p, "/state").want(t, http.StatusOK, fmt.Sprintf(golden, 3, `"2000-01-01T00:00:01.500000Z"`))
		r.shutDown()
	})
}

func TestGetStateWaitsNoLongerThanClientsDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{})
		r := start(t, p, func(ctx context.Context) error {
			select {
			case <-time.After(time.Minute):
			case <-ctx.Done():
			}
			return nil
		})
		began := time.Now()
		get(p, "/state").wantSays(t, http.StatusServiceUnavailable, "waiting for the end of the iteration in hand")
		if waited := time.Since(began); waited != captureTimeout {
			t.Errorf("waited %v", waited)
		}
		r.shutDown()
	})
}

func TestStateOverTheLimitIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{}, WithInterval(time.Hour))
		v := Var(p, "v", "")
		r := start(t, p, func(context.Context) error { v.Set(strings.Repeat("x", statexfer.MaxStateBytes)); return nil })
		get(p, "/state").wantSays(t, http.StatusInternalServerError, "the limit is 10485760")
		r.stop("the test is over")
		if err := r.ended(); err == nil {
			t.Error("a state over the limit was saved")
		}
	})
}

func TestPostState(t *testing.T) {
	overLimit := `{"n":"` + strings.Repeat("x", statexfer.MaxStateBytes) + `"}`
	for name, test := range map[string]struct {
		body     string
		header   []string
		code     int
		says     string
		n        int
		list     string
		sequence int64
	}{
		"whole body":           {body: `{"n":9,"list":["x"]}`, code: 200, says: "State restored", n: 9, list: `[x]`, sequence: 102},
		"data":                 {body: `{"data":{"n":9},"pod_name":"other"}`, code: 200, n: 9, list: `[]`, sequence: 102},
		"with its sequence":    {body: `{"data":{"n":9}}`, header: []string{"X-Dory-Sequence", "500"}, code: 200, n: 9, list: `[]`, sequence: 501},
		"sequence in the body": {body: `{"data":{"n":9},"sequence":500}`, code: 200, n: 9, list: `[]`, sequence: 501},
		"an older sequence":    {body: `{"data":{"n":9}}`, header: []string{"X-Dory-Sequence", "3"}, code: 200, n: 9, list: `[]`, sequence: 102},
		"sequence of a state":  {body: `{"n":9,"sequence":500}`, code: 200, n: 9, list: `[]`, sequence: 102},
		"empty state":          {body: `{"data":{}}`, code: 200, n: 0, list: `[]`, sequence: 102},
		"unknown keys":         {body: `{"n":9,"more":1.0}`, code: 200, n: 9, list: `[]`, sequence: 102},
		"no body":              {body: ``, code: 400, says: "no JSON object"},
		"no JSON":              {body: `{"n":`, code: 400, says: "no JSON object"},
		"an array":             {body: `[1]`, code: 400, says: "no JSON object"},
		"null":                 {body: `null`, code: 400, says: "not a JSON object"},
		"data is null":         {body: `{"data":null}`, code: 400, says: "not a JSON object"},
		"data is an array":     {body: `{"data":[]}`, code: 400, says: "no JSON object"},
		"another type":         {body: `{"n":"nine"}`, code: 400, says: `variable \"n\"`},
		"a fraction":           {body: `{"n":1.5}`, code: 400, says: `variable \"n\"`},
		"null for a number":    {body: `{"n":null}`, code: 400, says: "null is no int"},
		"half of it fits":      {body: `{"n":9,"list":7}`, code: 400, says: `variable \"list\"`},
		"another's state":      {body: `{"m":1}`, code: 400, says: "none of this processor's variables"},
		"could not be saved":   {body: `{"n":9,"more":1e999}`, code: 400, says: "beyond the range"},
		"negative sequence":    {body: `{"n":9}`, header: []string{"X-Dory-Sequence", "-1"}, code: 400, says: "sequence"},
		"over 10485760 bytes":  {body: overLimit, code: 413, says: "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProcessor(t, &memory{doc: document(`{"n":5,"list":["kept"]}`, 6, 100)}, WithInterval(time.Hour))
				n, list := Var(p, "n", 0), Var(p, "list", []string{})
				r := start(t, p, nothing) // One iteration: sequence 101.
				ask(p, http.MethodPost, "/state", test.body, test.header...).wantSays(t, test.code, test.says)
				if test.code != http.StatusOK {
					test.n, test.list, test.sequence = 5, "[kept]", 101
				}
				if n.Get() != test.n || fmt.Sprint(list.Get()) != test.list || p.Sequence() != test.sequence {
					t.Errorf("n %d, list %v, sequence %d; want %d, %s, %d", n.Get(), list.Get(), p.Sequence(), test.n, test.list, test.sequence)
				}
				r.shutDown()
			})
		})
	}
}

func TestPostAfterStopIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{}
		p := newProcessor(t, backend)
		Var(p, "n", 0)
		r := start(t, p, func(context.Context) error { time.Sleep(time.Second); return nil })
		posted := make(chan answer, 1)
		go func() { posted <- ask(p, http.MethodPost, "/state", `{"n":9}`) }() // Waits for the iteration in hand.
		synctest.Wait()
		r.stop("the test is over")
		ask(p, http.MethodPost, "/state", `{"n":9}`).wantSays(t, http.StatusServiceUnavailable, "stopping")
		if err := r.ended(); err != nil {
			t.Errorf("Run: %v", err)
		}
		(<-posted).wantSays(t, http.StatusServiceUnavailable, "stopping")
		if backend.saved() != `{"n":0}` {
			t.Errorf("saved %s", backend.saved())
		}
	})
}

const noAccess = `{"error":"Unauthorized"}` //nolint:misspell // The contract's word.

func TestToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{}, environ("DORY_STATE_TOKEN", "secret"), WithInterval(time.Hour))
		Var(p, "n", 0)
		r := start(t, p, nothing)
		for _, header := range []string{"", "secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "bearer secret", "Basic secret"} {
			get(p, "/state", "Authorization", header).want(t, http.StatusUnauthorized, noAccess)
			ask(p, http.MethodPost, "/state", `{"n":9}`, "Authorization", header).want(t, http.StatusUnauthorized, noAccess)
		}
		get(p, "/state", "Authorization", "Bearer secret").wantSays(t, http.StatusOK, `"data":{"n":0}`)
		ask(p, http.MethodPost, "/state", `{"n":9}`, "Authorization", "Bearer secret").wantSays(t, http.StatusOK, "ok")
		get(p, "/ready").want(t, http.StatusOK, `{"status":"ready"}`)
		r.shutDown()
	})
}

func TestUnknownPathsAndMethods(t *testing.T) {
	p := newProcessor(t, &memory{})
	get(p, "/nowhere").want(t, http.StatusNotFound, `{"error":"no endpoint /nowhere"}`)
	for _, path := range []string{"/", "/health", "/healthz", "/ready", "/metrics", "/prestop"} {
		ask(p, http.MethodPost, path, "{}").want(t, http.StatusMethodNotAllowed, `{"error":"method POST is not allowed here"}`)
	}
	ask(p, http.MethodDelete, "/state", "").want(t, http.StatusMethodNotAllowed, `{"error":"method DELETE is not allowed here"}`)
	ask(p, http.MethodHead, "/health", "").wantSays(t, http.StatusOK, "")
	if phase, _ := p.status(); phase != phaseRestoring {
		t.Error("POST /prestop stopped the processor")
	}
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{})
		for i := range 250 {
			a := get(p, []string{"/health", "/ready", "/", "/state"}[i%4])
			if limited := a.code == http.StatusTooManyRequests; limited != (i >= 100) {
				t.Fatalf("request %d within a second: %d %s", i+1, a.code, a.body)
			}
			if i >= 100 && a.header.Get("Retry-After") != "1" {
				t.Fatalf("Retry-After is %q", a.header.Get("Retry-After"))
			}
		}
		other := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/health", nil)
		other.RemoteAddr = "198.51.100.7:1"
		other.Header.Set("X-Forwarded-For", "192.0.2.1")
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, other)
		if w.Code != http.StatusOK {
			t.Errorf("another client got %d", w.Code)
		}
		time.Sleep(time.Second)
		get(p, "/health").wantSays(t, http.StatusOK, "healthy")
	})
}

func TestLimiterForgetsAndIsBounded(t *testing.T) {
	l, now := newLimiter(), time.Unix(0, 0)
	for i := range 3 * maxClients {
		l.allow(fmt.Sprint("client ", i), now)
	}
	if len(l.counts) > maxClients+1 {
		t.Errorf("%d clients are remembered", len(l.counts))
	}
	if l.allow("one more", now) {
		t.Error("clients beyond the bound are not limited")
	}
	if !l.allow("one more", now.Add(time.Second)) || len(l.counts) != 1 {
		t.Error("a second later they are not forgotten")
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := false
		p := newProcessor(t, &memory{doc: document(`{"n":5}`, 6, 41)}, WithInterval(time.Second), WithSaveInterval(5*time.Second+time.Millisecond))
		n := Var(p, "n", 0)
		get(p, "/metrics").wantSays(t, http.StatusOK, `dory_processor_restore{result="pending"} 1`)
		r := start(t, p, func(context.Context) error {
			n.Set(n.Get() + 1)
			fails = !fails
			if fails {
				return errBroken
			}
			return nil
		})
		time.Sleep(5*time.Second + 500*time.Millisecond)
		synctest.Wait()
		text := get(p, "/metrics").body
		for _, want := range []string{
			`dory_processor_restore{result="restored"} 1`, `dory_processor_restore{result="pending"} 0`, "dory_processor_epoch 7",
			"dory_processor_sequence 44", "dory_processor_iterations_total 3", "dory_processor_iteration_errors_total 3",
			"dory_processor_state_saves_total 1", "dory_processor_state_save_failures_total 0",
			"dory_processor_state_last_save_timestamp_seconds 9.46684805001e+08", "dory_processor_iteration_duration_seconds_count 3",
		} {
			if !strings.Contains(text, want+"\n") {
				t.Errorf("no %s", want)
			}
		}
		r.shutDown()
	})
}

// What the operator of the next day does: take the state of one instance, give it to another.
func TestStateOfOneInstanceFitsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := []Option{WithInterval(time.Hour)}
		one, other := newProcessor(t, &memory{doc: document(`{"n":5,"old":1.0}`, 6, 41)}, options...), newProcessor(t, &memory{}, options...)
		Var(one, "n", 0)
		n := Var(other, "n", 0)
		r, s := start(t, one, nothing), start(t, other, nothing)
		captured := get(one, "/state")
		ask(other, http.MethodPost, "/state", captured.body, "X-Dory-Sequence", captured.header.Get("X-Dory-Sequence")).wantSays(t, http.StatusOK, "ok")
		if n.Get() != 5 || other.Sequence() != 43 {
			t.Errorf("n %d, sequence %d", n.Get(), other.Sequence())
		}
		if diff := cmp.Diff(captured.data(t), get(other, "/state").data(t)); diff != "" {
			t.Error(diff)
		}
		r.shutDown()
		s.shutDown()
	})
}

func FuzzPostState(f *testing.F) {
	for _, seed := range []string{`{"n":1}`, `{"data":{"n":1},"sequence":2}`, `{"data":[]}`, `null`, `{"n":1e5}`, "{\"n\":1,\"\xff\":2}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var vars variables
		posted, err := parsePosted(body, http.Header{}, vars.known)
		if err != nil {
			return
		}
		v := &Variable[int64]{vars: &vars, name: "n", initial: json.RawMessage("0")}
		vars.declare(v, "n", nil)
		if _, err := vars.replace(posted.members); err != nil {
			return
		}
		text, err := vars.snapshot()
		if err != nil {
			t.Fatalf("%q was accepted, but cannot be read: %v", body, err)
		}
		if _, err := statexfer.Canonical(text.join()); err != nil {
			t.Fatalf("%q was accepted, but cannot be saved: %v", body, err)
		}
	})
}

func BenchmarkGetState(b *testing.B) {
	for _, size := range []int{64 << 10, 8 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			p, err := New(environ(), WithBackend(&memory{}))
			if err != nil {
				b.Fatal(err)
			}
			p.limiter = nil
			v := Var(p, "payload", "")
			v.value = strings.Repeat("x", size)
			p.becomeRunning()
			p.setHolds(true)
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/state", nil)
			w := httptest.NewRecorder()
			w.Body = bytes.NewBuffer(make([]byte, 0, 2*size))
			b.SetBytes(int64(size))
			for b.Loop() {
				w.Body.Reset()
				p.getState(w, r)
			}
		})
	}
}

func BenchmarkLimiter(b *testing.B) {
	l := newLimiter()
	for b.Loop() {
		l.allow("192.0.2.1", time.Unix(rand.Int64N(10), 0))
	}
}
