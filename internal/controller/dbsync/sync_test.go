package dbsync

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

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

// A row that moves right after its object was made is refused also while the cache does not show the object yet.
func TestARowThatMovesBeforeTheCacheKnows(t *testing.T) {
	row := rowWith(func(r *store.ProcessorRow) { r.Namespace = "b" })
	database := &fakeStore{rows: []store.ProcessorRow{row}, told: map[string]string{}}
	s, c := newTestSyncer(t, database, testingclock.NewFakeClock(start()), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "b"}})
	s.processors.view.wrote(object("cam-1", in("a")))
	s.processors.reconcile(t.Context(), []string{"cam-1"})
	if n := left(t, c); n != 0 || !strings.Contains(database.told["cam-1"], `changed from "a" to "b"`) {
		t.Errorf("%d objects are made, the row was told %q; want it refused", n, database.told)
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
type lateStore struct {
	*fakeStore
	namespace string
}

func (l lateStore) ListProcessors(ctx context.Context) ([]store.ProcessorRow, error) {
	rows, err := l.fakeStore.ListProcessors(ctx)
	l.rows = append(l.rows, rowWith(func(r *store.ProcessorRow) { r.ID, r.Namespace = "p9", l.namespace }))
	return rows, err
}

func TestAnObjectWhoseRowCameMeanwhileStays(t *testing.T) {
	var rows []store.ProcessorRow
	for i := range 9 {
		rows = append(rows, rowWith(func(r *store.ProcessorRow) { r.ID = fmt.Sprintf("p%d", i) }))
	}
	for _, namespace := range []string{"default", "another"} {
		s, c := newTestSyncer(t, lateStore{&fakeStore{rows: rows}, namespace}, testingclock.NewFakeClock(start()), fleet(10)...)
		if err := s.processors.runPass(t.Context(), deletionsOnly); err != nil {
			t.Fatal(err)
		}
		if n := left(t, c); n != 10 {
			t.Errorf("row in %s: %d objects are left, want all 10", namespace, n)
		}
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

func TestOneDeferredRequestIsKept(t *testing.T) {
	now := testingclock.NewFakeClock(start())
	p := newPasses(now, time.Hour)
	for range 100 {
		p.in(t.Context(), 10*time.Second, deletionsOnly)
	}
	p.in(t.Context(), 20*time.Second, contents)
	if due := p.due; !due.Equal(start().Add(10 * time.Second)) {
		t.Errorf("due at %s, want the first time", due)
	}
	p.in(t.Context(), 5*time.Second, deletionsOnly)
	for now.Waiters() < 2 {
		time.Sleep(time.Millisecond)
	}
	if n := now.Waiters(); n != 2 {
		t.Errorf("%d goroutines wait, want one, and one whose time was too late", n)
	}
	now.Step(5 * time.Second)
	<-p.wake
	if what, pending := p.take(); !pending || what != contents {
		t.Errorf("requested %v, %v; want all that was asked for", what, pending)
	}
	now.Step(time.Hour)
	p.in(t.Context(), time.Second, deletionsOnly)
	for now.Waiters() < 1 {
		time.Sleep(time.Millisecond)
	}
	if _, pending := p.take(); pending {
		t.Error("the time that was too late asks for a pass of its own")
	}
}

// A deletion that the API server refuses for long is tried ever more rarely, and not by each object on its own.
func TestRefusedDeletionsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var deletes atomic.Int64
		refuse := interceptor.Funcs{Delete: func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error {
			deletes.Add(1)
			return apierrors.NewForbidden(schema.GroupResource{Resource: "processors"}, "", errors.New("no deletions here"))
		}}
		database := &fakeStore{total: 10, told: map[string]string{}}
		for i := range 8 {
			database.rows = append(database.rows, rowWith(func(r *store.ProcessorRow) { r.ID = fmt.Sprintf("p%d", i) }))
		}
		s, _ := newInterceptedSyncer(t, database, clock.RealClock{}, refuse, fleet(10)...)
		before := runtime.NumGoroutine()
		p := newPasses(clock.RealClock{}, 24*time.Hour)
		s.processors.pass = p
		go p.run(ctx, func(ctx context.Context, _ scope) error { return s.processors.runPass(ctx, deletionsOnly) })
		time.Sleep(time.Hour)
		if n := deletes.Load(); n < 2*6 || n > 2*30 {
			t.Errorf("2 objects were tried %d times in an hour, want 6 to 30 times each", n)
		}
		if more := runtime.NumGoroutine() - before; more > 3 {
			t.Errorf("%d more goroutines after an hour, want the passes and one request", more)
		}
		cancel()
		synctest.Wait()
	})
}

func TestTheDatabaseIsPreparedBeforeItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newTestSyncer(t, &fakeStore{}, clock.RealClock{}) // Every use of the fake's Listen would panic.
		begin := time.Now()
		var tries []time.Duration
		s.prepare = func(context.Context) error {
			tries = append(tries, time.Since(begin).Round(time.Second))
			if len(tries) < 9 {
				if len(tries) > 1 && testutil.ToFloat64(s.health.metrics.componentHealthy.WithLabelValues(component)) != 0 {
					t.Error("db-sync counts as healthy while the database cannot be prepared")
				}
				return store.ErrUnavailable
			}
			return nil
		}
		if !s.prepared(t.Context()) || len(tries) != 9 {
			t.Fatalf("not prepared after %v", tries)
		}
		for i, gap := range []int{1, 2, 4, 8, 16, 30, 30, 30} {
			if got := (tries[i+1] - tries[i]).Seconds(); got < float64(gap)-1 || got > float64(gap)*1.1+1 {
				t.Errorf("the wait before try %d is %gs, want about %ds", i+2, got, gap)
			}
		}
		if testutil.ToFloat64(s.health.metrics.componentHealthy.WithLabelValues(component)) != 1 {
			t.Error("db-sync is not healthy once the database is prepared")
		}

		ctx, cancel := context.WithCancel(t.Context())
		s.prepare = func(context.Context) error { return store.ErrUnavailable }
		time.AfterFunc(time.Minute, cancel)
		if s.prepared(ctx) {
			t.Error("prepared, though we were told to stop")
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
	// The row of that id, if any, is another's.
	for id, want := range map[string]bool{"good": true, "bad": false} {
		if _, known, err := s.statuses.observe(t.Context(), id); err != nil || known != want {
			t.Errorf("the status writer speaks for %s: %v, %v; want %v", id, known, err, want)
		}
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
