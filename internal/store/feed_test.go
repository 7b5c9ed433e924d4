package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// feed listens to the raw notifications of a database.
type feed struct {
	conn *pgx.Conn
}

func newFeed(t *testing.T, url string) *feed {
	t.Helper()
	f := &feed{conn: connect(t, url)}
	exec(t, f.conn, "LISTEN "+channel)
	return f
}

// payloads returns what was notified so far. A marker of our own ends the wait, because notifications keep
// the order of their commits.
func (f *feed) payloads(t *testing.T, writer *pgx.Conn) []string {
	t.Helper()
	exec(t, writer, `SELECT pg_notify($1, 'marker')`, channel)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	var all []string
	for {
		n, err := f.conn.WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n.Payload == "marker" {
			return all
		}
		all = append(all, n.Payload)
	}
}

// change sums up what was notified.
func (f *feed) change(t *testing.T, writer *pgx.Conn) Change {
	t.Helper()
	var sum Change
	for _, text := range f.payloads(t, writer) {
		var p payload
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		sum.Processors = append(sum.Processors, p.Processors...)
		sum.EdgeNodes = append(sum.EdgeNodes, p.EdgeNodes...)
		sum.Resync = sum.Resync || p.Resync
	}
	return sum
}

// feedFixture is a world in which each processor hangs on something else.
const feedFixture = `
INSERT INTO processor_templates (id, slug) VALUES ('t1', 'one'), ('t2', 'two'), ('t3', 'unused');
INSERT INTO processor_template_versions (id, processor_template_id, image_uri, version, is_active) VALUES
    ('t1v1', 't1', 'img1', '1', true), ('t1v2', 't1', 'img2', '2', false), ('t2v1', 't2', 'img', '1', true);
INSERT INTO sensors (id) VALUES ('s1'), ('s2');
INSERT INTO edge_nodes (id, organization_id, name) VALUES
    ('11111111-1111-4111-8111-111111111111', '0b0a7c66-6f0e-4f0c-9f61-0e8f3a3b1d11', 'a'),
    ('22222222-2222-4222-8222-222222222222', '0b0a7c66-6f0e-4f0c-9f61-0e8f3a3b1d11', 'b');
INSERT INTO processors (id, processor_template_id, sensor_id, node_type, edge_node_id, status) VALUES
    ('p1', 't1', 's1', 'managed', NULL, 'active'),
    ('p2', 't1', NULL, 'edge', '11111111-1111-4111-8111-111111111111', 'suspended'),
    ('p3', 't2', 's1', 'managed', NULL, 'active'),
    ('dead', 't1', 's1', 'edge', '11111111-1111-4111-8111-111111111111', 'terminated');
INSERT INTO processors (id, source, k8s_name) VALUES ('k1', 'kubernetes', 'k1');
`

func TestChangeFeed(t *testing.T) {
	none := Change{}
	processors := func(ids ...string) Change { return Change{Processors: ids} }
	cases := map[string]struct {
		sql  string
		want Change
	}{
		"processor inserted":                      {`INSERT INTO processors (id, processor_template_id) VALUES ('n', 't1')`, processors("n")},
		"processors inserted in one statement":    {`INSERT INTO processors (id, processor_template_id) VALUES ('n2', 't1'), ('n1', 't2')`, processors("n1", "n2")},
		"processor deleted":                       {`DELETE FROM processors WHERE id = 'p1'`, processors("p1")},
		"processor terminated":                    {`UPDATE processors SET status = 'terminated' WHERE id = 'p1'`, processors("p1")},
		"processor suspended":                     {`UPDATE processors SET status = 'suspended' WHERE id = 'p1'`, processors("p1")},
		"processor's template":                    {`UPDATE processors SET processor_template_id = 't2' WHERE id = 'p1'`, processors("p1")},
		"processor's sensor":                      {`UPDATE processors SET sensor_id = 's2' WHERE id = 'p1'`, processors("p1")},
		"processor's sensor removed":              {`UPDATE processors SET sensor_id = NULL WHERE id = 'p1'`, processors("p1")},
		"processor's node type":                   {`UPDATE processors SET node_type = 'edge' WHERE id = 'p1'`, processors("p1")},
		"processor's namespace":                   {`UPDATE processors SET k8s_namespace = 'other' WHERE id = 'p1'`, processors("p1")},
		"processor's edge node":                   {`UPDATE processors SET edge_node_id = '22222222-2222-4222-8222-222222222222' WHERE id = 'p2'`, processors("p2")},
		"processor's node selector":               {`UPDATE processors SET node_selector = '{"a": "b"}' WHERE id = 'p1'`, processors("p1")},
		"processor's id":                          {`UPDATE processors SET id = 'q1' WHERE id = 'p1'`, processors("p1", "q1")},
		"processor handed over to Kubernetes":     {`UPDATE processors SET source = 'kubernetes', processor_template_id = NULL, k8s_name = 'x' WHERE id = 'p1'`, processors("p1")},
		"processors updated, one of them changed": {`UPDATE processors SET sensor_id = 's1' WHERE id IN ('p1', 'p2')`, processors("p2")},
		"processor updated to what it is":         {`UPDATE processors SET status = status, node_type = 'managed' WHERE id = 'p1'`, none},
		"no processor updated":                    {`UPDATE processors SET status = 'failed' WHERE id = 'nobody'`, none},
		"all status columns written back": {`UPDATE processors SET health_status = 'healthy', last_health_check_at = now(), pod_name = 'p', pod_ip = '10.0.0.1',
			node_name = 'n', phase = 'Running', epoch = 7, sync_error = 'e', k8s_name = 'k' WHERE source = 'database'`, none},
		"row from Kubernetes inserted": {`INSERT INTO processors (id, source, k8s_name) VALUES ('k2', 'kubernetes', 'k2')`, none},
		"row from Kubernetes changed":  {`SET LOCAL dory.writer = 'operator'; UPDATE processors SET image_uri = 'img', status = 'terminated' WHERE id = 'k1'`, none},
		"row from Kubernetes deleted":  {`DELETE FROM processors WHERE id = 'k1'`, none},

		"version switched in one statement":    {`UPDATE processor_template_versions SET is_active = (version = '2') WHERE processor_template_id = 't1'`, processors("p1", "p2")},
		"active version's image":               {`UPDATE processor_template_versions SET image_uri = 'x' WHERE id = 't1v1'`, processors("p1", "p2")},
		"active version's config":              {`UPDATE processor_template_versions SET runtime_config_template = '{"a": 1}' WHERE id = 't2v1'`, processors("p3")},
		"active version's digest":              {`UPDATE processor_template_versions SET digest = '' WHERE id = 't2v1'`, processors("p3")},
		"active version deactivated":           {`UPDATE processor_template_versions SET is_active = false WHERE id = 't2v1'`, processors("p3")},
		"active version deleted":               {`DELETE FROM processor_template_versions WHERE id = 't2v1'`, processors("p3")},
		"active version inserted":              {`DELETE FROM processor_template_versions WHERE id = 't2v1'; INSERT INTO processor_template_versions (processor_template_id, image_uri, version, is_active) VALUES ('t2', 'i', '2', true)`, processors("p3")},
		"active version moved":                 {`DELETE FROM processor_template_versions WHERE id = 't2v1'; UPDATE processor_template_versions SET processor_template_id = 't2' WHERE id = 't1v1'`, processors("p1", "p2", "p3")},
		"inactive version inserted":            {`INSERT INTO processor_template_versions (processor_template_id, image_uri, version) VALUES ('t1', 'i', '3')`, none},
		"inactive version changed":             {`UPDATE processor_template_versions SET image_uri = 'x' WHERE id = 't1v2'`, none},
		"inactive version deleted":             {`DELETE FROM processor_template_versions WHERE id = 't1v2'`, none},
		"active version updated to what it is": {`UPDATE processor_template_versions SET image_uri = image_uri`, none},
		"active version of an unused template": {`INSERT INTO processor_template_versions (processor_template_id, image_uri, version, is_active) VALUES ('t3', 'i', '3', true)`, none},
		"template's slug":                      {`UPDATE processor_templates SET slug = 'x' WHERE id = 't1'`, processors("p1", "p2")},
		"template's name":                      {`UPDATE processor_templates SET name = 'x' WHERE id = 't1'`, none},
		"template deleted":                     {`DELETE FROM processor_templates WHERE id = 't3'`, none},
		"template deleted with its processors": {`DELETE FROM processors WHERE processor_template_id = 't1'; DELETE FROM processor_templates WHERE id = 't1'`, processors("dead", "p1", "p2")},

		"sensor's config":              {`UPDATE sensors SET config = '{"a": 1}' WHERE id = 's1'`, processors("p1", "p3")},
		"sensor's name":                {`UPDATE sensors SET name = 'x' WHERE id = 's1'`, processors("p1", "p3")},
		"sensor's type":                {`UPDATE sensors SET type = 'x' WHERE id = 's1'`, processors("p1", "p3")},
		"sensor's location":            {`UPDATE sensors SET location = 'x' WHERE id = 's1'`, processors("p1", "p3")},
		"sensor updated to what it is": {`UPDATE sensors SET location = location`, none},
		"unused sensor":                {`UPDATE sensors SET location = 'x' WHERE id = 's2'; DELETE FROM sensors WHERE id = 's2'; INSERT INTO sensors (id) VALUES ('s3')`, none},

		"edge node inserted":                    {`INSERT INTO edge_nodes (id, organization_id, name) VALUES ('33333333-3333-4333-8333-333333333333', gen_random_uuid(), 'c')`, Change{EdgeNodes: []string{"33333333-3333-4333-8333-333333333333"}}},
		"edge node deleted":                     {`DELETE FROM edge_nodes WHERE name = 'b'`, Change{EdgeNodes: []string{edgeB}}},
		"edge node's Kubernetes node":           {`UPDATE edge_nodes SET k8s_node_name = 'x' WHERE name = 'a'`, Change{EdgeNodes: []string{edgeA}, Processors: []string{"p2"}}},
		"edge node's name":                      {`UPDATE edge_nodes SET name = 'x' WHERE name = 'b'`, Change{EdgeNodes: []string{edgeB}}},
		"edge node's failover":                  {`UPDATE edge_nodes SET failover_enabled = true WHERE name = 'b'`, Change{EdgeNodes: []string{edgeB}}},
		"edge node's failover target":           {`UPDATE edge_nodes SET failover_target_node_id = '11111111-1111-4111-8111-111111111111' WHERE name = 'b'`, Change{EdgeNodes: []string{edgeB}}},
		"edge node decommissioned":              {`UPDATE edge_nodes SET status = 'decommissioned' WHERE name = 'b'`, Change{EdgeNodes: []string{edgeB}}},
		"edge node's status and heartbeat":      {`UPDATE edge_nodes SET status = 'offline', last_heartbeat_at = now(), sync_error = 'e'`, none},
		"epoch issued":                          {`INSERT INTO processor_epochs (processor_id, epoch) VALUES ('p1', 1)`, none},
		"processors truncated":                  {`TRUNCATE processors`, Change{Resync: true}},
		"many processors in one statement":      {`INSERT INTO processors (id, processor_template_id) SELECT 'm' || i, 't3' FROM generate_series(1, 201) i`, Change{Resync: true}},
		"status of many processors":             {`INSERT INTO processors (id, source, k8s_name) SELECT 'm' || i, 'kubernetes', 'x' FROM generate_series(1, 300) i; UPDATE processors SET phase = 'x'`, none},
		"changes of a transaction rolled back":  {`BEGIN; DELETE FROM processors; ROLLBACK`, none},
		"changes of a transaction that commits": {`BEGIN; UPDATE sensors SET name = 'x' WHERE id = 's1'; DELETE FROM processors WHERE id = 'p2'; COMMIT`, processors("p1", "p2", "p3")},
	}
	url := server.NewDatabase(t)
	writer := connect(t, url)
	f := newFeed(t, url)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			reset(t, writer)
			exec(t, writer, feedFixture)
			f.payloads(t, writer)
			exec(t, writer, c.sql)
			got := f.change(t, writer)
			slices.Sort(got.Processors)
			got.Processors = slices.Compact(got.Processors)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// reset empties all tables, past the triggers that refuse it: a fresh database for each case takes longer.
func reset(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, `SET session_replication_role = replica;
		TRUNCATE processors, processor_template_versions, processor_templates, sensors, edge_nodes, processor_epochs;
		RESET session_replication_role`)
}

// TestPayloadsFit covers ids of every length and awkwardness: quotes and control characters grow in JSON.
func TestPayloadsFit(t *testing.T) {
	url := server.NewDatabase(t)
	writer := connect(t, url)
	insertTemplate(t, writer, "t")
	f := newFeed(t, url)
	for _, letter := range []string{"a", "\U0001F600", "\x01", `"`, `\`, "é"} {
		ids := make([]string, 30)
		for i := range ids {
			ids[i] = fmt.Sprintf("%02d%s", i, strings.Repeat(letter, 510))
		}
		insertProcessors(t, writer, "t", ids...)
		var got []string
		for _, text := range f.payloads(t, writer) {
			if len(text) > 7999 {
				t.Errorf("%q: a payload of %d bytes", letter, len(text))
			}
			var p payload
			if err := json.Unmarshal([]byte(text), &p); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			got = append(got, p.Processors...)
		}
		if diff := cmp.Diff(ids, got); diff != "" {
			t.Errorf("%q: -want +got\n%s", letter, diff)
		}
		exec(t, writer, `DELETE FROM processors`)
		f.payloads(t, writer)
	}
}

func TestTwoHundredIDsAreListed(t *testing.T) {
	url := server.NewDatabase(t)
	writer := connect(t, url)
	insertTemplate(t, writer, "t")
	f := newFeed(t, url)
	insertProcessors(t, writer, "t", numbered("p", 200)...)
	if got := f.change(t, writer); got.Resync || len(got.Processors) != 200 {
		t.Errorf("resync %t, %d ids, want 200 ids", got.Resync, len(got.Processors))
	}
}

func TestRevisionRisesWithEveryDesiredChange(t *testing.T) {
	s, conn := open(t)
	exec(t, conn, feedFixture)
	revision := func() int64 {
		rows, err := s.GetProcessors(t.Context(), []string{"p1"})
		if err != nil || len(rows) != 1 {
			t.Fatalf("%+v, %v", rows, err)
		}
		return rows[0].Revision
	}
	last := revision()
	for _, sql := range []string{
		`UPDATE processors SET node_selector = '{"a": "b"}' WHERE id = 'p1'`,
		`UPDATE processor_template_versions SET is_active = (version = '2') WHERE processor_template_id = 't1'`,
		`UPDATE processor_template_versions SET is_active = (version = '1') WHERE processor_template_id = 't1'`,
		`DELETE FROM processor_template_versions WHERE is_active AND processor_template_id = 't1'`,
		`UPDATE processor_template_versions SET is_active = true WHERE id = 't1v2'`,
		`UPDATE sensors SET name = 'x' WHERE id = 's1'`,
		`UPDATE processors SET sensor_id = NULL WHERE id = 'p1'`,
		`UPDATE processor_templates SET slug = 'x' WHERE id = 't1'`,
		`UPDATE processors SET node_type = 'edge', edge_node_id = '11111111-1111-4111-8111-111111111111' WHERE id = 'p1'`,
		`UPDATE edge_nodes SET k8s_node_name = 'x' WHERE name = 'a'`,
	} {
		exec(t, conn, sql)
		if now := revision(); now <= last {
			t.Errorf("%s: revision %d after %d", sql, now, last)
		} else {
			last = now
		}
	}
	exec(t, conn, `UPDATE processors SET phase = 'x', sync_error = 'y', epoch = 4`)
	exec(t, conn, `UPDATE edge_nodes SET last_heartbeat_at = now(), status = 'offline'`)
	if now := revision(); now != last {
		t.Errorf("written back: revision %d, want %d", now, last)
	}
}
