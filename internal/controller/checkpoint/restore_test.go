package checkpoint

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statestore"
)

// TestAnInstanceThatStartedEmptyGetsItsStateBack is traps 6 and 9.
func TestAnInstanceThatStartedEmptyGetsItsStateBack(t *testing.T) {
	for name, fresh := range map[string]string{"empty": `{}`, "as it once began": `{"n":0,"sessions":{}}`} {
		t.Run(name, func(t *testing.T) {
			w, d := started(t, fresh)
			d.set(`{"n":7}`)
			w.turn()
			w.wantStored(`{"n":7}`)
			w.end()
			next := newDouble(t, w.clock, d.port)
			next.set(fresh)
			w.start(2, next)
			w.events()
			w.pass()
			if got := next.has(); got != `{"n":7}` {
				t.Errorf("it works with %s", got)
			}
			w.wantEvents("Warning StateRestored…dory-cam-2…none of its state…epoch 1")
			w.wantStored(`{"n":7}`)
			next.set(`{"n":8}`)
			w.turn()
			if c := w.wantStored(`{"n":8}`); c.Version.Epoch != 2 {
				t.Errorf("stored %+v", c)
			}
			w.wantCondition(metav1.ConditionTrue, doryv1alpha1.ReasonCheckpointCurrent)
			if w.wait > 30*time.Second {
				t.Errorf("again in %s", w.wait)
			}
		})
	}
}

// TestNothingIsRestoredOverNewerState: what an instance has that has its state stays.
func TestNothingIsRestoredOverNewerState(t *testing.T) {
	for name, test := range map[string]struct{ last, first string }{
		"went on":               {`{"n":7}`, `{"n":8}`},
		"went on from the last": {`{"n":7}`, `{"n":7}`},
		"is empty, as it was":   {`{}`, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			w, d := started(t, test.last)
			w.end()
			next := newDouble(t, w.clock, d.port)
			next.set(test.first)
			w.start(2, next)
			w.pass()
			if _, posts, _ := next.counted(); posts > 0 || next.has() != test.first {
				t.Errorf("%d posts, it works with %s", posts, next.has())
			}
			w.wantStored(test.first)
			w.wantEvents()
		})
	}
}

// TestAContainerThatRestarted: the kubelet tells it later than the process shows it, and what the process shows before
// it has restored its state must not be stored.
func TestAContainerThatRestarted(t *testing.T) {
	for name, shows := range map[string]string{"nothing": `{}`, "its initial state": `{"n":0,"sessions":{}}`} {
		t.Run(name, func(t *testing.T) {
			w, d := started(t, `{"n":1}`)
			d.set(`{"n":7}`)
			w.turn()
			d.restart(shows)
			w.turn()
			w.wantStored(`{"n":7}`)
			if _, posts, _ := d.counted(); posts > 0 {
				t.Error("a process that may not be ready got a state, which the one that it loads would overwrite")
			}
			if w.result(resultHeld) != 1 || w.wait != holdDelay {
				t.Errorf("held %d times, again in %s", w.result(resultHeld), w.wait)
			}
			d.set(`{"n":7}`) // Now it has restored it, and the kubelet tells.
			w.kubelet(w.restarted)
			w.turn()
			w.wantStored(`{"n":7}`)
			w.wantEvents()
		})
	}
}

func TestAContainerThatRestartedWithoutItsState(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	w.clock.Step(time.Minute)
	d.restart(`{}`)
	w.kubelet(w.restarted)
	w.pass()
	if got := d.has(); got != `{"n":1}` {
		t.Errorf("it works with %s", got)
	}
	w.wantEvents("StateRestored")
}

// TestAProcessThatIsRestartedWithinItsContainer: no kubelet will ever tell.
func TestAProcessThatIsRestartedWithinItsContainer(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	w.clock.Step(time.Minute)
	d.restart(`{}`)
	w.turns("it has its state back", func() bool { return d.has() == `{"n":1}` })
	w.wantEvents("StateRestored")
}

// TestAStateThatWasEmptied by the processor itself is stored, although it looks like one that was lost.
func TestAStateThatWasEmptied(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	w.turn()
	d.set(`{}`)
	w.turns("it is stored", func() bool { got, _ := w.stored(); return got == `{}` })
	if _, posts, _ := d.counted(); posts > 0 {
		t.Error("it was filled again")
	}
}

// TestTheNextLeaderMeetsAStateThatWasEmptied: that the process is no new one is told by its age.
func TestTheNextLeaderMeetsAStateThatWasEmptied(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	w.clock.Step(time.Minute)
	d.set(`{"n":2}`)
	w.turn()
	d.set(`{}`)
	w.restartOperator()
	w.turn()
	w.turn()
	w.wantStored(`{}`)
	if _, posts, _ := d.counted(); posts > 0 {
		t.Error("it was filled again")
	}
}

func refuses(code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		http.Error(w, `{"error":"this version cannot read it"}`, code)
		return true
	}
}

// TestAStateThatIsRefused: the state that was lost must not be replaced by what the process has instead.
func TestAStateThatIsRefused(t *testing.T) {
	w, d := started(t, `{"n":7}`)
	w.end()
	next := newDouble(t, w.clock, d.port)
	next.breaks(refuses(http.StatusBadRequest))
	w.start(2, next)
	w.pass()
	w.wantCondition(metav1.ConditionFalse, doryv1alpha1.ReasonStateNotRestored, "this version cannot read it")
	w.wantEvents("Warning StateNotRestored…this version cannot read it")
	for range 4 {
		w.turn()
	}
	w.wantStored(`{"n":7}`)
	w.wantEvents()

	t.Run("until it is not", func(t *testing.T) {
		next.breaks(nil)
		w.turn()
		w.turn()
		if got := next.has(); got != `{"n":7}` {
			t.Errorf("it works with %s", got)
		}
		w.wantEvents("StateRestored", "CheckpointRecovered")
	})
}

func TestAStateThatIsRefusedAndGivenUp(t *testing.T) {
	w, d := started(t, `{"n":7}`)
	w.end()
	next := newDouble(t, w.clock, d.port)
	next.breaks(refuses(http.StatusBadRequest))
	w.start(2, next)
	w.pass()
	next.set(`{"n":1}`)
	w.update(onMissing(doryv1alpha1.OnMissingDiscard))
	w.turn()
	w.wantStored(`{"n":1}`)
	w.wantCondition(metav1.ConditionTrue, doryv1alpha1.ReasonCheckpointCurrent)
}

// TestAnAnswerThatIsNotTrue: it says that the state is restored, and it is not.
func TestAnAnswerThatIsNotTrue(t *testing.T) {
	w, d := started(t, `{"n":7}`)
	w.end()
	next := newDouble(t, w.clock, d.port)
	next.breaks(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			fmt.Fprint(rw, `{"status":"ok","message":"State restored"}`)
		}
		return r.Method == http.MethodPost
	})
	w.start(2, next)
	w.pass()
	w.wantCondition(metav1.ConditionFalse, doryv1alpha1.ReasonStateNotRestored, "shows the same as before")
	w.wantStored(`{"n":7}`)
}

func TestDiscardRestoresNothing(t *testing.T) {
	w, d := started(t, `{"n":7}`, onMissing(doryv1alpha1.OnMissingDiscard))
	w.end()
	next := newDouble(t, w.clock, d.port)
	w.start(2, next)
	w.pass()
	if _, posts, _ := next.counted(); posts > 0 {
		t.Error("it got a state")
	}
	w.wantStored(`{}`)
}

func TestWithoutAnIntervalAStateIsGivenBackToo(t *testing.T) {
	w, d := started(t, `{"n":7}`)
	w.end()
	next := newDouble(t, w.clock, d.port)
	w.update(every(0))
	w.start(2, next)
	w.pass()
	if got := next.has(); got != `{"n":7}` {
		t.Errorf("it works with %s", got)
	}
}

func TestWhileAMigrationIsUnderWayNothingIsRestored(t *testing.T) {
	w, d := started(t, `{"n":7}`)
	w.end()
	next := newDouble(t, w.clock, d.port)
	w.migrate(doryv1alpha1.MigrationRetiring)
	w.start(2, next)
	w.pass()
	w.turn()
	if _, posts, _ := next.counted(); posts > 0 {
		t.Error("it got a state")
	}
	w.wantStored(`{"n":7}`)
	w.migrate(doryv1alpha1.MigrationSucceeded)
	w.turn()
	if got := next.has(); got != `{"n":7}` {
		t.Errorf("it works with %s", got)
	}
}

// TestALargeStateIsGivenBack: it does not fit where the SDK looks, which finds an older one there.
func TestALargeStateIsGivenBack(t *testing.T) {
	large := `{"n":"` + strings.Repeat("x", 2<<20) + `"}`
	for name, finds := range map[string]string{"the older one": `{"n":1}`, "nothing": `{}`} {
		t.Run(name, func(t *testing.T) {
			w, d := started(t, `{"n":1}`)
			d.set(large)
			w.turn()
			w.end()
			next := newDouble(t, w.clock, d.port)
			next.set(finds)
			w.start(2, next)
			w.pass()
			if next.has() != large {
				t.Errorf("it works with %.40s", next.has())
			}
			w.wantEvents("StateRestored…Chunks")
		})
	}
}

// TestALargeStateIsNotTakenForTheWorkOfOneIteration: by the first look, the process has changed what it began with.
func TestALargeStateIsNotTakenForTheWorkOfOneIteration(t *testing.T) {
	large := `{"n":"` + strings.Repeat("x", 2<<20) + `"}`
	for name, restart := range map[string]func(w *world, d *double) *double{
		"in the same pod": func(w *world, d *double) *double {
			d.restart(`{"n":2}`)
			w.kubelet(w.restarted)
			return d
		},
		"in a new pod": func(w *world, d *double) *double {
			w.end()
			next := newDouble(t, w.clock, d.port)
			next.set(`{"n":2}`)
			w.start(2, next)
			return next
		},
	} {
		for _, interval := range []time.Duration{30 * time.Second, 0} {
			t.Run(fmt.Sprintf("%s, every %s", name, interval), func(t *testing.T) {
				w, d := started(t, `{"n":1}`)
				d.set(large)
				w.turn()
				w.wantStored(large)
				w.clock.Step(time.Minute)
				w.update(every(interval))
				next := restart(w, d)
				w.pass()
				if next.has() != large {
					t.Fatalf("it works with %.40s", next.has())
				}
				w.wantStored(large)
				w.wantEvents("Warning StateRestored…Chunks")

				// The next operator must not take back what was done since.
				next.set(`{"n":"and on"}`)
				w.restartOperator()
				w.clock.Step(time.Hour)
				w.pass()
				w.turn()
				if _, posts, _ := next.counted(); posts != 1 || next.has() != `{"n":"andon"}` {
					t.Errorf("%d posts, it works with %.40s", posts, next.has())
				}
			})
		}
	}
}

// TestTheTargetOfAMoveKeepsWhatItWasHanded: no copy tells of it.
func TestTheTargetOfAMoveKeepsWhatItWasHanded(t *testing.T) {
	large := `{"n":"` + strings.Repeat("x", 2<<20) + `"}`
	w, d := started(t, large)
	w.clock.Step(time.Minute)
	next := newDouble(t, w.clock, d.port)
	next.set(`{"n":"handed"}`)
	w.start(2, next)
	w.clock.Step(10 * time.Second)
	w.holdFor(2, w.holder.Name, doryv1alpha1.EpochPromote)
	w.pass()
	if _, posts, _ := next.counted(); posts > 0 {
		t.Errorf("%d posts, it works with %.40s", posts, next.has())
	}
	w.wantStored(`{"n":"handed"}`)
	w.wantEvents()

	t.Run("but not its next process", func(t *testing.T) {
		next.set(large)
		w.turn()
		w.clock.Step(time.Minute)
		next.restart(`{"n":2}`)
		w.kubelet(w.restarted)
		w.pass()
		if next.has() != large {
			t.Errorf("it works with %.40s", next.has())
		}
	})
}

// TestTheFirstSaveOfAProcessRemovesNothing: the copy is the last resort where it is not seen that a state was lost.
func TestTheFirstSaveOfAProcessRemovesNothing(t *testing.T) {
	large := `{"n":"` + strings.Repeat("x", 2<<20) + `"}`
	w, d := started(t, large)
	w.update(onMissing(doryv1alpha1.OnMissingDiscard))
	w.end()
	next := newDouble(t, w.clock, d.port)
	next.set(`{"n":1}`)
	w.start(2, next)
	chunks := func() *statestore.Copy {
		s := statestore.New(statestore.Config{Client: api.client, Reader: api.client})
		found, err := s.Look(t.Context(), w.key(), statestore.Lineage{})
		if err != nil {
			t.Fatal(err)
		}
		return found.In(doryv1alpha1.CheckpointChunks)
	}
	w.pass()
	w.wantStored(`{"n":1}`)
	if chunks() == nil {
		t.Error("the first save removed the copy of the process before")
	}
	next.set(`{"n":2}`)
	w.turn()
	w.wantStored(`{"n":2}`)
	if chunks() != nil {
		t.Error("the copy stays for ever")
	}
}

// TestWhatIsGoneForGood: nothing can be restored, and that is said.
func TestWhatIsGoneForGood(t *testing.T) {
	forget := func(w *world) {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.processor.Namespace, Name: w.key().ConfigMap}}
		if err := api.client.Delete(w.t.Context(), cm); err != nil {
			w.t.Fatal(err)
		}
	}
	damage := func(w *world) {
		cm := &corev1.ConfigMap{}
		if err := api.client.Get(w.t.Context(), client.ObjectKey{Namespace: w.processor.Namespace, Name: w.key().ConfigMap}, cm); err != nil {
			w.t.Fatal(err)
		}
		cm.Data["state"] = strings.Replace(cm.Data["state"], `"n": 7`, `"n": 8`, 1)
		if err := api.client.Update(w.t.Context(), cm); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, lose := range map[string]func(*world){"the ConfigMap was deleted": forget, "its checksum is wrong": damage} {
		for _, policy := range []doryv1alpha1.OnMissing{doryv1alpha1.OnMissingPreferLatest, doryv1alpha1.OnMissingRequire} {
			t.Run(name+", "+string(policy), func(t *testing.T) {
				w, d := started(t, `{"n":7}`, onMissing(policy))
				lose(w)
				w.clock.Step(time.Minute)
				d.restart(`{}`)
				w.kubelet(w.restarted)
				w.pass()
				if policy == doryv1alpha1.OnMissingRequire {
					w.wantCondition(metav1.ConditionFalse, doryv1alpha1.ReasonStateNotRestored, "spec.state.onMissing is Require")
					w.wantEvents("Warning StateNotRestored")
					return
				}
				w.wantEvents("Warning StateOutdated…dory-cam-1…PreferLatest")
				w.wantStored(`{}`)
				w.turn()
				w.wantEvents()
			})
		}
	}
}

// TestAnInstanceThatWasReplacedBeforeItsFirstLook by a blind save that is newer than any checkpoint.
func TestTheLastSaveOfAnInstanceCounts(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	w.blindSave("dory-cam-1", `{"n":5}`, w.clock.Now().Add(10*time.Second)) // /prestop, between two checkpoints.
	w.end()
	w.clock.Step(20 * time.Second)
	next := newDouble(t, w.clock, d.port)
	p := w.fresh()
	p.Status.Instance = &doryv1alpha1.ProcessorInstance{Pod: "dory-cam-1", Epoch: 1}
	if err := api.client.Status().Update(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	w.start(2, next)
	w.pass()
	if got := next.has(); got != `{"n":5}` {
		t.Errorf("it works with %s, want what was saved last", got)
	}
}
