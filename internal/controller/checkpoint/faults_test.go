package checkpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/store/pgtest"
)

// TestFaultsOfTheStateEndpoint: whatever a processor answers, the last good checkpoint stays, the condition says what is
// wrong, once, and all is well again when the processor is.
func TestFaultsOfTheStateEndpoint(t *testing.T) {
	for name, test := range map[string]struct {
		fault  func(d *double, w http.ResponseWriter, r *http.Request)
		says   string
		reason string
	}{
		"trap 1: 200 with an error": {func(_ *double, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"error":"get_state raised KeyError"}`)
		}, "get_state raised KeyError", doryv1alpha1.ReasonCaptureFailing},
		"no data": {func(_ *double, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"state_version":"1.0","pod_name":"dory-cam-1"}`)
		}, "no processor state", doryv1alpha1.ReasonCaptureFailing},
		"not authorized": {func(_ *double, w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":"no"}`, http.StatusUnauthorized)
		}, "token", doryv1alpha1.ReasonCaptureFailing},
		"500": {func(_ *double, w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":"boom"}`, http.StatusInternalServerError)
		}, "boom", doryv1alpha1.ReasonCaptureFailing},
		"503": {func(_ *double, w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":"stopping"}`, http.StatusServiceUnavailable)
		}, "stopping", doryv1alpha1.ReasonCaptureFailing},
		"429 all the time": {func(_ *double, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, `{"error":"Too many requests"}`, http.StatusTooManyRequests)
		}, "Too many requests", doryv1alpha1.ReasonCaptureFailing},
		"truncated": {func(d *double, w http.ResponseWriter, _ *http.Request) {
			text := d.answer(`{"n":2}`)
			w.Header().Set("Content-Length", strconv.Itoa(len(text)))
			fmt.Fprint(w, text[:len(text)/2])
			panic(http.ErrAbortHandler)
		}, "EOF", doryv1alpha1.ReasonCaptureFailing},
		"11 MB": {func(d *double, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, d.answer(`{"n":"`+strings.Repeat("x", 11<<20)+`"}`))
		}, "too large", doryv1alpha1.ReasonStateTooLarge},
		"not an object": {func(d *double, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, d.answer(`[1]`))
		}, "no object", doryv1alpha1.ReasonCaptureFailing},
		"the address was given to another pod": {func(d *double, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Replace(d.answer(`{"n":2}`), "dory-cam-1", "dory-other-7", 1))
		}, "dory-other-7", doryv1alpha1.ReasonCaptureFailing},
	} {
		t.Run(name, func(t *testing.T) {
			w, d := started(t, `{"n":1}`)
			d.breaks(onState(func(rw http.ResponseWriter, r *http.Request) { test.fault(d, rw, r) }))
			w.turn()
			if test.reason == doryv1alpha1.ReasonCaptureFailing { // What has a name of its own does not pass, and is told at once.
				w.wantCondition(metav1.ConditionTrue, doryv1alpha1.ReasonCheckpointCurrent)
			}
			w.turns("the condition tells", func() bool { return w.condition().Status == metav1.ConditionFalse })
			w.wantCondition(metav1.ConditionFalse, test.reason, test.says, "no checkpoint since")
			w.wantEvents("Warning " + test.reason + "…" + test.says)
			w.spent()
			for range 3 {
				w.turn()
			}
			w.wantSpent(map[string]int{})
			w.wantEvents()
			w.wantStored(`{"n":1}`)

			d.breaks(nil)
			d.set(`{"n":3}`)
			w.turn()
			w.wantStored(`{"n":3}`)
			w.wantCondition(metav1.ConditionTrue, doryv1alpha1.ReasonCheckpointCurrent)
			w.wantEvents("Normal CheckpointRecovered")
		})
	}
}

func TestAProcessorThatHangs(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	release := make(chan struct{})
	defer close(release)
	d.breaks(func(http.ResponseWriter, *http.Request) bool { d.mu.Unlock(); <-release; d.mu.Lock(); return false })
	began := time.Now()
	w.turn()
	if took := time.Since(began); took > lookTimeout+5*time.Second {
		t.Errorf("a look took %s", took)
	}
	if w.result(resultCaptureFailed) != 1 {
		t.Error("it is no failure")
	}
	if w.wait > 30*time.Second/4 {
		t.Errorf("again in %s", w.wait)
	}
}

func TestAConnectionRefused(t *testing.T) {
	w := newWorld(t)
	d := newDouble(t, w.clock, 0)
	w.start(1, d)
	w.kubelet(func(s *corev1.PodStatus) { s.PodIP, s.PodIPs = nextAddress(), nil })
	w.pass()
	w.turns("the condition tells", func() bool { return w.condition() != nil })
	w.wantCondition(metav1.ConditionFalse, doryv1alpha1.ReasonCaptureFailing, "refused", "there is none yet")
}

// TestAnOperatorThatStartsWhileItFails does not tell it again.
func TestAnOperatorThatStartsWhileItFails(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	d.breaks(onState(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `{"error":"boom"}`) }))
	w.turns("the condition tells", func() bool { return w.condition().Status == metav1.ConditionFalse })
	w.restartOperator()
	w.spent()
	for range 5 {
		w.turn()
	}
	w.wantSpent(map[string]int{})
	w.wantEvents()
	d.breaks(nil)
	w.turn()
	w.wantCondition(metav1.ConditionTrue, doryv1alpha1.ReasonCheckpointCurrent)
	w.wantEvents("Normal CheckpointRecovered")
}

func TestALargeStateWithoutADatabase(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	large := `{"n":"` + strings.Repeat("x", 2<<20) + `"}`
	d.set(large)
	w.turn()
	if c := w.wantStored(large); c.Storage != doryv1alpha1.CheckpointChunks {
		t.Errorf("stored %+v", c)
	}
	if status := w.fresh().Status.Checkpoint; status.Storage != doryv1alpha1.CheckpointChunks || status.SizeBytes < 2<<20 {
		t.Errorf("status.checkpoint %+v", status)
	}
	w.spent()
	w.turn()
	w.wantSpent(map[string]int{})
}

// memory is a database of one row, which is away while its switch is on.
type memory struct {
	row  *store.Checkpoint
	away bool
}

func (m *memory) err() error {
	if m.away {
		return fmt.Errorf("%w: switched off", store.ErrUnavailable)
	}
	return nil
}

func (m *memory) SaveCheckpoint(_ context.Context, c store.Checkpoint) (bool, error) {
	if m.err() == nil {
		m.row = &c
	}
	return !m.away, m.err()
}

func (m *memory) CheckpointInfo(context.Context, string) (*store.CheckpointInfo, error) {
	if m.away || m.row == nil {
		return nil, m.err()
	}
	return &m.row.CheckpointInfo, nil
}

func (m *memory) Checkpoint(context.Context, string) (*store.Checkpoint, error) {
	return m.row, m.err()
}

func (m *memory) DeleteCheckpoint(context.Context, store.CheckpointInfo) error { return m.err() }

// TestAStateInADatabaseThatIsAway is waited for: what the process does instead must not count for more.
func TestAStateInADatabaseThatIsAway(t *testing.T) {
	large := `{"n":"` + strings.Repeat("x", 2<<20) + `"}`
	crashed := func(t *testing.T, shows string) (*world, *double, *memory) {
		t.Helper()
		w, d := started(t, `{"n":1}`)
		database := &memory{}
		w.database = database
		w.restartOperator()
		d.set(large)
		w.clock.Step(time.Minute)
		w.pass()
		w.turn()
		if c := w.wantStored(large); c == nil || c.Storage != doryv1alpha1.CheckpointDatabase {
			t.Fatalf("stored %+v", c)
		}
		database.away = true
		w.clock.Step(time.Minute)
		if shows != "" {
			d.restart(shows)
			w.kubelet(w.restarted)
		}
		w.restartOperator()
		w.pass()
		return w, d, database
	}
	for name, shows := range map[string]string{"empty": `{}`, "from the older copy": `{"n":1}`, "worked on": `{"n":2}`} {
		t.Run(name, func(t *testing.T) {
			w, d, database := crashed(t, shows)
			for range 3 {
				w.turn()
			}
			if _, posts, _ := d.counted(); posts > 0 {
				t.Errorf("it was given %.40s", d.has())
			}
			w.wantCondition(metav1.ConditionFalse, doryv1alpha1.ReasonStateNotRestored, "in the database, which does not answer")
			w.wantEvents("Warning StateNotRestored")
			database.away = false
			w.turns("it has its state back", func() bool { return d.has() == large })
			w.wantStored(large)
		})
	}
	t.Run("but not for a process that has it", func(t *testing.T) {
		w, d, _ := crashed(t, "")
		d.set(`{"n":"` + strings.Repeat("y", 2<<20) + `"}`)
		w.turn()
		w.turn()
		if c := w.wantStored(d.has()); c.Storage != doryv1alpha1.CheckpointChunks {
			t.Errorf("stored %+v", c)
		}
		w.wantCondition(metav1.ConditionTrue, doryv1alpha1.ReasonCheckpointCurrent)
	})
}

// TestWithADatabase: a large state survives that the database goes, and comes.
func TestWithADatabase(t *testing.T) {
	server := pgtest.Start(t)
	database, err := store.New(store.Config{URL: server.NewDatabase(t), BreakerFailures: 1, BreakerOpen: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(database.Close)
	w := newWorld(t)
	w.database = database
	w.restartOperator()
	d := newDouble(t, w.clock, 0)
	large := func(c string) string { return `{"n":"` + strings.Repeat(c, 2<<20) + `"}` }
	d.set(large("a"))
	w.start(1, d)
	w.pass()
	if c := w.wantStored(large("a")); c.Storage != doryv1alpha1.CheckpointDatabase {
		t.Errorf("stored %+v", c)
	}

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	d.set(large("b"))
	w.turn()
	if c := w.wantStored(large("b")); c.Storage != doryv1alpha1.CheckpointChunks {
		t.Errorf("stored %+v", c)
	}
	w.wantCondition(metav1.ConditionTrue, doryv1alpha1.ReasonCheckpointCurrent)

	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	w.wantStored(large("b"))
	d.set(large("c"))
	w.turns("it is in the database again", func() bool {
		_, c := w.stored()
		return c.Storage == doryv1alpha1.CheckpointDatabase
	})
	w.wantStored(large("c"))
	d.set(`{"n":1}`)
	w.turn()
	if c := w.wantStored(`{"n":1}`); c.Storage != doryv1alpha1.CheckpointConfigMap {
		t.Errorf("stored %+v", c)
	}
	if info, err := database.CheckpointInfo(t.Context(), "Cam_1"); err != nil || info != nil {
		t.Errorf("left in the database: %+v, %v", info, err)
	}
}

// handoff makes a double tell its role and its epoch, and do as it is told about them.
type handoff struct {
	mu    sync.Mutex
	role  string
	epoch int64
	// mute answers of GET /handoff are left.
	mute int
}

func (h *handoff) ServeHTTP(w http.ResponseWriter, r *http.Request) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch r.URL.Path {
	case "/handoff":
		if h.mute--; h.mute >= 0 {
			http.Error(w, "busy", http.StatusTooManyRequests)
			return true
		}
	case "/handoff/resume":
		h.role = rolePrimary
	case "/handoff/promote":
		var body struct {
			Epoch int64 `json:"epoch"`
		}
		if json.NewDecoder(r.Body).Decode(&body) != nil {
			return false
		}
		h.role, h.epoch = rolePrimary, body.Epoch
	default:
		return false
	}
	fmt.Fprintf(w, `{"role":%q,"epoch":%d,"sequence":1,"instance":"i"}`, h.role, h.epoch)
	return true
}

func (h *handoff) is() (role string, epoch int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.role, h.epoch
}

// TestAnInstanceThatStandsStillAndNobodyKnows: its role is not asked for once only.
func TestAnInstanceThatStandsStillAndNobodyKnows(t *testing.T) {
	for name, h := range map[string]*handoff{
		"quiesced since it was asked":         {role: rolePrimary, epoch: 1},
		"it did not answer when it was asked": {role: roleQuiesced, epoch: 1, mute: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := newDouble(t, w.clock, 0)
			d.set(`{"n":1}`)
			d.breaks(h.ServeHTTP)
			w.start(1, d)
			w.pass()
			w.turns("it is stored", func() bool { got, _ := w.stored(); return got != "" })
			h.mu.Lock()
			h.role, h.mute = roleQuiesced, 0
			h.mu.Unlock()
			w.turns("it works again", func() bool { role, _ := h.is(); return role == rolePrimary })
			w.turn()
			if w.result(resultWritten) != 1 {
				t.Errorf("written %d times", w.result(resultWritten))
			}
		})
	}
}

// TestAnInstanceThatDoesNotKnowItsEpoch is the target of an Overlap to which the word of its promotion never came.
func TestAnInstanceThatDoesNotKnowItsEpoch(t *testing.T) {
	w := newWorld(t)
	d, h := newDouble(t, w.clock, 0), &handoff{role: rolePrimary, epoch: 1}
	d.breaks(h.ServeHTTP)
	w.start(2, d)
	w.migrate(doryv1alpha1.MigrationRetiring)
	w.pass()
	if _, epoch := h.is(); epoch != 1 {
		t.Errorf("it was told epoch %d while the migration is under way", epoch)
	}
	w.migrate(doryv1alpha1.MigrationSucceeded)
	w.book.doubt(client.ObjectKeyFromObject(w.processor)) // The watch tells that the migration ended.
	w.turn()
	if _, epoch := h.is(); epoch != 2 {
		t.Errorf("it goes by epoch %d", epoch)
	}
}
