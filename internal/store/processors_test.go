package store

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	organization = "0b0a7c66-6f0e-4f0c-9f61-0e8f3a3b1d11"
	edgeA        = "11111111-1111-4111-8111-111111111111"
	edgeB        = "22222222-2222-4222-8222-222222222222"
)

func TestListProcessorsJoinsEverything(t *testing.T) {
	s, conn := open(t)
	digest := "sha256:" + strings.Repeat("ab", 32)
	exec(t, conn, `INSERT INTO processor_templates (id, slug) VALUES ('t', 'camera')`)
	exec(t, conn, `INSERT INTO processor_template_versions
		(id, processor_template_id, image_uri, digest, version, is_active, runtime_config_template) VALUES
		('v1', 't', 'registry.example/old', NULL, '1', false, '{}'),
		('v2', 't', 'registry.example/new', $1, '2', true, '{"container": {"port": 9090}}')`, digest)
	exec(t, conn, `INSERT INTO sensors (id, name, type, location, config) VALUES ('s', 'Door', 'camera', 'Hall', '{"fps": 5}')`)
	exec(t, conn, `INSERT INTO edge_nodes (id, organization_id, name, k8s_node_name) VALUES ($1, $2, 'barn', 'node-7')`, edgeA, organization)
	exec(t, conn, `INSERT INTO processors
		(id, processor_template_id, sensor_id, node_type, k8s_namespace, status, edge_node_id, node_selector, sync_error, k8s_name)
		VALUES ('Proc_6', 't', 's', 'edge', 'farm', 'suspended', $1, '{"zone": "a"}', 'was bad', 'proc-6-x')`, edgeA)

	got, err := s.ListProcessors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []ProcessorRow{{
		ID: "Proc_6", Namespace: "farm", NodeType: NodeTypeEdge, Status: StatusSuspended, Source: SourceDatabase,
		TemplateID: "t", TemplateSlug: "camera", VersionID: "v2", ImageURI: "registry.example/new", Digest: digest,
		Version: "2", RuntimeConfig: json.RawMessage(`{"container": {"port": 9090}}`),
		SensorID: "s", Sensor: &Sensor{ID: "s", Name: "Door", Type: "camera", Location: "Hall", Config: json.RawMessage(`{"fps": 5}`)},
		EdgeNode:     &EdgeNodeRef{ID: edgeA, Name: "barn", KubernetesNode: "node-7"},
		NodeSelector: json.RawMessage(`{"zone": "a"}`), SyncError: "was bad", K8sName: "proc-6-x",
	}}
	want[0].Revision = got[0].Revision
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestListProcessorsShowsWhatIsMissing(t *testing.T) {
	s, conn := open(t)
	exec(t, conn, `INSERT INTO processor_templates (id, slug) VALUES ('t', 'no-version')`)
	insertProcessors(t, conn, "t", "a")
	// As after a restore without constraints: the template and the sensor are not there at all.
	exec(t, conn, `SET session_replication_role = replica`)
	exec(t, conn, `INSERT INTO processors (id, processor_template_id, sensor_id) VALUES ('b', 'gone', 'lost')`)

	got, err := s.ListProcessors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("got %d rows, want 2: %+v", len(got), got)
	}
	if a := got[0]; a.TemplateID != "t" || a.TemplateSlug != "no-version" || a.VersionID != "" || a.ImageURI != "" || a.RuntimeConfig != nil {
		t.Errorf("template without an active version: %+v", a)
	}
	if b := got[1]; b.TemplateID != "gone" || b.TemplateSlug != "" || b.SensorID != "lost" || b.Sensor != nil || b.EdgeNode != nil || b.NodeSelector != nil {
		t.Errorf("dangling template and sensor: %+v", b)
	}
}

func TestDesiredSet(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	for _, status := range []string{"pending", "active", "running", "suspended", "terminated", "failed"} {
		exec(t, conn, `INSERT INTO processors (id, processor_template_id, status) VALUES ($1, 't', $1)`, status)
	}
	exec(t, conn, `INSERT INTO processors (id, source, k8s_name, image_uri) VALUES ('kubectl', 'kubernetes', 'kubectl', 'img')`)

	all, err := s.ListProcessors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"active", "kubectl", "pending", "running", "suspended"}, idsOf(all)); diff != "" {
		t.Errorf("list: -want +got\n%s", diff)
	}
	if k := all[1]; k.Source != SourceKubernetes || k.ImageURI != "img" || k.K8sName != "kubectl" || k.TemplateID != "" {
		t.Errorf("row from Kubernetes: %+v", k)
	}
	some, err := s.GetProcessors(t.Context(), []string{"running", "failed", "nobody", "active", "active", "bad\x00id", "\xff"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"active", "running"}, idsOf(some)); diff != "" {
		t.Errorf("get: -want +got\n%s", diff)
	}
	counts, err := s.CountProcessors(t.Context())
	if want := (ProcessorCounts{Database: 6, DatabaseDesired: 4, Kubernetes: 1}); err != nil || counts != want {
		t.Errorf("counts = %+v, %v, want %+v", counts, err, want)
	}
}

func TestEmptyRequestsAskNothing(t *testing.T) {
	s := openURL(t, "postgres://nobody@127.0.0.1:1/nothing")
	if rows, err := s.GetProcessors(t.Context(), nil); err != nil || rows != nil {
		t.Errorf("GetProcessors: %v, %v", rows, err)
	}
	if rows, err := s.GetEdgeNodes(t.Context(), nil); err != nil || rows != nil {
		t.Errorf("GetEdgeNodes: %v, %v", rows, err)
	}
	if n, err := s.UpdateStatuses(t.Context(), nil); err != nil || n != 0 {
		t.Errorf("UpdateStatuses: %v, %v", n, err)
	}
	if n, err := s.SetSyncErrors(t.Context(), nil); err != nil || n != 0 {
		t.Errorf("SetSyncErrors: %v, %v", n, err)
	}
	if c, err := s.UpsertKubernetesProcessors(t.Context(), nil); err != nil || c != nil {
		t.Errorf("UpsertKubernetesProcessors: %v, %v", c, err)
	}
	if err := s.TerminateKubernetesProcessors(t.Context(), nil); err != nil {
		t.Errorf("TerminateKubernetesProcessors: %v", err)
	}
}

func TestAnyJSONLists(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "p")
	for _, config := range []string{`"text"`, `7`, `null`, `[1, 2]`, `true`, `{"env_vars": 3}`} {
		exec(t, conn, `UPDATE processor_template_versions SET runtime_config_template = $1::text::jsonb`, config)
		rows, err := s.ListProcessors(t.Context())
		if err != nil || len(rows) != 1 || string(rows[0].RuntimeConfig) != config {
			t.Errorf("%s: %+v, %v", config, rows, err)
		}
	}
}

func TestRowsShareWhatTheyJoin(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	exec(t, conn, `INSERT INTO sensors (id) VALUES ('s')`)
	insertProcessors(t, conn, "t", "a", "b")
	exec(t, conn, `UPDATE processors SET sensor_id = 's'`)
	rows, err := s.ListProcessors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if &rows[0].RuntimeConfig[0] != &rows[1].RuntimeConfig[0] || rows[0].Sensor != rows[1].Sensor {
		t.Error("two rows of one template and sensor hold two copies")
	}
}

func TestListEdgeNodes(t *testing.T) {
	s, conn := open(t)
	exec(t, conn, `INSERT INTO edge_nodes (id, organization_id, name) VALUES ($1, $2, 'a')`, edgeA, organization)
	exec(t, conn, `INSERT INTO edge_nodes (id, organization_id, name, status, failover_enabled, failover_target_node_id, last_heartbeat_at, k8s_node_name, sync_error)
		VALUES ($1, $2, 'b', 'decommissioned', true, $3, '2026-01-02T03:04:05Z', 'node-b', 'bad')`, edgeB, organization, edgeA)
	rows, err := s.ListEdgeNodes(t.Context())
	if err != nil || len(rows) != 2 {
		t.Fatalf("%+v, %v", rows, err)
	}
	a, b := rows[0], rows[1]
	if a.ID != edgeA || a.Status != EdgeNodeOnline || a.FailoverEnabled || a.FailoverTargetID != "" || !a.LastHeartbeatAt.IsZero() || !a.Desired() {
		t.Errorf("defaults: %+v", a)
	}
	if b.FailoverTargetID != edgeA || !b.FailoverEnabled || b.LastHeartbeatAt.UTC().Format("15:04:05") != "03:04:05" ||
		b.KubernetesNode != "node-b" || b.SyncError != "bad" || b.OrganizationID != organization || b.Desired() {
		t.Errorf("all set: %+v", b)
	}
	got, err := s.GetEdgeNodes(t.Context(), []string{edgeB, "not a uuid"})
	if diff := cmp.Diff([]EdgeNodeRow{b}, got); err != nil || diff != "" {
		t.Errorf("get: %v, -want +got\n%s", err, diff)
	}
}

func idsOf(rows []ProcessorRow) []string {
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	return ids
}

func BenchmarkListProcessors10000(b *testing.B) {
	s, conn := open(b)
	insertTemplate(b, conn, "t")
	insertProcessors(b, conn, "t", numbered("p", 10_000)...)
	exec(b, conn, "VACUUM (ANALYZE)") //nolint:misspell // PostgreSQL spells it so.
	b.ReportAllocs()
	for b.Loop() {
		rows, err := s.ListProcessors(b.Context())
		if err != nil || len(rows) != 10_000 {
			b.Fatalf("%d rows, %v", len(rows), err)
		}
	}
}
