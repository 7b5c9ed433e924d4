package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dory-io/dory/internal/statexfer"
)

// The traps of the contract, §2, by their numbers. 4 and 8 need a process that dies: see process_test.go.

// unwritable is a value that can be read from JSON, and written only once.
type unwritable struct{ broken bool }

func (u unwritable) MarshalJSON() ([]byte, error) {
	if u.broken {
		return nil, errBroken
	}
	return []byte(`{}`), nil
}

func TestTrap1StateThatCannotBeReadIsNot200(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{}, WithInterval(time.Second))
		v := Var(p, "v", unwritable{})
		r := start(t, p, func(context.Context) error {
			v.Set(unwritable{broken: true})
			return nil
		})
		get(p, "/state").wantSays(t, http.StatusInternalServerError, `{"error":"reading the state: variable \"v\"`)
		r.stop("the test is over")
		if err := r.ended(); !errors.Is(err, errBroken) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestTrap1AnErrorIsNoState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{doc: document(`{"n":5}`, 6, 5)}, WithInterval(time.Hour))
		n := Var(p, "n", 0)
		r := start(t, p, nothing)
		ask(p, http.MethodPost, "/state", `{"error":"get_state failed"}`).wantSays(t, http.StatusBadRequest, "none of this processor's variables")
		if n.Get() != 5 {
			t.Errorf("n is %d: the state was lost", n.Get())
		}
		r.shutDown()
	})
}

func TestTrap2PostBeforeReadyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{doc: document(`{"n":5}`, 6, 5), loadErr: func(call int) error {
			if call < 3 {
				return errBroken
			}
			return nil
		}}
		p := newProcessor(t, backend, WithInterval(time.Hour))
		n := Var(p, "n", 0)
		r := start(t, p, nothing)
		ask(p, http.MethodPost, "/state", `{"n":9}`).wantSays(t, http.StatusServiceUnavailable, "state not restored")
		get(p, "/state").wantSays(t, http.StatusServiceUnavailable, "state not restored")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		get(p, "/ready").want(t, http.StatusOK, `{"status":"ready"}`)
		if n.Get() != 5 {
			t.Errorf("n is %d, want the restored 5", n.Get())
		}
		ask(p, http.MethodPost, "/state", `{"n":9}`).wantSays(t, http.StatusOK, `{"status":"ok","message":"State restored"`)
		if n.Get() != 9 {
			t.Errorf("n is %d, want the posted 9", n.Get())
		}
		r.shutDown()
	})
}

func TestTrap3GetStateSeesNoHalfAnIteration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{})
		a, b := Var(p, "a", 0), Var(p, "b", 0)
		r := start(t, p, func(context.Context) error {
			a.Set(a.Get() + 1)
			time.Sleep(time.Second)
			b.Set(b.Get() + 1)
			return nil
		})
		for range 10 {
			time.Sleep(300 * time.Millisecond) // In the middle of an iteration, most times.
			var state struct {
				A int `json:"a"`
				B int `json:"b"`
			}
			answer := get(p, "/state")
			if err := json.Unmarshal([]byte(answer.data(t)), &state); err != nil {
				t.Fatal(err)
			}
			if state.A != state.B {
				t.Errorf("a is %d and b is %d: the state was read in the middle of an iteration", state.A, state.B)
			}
			if want := strconv.Itoa(state.A); answer.header.Get("X-Dory-Sequence") != want {
				t.Errorf("sequence %s, want %s", answer.header.Get("X-Dory-Sequence"), want)
			}
		}
		r.shutDown()
	})
}

func TestTrap5FailedSaveIsNot200(t *testing.T) {
	for name, failure := range map[string]error{
		"an error that may pass": errBroken,
		"over 1 MiB":             statexfer.ErrTooLarge,
		"superseded":             ErrSuperseded,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backend := &memory{saveErr: func(int) error { return failure }}
				p := newProcessor(t, backend, WithInterval(time.Second))
				Var(p, "n", 0)
				r := start(t, p, nothing)
				get(p, "/prestop").wantSays(t, http.StatusInternalServerError, "the state is NOT saved to memory")
				if err := r.ended(); !errors.Is(err, failure) {
					t.Errorf("Run returned %v: main would exit with 0", err)
				}
				if retried := backend.saves > 1; retried == permanent(failure) {
					t.Errorf("%d attempts to save", backend.saves)
				}
			})
		})
	}
}

func TestTrap6UnreadableStateIsNoEmptyStart(t *testing.T) {
	for name, failure := range map[string]error{
		"bad checksum":    statexfer.ErrChecksum,
		"malformed":       statexfer.ErrMalformed,
		"no API access":   errBroken,
		"another's state": ErrForeignState,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backend := &memory{loadErr: func(int) error { return failure }}
				p := newProcessor(t, backend)
				Var(p, "n", 0)
				iterations := 0
				r := start(t, p, func(context.Context) error { iterations++; return nil })
				time.Sleep(10 * time.Minute)
				get(p, "/ready").wantSays(t, http.StatusServiceUnavailable, failure.Error())
				get(p, "/health").want(t, http.StatusOK, `{"status":"healthy"}`)
				if backend.loads < 20 || backend.loads > 30 || iterations > 0 || backend.saves > 0 {
					t.Errorf("in 10 minutes: %d attempts, %d iterations, %d saves", backend.loads, iterations, backend.saves)
				}
				get(p, "/prestop").wantSays(t, http.StatusOK, "nothing to save")
				if err := r.ended(); err != nil || backend.saves > 0 {
					t.Errorf("Run: %v, %d saves over a state that was not read", err, backend.saves)
				}
			})
		})
	}
}

func TestTrap6RestoreTimeoutFailsInstead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{loadErr: func(int) error { return statexfer.ErrChecksum }}
		p := newProcessor(t, backend, WithRestoreTimeout(20*time.Second))
		Var(p, "n", 0)
		began := time.Now()
		err := start(t, p, nothing).ended()
		if !errors.Is(err, statexfer.ErrChecksum) || time.Since(began) != 20*time.Second || backend.saves > 0 {
			t.Errorf("Run: %v after %v, %d saves", err, time.Since(began), backend.saves)
		}
	})
}

func TestTrap7AnOlderInstanceSavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{doc: document(`{"n":5}`, 6, 5)}
		p := newProcessor(t, backend, WithInterval(time.Second))
		Var(p, "n", 0)
		r := start(t, p, nothing)
		backend.mu.Lock()
		backend.doc = document(`{"n":100}`, 8, 6) // By its successor, with epoch 8.
		backend.mu.Unlock()
		time.Sleep(time.Minute)
		get(p, "/prestop").wantSays(t, http.StatusInternalServerError, "a newer instance has taken over")
		if err := r.ended(); !errors.Is(err, ErrSuperseded) {
			t.Errorf("Run: %v", err)
		}
		if backend.saved() != `{"n":100}` {
			t.Errorf("the successor's state became %s", backend.saved())
		}
	})
}

func TestTrap7AnOlderInstanceDoesNotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{doc: document(`{"n":5}`, 8, 5)})
		Var(p, "n", 0)
		err := start(t, p, func(context.Context) error {
			t.Error("iterates under epoch 7, though epoch 8 has written state")
			return nil
		}).ended()
		if !errors.Is(err, ErrSuperseded) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestTrap8StateIsSavedWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{saveErr: func(call int) error {
			if call == 2 {
				return errBroken
			}
			return nil
		}}
		p := newProcessor(t, backend, WithInterval(time.Second), WithSaveInterval(10*time.Second))
		n := Var(p, "n", 0)
		r := start(t, p, func(context.Context) error { n.Set(n.Get() + 1); return nil })
		for range 6 {
			time.Sleep(10*time.Second + 500*time.Millisecond)
			synctest.Wait()
			var saved struct {
				N int `json:"n"`
			}
			if err := json.Unmarshal([]byte(backend.saved()), &saved); err != nil {
				t.Fatal(err)
			}
			if lost := n.Get() - saved.N; lost > 21 { // One save of the six fails.
				t.Errorf("a crash now would lose %d iterations", lost)
			}
		}
		r.shutDown()
	})
}

func TestTrap9ManyRestartsKeepTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{doc: document(`{"n":5}`, 6, 5)}, environ("RESTART_COUNT", "17"), WithInterval(time.Hour))
		n := Var(p, "n", 0)
		r := start(t, p, nothing)
		if n.Get() != 5 {
			t.Errorf("n is %d after 17 restarts, want the saved 5", n.Get())
		}
		r.shutDown()
	})
}
