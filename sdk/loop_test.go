package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestIterationsCommitOrAreUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{}
		p := newProcessor(t, backend, WithInterval(time.Second))
		n, list := Var(p, "n", 0), Var(p, "list", []int(nil))
		call := 0
		r := start(t, p, func(context.Context) error {
			call++
			n.Set(call)
			n.Set(n.Get() * 10)
			list.Set(append(slices.Clone(list.Get()), call))
			if call%3 == 0 {
				return errBroken
			}
			return nil
		})
		time.Sleep(6500 * time.Millisecond)
		synctest.Wait()
		if n.Get() != 70 || p.Sequence() != 5 {
			t.Errorf("n %d, sequence %d", n.Get(), p.Sequence())
		}
		r.shutDown()
		if diff := cmp.Diff(`{"n":70,"list":[1,2,4,5,7]}`, backend.saved()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFailedIterationsAreRetriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{})
		var at []time.Duration
		began := time.Now()
		r := start(t, p, func(context.Context) error {
			at = append(at, time.Since(began))
			if len(at) == 11 {
				time.Sleep(time.Hour) // Succeeds, after which the backoff starts anew.
				return nil
			}
			return errBroken
		})
		time.Sleep(90 * time.Minute)
		r.shutDown()
		var pauses []time.Duration
		for i := 1; i < 11; i++ {
			pauses = append(pauses, at[i]-at[i-1])
		}
		ms := time.Millisecond
		want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 25600 * ms, 30000 * ms}
		if diff := cmp.Diff(want, pauses); diff != "" {
			t.Error(diff)
		}
		if got := at[13] - at[12]; got != 100*ms && got != 200*ms {
			t.Errorf("after a success the pause is %v", got)
		}
	})
}

func TestBackoffIsJittered(t *testing.T) {
	for failures, want := range map[int][2]time.Duration{
		1: {500 * time.Millisecond, time.Second}, 2: {time.Second, 2 * time.Second}, 6: {15 * time.Second, 30 * time.Second}, 1000: {15 * time.Second, 30 * time.Second},
	} {
		if got := [2]time.Duration{remoteBackoff.delay(failures, 1), remoteBackoff.delay(failures, 0)}; got != want {
			t.Errorf("after %d failures %v, want %v", failures, got, want)
		}
	}
}

func TestIdleIterationsAreNotCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{})
		n := Var(p, "n", 0)
		calls := 0
		r := start(t, p, func(context.Context) error {
			calls++
			n.Set(calls)
			return ErrIdle
		})
		time.Sleep(time.Second)
		synctest.Wait()
		if n.Get() != 0 || p.Sequence() != 0 || calls < 90 || calls > 110 {
			t.Errorf("n %d, sequence %d, %d calls", n.Get(), p.Sequence(), calls)
		}
		if strings.Contains(get(p, "/metrics").body, "iteration_errors_total 0") != true {
			t.Error("ErrIdle counts as an error")
		}
		r.shutDown()
	})
}

// Those who ask for the state hear how iterations go. One that had nothing to do is no success.
func TestTheStateTellsHowIterationsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{})
		next := make(chan error)
		r := start(t, p, func(context.Context) error { return <-next })
		synctest.Wait()
		for _, step := range []struct {
			ends error
			want string
		}{
			{ErrIdle, `"metrics":{}`},
			{nil, `"metrics":{"iteration_failures":0}`},
			{errors.New("camera\nnot reachable"), `"metrics":{"iteration_error":"camera not reachable","iteration_failures":1}`},
			{ErrIdle, `"metrics":{"iteration_error":"camera not reachable","iteration_failures":1}`},
			{errors.New("still not"), `"metrics":{"iteration_error":"still not","iteration_failures":2}`},
			{nil, `"metrics":{"iteration_failures":0}`},
		} {
			next <- step.ends
			synctest.Wait()
			if body := string(p.metricsOfState(t)); body != step.want {
				t.Errorf("after %v: %s, want %s", step.ends, body, step.want)
			}
		}
		close(next)
		r.shutDown()
	})
}

// metricsOfState are those of an ApplicationState.
func (p *Processor) metricsOfState(t *testing.T) []byte {
	t.Helper()
	text, err := json.Marshal(p.iterations().Metrics())
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte(`"metrics":`), text...)
}

func TestPanicSavesTheLastCommittedStateAndEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{}
		p := newProcessor(t, backend)
		n := Var(p, "n", 0)
		err := start(t, p, func(context.Context) error {
			n.Set(n.Get() + 1)
			if n.Get() == 4 {
				panic("out of order")
			}
			return nil
		}).ended()
		if !errors.Is(err, errPanic) || !strings.Contains(err.Error(), "out of order") || !strings.Contains(err.Error(), "loop_test.go") {
			t.Errorf("Run: %v", err)
		}
		if backend.saved() != `{"n":3}` {
			t.Errorf("saved %s", backend.saved())
		}
	})
}

func TestYieldAsksAWaitingIterationToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{})
		n := Var(p, "n", 0)
		input := make(chan int)
		r := start(t, p, func(ctx context.Context) error {
			select {
			case got := <-input:
				n.Set(n.Get() + got)
				return nil
			case <-Yield(ctx):
				return ErrIdle
			}
		})
		for range 5 {
			input <- 2
			began := time.Now()
			get(p, "/state")
			if waited := time.Since(began); waited > 0 {
				t.Errorf("the state was read after %v", waited)
			}
		}
		if n.Get() != 10 || p.Sequence() != 5 {
			t.Errorf("n %d, sequence %d", n.Get(), p.Sequence())
		}
		r.shutDown()
		if Yield(t.Context()) != nil {
			t.Error("Yield outside of an iteration is not nil")
		}
	})
}

func TestStopLetsTheIterationInHandFinish(t *testing.T) {
	for name, ask := range map[string]func(*running, context.CancelFunc) int{
		"/prestop": func(r *running, _ context.CancelFunc) int { return get(r.Processor, "/prestop").code },
		"/prestop, twice": func(r *running, _ context.CancelFunc) int {
			go get(r.Processor, "/prestop")
			return get(r.Processor, "/prestop").code
		},
		"end of a context": func(_ *running, cancel context.CancelFunc) int { cancel(); return http.StatusOK },
		"context, then /prestop": func(r *running, cancel context.CancelFunc) int {
			cancel()
			synctest.Wait()
			return get(r.Processor, "/prestop").code
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backend := &memory{}
				p := newProcessor(t, backend)
				n := Var(p, "n", 0)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				r := &running{Processor: p, t: t, done: make(chan error, 1)}
				go func() {
					r.done <- p.Run(ctx, func(ctx context.Context) error {
						time.Sleep(2 * time.Second)
						n.Set(n.Get() + 1)
						return ctx.Err() // Not ended by the stop.
					})
				}()
				time.Sleep(3 * time.Second)
				if code := ask(r, cancel); code != http.StatusOK {
					t.Errorf("/prestop: %d", code)
				}
				if err := r.ended(); err != nil {
					t.Errorf("Run: %v", err)
				}
				if backend.saved() != `{"n":2}` || backend.saves != 1 {
					t.Errorf("saved %s in %d saves", backend.saved(), backend.saves)
				}
			})
		})
	}
}

func TestStopEndsTheContextOfALongIteration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{doc: document(`{"n":5}`, 6, 5)}
		p := newProcessor(t, backend, WithShutdownTimeout(20*time.Second))
		n := Var(p, "n", 0)
		r := start(t, p, func(ctx context.Context) error {
			n.Set(n.Get() + 1)
			<-ctx.Done()
			return ctx.Err()
		})
		began := time.Now()
		get(p, "/prestop").want(t, http.StatusOK, `{"status":"ok","message":"State saved"}`)
		if err := r.ended(); err != nil || time.Since(began) != 10*time.Second || backend.saved() != `{"n":5}` {
			t.Errorf("Run: %v after %v, saved %s", err, time.Since(began), backend.saved())
		}
	})
}

func TestStopGivesUpAStuckIterationAndSavesWithoutIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{doc: document(`{"n":5}`, 6, 5)}
		p := newProcessor(t, backend)
		n := Var(p, "n", 0)
		r := start(t, p, func(context.Context) error {
			n.Set(n.Get() + 1)
			time.Sleep(time.Hour)
			n.Set(n.Get() + 100)
			return nil
		})
		get(p, "/prestop").want(t, http.StatusOK, `{"status":"ok","message":"State saved"}`)
		err := r.ended()
		if err == nil || !strings.Contains(err.Error(), "did not stop when its context ended") || backend.saved() != `{"n":5}` {
			t.Errorf("Run: %v, saved %s", err, backend.saved())
		}
		time.Sleep(2 * time.Hour) // The iteration ends, to no effect.
		if n.Get() != 5 || p.Sequence() != 5 {
			t.Errorf("n %d, sequence %d", n.Get(), p.Sequence())
		}
	})
}

func TestSaveIsRetriedUntilTheTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{saveErr: func(call int) error {
			if call < 4 {
				return errBroken
			}
			return nil
		}}
		p := newProcessor(t, backend, WithInterval(time.Hour))
		Var(p, "n", 0)
		r := start(t, p, nothing)
		began := time.Now()
		get(p, "/prestop").want(t, http.StatusOK, `{"status":"ok","message":"State saved"}`)
		if err := r.ended(); err != nil || time.Since(began) != 7*time.Second {
			t.Errorf("Run: %v after %v", err, time.Since(began))
		}
		if text := get(p, "/metrics").body; !strings.Contains(text, "state_save_failures_total 3\n") || !strings.Contains(text, "state_saves_total 1\n") {
			t.Error("the metrics do not say 3 failures, 1 save")
		}
	})
}

func TestSupersededWhileRunningStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := &memory{}
		p := newProcessor(t, backend, WithInterval(time.Second), WithSaveInterval(5*time.Second))
		Var(p, "n", 0)
		r := start(t, p, nothing)
		backend.mu.Lock()
		backend.doc = document(`{"n":100}`, 8, 1)
		backend.mu.Unlock()
		began := time.Now()
		if err := r.ended(); !errors.Is(err, ErrSuperseded) || time.Since(began) > 6*time.Second || backend.saved() != `{"n":100}` {
			t.Errorf("Run: %v after %v, saved %s", err, time.Since(began), backend.saved())
		}
	})
}

// TestAGuestSavesNothing: the target of an Overlap works beside the source, and has restored the source's position.
func TestAGuestSavesNothing(t *testing.T) {
	for name, promoted := range map[string]bool{"until it is given back": false, "until it is promoted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backend := &memory{doc: document(`{"n":1}`, 7, 3)}
				p := newProcessor(t, backend, environ("DORY_EPOCH", "", "DORY_IS_MIGRATING", "true"), WithInterval(time.Second), WithSaveInterval(5*time.Second))
				Var(p, "n", 0)
				r := start(t, p, nothing)
				time.Sleep(time.Minute)
				if p.Sequence() < 30 || backend.position() != (Position{Epoch: 7, Sequence: 3}) {
					t.Errorf("it is at sequence %d, saved %s", p.Sequence(), backend.position())
				}
				if promoted {
					if got := ask(p, http.MethodPost, "/handoff/promote", `{"epoch":8}`); got.code != http.StatusOK {
						t.Fatalf("%+v", got)
					}
					time.Sleep(6 * time.Second)
					if backend.position().Epoch != 8 {
						t.Errorf("saved %s", backend.position())
					}
				}
				r.shutDown()
				if got := backend.position(); (got.Epoch == 8) != promoted {
					t.Errorf("saved %s at its end", got)
				}
			})
		})
	}
}

func TestMistakesWithVariablesEndRun(t *testing.T) {
	for name, test := range map[string]struct {
		declare func(*Processor)
		iterate func(*Processor, *Variable[int]) error
		says    string
	}{
		"declared twice": {declare: func(p *Processor) { Var(p, "n", 1.5) }, says: `variable "n" is declared twice`},
		"no name":        {declare: func(p *Processor) { Var(p, "", 0) }, says: `"" is no name`},
		"no JSON":        {declare: func(p *Processor) { Var(p, "c", make(chan int)) }, says: `variable "c" of type chan int cannot be written as JSON`},
		"set before Run": {declare: func(p *Processor) { Var(p, "m", 0).Set(1) }, says: `variable "m" was set outside of an iteration`},
		"declared in an iteration": {
			iterate: func(p *Processor, _ *Variable[int]) error { Var(p, "late", 0); return nil },
			says:    `variable "late" is declared after Run`,
		},
		"set between iterations": {
			iterate: func(_ *Processor, n *Variable[int]) error {
				time.AfterFunc(time.Second/2, func() { n.Set(9) })
				return nil
			},
			says: `variable "n" was set outside of an iteration`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProcessor(t, &memory{}, WithInterval(time.Second))
				n := Var(p, "n", 0)
				if test.declare != nil {
					test.declare(p)
				}
				err := start(t, p, func(context.Context) error {
					if test.iterate == nil {
						t.Error("iterates in spite of the mistake")
						return nil
					}
					return test.iterate(p, n)
				}).ended()
				if err == nil || !strings.Contains(err.Error(), test.says) || n.Get() != 0 {
					t.Errorf("Run: %v; n is %d", err, n.Get())
				}
			})
		})
	}
}

func TestRunOnlyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{}, WithInterval(time.Hour))
		r := start(t, p, nothing)
		r.shutDown()
		if err := p.Run(t.Context(), nothing); err == nil {
			t.Error("Run ran twice")
		}
	})
}

func TestEpochWithoutOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, &memory{doc: document(`{"n":5}`, 8, 5)}, environ("DORY_EPOCH", unset), WithInterval(time.Hour))
		Var(p, "n", 0)
		r := start(t, p, nothing)
		if p.Epoch() != 8 || p.Sequence() != 6 {
			t.Errorf("epoch %d, sequence %d: nobody issues epochs, so the saved one goes on", p.Epoch(), p.Sequence())
		}
		r.shutDown()
	})
}

func TestAnothersStateIsNotAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doc := document(`{"n":5}`, 6, 5)
		doc.Metadata.ProcessorID = "p-2"
		p := newProcessor(t, &memory{doc: doc})
		Var(p, "n", 0)
		r := start(t, p, nothing)
		get(p, "/ready").wantSays(t, http.StatusServiceUnavailable, `it is the state of processor \"p-2\", this is \"p-1\"`)
		r.shutDown()
	})
}

func BenchmarkIteration(b *testing.B) {
	p, err := New(environ(), WithBackend(&memory{}))
	if err != nil {
		b.Fatal(err)
	}
	n := Var(p, "n", 0)
	iterate := func(context.Context) error { n.Set(n.Get() + 1); return nil }
	for b.Loop() {
		if _, err := p.boundary.begin(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := p.iteration(b.Context(), iterate); err != nil {
			b.Fatal(err)
		}
		p.boundary.release()
	}
}
