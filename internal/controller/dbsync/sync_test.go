package dbsync

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
)

// fleet are database-owned Processors named p0, p1, ….
func fleet(n int) []client.Object {
	objects := make([]client.Object, n)
	for i := range objects {
		id := fmt.Sprintf("p%d", i)
		objects[i] = object(id, func(p *doryv1alpha1.Processor) { p.Name = id })
	}
	return objects
}

func left(t *testing.T, c client.Client) int {
	t.Helper()
	var list doryv1alpha1.ProcessorList
	if err := c.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

// Invariant: an unreadable database deletes nothing and changes nothing.
func TestAFailedReadDoesNothing(t *testing.T) {
	for name, err := range map[string]error{"broken off half way": errHalfWay, "unavailable": fmt.Errorf("%w: no connection", store.ErrUnavailable)} {
		t.Run(name, func(t *testing.T) {
			database := &fakeStore{err: err, told: map[string]string{}}
			s, c := newTestSyncer(t, database, testingclock.NewFakeClock(start()), fleet(10)...)
			for _, what := range []scope{deletionsOnly, contents, everything} {
				if got := s.processors.runPass(t.Context(), what); !errors.Is(got, err) {
					t.Errorf("runPass = %v, want %v", got, err)
				}
			}
			s.processors.reconcile(t.Context(), []string{"p0", "p1"})
			if n := left(t, c); n != 10 || len(database.told) > 0 {
				t.Errorf("%d of 10 objects are left, rows were told %v; want nothing done", n, database.told)
			}
			if healthy := testutil.ToFloat64(s.processors.metrics.componentHealthy.WithLabelValues(component)); healthy != 0 {
				t.Errorf("dory_component_healthy is %g, want 0", healthy)
			}
			if s.processors.queue.Len() != 0 {
				t.Error("the rows are tried again at once, want a wait")
			}
		})
	}
}

// A listing that broke off is an error, and never a short list: the rows it lacks are not gone.
func TestAShortListDeletesNothing(t *testing.T) {
	database := &fakeStore{listErr: errHalfWay}
	for i := range 9 {
		database.rows = append(database.rows, rowWith(func(r *store.ProcessorRow) { r.ID = fmt.Sprintf("p%d", i) }))
	}
	s, c := newTestSyncer(t, database, testingclock.NewFakeClock(start()), fleet(10)...)
	if err := s.processors.runPass(t.Context(), everything); !errors.Is(err, errHalfWay) {
		t.Errorf("runPass = %v, want %v", err, errHalfWay)
	}
	if n := left(t, c); n != 10 {
		t.Errorf("%d of 10 objects are left, want all", n)
	}
}

func TestAPassDeletesOrHolds(t *testing.T) {
	rows := func(n int) []store.ProcessorRow {
		var rows []store.ProcessorRow
		for i := range n {
			rows = append(rows, rowWith(func(r *store.ProcessorRow) { r.ID = fmt.Sprintf("p%d", i) }))
		}
		return rows
	}
	for name, tt := range map[string]struct {
		rows, total, left int
		held              float64
	}{
		"no row is gone":         {10, 10, 10, 0},
		"some are gone":          {8, 8, 8, 0},
		"many are gone":          {7, 7, 10, 3},
		"all are terminated":     {0, 10, 10, 10},
		"all are gone":           {0, 0, 10, 10},
		"the rows were replaced": {9, 100, 9, 0},
	} {
		t.Run(name, func(t *testing.T) {
			database := &fakeStore{rows: rows(tt.rows), total: tt.total}
			s, c := newTestSyncer(t, database, testingclock.NewFakeClock(start()), fleet(10)...)
			if err := s.processors.runPass(t.Context(), deletionsOnly); err != nil {
				t.Fatal(err)
			}
			if n := left(t, c); n != tt.left {
				t.Errorf("%d objects are left, want %d", n, tt.left)
			}
			if held := testutil.ToFloat64(s.processors.metrics.deletionsHeld.WithLabelValues("processors")); held != tt.held {
				t.Errorf("dory_sync_deletions_held is %g, want %g", held, tt.held)
			}
		})
	}
}

// lateStore gets a row after it was listed and before its object is deleted.
type lateStore struct{ *fakeStore }

func (l lateStore) ListProcessors(ctx context.Context) ([]store.ProcessorRow, error) {
	rows, err := l.fakeStore.ListProcessors(ctx)
	l.rows = append(l.rows, rowWith(func(r *store.ProcessorRow) { r.ID = "p9" }))
	return rows, err
}

func TestAnObjectWhoseRowCameMeanwhileStays(t *testing.T) {
	var rows []store.ProcessorRow
	for i := range 9 {
		rows = append(rows, rowWith(func(r *store.ProcessorRow) { r.ID = fmt.Sprintf("p%d", i) }))
	}
	s, c := newTestSyncer(t, lateStore{&fakeStore{rows: rows}}, testingclock.NewFakeClock(start()), fleet(10)...)
	if err := s.processors.runPass(t.Context(), deletionsOnly); err != nil {
		t.Fatal(err)
	}
	if n := left(t, c); n != 10 {
		t.Errorf("%d objects are left, want all 10", n)
	}
}

func TestPassesRunAtOnceThenOnTheTimerAndOnRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p := newPasses(clock.RealClock{}, 30*time.Second)
		var ran []string
		begin := time.Now()
		fail := false
		var mu sync.Mutex // The bubble orders the goroutines; the race detector wants to see it.
		go p.run(ctx, func(_ context.Context, what scope) error {
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, fmt.Sprintf("%d@%s", what, time.Since(begin).Round(time.Second)))
			if fail {
				fail = false
				return errHalfWay
			}
			return nil
		})
		time.Sleep(10 * time.Second)
		p.request(deletionsOnly)
		p.request(contents)
		p.request(deletionsOnly)
		synctest.Wait()
		p.request(deletionsOnly)
		time.Sleep(10 * time.Second)
		mu.Lock()
		fail = true
		mu.Unlock()
		time.Sleep(15 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		want := []string{"2@0s", "1@10s", "0@11s", "2@30s", "2@31s"}
		if diff := cmp.Diff(want, ran); diff != "" {
			t.Errorf("passes, as scope@time (-want +got):\n%s", diff)
		}
	})
}

func TestStatusWriterKeepsWhatItCouldNotWrite(t *testing.T) {
	database := &fakeStore{updateErr: func([]store.ProcessorStatus) error { return store.ErrUnavailable }}
	s, _ := newTestSyncer(t, database, testingclock.NewFakeClock(start()), fleet(3)...)
	w := s.statuses
	for i := range 3 {
		w.mark(fmt.Sprintf("p%d", i), false)
	}
	if err := w.flush(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("flush = %v, want the store's error", err)
	}
	database.updateErr = nil
	if err := w.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(database.updates[len(database.updates)-1]); n != 3 {
		t.Errorf("%d statuses are written after the failure, want all 3", n)
	}
	statements := len(database.updates)
	w.mark("p0", false)
	if err := w.flush(t.Context()); err != nil || len(database.updates) != statements {
		t.Errorf("an unchanged status is written again, error %v", err)
	}
	w.refresh("p0")
	if err := w.flush(t.Context()); err != nil || len(database.updates) != statements+1 {
		t.Errorf("a status that its row lost is not written again, error %v", err)
	}
}

func TestStatusWriterBatchesAndSortsOutWhatTheDatabaseDoesNotTake(t *testing.T) {
	database := &fakeStore{updateErr: func(batch []store.ProcessorStatus) error {
		for _, status := range batch {
			if status.ID == "p1" {
				return errors.New("value out of range")
			}
		}
		return nil
	}}
	s, _ := newTestSyncer(t, database, testingclock.NewFakeClock(start()), fleet(7)...)
	s.statuses.options.StatusBatch = 3
	for i := range 7 {
		s.statuses.mark(fmt.Sprintf("p%d", i), false)
	}
	if err := s.statuses.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{}
	for _, batch := range database.updates {
		if len(batch) > 3 {
			t.Errorf("a batch has %d statuses, want at most 3", len(batch))
		}
		if database.updateErr(batch) != nil {
			continue
		}
		for _, status := range batch {
			written[status.ID] = true
			if !status.CheckedAt.Equal(start()) {
				t.Errorf("checked at %s, want the clock's %s", status.CheckedAt, start())
			}
		}
	}
	if len(written) != 6 || written["p1"] {
		t.Errorf("written are %v, want all but p1", written)
	}
}

func TestRegistrarSortsOutWhatTheDatabaseDoesNotTake(t *testing.T) {
	database := &fakeStore{upsertErr: func(batch []store.KubernetesProcessor) error {
		for _, row := range batch {
			if row.ID == "bad" {
				return errors.New("violates a constraint")
			}
		}
		return nil
	}}
	people := func(id string) client.Object {
		return object(id, unlabelled, func(p *doryv1alpha1.Processor) { p.Name = id })
	}
	s, _ := newTestSyncer(t, database, testingclock.NewFakeClock(start()), people("good"), people("bad"))
	s.registrar.reconcile(t.Context(), []entry{{"good", "default", "good"}, {"bad", "default", "bad"}, {"gone", "default", "gone"}})
	if len(database.upserts) != 3 || len(database.ended) != 1 || database.ended[0].ID != "gone" {
		t.Errorf("upserts %v, ended %v; want both together, each alone, and the end of gone", database.upserts, database.ended)
	}
}

func TestCompareRows(t *testing.T) {
	at := func(id, image string, changes ...func(*doryv1alpha1.Processor)) doryv1alpha1.Processor {
		return *object(id, append([]func(*doryv1alpha1.Processor){unlabelled, func(p *doryv1alpha1.Processor) { p.Name, p.Spec.Image = id, image }}, changes...)...)
	}
	row := func(id, image string) store.KubernetesProcessor {
		return store.KubernetesProcessor{ID: id, Namespace: "default", Name: id, Image: image, NodeType: store.NodeTypeManaged}
	}
	toEdge := func(p *doryv1alpha1.Processor) { p.Spec.Location = doryv1alpha1.LocationEdge }
	items := []doryv1alpha1.Processor{
		at("same", "i"), at("image", "new"), at("moved", "i", toEdge), at("new", "i"), *object("owned"), at("was-owned", "i", func(p *doryv1alpha1.Processor) {
			p.Annotations = map[string]string{doryv1alpha1.AnnotationRowRevision: "1"}
		}),
	}
	rows := []store.KubernetesProcessor{row("same", "i"), row("image", "old"), row("moved", "i"), row("gone", "i")}
	settled, differing := compareRows(items, rows)
	if len(settled) != 1 || settled[0].ID() != "same" {
		t.Errorf("settled are %v, want same", settled)
	}
	ids := map[string]bool{}
	for _, e := range differing {
		ids[e.id] = true
	}
	if diff := cmp.Diff(map[string]bool{"image": true, "moved": true, "new": true, "gone": true}, ids); diff != "" {
		t.Errorf("differing (-want +got):\n%s", diff)
	}
}

func TestOptions(t *testing.T) {
	for name, tt := range map[string]struct {
		options Options
		says    string
	}{
		"defaults":           {Options{}, ""},
		"a negative resync":  {Options{Resync: -1}, "negative"},
		"a share above all":  {Options{DeletionShare: 1.5}, "the deletion share is 1.5"},
		"a share below none": {Options{DeletionShare: -0.1}, "the deletion share is -0.1"},
	} {
		_, err := New(Config{Client: fake.NewFakeClient(), Store: &fakeStore{}, Recorder: events.NewFakeRecorder(1), Options: tt.options})
		if (err == nil) != (tt.says == "") || (err != nil && !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: error is %v, want %q", name, err, tt.says)
		}
	}
}

// The contract's metrics belong to several packages; whoever comes second shares them.
func TestMetricsAreShared(t *testing.T) {
	registry := prometheus.NewRegistry()
	first, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	second, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	if first.errors != second.errors {
		t.Error("there are two dory_reconciliation_errors_total")
	}
}

func TestStartNeedsSetup(t *testing.T) {
	s, _ := newTestSyncer(t, &fakeStore{}, testingclock.NewFakeClock(start()))
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "SetupWithManager") {
		t.Errorf("Start = %v, want an error that names SetupWithManager", err)
	}
	if !s.NeedLeaderElection() {
		t.Error("db-sync runs without leadership")
	}
}
