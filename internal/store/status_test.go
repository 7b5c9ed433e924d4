package store

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// writes identifies every row version of a table: it differs after any write, also one that changes nothing.
func writes(tb testing.TB, s *Store, table string) string {
	tb.Helper()
	var sum string
	sql := `SELECT md5(string_agg(ctid::text || xmin::text, ',' ORDER BY id)) FROM ` + table
	if err := s.pool.QueryRow(tb.Context(), sql).Scan(&sum); err != nil {
		tb.Fatal(err)
	}
	return sum
}

func TestUpdateStatuses(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "a", "b", "c")
	checked := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	batch := []ProcessorStatus{
		{ID: "a", HealthStatus: "stale entry"},
		{ID: "b", HealthStatus: "unknown", Phase: "Pending"},
		{ID: "nobody", HealthStatus: "healthy"},
		{ID: "a", HealthStatus: "healthy", CheckedAt: checked, Pod: "dory-a-1", PodIP: "10.0.0.7", Node: "n1", Phase: "Running", Epoch: 3, K8sName: "a-name"},
	}
	changed, err := s.UpdateStatuses(t.Context(), batch)
	if err != nil || changed != 2 {
		t.Fatalf("changed %d, %v, want 2", changed, err)
	}
	got := value(t, conn, `SELECT concat_ws('|', health_status, last_health_check_at AT TIME ZONE 'UTC', pod_name, pod_ip, node_name, phase, epoch, k8s_name)
		FROM processors WHERE id = 'a'`)
	if want := "healthy|2026-01-02 03:04:05|dory-a-1|10.0.0.7|n1|Running|3|a-name"; got != want {
		t.Errorf("a = %s, want %s", got, want)
	}

	before := writes(t, s, "processors")
	batch[3].CheckedAt = checked.Add(time.Hour)
	if changed, err = s.UpdateStatuses(t.Context(), batch[1:]); err != nil || changed != 0 {
		t.Errorf("the same again: changed %d, %v", changed, err)
	}
	if after := writes(t, s, "processors"); after != before {
		t.Error("the same again was written")
	}
}

func TestUpdateStatusesClearsAndKeeps(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "a")
	full := ProcessorStatus{ID: "a", HealthStatus: "healthy", CheckedAt: time.Unix(1, 0), Pod: "p", PodIP: "i", Node: "n", Phase: "Running", Epoch: 3, K8sName: "name"}
	// Without an instance there is no epoch to tell, and the last one stays.
	for _, status := range []ProcessorStatus{full, {ID: "a"}} {
		if changed, err := s.UpdateStatuses(t.Context(), []ProcessorStatus{status}); err != nil || changed != 1 {
			t.Fatalf("changed %d, %v", changed, err)
		}
	}
	got := value(t, conn, `SELECT (health_status IS NULL AND pod_name IS NULL AND pod_ip IS NULL AND node_name IS NULL AND phase IS NULL)
		|| '|' || extract(epoch FROM last_health_check_at)::int || '|' || epoch || '|' || k8s_name FROM processors`)
	if want := "true|1|3|name"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if changed, err := s.UpdateStatuses(t.Context(), []ProcessorStatus{{ID: "a"}, {ID: "a", Epoch: 2}}); err != nil || changed != 0 {
		t.Errorf("an older epoch alone: changed %d, %v, want nothing written", changed, err)
	}
	if changed, err := s.UpdateStatuses(t.Context(), []ProcessorStatus{{ID: "a", Epoch: 4}}); err != nil || changed != 1 {
		t.Errorf("a newer epoch alone: changed %d, %v, want 1", changed, err)
	}
}

func TestOddTextHarmsNoOtherRow(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "a", "b", "c")
	changed, err := s.SetSyncErrors(t.Context(), map[string]string{
		"a": "nul \x00 byte", "b": "bad \xff utf-8", "c": strings.Repeat("ü", 100_000), "\x00": "no id",
	})
	if err != nil || changed != 3 {
		t.Fatalf("changed %d, %v, want 3", changed, err)
	}
	got := value(t, conn, `SELECT string_agg(left(sync_error, 9) || char_length(sync_error), '|' ORDER BY id) FROM processors`)
	if want := "nul \uFFFD byt10|bad \uFFFD utf11|üüüüüüüüü4000"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	statuses := []ProcessorStatus{{ID: "a", HealthStatus: "\x00"}, {ID: "b", Phase: "\xff"}, {ID: "c", HealthStatus: "fine"}}
	if changed, err := s.UpdateStatuses(t.Context(), statuses); err != nil || changed != 3 {
		t.Errorf("statuses: changed %d, %v, want 3", changed, err)
	}
}

func TestSetSyncErrors(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "a", "b", "c")
	step := func(want int, messages map[string]string) {
		t.Helper()
		if changed, err := s.SetSyncErrors(t.Context(), messages); err != nil || changed != want {
			t.Errorf("%v: changed %d, %v, want %d", messages, changed, err, want)
		}
	}
	step(2, map[string]string{"a": "no image", "b": "bad port", "c": "", "nobody": "x"})
	before := writes(t, s, "processors")
	step(0, map[string]string{"a": "no image", "b": "bad port", "c": ""})
	if after := writes(t, s, "processors"); after != before {
		t.Error("the same again was written")
	}
	step(2, map[string]string{"a": "", "b": "worse"})
	if got := value(t, conn, `SELECT string_agg(coalesce(sync_error, 'NULL'), '|' ORDER BY id) FROM processors`); got != "NULL|worse|NULL" {
		t.Errorf("got %s", got)
	}
}

// TestDeadlockIsRetried has somebody else lock two rows in the opposite order of the batch.
func TestDeadlockIsRetried(t *testing.T) {
	// The one who waits first looks first, and late enough for the other to be waiting by then.
	url := server.NewDatabase(t)
	s, conn, other := openURL(t, url+"&deadlock_timeout=3s"), connect(t, url), connect(t, url+"&deadlock_timeout=1min")
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "a", "b")
	exec(t, other, `BEGIN; UPDATE processors SET node_selector = '{}' WHERE id = 'b'`)
	ended := make(chan error, 1)
	go func() {
		_, err := s.SetSyncErrors(t.Context(), map[string]string{"a": "bad", "b": "bad"})
		ended <- err
	}()
	eventually(t, "the batch has locked a and waits for b", func() bool {
		return value(t, conn, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`) == "1"
	})
	exec(t, other, `UPDATE processors SET node_selector = '{}' WHERE id = 'a'`)
	exec(t, other, `COMMIT`)
	must(t, <-ended)
	if got := value(t, conn, `SELECT string_agg(sync_error || node_selector::text, ',') FROM processors`); got != "bad{},bad{}" {
		t.Errorf("got %s", got)
	}
	if n := testutil.ToFloat64(s.metrics.errors.WithLabelValues(string(kindConflict))); n < 1 {
		t.Errorf("%v conflicts counted, want at least 1", n)
	}
}

func TestSetEdgeNodeSyncErrors(t *testing.T) {
	s, conn := open(t)
	exec(t, conn, `INSERT INTO edge_nodes (id, organization_id, name) VALUES ($1, $2, 'a')`, edgeA, organization)
	for _, c := range []struct {
		message string
		want    int
	}{{"bad", 1}, {"bad", 0}, {"", 1}, {"", 0}} {
		changed, err := s.SetEdgeNodeSyncErrors(t.Context(), map[string]string{edgeA: c.message, "no uuid": "x"})
		if err != nil || changed != c.want {
			t.Errorf("%q: changed %d, %v, want %d", c.message, changed, err, c.want)
		}
	}
}

// TestStatusesStayInTheirPage checks that a status write moves no index entry, which the fillfactor is for.
func TestStatusesStayInTheirPage(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	ids := numbered("p", 200)
	insertProcessors(t, conn, "t", ids...)
	var batch []ProcessorStatus // a tenth of each page
	for i := 0; i < len(ids); i += 10 {
		batch = append(batch, ProcessorStatus{ID: ids[i], HealthStatus: "healthy", Pod: "dory-" + ids[i], Phase: "Running", Epoch: 1})
	}
	if _, err := s.UpdateStatuses(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if _, err := s.pool.Exec(t.Context(), `SELECT pg_stat_force_next_flush()`); err != nil {
		t.Fatal(err)
	}
	want := "20 updates, 20 in their pages"
	eventually(t, want, func() bool {
		return want == value(t, conn, `SELECT n_tup_upd || ' updates, ' || n_tup_hot_upd || ' in their pages'
			FROM pg_stat_user_tables WHERE relname = 'processors'`)
	})
}

func BenchmarkUpdateStatuses10000(b *testing.B) {
	s, conn := open(b)
	insertTemplate(b, conn, "t")
	ids := numbered("p", 10_000)
	insertProcessors(b, conn, "t", ids...)
	batch := make([]ProcessorStatus, len(ids))
	for i, id := range ids {
		batch[i] = ProcessorStatus{ID: id, HealthStatus: "healthy", Pod: "dory-" + id, PodIP: "10.0.0.1", Node: "n", Phase: "Running", Epoch: 1, K8sName: id}
	}
	if _, err := s.UpdateStatuses(b.Context(), batch); err != nil {
		b.Fatal(err)
	}
	b.Run("changed", func(b *testing.B) {
		for b.Loop() {
			for j := range batch {
				batch[j].Epoch++
			}
			if n, err := s.UpdateStatuses(b.Context(), batch); err != nil || n != len(ids) {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			if n, err := s.UpdateStatuses(b.Context(), batch); err != nil || n != 0 {
				b.Fatal(n, err)
			}
		}
	})
}
