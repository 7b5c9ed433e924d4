package sdk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The rules of the contract, §7. Those that a process must outlive are in process_handoff_test.go.

const stateHeader = "X-Dory-Checksum"

func post(p *Processor, path, body string, header ...string) answer {
	return ask(p, http.MethodPost, path, body, header...)
}

func standbyOf(t *testing.T, backend Backend, options ...Option) *Processor {
	t.Helper()
	return newProcessor(t, backend, append([]Option{environ("DORY_ROLE", "standby", "DORY_EPOCH", "")}, options...)...)
}

// counting is an iteration that counts, and how often it ran.
func counting(p *Processor) (n *Variable[int], iterate func(context.Context) error) {
	n = Var(p, "n", 0)
	return n, func(context.Context) error {
		n.Set(n.Get() + 1)
		return nil
	}
}

// where is the answer of GET /handoff without what differs from process to process.
func where(t *testing.T, p *Processor) string {
	t.Helper()
	var body handoffBody
	if err := json.Unmarshal([]byte(get(p, "/handoff").body), &body); err != nil || body.Instance == "" {
		t.Fatalf("GET /handoff: %v, %+v", err, body)
	}
	return fmt.Sprint(body.Role, " ", body.Epoch, " ", body.Sequence)
}

func wantWhere(t *testing.T, p *Processor, want string) {
	t.Helper()
	if got := where(t, p); got != want {
		t.Errorf("GET /handoff: %s, want %s", got, want)
	}
}

func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func rolePath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "role")
}

func wantRole(t *testing.T, path, want string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || string(text) != want {
		t.Errorf("the role file holds %q, %v; want %s", text, err, want)
	}
}

func TestStandbyRunsNothingAndLoadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{doc: document(`{"n":5}`, 6, 41)}
		p := standbyOf(t, backend, WithSaveInterval(time.Second))
		n, iterate := counting(p)
		r := start(t, p, iterate)
		time.Sleep(time.Hour)
		get(p, "/ready").want(t, http.StatusOK, `{"status":"ready"}`)
		get(p, "/health").want(t, http.StatusOK, `{"status":"healthy"}`)
		get(p, "/state").wantSays(t, http.StatusServiceUnavailable, "standby and holds no state yet")
		wantWhere(t, p, "standby 0 0")
		if n.Get() != 0 || backend.loads > 0 || backend.saves > 0 {
			t.Errorf("n %d, %d loads, %d saves", n.Get(), backend.loads, backend.saves)
		}
		r.shutDown()
		if backend.saves > 0 {
			t.Error("a standby saved its state")
		}
	})
}

func TestStandbyTakesNewerStatesAndNeverAnOlderOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := standbyOf(t, &memory{})
		n, iterate := counting(p)
		r := start(t, p, iterate)
		for _, step := range []struct {
			body   string
			header []string
			code   int
			where  string
			n      int
		}{
			{`{"data":{"n":1},"epoch":5,"sequence":10}`, nil, 200, "standby 5 10", 1},
			{`{"data":{"n":2},"epoch":5,"sequence":12}`, nil, 200, "standby 5 12", 2},
			{`{"data":{"n":3},"epoch":5,"sequence":12}`, nil, 200, "standby 5 12", 3},
			{`{"data":{"n":4},"epoch":5,"sequence":11}`, nil, 409, "standby 5 12", 3},
			{`{"data":{"n":4},"epoch":4,"sequence":99}`, nil, 409, "standby 5 12", 3},
			{`{"data":{"n":4}}`, nil, 409, "standby 5 12", 3},
			{`{"n":4}`, []string{"X-Dory-Epoch", "5", "X-Dory-Sequence", "11"}, 409, "standby 5 12", 3},
			{`{"n":5}`, []string{"X-Dory-Epoch", "6", "X-Dory-Sequence", "1"}, 200, "standby 6 1", 5},
			{`{"data":{"n":"x"},"epoch":6,"sequence":2}`, nil, 400, "standby 6 1", 5},
			{`{"data":{"n":6},"epoch":6,"sequence":-1}`, nil, 400, "standby 6 1", 5},
			{`{"data":{"n":6},"epoch":"6","sequence":2}`, nil, 400, "standby 6 1", 5},
		} {
			a := post(p, "/state", step.body, step.header...)
			if a.code != step.code || n.Get() != step.n {
				t.Errorf("%s: %d %s; n is %d", step.body, a.code, a.body, n.Get())
			}
			wantWhere(t, p, step.where)
		}
		post(p, "/state", `{"data":{"n":4},"epoch":5,"sequence":10}`).want(t, http.StatusConflict,
			`{"error":"the state has epoch 5 sequence 10, but this instance holds, or has seen, epoch 6 sequence 1","role":"standby","epoch":6,"sequence":1}`)
		get(p, "/state").wantSays(t, http.StatusOK, `"data":{"n":5}`)
		r.shutDown()
	})
}

func TestRestoredStateIsToldWithTheChecksumOfItsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := standbyOf(t, &memory{})
		_, iterate := counting(p)
		Var(p, "text", "")
		r := start(t, p, iterate)
		for _, data := range []string{`{"n":1,"text":"a"}`, `{"n":2,"text":"a"}`, `{"n":2,"text":"b"}`, `{"n":2,"text":"b","more":[1.0]}`} {
			a := post(p, "/state", `{"epoch":5,"data":`+data+`,"sequence":7}`)
			a.want(t, http.StatusOK, `{"status":"ok","message":"State restored","checksum":"`+sumOf(data)+`","epoch":5,"sequence":7}`)
			if a.header.Get(stateHeader) != sumOf(data) || a.header.Get("X-Dory-Epoch") != "5" || a.header.Get("X-Dory-Sequence") != "7" {
				t.Errorf("headers: %v", a.header)
			}
			back := get(p, "/state")
			if back.data(t) != data || back.header.Get(stateHeader) != sumOf(data) {
				t.Errorf("GET /state: %s, checksum %s", back.data(t), back.header.Get(stateHeader))
			}
		}
		// The same state in other words: the checksum is that of what this processor writes.
		post(p, "/state", `{"data":{ "text" : "b", "n":2},"epoch":5,"sequence":7}`).wantSays(t, http.StatusOK, sumOf(`{"n":2,"text":"b"}`))
		r.shutDown()
	})
}

func TestPromotedStandbyRunsAtOnceAndGoesOnWhereThePrimaryStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{}
		p := standbyOf(t, backend, WithInterval(time.Minute))
		n, iterate := counting(p)
		var first time.Time
		r := start(t, p, func(ctx context.Context) error {
			if first.IsZero() {
				first = time.Now()
			}
			return iterate(ctx)
		})
		time.Sleep(time.Hour + time.Second)
		post(p, "/state", `{"data":{"n":5},"epoch":7,"sequence":41}`).wantSays(t, http.StatusOK, "ok")
		promoted := time.Now()
		post(p, "/handoff/promote", `{"epoch":8}`).wantSays(t, http.StatusOK, `{"role":"primary","epoch":8,"sequence":`)
		synctest.Wait()
		if !first.Equal(promoted) {
			t.Errorf("the first iteration began %v after the promotion", first.Sub(promoted))
		}
		if n.Get() != 6 || p.Epoch() != 8 || p.Sequence() != 42 {
			t.Errorf("n %d, epoch %d, sequence %d", n.Get(), p.Epoch(), p.Sequence())
		}
		get(p, "/metrics").wantSays(t, http.StatusOK, `dory_processor_role{role="primary"} 1`)
		r.shutDown()
		if backend.saved() != `{"n":6}` || backend.doc.Metadata.Position != at(8, 42) {
			t.Errorf("saved %s at %v", backend.saved(), backend.doc.Metadata.Position)
		}
	})
}

func TestQuiesceFinishesTheIterationInHandAndStartsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := rolePath(t)
		p := newProcessor(t, &memory{}, environ("DORY_ROLE_FILE", path))
		n := Var(p, "n", 0)
		begun := 0
		r := start(t, p, func(context.Context) error {
			begun++
			time.Sleep(time.Second)
			n.Set(n.Get() + 1)
			return nil
		})
		time.Sleep(1500 * time.Millisecond)
		began := time.Now()
		a := post(p, "/handoff/quiesce", `{"epoch":7}`)
		if waited := time.Since(began); waited != 500*time.Millisecond {
			t.Errorf("quiesced after %v", waited)
		}
		a.wantSays(t, http.StatusOK, `"last_health_time":null,"epoch":7,"sequence":2}`)
		if a.data(t) != `{"n":2}` || a.header.Get(stateHeader) != sumOf(`{"n":2}`) || a.header.Get("X-Dory-Epoch") != "7" || a.header.Get("X-Dory-Sequence") != "2" {
			t.Errorf("%s, headers %v", a.body, a.header)
		}
		wantRole(t, path, `{"role":"quiesced","epoch":7}`)
		time.Sleep(time.Hour)
		synctest.Wait()
		get(p, "/ready").want(t, http.StatusOK, `{"status":"ready"}`)
		wantWhere(t, p, "quiesced 7 2")
		if n.Get() != 2 || begun != 2 {
			t.Errorf("n %d after %d iterations", n.Get(), begun)
		}
		r.shutDown()
	})
}

func TestQuiesceIsIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{}, WithInterval(time.Second))
		_, iterate := counting(p)
		shared := Var(p, "shared", map[string]int{})
		r := start(t, p, iterate)
		time.Sleep(10 * time.Second)
		first := post(p, "/handoff/quiesce", `{"epoch":7}`)
		shared.Get()["changed"] = 1 // Which nobody may do; the final state stays what it was.
		for range 3 {
			time.Sleep(time.Minute)
			again := post(p, "/handoff/quiesce", `{"epoch":7}`)
			if again.code != http.StatusOK || again.data(t) != first.data(t) {
				t.Errorf("%d %s, the first was %s", again.code, again.body, first.body)
			}
			for _, name := range []string{"X-Dory-Epoch", "X-Dory-Sequence", stateHeader} {
				if again.header.Get(name) != first.header.Get(name) || first.header.Get(name) == "" {
					t.Errorf("%s: %q, the first was %q", name, again.header.Get(name), first.header.Get(name))
				}
			}
		}
		post(p, "/handoff/quiesce", `{"epoch":6}`).want(t, http.StatusConflict,
			`{"error":"this instance has epoch 7, not 6","role":"quiesced","epoch":7,"sequence":`+first.header.Get("X-Dory-Sequence")+`}`)
		r.shutDown()
	})
}

// postAs sends a request of a client that goes away when ctx ends.
func postAs(ctx context.Context, p *Processor, path, body string) answer {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, r)
	return answer{w.Code, w.Body.String(), w.Header()}
}

func TestQuiesceIsAbandonedWhenTheClientIsGoneBeforeTheBoundary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := rolePath(t)
		p := newProcessor(t, &memory{}, environ("DORY_ROLE_FILE", path))
		n := Var(p, "n", 0)
		r := start(t, p, func(context.Context) error {
			time.Sleep(10 * time.Second)
			n.Set(n.Get() + 1)
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if a := postAs(ctx, p, "/handoff/quiesce", `{"epoch":7}`); a.code == http.StatusOK {
			t.Errorf("%d %s", a.code, a.body)
		}
		time.Sleep(29*time.Second + 500*time.Millisecond)
		wantWhere(t, p, "primary 7 3")
		if _, err := os.Stat(path); err == nil {
			t.Error("a role file was written")
		}
		r.shutDown()
	})
}

// At the very boundary: the client goes away while its request has the boundary already.
func TestQuiesceIsAbandonedWhenTheClientGoesAtTheBoundary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{}, WithInterval(time.Hour))
		gone, cancel := context.WithCancel(t.Context())
		v := Var(p, "v", leaving{})
		r := start(t, p, func(context.Context) error {
			v.Set(leaving{cancel})
			return nil
		})
		if a := postAs(gone, p, "/handoff/quiesce", `{"epoch":7}`); a.code != http.StatusServiceUnavailable {
			t.Errorf("%d %s", a.code, a.body)
		}
		wantWhere(t, p, "primary 7 1")
		r.shutDown()
	})
}

// leaving is a value at whose writing the client goes away.
type leaving struct{ leave context.CancelFunc }

func (l leaving) MarshalJSON() ([]byte, error) {
	if l.leave != nil {
		l.leave()
	}
	return []byte(`{}`), nil
}

func TestQuiesceOfAnIterationThatNeverEndsLeavesThePrimaryAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := rolePath(t)
		p := newProcessor(t, &memory{}, environ("DORY_ROLE_FILE", path))
		n := Var(p, "n", 0)
		hang := make(chan struct{})
		r := start(t, p, func(context.Context) error {
			<-hang
			time.Sleep(time.Second)
			n.Set(n.Get() + 1)
			return nil
		})
		began := time.Now()
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusServiceUnavailable, "waiting for the end of the iteration in hand")
		if waited := time.Since(began); waited != captureTimeout {
			t.Errorf("waited %v", waited)
		}
		close(hang)
		time.Sleep(10*time.Second + time.Second/2)
		wantWhere(t, p, "primary 7 10")
		if _, err := os.Stat(path); err == nil {
			t.Error("a role file was written")
		}
		r.shutDown()
	})
}

func TestQuiesceIsNotCommittedWhereTheStateCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{}, WithInterval(time.Second))
		v := Var(p, "v", unwritable{})
		calls := 0
		r := start(t, p, func(context.Context) error {
			calls++
			v.Set(unwritable{broken: calls < 10})
			return nil
		})
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusInternalServerError, `variable \"v\"`)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if calls < 20 {
			t.Errorf("%d iterations: it does not work on", calls)
		}
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusOK, `"data":{"v":{}}`)
		r.shutDown()
	})
}

func TestTurnsAreRefusedWhereTheRoleFileCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "absent")
		p := newProcessor(t, &memory{}, environ("DORY_ROLE_FILE", filepath.Join(dir, "role")), WithInterval(time.Second))
		n, iterate := counting(p)
		r := start(t, p, iterate)
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusInternalServerError, "DORY_ROLE_FILE")
		time.Sleep(10*time.Second + time.Second/2)
		if n.Get() != 11 {
			t.Errorf("n %d: it does not work on", n.Get())
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusOK, `"data":{"n":11}`)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/handoff/resume", "/handoff/promote"} {
			post(p, path, map[string]string{"/handoff/resume": `{"epoch":7}`, "/handoff/promote": `{"epoch":8}`}[path]).
				wantSays(t, http.StatusInternalServerError, "DORY_ROLE_FILE")
		}
		time.Sleep(time.Minute)
		wantWhere(t, p, "quiesced 7 11")
		r.shutDown()
	})
}

func TestAStopBetweenTheRoleFileAndTheRoleTakesTheFileBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := rolePath(t)
		backend := &memory{}
		p := newProcessor(t, backend, environ("DORY_ROLE_FILE", path), WithInterval(time.Hour))
		_, iterate := counting(p)
		r := start(t, p, iterate)
		now := p.standing()
		r.shutDown()
		if err := p.turn(now, roleQuiesced, now.position); err == nil {
			t.Error("quiesced after it stopped")
		}
		wantRole(t, path, `{"role":"primary","epoch":7}`)
		if backend.saved() != `{"n":1}` {
			t.Errorf("saved %q", backend.saved())
		}
	})
}

func TestQuiescedSavesNothing(t *testing.T) {
	for name, end := range map[string]func(*running) answer{
		"/prestop": func(r *running) answer { return get(r.Processor, "/prestop") },
		"SIGTERM": func(r *running) answer {
			r.stop("terminated")
			return get(r.Processor, "/prestop")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backend := &memory{}
				p := newProcessor(t, backend, WithInterval(time.Second), WithSaveInterval(time.Minute))
				_, iterate := counting(p)
				r := start(t, p, iterate)
				time.Sleep(time.Second / 2)
				post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusOK, `"n":1`)
				time.Sleep(time.Hour) // The save that was due is not made.
				end(r).want(t, http.StatusOK, `{"status":"ok","message":"nothing saved: this instance is quiesced, and the state is another's to save"}`)
				if err := r.ended(); err != nil {
					t.Errorf("Run: %v", err)
				}
				if backend.saves > 0 {
					t.Errorf("%d saves", backend.saves)
				}
			})
		})
	}
}

func TestQuiesceGivesUpASaveUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &slowBackend{}
		p := newProcessor(t, backend, WithInterval(time.Second), WithSaveInterval(time.Minute))
		_, iterate := counting(p)
		r := start(t, p, iterate)
		time.Sleep(time.Minute + time.Second/2)
		synctest.Wait()
		began := time.Now()
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusOK, `"n":`)
		synctest.Wait()
		if backend.begun != 1 || backend.given != 1 || time.Since(began) > 0 {
			t.Errorf("%d saves begun, %d given up, after %v", backend.begun, backend.given, time.Since(began))
		}
		r.shutDown()
	})
}

// slowBackend takes long to save, unless it is told not to.
type slowBackend struct {
	noBackend

	begun, given int
}

func (s *slowBackend) Save(ctx context.Context, _ Document) error {
	s.begun++
	<-ctx.Done()
	s.given++
	return ctx.Err()
}

func TestResumedInstanceGoesOnAndSavesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := rolePath(t)
		backend := &memory{}
		p := newProcessor(t, backend, environ("DORY_ROLE_FILE", path), WithInterval(time.Second))
		n, iterate := counting(p)
		r := start(t, p, iterate)
		time.Sleep(9*time.Second + time.Second/2)
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusOK, `"n":10`)
		time.Sleep(time.Hour)
		for range 2 { // The second finds a PRIMARY.
			post(p, "/handoff/resume", `{"epoch":7}`).wantSays(t, http.StatusOK, `{"role":"primary","epoch":7`)
		}
		wantRole(t, path, `{"role":"primary","epoch":7}`)
		synctest.Wait()
		if n.Get() != 11 || p.Sequence() != 11 {
			t.Errorf("n %d, sequence %d", n.Get(), p.Sequence())
		}
		r.shutDown()
		if backend.saved() != `{"n":11}` {
			t.Errorf("saved %s", backend.saved())
		}
	})
}

func TestQuiescedThatSeesAHigherEpochIsAStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := rolePath(t)
		p := newProcessor(t, &memory{}, environ("DORY_ROLE_FILE", path), WithInterval(time.Second))
		n, iterate := counting(p)
		r := start(t, p, iterate)
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusOK, `"n":1`)
		post(p, "/state", `{"data":{"n":50},"epoch":8,"sequence":50}`).wantSays(t, http.StatusOK, "ok")
		wantRole(t, path, `{"role":"standby","epoch":8}`)
		for _, epoch := range []int{7, 8, 9} {
			post(p, "/handoff/resume", fmt.Sprintf(`{"epoch":%d}`, epoch)).wantSays(t, http.StatusConflict, `"role":"standby","epoch":8,"sequence":50`)
		}
		time.Sleep(time.Minute)
		if n.Get() != 50 {
			t.Errorf("n %d: it resumed although epoch 8 acts", n.Get())
		}
		post(p, "/handoff/promote", `{"epoch":9}`).wantSays(t, http.StatusOK, "primary")
		wantRole(t, path, `{"role":"primary","epoch":9}`)
		synctest.Wait()
		if n.Get() != 51 || p.Epoch() != 9 {
			t.Errorf("n %d, epoch %d", n.Get(), p.Epoch())
		}
		r.shutDown()
	})
}

func TestHandoffRules(t *testing.T) {
	in := func(now phase, r role, holds bool) standing {
		return standing{phase: now, reason: "why", role: r, position: at(7, 41), holds: holds}
	}
	for name, test := range map[string]struct {
		err  error
		code int // 0: allowed
	}{
		"quiesce the PRIMARY":                          {in(phaseRunning, rolePrimary, true).refuseQuiesce(7), 0},
		"quiesce twice":                                {in(phaseRunning, roleQuiesced, true).refuseQuiesce(7), 0},
		"quiesce under a lower epoch":                  {in(phaseRunning, rolePrimary, true).refuseQuiesce(6), 409},
		"quiesce under a higher epoch":                 {in(phaseRunning, rolePrimary, true).refuseQuiesce(8), 409},
		"quiesce a standby":                            {in(phaseRunning, roleStandby, true).refuseQuiesce(7), 409},
		"quiesce again what has lost its state":        {in(phaseRunning, roleQuiesced, false).refuseQuiesce(7), 409},
		"quiesce while restoring":                      {in(phaseRestoring, rolePrimary, false).refuseQuiesce(7), 503},
		"quiesce while stopping":                       {in(phaseStopping, rolePrimary, true).refuseQuiesce(7), 503},
		"quiesce again while stopping":                 {in(phaseStopping, roleQuiesced, true).refuseQuiesce(7), 503},
		"promote a standby":                            {in(phaseRunning, roleStandby, true).refusePromote(8, false), 0},
		"promote further":                              {in(phaseRunning, roleStandby, true).refusePromote(80, false), 0},
		"promote under the last epoch seen":            {in(phaseRunning, roleStandby, true).refusePromote(7, false), 409},
		"promote under a lower epoch":                  {in(phaseRunning, roleStandby, true).refusePromote(6, false), 409},
		"promote a standby without state":              {in(phaseRunning, roleStandby, false).refusePromote(8, false), 409},
		"promote a standby on the saved state":         {in(phaseRunning, roleStandby, false).refusePromote(8, true), 0},
		"promote under the last epoch, saved state":    {in(phaseRunning, roleStandby, false).refusePromote(7, true), 409},
		"promote the PRIMARY again":                    {in(phaseRunning, rolePrimary, true).refusePromote(7, false), 409},
		"promote the PRIMARY further":                  {in(phaseRunning, rolePrimary, true).refusePromote(8, false), 0},
		"promote the quiesced":                         {in(phaseRunning, roleQuiesced, true).refusePromote(8, false), 0},
		"promote the quiesced under its epoch":         {in(phaseRunning, roleQuiesced, true).refusePromote(7, false), 409},
		"promote while restoring":                      {in(phaseRestoring, rolePrimary, false).refusePromote(8, false), 503},
		"promote while stopping":                       {in(phaseStopping, roleStandby, true).refusePromote(8, false), 503},
		"resume the quiesced":                          {in(phaseRunning, roleQuiesced, true).refuseResume(7), 0},
		"resume the PRIMARY":                           {in(phaseRunning, rolePrimary, true).refuseResume(7), 0},
		"resume under a lower epoch than was seen":     {in(phaseRunning, roleQuiesced, true).refuseResume(6), 409},
		"resume under a higher epoch":                  {in(phaseRunning, roleQuiesced, true).refuseResume(8), 409},
		"resume the PRIMARY of a higher epoch":         {in(phaseRunning, rolePrimary, true).refuseResume(6), 409},
		"resume a standby":                             {in(phaseRunning, roleStandby, true).refuseResume(7), 409},
		"resume while restoring":                       {in(phaseRestoring, roleQuiesced, false).refuseResume(7), 503},
		"resume while stopping":                        {in(phaseStopping, roleQuiesced, true).refuseResume(7), 503},
		"an older state on a standby":                  {in(phaseRunning, roleStandby, true).refuseState(at(7, 40)), 409},
		"a state of an older epoch on a standby":       {in(phaseRunning, roleStandby, true).refuseState(at(6, 99)), 409},
		"the same state on a standby":                  {in(phaseRunning, roleStandby, true).refuseState(at(7, 41)), 0},
		"an older epoch than was seen, nothing held":   {in(phaseRunning, roleStandby, false).refuseState(at(6, 99)), 409},
		"an older state on the quiesced":               {in(phaseRunning, roleQuiesced, true).refuseState(at(7, 40)), 409},
		"an older state on the PRIMARY, by intent":     {in(phaseRunning, rolePrimary, true).refuseState(at(6, 1)), 0},
		"a state before the saved one is restored":     {in(phaseRestoring, rolePrimary, false).refuseState(at(9, 1)), 503},
		"a state that nobody would save any more":      {in(phaseStopping, rolePrimary, true).refuseState(at(9, 1)), 503},
		"reading the state of a standby without state": {in(phaseRunning, roleStandby, false).refuseRead(), 503},
		"reading the state of the quiesced":            {in(phaseRunning, roleQuiesced, true).refuseRead(), 0},
		"reading the state while stopping":             {in(phaseStopping, rolePrimary, true).refuseRead(), 0},
		"reading the state while restoring":            {in(phaseRestoring, rolePrimary, false).refuseRead(), 503},
	} {
		got := 0
		if refused, ok := errors.AsType[*refusal](test.err); ok {
			got = refused.code
		} else if test.err != nil {
			got = statusOf(test.err, -1)
		}
		if got != test.code {
			t.Errorf("%s: %d %v, want %d", name, got, test.err, test.code)
		}
	}
}

func TestRefusalsTellRoleAndEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{doc: document(`{"n":5}`, 6, 41)}, WithInterval(time.Hour))
		_, iterate := counting(p)
		r := start(t, p, iterate)
		const at = `"role":"primary","epoch":7,"sequence":42}`
		post(p, "/handoff/promote", `{"epoch":7}`).want(t, http.StatusConflict, `{"error":"epoch 7 is not higher than 7, the last one that this instance has seen",`+at)
		post(p, "/handoff/quiesce", `{"epoch":6}`).want(t, http.StatusConflict, `{"error":"this instance has epoch 7, not 6",`+at)
		post(p, "/handoff/resume", `{"epoch":6}`).want(t, http.StatusConflict, `{"error":"this instance has seen epoch 7, which is higher than 6",`+at)
		for _, body := range []string{``, `7`, `{}`, `{"epoch":-1}`, `{"epoch":"7"}`, `{"epoch":7.5}`, `{"epoch":7,"state":"other"}`} {
			for _, path := range []string{"/handoff/quiesce", "/handoff/promote", "/handoff/resume"} {
				if a := post(p, path, body); a.code != http.StatusBadRequest {
					t.Errorf("%s %s: %d %s", path, body, a.code, a.body)
				}
			}
		}
		post(p, "/handoff/promote", `{"epoch":8,"x":"`+strings.Repeat("x", maxHandoffBytes)+`"}`).wantSays(t, http.StatusRequestEntityTooLarge, "large")
		time.Sleep(time.Second) // So as not to be limited.
		wantWhere(t, p, "primary 7 42")
		r.shutDown()
		wantWhere(t, p, "stopping 7 42")
	})
}

func TestHandoffWantsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{}, environ("DORY_STATE_TOKEN", "secret"), WithInterval(time.Hour))
		_, iterate := counting(p)
		r := start(t, p, iterate)
		for _, header := range []string{"", "Bearer other"} {
			get(p, "/handoff", "Authorization", header).want(t, http.StatusUnauthorized, noAccess)
			for _, path := range []string{"/handoff/quiesce", "/handoff/promote", "/handoff/resume"} {
				post(p, path, `{"epoch":7}`, "Authorization", header).want(t, http.StatusUnauthorized, noAccess)
			}
		}
		if p.standing().role != rolePrimary {
			t.Error("somebody without the token quiesced it")
		}
		post(p, "/handoff/quiesce", `{"epoch":7}`, "Authorization", "Bearer secret").wantSays(t, http.StatusOK, `"sequence":1`)
		get(p, "/handoff", "Authorization", "Bearer secret").wantSays(t, http.StatusOK, `"role":"quiesced"`)
		r.shutDown()
	})
}

// restarted is what a container that starts again finds.
func restarted(t *testing.T, record string, backend Backend, env ...string) (*Processor, string) {
	t.Helper()
	path := rolePath(t)
	if err := os.WriteFile(path, []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	return newProcessor(t, backend, environ(append(env, "DORY_ROLE_FILE", path)...), WithInterval(time.Second)), path
}

func TestQuiescedStaysQuiescedWhenItsContainerStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{doc: document(`{"n":5}`, 7, 5)}
		p, path := restarted(t, `{"role":"quiesced","epoch":7}`, backend) // The environment says PRIMARY.
		n, iterate := counting(p)
		r := start(t, p, iterate)
		time.Sleep(time.Hour)
		get(p, "/ready").want(t, http.StatusOK, `{"status":"ready"}`)
		wantWhere(t, p, "quiesced 7 5")
		if n.Get() != 5 {
			t.Errorf("n %d: it acts by itself", n.Get())
		}
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusOK, `"epoch":7,"sequence":5}`)
		// What it lost when it was killed, the operator may still have.
		post(p, "/state", `{"data":{"n":9},"epoch":7,"sequence":9}`).wantSays(t, http.StatusOK, "ok")
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusOK, `"data":{"n":9}`)
		wantRole(t, path, `{"role":"quiesced","epoch":7}`)
		post(p, "/handoff/resume", `{"epoch":7}`).wantSays(t, http.StatusOK, `"role":"primary"`)
		synctest.Wait()
		if n.Get() != 10 {
			t.Errorf("n %d", n.Get())
		}
		r.shutDown()
	})
}

func TestQuiescedThatStartsAgainWithoutASavedStateHasNoneToHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := restarted(t, `{"role":"quiesced","epoch":7}`, &memory{})
		n, iterate := counting(p)
		r := start(t, p, iterate)
		post(p, "/handoff/quiesce", `{"epoch":7}`).wantSays(t, http.StatusConflict, "no state was ever saved")
		get(p, "/state").wantSays(t, http.StatusServiceUnavailable, "holds no state")
		post(p, "/handoff/resume", `{"epoch":7}`).wantSays(t, http.StatusOK, `"role":"primary"`)
		synctest.Wait()
		if n.Get() != 1 {
			t.Errorf("n %d", n.Get())
		}
		r.shutDown()
	})
}

func TestQuiescedThatFindsItsSuccessorsStateIsAStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, path := restarted(t, `{"role":"quiesced","epoch":7}`, &memory{doc: document(`{"n":50}`, 8, 50)})
		_, iterate := counting(p)
		r := start(t, p, iterate)
		wantWhere(t, p, "standby 8 50")
		wantRole(t, path, `{"role":"standby","epoch":8}`)
		post(p, "/handoff/resume", `{"epoch":7}`).wantSays(t, http.StatusConflict, `"epoch":8`)
		get(p, "/prestop").wantSays(t, http.StatusOK, "nothing saved")
		if err := r.ended(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestQuiescedThatCannotReadTheSavedStateIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := restarted(t, `{"role":"quiesced","epoch":7}`, &memory{loadErr: func(int) error { return errBroken }})
		_, iterate := counting(p)
		r := start(t, p, iterate)
		get(p, "/ready").wantSays(t, http.StatusServiceUnavailable, "broken on purpose")
		for path, body := range map[string]string{"/handoff/quiesce": `{"epoch":7}`, "/handoff/resume": `{"epoch":7}`, "/handoff/promote": `{"epoch":8}`} {
			post(p, path, body).wantSays(t, http.StatusServiceUnavailable, `"role":"restoring"`)
		}
		r.shutDown()
	})
}

func TestPromotedStandbyStartsAgainAsPrimaryWithItsEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{doc: document(`{"n":5}`, 7, 5)}
		p, _ := restarted(t, `{"role":"primary","epoch":8}`, backend, "DORY_ROLE", "standby", "DORY_EPOCH", "")
		n, iterate := counting(p)
		r := start(t, p, iterate)
		if n.Get() != 6 || p.Epoch() != 8 || p.Sequence() != 6 {
			t.Errorf("n %d, epoch %d, sequence %d", n.Get(), p.Epoch(), p.Sequence())
		}
		r.shutDown()
		if backend.doc.Metadata.Position != at(8, 6) {
			t.Errorf("saved at %v", backend.doc.Metadata.Position)
		}
	})
}

func TestRoleFileThatCannotBeUnderstoodKeepsTheProcessorFromStarting(t *testing.T) {
	for _, record := range []string{``, `{`, `{"role":"boss","epoch":1}`, `{"role":"primary","epoch":-1}`, `{"role":"primary","epoch":"1"}`} {
		path := rolePath(t)
		if err := os.WriteFile(path, []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(environ("DORY_ROLE_FILE", path)); err == nil || !strings.Contains(err.Error(), "DORY_ROLE_FILE") {
			t.Errorf("%q: %v", record, err)
		}
	}
	if _, err := New(environ("DORY_ROLE_FILE", t.TempDir())); err == nil {
		t.Error("a directory was taken for a role file")
	}
}

func TestPromoteOnTheSavedState(t *testing.T) {
	for name, test := range map[string]struct {
		backend *memory
		code    int
		says    string
		n       int
	}{
		"there is one":            {&memory{doc: document(`{"n":5}`, 7, 5)}, 200, `"role":"primary","epoch":8`, 6},
		"there is certainly none": {&memory{}, 200, `"role":"primary","epoch":8`, 1},
		"it cannot be read":       {&memory{loadErr: func(int) error { return errBroken }}, 503, "broken on purpose", 0},
		"it is of a newer epoch":  {&memory{doc: document(`{"n":5}`, 8, 5)}, 409, "not older than epoch 8", 0},
		"it is another's state":   {&memory{doc: document(`{"m":5}`, 7, 5)}, 500, "none of this processor's variables", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := standbyOf(t, test.backend, WithInterval(time.Hour))
				n, iterate := counting(p)
				r := start(t, p, iterate)
				post(p, "/handoff/promote", `{"epoch":8}`).wantSays(t, http.StatusConflict, "holds no state")
				post(p, "/handoff/promote", `{"epoch":8,"state":"saved"}`).wantSays(t, test.code, test.says)
				synctest.Wait()
				if n.Get() != test.n {
					t.Errorf("n %d", n.Get())
				}
				r.shutDown()
			})
		})
	}
}

// handOver is what the operator does: warm copy, quiesce, final copy, verify, promote.
func handOver(t *testing.T, from, to *Processor, epoch int64) {
	t.Helper()
	copyOf := func(a answer) {
		t.Helper()
		taken := post(to, "/state", a.body, "X-Dory-Epoch", a.header.Get("X-Dory-Epoch"), "X-Dory-Sequence", a.header.Get("X-Dory-Sequence"))
		if taken.code != http.StatusOK || taken.header.Get(stateHeader) != a.header.Get(stateHeader) {
			t.Fatalf("%d %s is no faithful copy of %s", taken.code, taken.body, a.body)
		}
	}
	copyOf(get(from, "/state"))
	copyOf(post(from, "/handoff/quiesce", `{"epoch":`+strconv.FormatInt(epoch, 10)+`}`))
	post(to, "/handoff/promote", `{"epoch":`+strconv.FormatInt(epoch+1, 10)+`}`).wantSays(t, http.StatusOK, "primary")
}

func TestHandoffLosesAndRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done []int
		instance := func(p *Processor) *running {
			n := Var(p, "n", 0)
			Var(p, "text", strings.Repeat("é", 5000))
			Var(p, "sessions", map[string]int{"a": 1})
			return start(t, p, func(context.Context) error {
				time.Sleep(700 * time.Millisecond)
				n.Set(n.Get() + 1)
				done = append(done, n.Get())
				return nil
			})
		}
		a, b := instance(newProcessor(t, &memory{})), instance(standbyOf(t, &memory{}))
		for epoch := range int64(20) {
			time.Sleep(10 * time.Second)
			handOver(t, a.Processor, b.Processor, 7+epoch)
			a, b = b, a
		}
		a.shutDown()
		b.shutDown()
		for i, n := range done {
			if n != i+1 {
				t.Fatalf("iteration %d was the %dth", n, i+1)
			}
		}
		if len(done) < 250 {
			t.Errorf("%d iterations", len(done))
		}
	})
}

func TestStateOfAnotherVersion(t *testing.T) {
	renamed := func(from string, data json.RawMessage) (json.RawMessage, error) {
		switch from {
		case "":
			return json.RawMessage(strings.Replace(string(data), `"count"`, `"n"`, 1)), nil
		case "panic":
			panic("out of order")
		}
		return nil, errBroken
	}
	of := func(version, payload string) *Document {
		doc := document(payload, 6, 41)
		doc.Metadata.DataVersion = version
		return doc
	}
	for name, test := range map[string]struct {
		option Option
		doc    *Document
		ready  string // "" for ready
	}{
		"the same":              {WithStateVersion("2", nil), of("2", `{"n":5}`), ""},
		"older, migrated":       {WithStateVersion("2", renamed), of("", `{"count":5}`), ""},
		"older, no function":    {WithStateVersion("2", nil), of("1", `{"n":5}`), `it is \"1\", this processor's is \"2\", and it has no function to migrate it`},
		"newer, no function":    {WithStateVersion("2", nil), of("3", `{"n":5}`), `it is \"3\"`},
		"function fails":        {WithStateVersion("2", renamed), of("3", `{"n":5}`), `migrating it from \"3\" to \"2\": broken on purpose`},
		"function panics":       {WithStateVersion("2", renamed), of("panic", `{"n":5}`), `panicked: out of order`},
		"processor without":     {WithInterval(time.Second), of("1", `{"n":5}`), `it is \"1\", this processor's is \"\"`},
		"neither has a version": {WithInterval(time.Second), of("", `{"n":5}`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backend := &memory{doc: test.doc}
				before := backend.saved()
				p := newProcessor(t, backend, WithInterval(time.Second), test.option)
				n, iterate := counting(p)
				r := start(t, p, iterate)
				if test.ready == "" {
					get(p, "/ready").want(t, http.StatusOK, `{"status":"ready"}`)
					if n.Get() != 6 {
						t.Errorf("n %d", n.Get())
					}
					r.shutDown()
					if backend.saved() != `{"n":6}` || backend.doc.Metadata.DataVersion != p.stateVersion {
						t.Errorf("saved %s as version %q", backend.saved(), backend.doc.Metadata.DataVersion)
					}
					return
				}
				time.Sleep(time.Minute)
				get(p, "/ready").wantSays(t, http.StatusServiceUnavailable, test.ready)
				r.shutDown()
				if n.Get() != 0 || backend.saved() != before {
					t.Errorf("n %d, saved %s", n.Get(), backend.saved())
				}
			})
		})
	}
}

func TestPostedStateOfAnotherVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := standbyOf(t, &memory{}, WithStateVersion("2", func(from string, data json.RawMessage) (json.RawMessage, error) {
			if from != "1" {
				return nil, errors.New("only 1 is known")
			}
			return json.RawMessage(strings.Replace(string(data), `"count"`, `"n"`, 1)), nil
		}))
		n, iterate := counting(p)
		r := start(t, p, iterate)
		const old, now = `{"count":5}`, `{"n":5}`
		a := post(p, "/state", `{"data":`+old+`,"epoch":7,"sequence":5,"data_version":"1"}`)
		a.want(t, http.StatusOK, `{"status":"ok","message":"State restored","checksum":"`+sumOf(now)+`","epoch":7,"sequence":5,"migrated":true,"received":"`+sumOf(old)+`"}`)
		if a.header.Get("X-Dory-Migrated") != "true" || n.Get() != 5 {
			t.Errorf("n %d, headers %v", n.Get(), a.header)
		}
		post(p, "/state", old, "X-Dory-Data-Version", "1", "X-Dory-Epoch", "7", "X-Dory-Sequence", "6").wantSays(t, http.StatusOK, `"migrated":true`)
		b := post(p, "/state", `{"data":`+now+`,"epoch":7,"sequence":7,"data_version":"2"}`)
		b.want(t, http.StatusOK, `{"status":"ok","message":"State restored","checksum":"`+sumOf(now)+`","epoch":7,"sequence":7}`)
		for version, says := range map[string]string{`"3"`: "only 1 is known", `""`: "only 1 is known", `3`: "no text"} {
			post(p, "/state", `{"data":{"n":9},"epoch":7,"sequence":8,"data_version":`+version+`}`).wantSays(t, http.StatusBadRequest, says)
		}
		wantWhere(t, p, "standby 7 7")
		c := get(p, "/state")
		c.wantSays(t, http.StatusOK, `"state_version":"1.0","data":{"n":5}`)
		c.wantSays(t, http.StatusOK, `"data_version":"2"`)
		if c.header.Get("X-Dory-Data-Version") != "2" {
			t.Errorf("headers %v", c.header)
		}
		r.shutDown()
	})
}

func TestStateVersionOutOfBounds(t *testing.T) {
	for _, version := range []string{"", " ", "a b", "é", "1\n", strings.Repeat("1", 64)} {
		if _, err := New(environ(), WithStateVersion(version, nil)); err == nil || !strings.Contains(err.Error(), "WithStateVersion") {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestRolesInTheEnvironment(t *testing.T) {
	for name, test := range map[string]struct {
		env  []string
		want role
		says string
	}{
		"nothing":  {nil, rolePrimary, ""},
		"primary":  {[]string{"DORY_ROLE", "primary"}, rolePrimary, ""},
		"standby":  {[]string{"DORY_ROLE", "standby"}, roleStandby, ""},
		"quiesced": {[]string{"DORY_ROLE", "quiesced"}, "", `DORY_ROLE is "quiesced", not one of standby, primary`},
		"address":  {[]string{"DORY_BIND_ADDRESS", "localhost"}, "", `DORY_BIND_ADDRESS is "localhost", not an IP address`},
	} {
		p, err := New(environ(test.env...))
		switch {
		case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
			t.Errorf("%s: %v", name, err)
		case test.says == "" && (err != nil || p.standing().role != test.want):
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBindAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		for _, address := range []string{"", "127.3.2.1", "::1"} {
			p := newProcessor(t, &memory{}, environ("DORY_BIND_ADDRESS", address, "DORY_HEALTH_PORT", "9000"), WithInterval(time.Second))
			inner := p.listen
			p.listen = func(ctx context.Context, address string) (net.Listener, error) {
				got = append(got, address)
				return inner(ctx, address)
			}
			start(t, p, nothing).shutDown()
		}
		if diff := cmp.Diff([]string{":9000", "127.3.2.1:9000", "[::1]:9000"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func at(epoch, sequence int64) Position { return Position{Epoch: epoch, Sequence: sequence} }
