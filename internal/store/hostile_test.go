package store

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// hostileValues are SQL expressions for whatever a column of a type can be set to, once no constraint checks it. A type that
// is not here has not been thought about.
func hostileValues(dataType string) []string {
	common := []string{"NULL"}
	switch dataType {
	case "timestamp with time zone":
		return append(common, "'-infinity'", "'infinity'", "'4713-01-01 BC'", "'0001-01-01 BC'", "'10000-01-01'", "'294276-12-31'", "'epoch'")
	case "jsonb":
		return append(common, `'null'`, `'[]'`, `'"text"'`, `'1e400'`, `'{"container": {"port": 1e999}}'`, `'{"env_vars": {"A": 123456789012345678901234567890.5}}'`,
			`'{"a": "\u0001\u2028\ud83d\ude00"}'`, `(repeat('[', 3000) || repeat(']', 3000))::jsonb`,
			`(repeat('{"container":', 3000) || '1' || repeat('}', 3000))::jsonb`, `jsonb_build_object('env_vars', jsonb_build_object('A', repeat('x', 3000000)))`)
	case "text":
		return append(common, "''", "' '", "repeat('x', 3000000)", `E'\x01\n\t\u2028'`, "'💥'", `'$(A) $$ '''`, "'../..'", "'NaN'")
	case "bigint", "integer":
		return append(common, "9223372036854775807", "-9223372036854775808", "0", "-1")
	case "numeric", "double precision":
		return append(common, "'NaN'", "'Infinity'", "'-Infinity'")
	case "boolean":
		return append(common, "true", "false")
	case "uuid":
		return append(common, "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'")
	case "bytea":
		return append(common, `''`, `'\x00'`)
	}
	return nil
}

// anything takes whatever keeps hostile values out of the tables, as a restore without constraints does, or the next migration.
const anything = `
DO $$
DECLARE c record;
BEGIN
    FOR c IN SELECT conrelid::regclass AS relation, conname FROM pg_constraint
              WHERE connamespace = current_schema()::regnamespace AND contype IN ('c', 'f', 'x') LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.relation, c.conname);
    END LOOP;
    FOR c IN SELECT table_name, column_name FROM information_schema.columns i
              WHERE table_schema = current_schema() AND is_nullable = 'NO'
                AND NOT EXISTS (SELECT FROM information_schema.key_column_usage k
                                 WHERE k.table_name = i.table_name AND k.column_name = i.column_name) LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I DROP NOT NULL', c.table_name, c.column_name);
    END LOOP;
END
$$`

// readings are all ways to read the tables. Each answers the ids that it found, and whether the row is in order.
func readings(s *Store) map[string]func(context.Context) (map[string]error, error) {
	processors := func(rows []ProcessorRow, err error) (map[string]error, error) {
		found := map[string]error{}
		for _, r := range rows {
			found[r.ID] = r.Err
		}
		return found, err
	}
	edgeNodes := func(rows []EdgeNodeRow, err error) (map[string]error, error) {
		found := map[string]error{}
		for _, r := range rows {
			found[r.ID] = r.Err
		}
		return found, err
	}
	return map[string]func(context.Context) (map[string]error, error){
		"ListProcessors": func(ctx context.Context) (map[string]error, error) { return processors(s.ListProcessors(ctx)) },
		"GetProcessors": func(ctx context.Context) (map[string]error, error) {
			return processors(s.GetProcessors(ctx, []string{"good", "victim", "other"}))
		},
		"ListEdgeNodes": func(ctx context.Context) (map[string]error, error) { return edgeNodes(s.ListEdgeNodes(ctx)) },
		"GetEdgeNodes": func(ctx context.Context) (map[string]error, error) {
			return edgeNodes(s.GetEdgeNodes(ctx, []string{edgeA, edgeB}))
		},
		"ListKubernetesProcessors": func(ctx context.Context) (map[string]error, error) {
			rows, err := s.ListKubernetesProcessors(ctx)
			found := map[string]error{}
			for _, r := range rows {
				found[r.ID] = nil
			}
			return found, err
		},
		"Checkpoint": func(ctx context.Context) (map[string]error, error) {
			found := map[string]error{}
			for _, id := range []string{"good", "victim"} {
				c, err := s.Checkpoint(ctx, id)
				if id == "good" && (err != nil || c == nil) {
					return nil, fmt.Errorf("the other's checkpoint: %v, %w", c, err)
				}
				found[id] = err
			}
			return found, nil
		},
	}
}

func hostileRows(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, anything)
	exec(t, conn, `INSERT INTO processor_templates (id, slug) VALUES ('good', 'good'), ('victim', 'victim')`)
	exec(t, conn, `INSERT INTO processor_template_versions (id, processor_template_id, image_uri, version, is_active)
		VALUES ('good', 'good', 'image', '1', true), ('victim', 'victim', 'image', '1', true)`)
	exec(t, conn, `INSERT INTO sensors (id) VALUES ('good'), ('victim')`)
	exec(t, conn, `INSERT INTO edge_nodes (id, organization_id, name) VALUES ($1, $3, 'good'), ($2, $3, 'victim')`, edgeA, edgeB, organization)
	exec(t, conn, `INSERT INTO processors (id, processor_template_id, sensor_id, node_type, edge_node_id) VALUES
		('good', 'good', 'good', 'edge', $1), ('victim', 'victim', 'victim', 'edge', $2)`, edgeA, edgeB)
	exec(t, conn, `INSERT INTO processors (id, source, k8s_name, image_uri) VALUES ('other', 'kubernetes', 'other', 'image')`)
	exec(t, conn, `INSERT INTO processor_checkpoints (processor_id, namespace, epoch, sequence, captured_at, checksum, size_bytes, document)
		SELECT id, 'default', 1, 1, now(), 'x', 1, 'x' FROM unnest('{good,victim}'::text[]) id`)
	exec(t, conn, `SET session_replication_role = replica`)
}

// tablesRead are those that the operator reads rows of, and how each finds the row to spoil.
var tablesRead = map[string]string{
	"processors": "id = 'victim'", "processor_templates": "id = 'victim'", "processor_template_versions": "id = 'victim'",
	"sensors": "id = 'victim'", "edge_nodes": "id = '" + edgeB + "'", "processor_checkpoints": "processor_id = 'victim'",
}

// TestOneRowsValueStopsNoTable sets every column that there is to whatever its type can hold, one at a time.
func TestOneRowsValueStopsNoTable(t *testing.T) {
	s, conn := open(t)
	hostileRows(t, conn)
	rows, err := conn.Query(t.Context(), `SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = current_schema()`)
	if err != nil {
		t.Fatal(err)
	}
	type column struct{ Table, Name, Type string }
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, c := range columns {
		where, read := tablesRead[c.Table]
		if !read || strings.HasSuffix(c.Name, "_id") && c.Table == "processor_checkpoints" {
			continue
		}
		values := hostileValues(c.Type)
		if len(values) == 0 {
			t.Errorf("%s.%s has the type %s, for which no hostile value is known: add some", c.Table, c.Name, c.Type)
		}
		for _, value := range values {
			tried++
			spoil(t, s, conn, c.Table, c.Name, value, where)
		}
	}
	if tried < 200 {
		t.Errorf("only %d values were tried", tried)
	}
}

// spoil sets one value, reads everything, and sets it back.
func spoil(t *testing.T, s *Store, conn *pgx.Conn, table, column, value, where string) {
	t.Helper()
	exec(t, conn, fmt.Sprintf(`CREATE TEMP TABLE before AS SELECT * FROM %s WHERE %s`, table, where))
	spoilt, err := conn.Exec(t.Context(), fmt.Sprintf(`UPDATE %s SET %s = %s WHERE %s`, table, column, value, where))
	if err == nil && spoilt.RowsAffected() == 1 {
		for name, read := range readings(s) {
			found, err := read(t.Context())
			if err != nil {
				t.Errorf("%s.%s = %.60s: %s fails for all: %v", table, column, value, name, err)
				continue
			}
			for id, problem := range found {
				if (id == "good" || id == "other" || id == edgeA) && problem != nil {
					t.Errorf("%s.%s = %.60s: %s blames %s: %v", table, column, value, name, id, problem)
				}
			}
			checkComplete(t, fmt.Sprintf("%s.%s = %.60s: %s", table, column, value, name), name, found, table == "processors" && (column == "status" || column == "id"), column == "id")
		}
		exec(t, conn, fmt.Sprintf(`DELETE FROM %s WHERE ctid = (SELECT ctid FROM %s ORDER BY xmin::text::bigint DESC LIMIT 1)`, table, table))
		exec(t, conn, fmt.Sprintf(`INSERT INTO %s SELECT * FROM before`, table))
	}
	exec(t, conn, `DROP TABLE before`)
}

// checkComplete: a row that cannot be read still exists. One whose status or id is another one now need not.
func checkComplete(t *testing.T, what, reading string, found map[string]error, maybeUndesired, renamed bool) {
	t.Helper()
	want := map[string][]string{
		"ListProcessors": {"good", "other", "victim"}, "GetProcessors": {"good", "other", "victim"},
		"ListEdgeNodes": {edgeA, edgeB}, "GetEdgeNodes": {edgeA, edgeB}, "ListKubernetesProcessors": {"other"}, "Checkpoint": {"good"},
	}[reading]
	for _, id := range want {
		_, there := found[id]
		theVictim := id == "victim" || id == edgeB
		if !there && (!theVictim || !maybeUndesired && !renamed) {
			t.Errorf("%s misses %s, as if it was deleted", what, id)
		}
	}
}

func TestWhatCannotBeReadIsNamed(t *testing.T) {
	s, conn := open(t)
	hostileRows(t, conn)
	exec(t, conn, `UPDATE processors SET k8s_namespace = NULL WHERE id = 'victim'`)
	exec(t, conn, `UPDATE edge_nodes SET failover_enabled = NULL, last_heartbeat_at = '-infinity' WHERE id = $1`, edgeB)
	rows, err := s.ListProcessors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if says := fmt.Sprint(r.Err); (r.ID == "victim") != strings.Contains(says, "column k8s_namespace cannot be read") {
			t.Errorf("%s: %s", r.ID, says)
		}
	}
	nodes, err := s.ListEdgeNodes(t.Context())
	if err != nil || len(nodes) != 2 {
		t.Fatal(nodes, err)
	}
	bad := nodes[1]
	if bad.ID != edgeB || bad.Err == nil || !strings.Contains(bad.Err.Error(), "failover_enabled") || strings.Contains(bad.Err.Error(), "heartbeat") || bad.Name != "victim" || !bad.Desired() {
		t.Errorf("%+v", bad)
	}
}

func TestMomentsOfNoCalendarAreNone(t *testing.T) {
	s, conn := open(t)
	hostileRows(t, conn)
	for value, want := range map[string]bool{"-infinity": false, "infinity": false, "4713-01-01 BC": false, "10000-01-01": false, "2026-11-30": true, "0001-01-02": true, "9999-12-31": true} {
		exec(t, conn, `UPDATE edge_nodes SET last_heartbeat_at = $1::text::timestamptz`, value)
		exec(t, conn, `UPDATE processor_checkpoints SET captured_at = $1::text::timestamptz`, value)
		nodes, err := s.ListEdgeNodes(t.Context())
		if err != nil || nodes[0].LastHeartbeatAt.IsZero() == want || nodes[0].Err != nil {
			t.Errorf("%s: %+v, %v", value, nodes, err)
		}
		info, err := s.CheckpointInfo(t.Context(), "good")
		if err != nil || info == nil || info.CapturedAt.IsZero() == want {
			t.Errorf("%s: %+v, %v", value, info, err)
		}
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}
