package store

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestUpsertKubernetesProcessors(t *testing.T) {
	one := KubernetesProcessor{ID: "k1", Namespace: "ns", Name: "one", Image: "img", NodeType: NodeTypeManaged}
	with := func(change func(*KubernetesProcessor)) KubernetesProcessor {
		changed := one
		change(&changed)
		return changed
	}
	elsewhere := with(func(k *KubernetesProcessor) { k.Namespace = "other" })
	renamed := with(func(k *KubernetesProcessor) { k.Name = "renamed" })
	newImage := with(func(k *KubernetesProcessor) { k.Image, k.NodeType = "img2", NodeTypeEdge })
	noImage := with(func(k *KubernetesProcessor) { k.Image = "" })
	ofDatabase := with(func(k *KubernetesProcessor) { k.ID = "p1" })

	cases := map[string]struct {
		before    string // SQL
		given     []KubernetesProcessor
		conflicts []Conflict
		listed    []KubernetesProcessor
	}{
		"new":             {"", []KubernetesProcessor{one}, nil, []KubernetesProcessor{one}},
		"new, no image":   {"", []KubernetesProcessor{noImage}, nil, []KubernetesProcessor{noImage}},
		"twice the same":  {"", []KubernetesProcessor{one, one}, nil, []KubernetesProcessor{one}},
		"two of one id":   {"", []KubernetesProcessor{one, elsewhere}, []Conflict{{elsewhere, "ns/one"}}, []KubernetesProcessor{one}},
		"image changed":   {k1, []KubernetesProcessor{newImage}, nil, []KubernetesProcessor{newImage}},
		"other namespace": {k1, []KubernetesProcessor{elsewhere}, []Conflict{{elsewhere, "ns/one"}}, []KubernetesProcessor{one}},
		"other name":      {k1, []KubernetesProcessor{renamed}, []Conflict{{renamed, "ns/one"}}, []KubernetesProcessor{one}},
		"the row decides, not the order": {
			k1,
			[]KubernetesProcessor{elsewhere, one},
			[]Conflict{{elsewhere, "ns/one"}},
			[]KubernetesProcessor{one},
		},
		"alive again":                   {k1 + terminated, []KubernetesProcessor{newImage}, nil, []KubernetesProcessor{newImage}},
		"terminated, taken over":        {k1 + terminated, []KubernetesProcessor{elsewhere}, nil, []KubernetesProcessor{elsewhere}},
		"terminated, two want it":       {k1 + terminated, []KubernetesProcessor{elsewhere, one}, []Conflict{{one, "other/one"}}, []KubernetesProcessor{elsewhere}},
		"failed":                        {k1 + operator + `; UPDATE processors SET status = 'failed'`, []KubernetesProcessor{one}, nil, []KubernetesProcessor{one}},
		"of the database":               {p1, []KubernetesProcessor{ofDatabase}, []Conflict{{ofDatabase, "a database row"}}, nil},
		"of the database, terminated":   {p1 + terminated, []KubernetesProcessor{ofDatabase}, []Conflict{{ofDatabase, "a database row"}}, nil},
		"a conflict harms no other row": {p1, []KubernetesProcessor{ofDatabase, one}, []Conflict{{ofDatabase, "a database row"}}, []KubernetesProcessor{one}},
	}
	s, conn := open(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			reset(t, conn)
			insertTemplate(t, conn, "t")
			exec(t, conn, c.before)
			conflicts, err := s.UpsertKubernetesProcessors(t.Context(), c.given)
			if diff := cmp.Diff(c.conflicts, conflicts); err != nil || diff != "" {
				t.Errorf("conflicts: %v, -want +got\n%s", err, diff)
			}
			listed, err := s.ListKubernetesProcessors(t.Context())
			if diff := cmp.Diff(c.listed, listed); err != nil || diff != "" {
				t.Errorf("listed: %v, -want +got\n%s", err, diff)
			}
			before := writes(t, s, "processors")
			if again, err := s.UpsertKubernetesProcessors(t.Context(), c.given); err != nil || !cmp.Equal(again, conflicts) {
				t.Errorf("again: %v, %v", again, err)
			}
			if writes(t, s, "processors") != before {
				t.Error("the same again was written")
			}
		})
	}
}

const (
	k1 = `INSERT INTO processors (id, source, k8s_namespace, k8s_name, image_uri) VALUES ('k1', 'kubernetes', 'ns', 'one', 'img')`
	p1 = `INSERT INTO processors (id, processor_template_id) VALUES ('p1', 't')`

	// operator lets a statement pass for the operator's.
	operator   = `; SET LOCAL dory.writer = 'operator'`
	terminated = operator + `; UPDATE processors SET status = 'terminated'`
)

func TestTerminateKubernetesProcessors(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	exec(t, conn, k1+";"+p1)
	err := s.TerminateKubernetesProcessors(t.Context(), []KubernetesProcessor{
		{ID: "k1", Namespace: "other", Name: "one"}, {ID: "p1", Namespace: "default"}, {ID: "nobody", Namespace: "ns", Name: "one"},
	})
	if got := value(t, conn, `SELECT string_agg(status, ',' ORDER BY id) FROM processors`); err != nil || got != "active,active" {
		t.Fatalf("not the row's object: %s, %v", got, err)
	}
	for range 2 {
		err := s.TerminateKubernetesProcessors(t.Context(), []KubernetesProcessor{{ID: "k1", Namespace: "ns", Name: "one"}})
		if got := value(t, conn, `SELECT string_agg(status, ',' ORDER BY id) FROM processors`); err != nil || got != "terminated,active" {
			t.Fatalf("the row's object: %s, %v", got, err)
		}
	}
	if listed, err := s.ListKubernetesProcessors(t.Context()); err != nil || len(listed) != 0 {
		t.Errorf("listed: %v, %v", listed, err)
	}
}

// TestEditsOfRowsFromKubernetesAreRefused: they would be lost without a word.
func TestEditsOfRowsFromKubernetesAreRefused(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	exec(t, conn, k1+";"+p1)
	for name, edit := range map[string]string{
		"status":        `status = 'suspended'`,
		"termination":   `status = 'terminated'`,
		"namespace":     `k8s_namespace = 'other'`,
		"image":         `image_uri = 'other'`,
		"node type":     `node_type = 'edge'`,
		"node selector": `node_selector = '{"a": "b"}'`,
		"template":      `processor_template_id = 't', image_uri = NULL`,
		"id":            `id = 'k2'`,
	} {
		_, err := conn.Exec(t.Context(), `UPDATE processors SET `+edit+` WHERE id = 'k1'`)
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.ConstraintName != "processors_from_kubernetes_are_edited_there" ||
			!strings.Contains(pgErr.Message, "edit that Processor instead") || !strings.Contains(pgErr.Hint, "kubectl edit processor one --namespace ns") {
			t.Errorf("%s: %+v", name, err)
		}
	}
	// What else is written to such a row, and every row from the database, is no concern of the refusal.
	exec(t, conn, `UPDATE processors SET phase = 'Running', k8s_name = k8s_name, status = status`)
	exec(t, conn, `UPDATE processors SET status = 'suspended' WHERE id = 'p1'`)
	// The operator's word ends with its transaction, also on a connection that it used.
	must(t, s.TerminateKubernetesProcessors(t.Context(), []KubernetesProcessor{{ID: "k1", Namespace: "ns", Name: "one"}}))
	exec(t, conn, `SET LOCAL dory.writer = 'operator'; UPDATE processors SET status = 'active' WHERE id = 'k1'`)
	if _, err := conn.Exec(t.Context(), `UPDATE processors SET status = 'suspended' WHERE id = 'k1'`); err == nil {
		t.Error("accepted after the operator's transaction")
	}
	exec(t, conn, `UPDATE processors SET source = 'database', processor_template_id = 't', image_uri = NULL, status = 'suspended' WHERE id = 'k1'`)
	exec(t, conn, `UPDATE processors SET source = 'kubernetes', processor_template_id = NULL, status = 'active' WHERE id = 'k1'`)
	exec(t, conn, `DELETE FROM processors WHERE id = 'k1'`)
}

func TestStatusOfKubernetesRowKeepsItsName(t *testing.T) {
	s, conn := open(t)
	exec(t, conn, k1)
	if n, err := s.UpdateStatuses(t.Context(), []ProcessorStatus{{ID: "k1", Phase: "Running"}}); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if got := value(t, conn, `SELECT k8s_name FROM processors`); got != "one" {
		t.Errorf("k8s_name = %s", got)
	}
}

// TestUpsertLosesARace has a database row of the same id committed while the upsert is under way.
func TestUpsertLosesARace(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	other := connect(t, conn.Config().ConnString())
	exec(t, other, `BEGIN; INSERT INTO processors (id, processor_template_id, k8s_namespace, k8s_name) VALUES ('k1', 't', 'ns', 'one')`)
	given := []KubernetesProcessor{{ID: "k1", Namespace: "ns", Name: "one", Image: "img", NodeType: NodeTypeEdge}}
	ended := make(chan error, 1)
	go func() {
		_, err := s.UpsertKubernetesProcessors(t.Context(), given)
		ended <- err
	}()
	eventually(t, "the upsert waits for the row", func() bool {
		return value(t, conn, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`) == "1"
	})
	exec(t, other, `COMMIT`)
	must(t, <-ended)
	if got := value(t, conn, `SELECT source || ' ' || node_type FROM processors`); got != "database managed" {
		t.Errorf("the database row is now %s", got)
	}
	conflicts, err := s.UpsertKubernetesProcessors(t.Context(), given)
	if want := []Conflict{{given[0], "a database row"}}; err != nil || !cmp.Equal(conflicts, want) {
		t.Errorf("the next call: %v, %v", conflicts, err)
	}
}
