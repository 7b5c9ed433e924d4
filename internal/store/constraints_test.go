package store

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestConstraints has a bad row for each constraint, and what its author gets to read.
func TestConstraints(t *testing.T) {
	cases := map[string]struct {
		sql  string
		want string // name of the constraint, or part of the message
	}{
		"template's id empty":               {`INSERT INTO processor_templates (id, slug) VALUES ('', 's')`, "processor_templates_id_has_1_to_512_characters"},
		"template's slug empty":             {`INSERT INTO processor_templates (slug) VALUES ('')`, "processor_templates_slug_is_not_empty"},
		"template's slug taken":             {`INSERT INTO processor_templates (slug) VALUES ('one')`, "processor_templates_slug_is_unique"},
		"template deleted while in use":     {`DELETE FROM processor_templates WHERE id = 't1'`, "processors_template_must_exist"},
		"version of no template":            {`INSERT INTO processor_template_versions (processor_template_id, image_uri, version) VALUES ('x', 'i', '1')`, "processor_template_versions_template_must_exist"},
		"version taken":                     {`INSERT INTO processor_template_versions (processor_template_id, image_uri, version) VALUES ('t1', 'i', '1')`, "processor_template_versions_version_is_unique_in_its_template"},
		"version's name empty":              {`INSERT INTO processor_template_versions (processor_template_id, image_uri, version) VALUES ('t1', 'i', '')`, "processor_template_versions_version_is_not_empty"},
		"second active version":             {`UPDATE processor_template_versions SET is_active = true WHERE id = 't1v2'`, "processor_template_versions_one_active_version_per_template"},
		"second active version inserted":    {`INSERT INTO processor_template_versions (processor_template_id, image_uri, version, is_active) VALUES ('t1', 'i', '3', true)`, "processor_template_versions_one_active_version_per_template"},
		"version without image":             {`UPDATE processor_template_versions SET image_uri = ''`, "processor_template_versions_image_uri_is_not_empty"},
		"version with a bad digest":         {`UPDATE processor_template_versions SET digest = 'sha256:abc'`, "processor_template_versions_digest_is_algorithm_colon_hex"},
		"broken JSON in a version":          {`UPDATE processor_template_versions SET runtime_config_template = '{"a": '`, "invalid input syntax for type json"},
		"sensor's id empty":                 {`INSERT INTO sensors (id) VALUES ('')`, "sensors_id_has_1_to_512_characters"},
		"sensor's config a list":            {`UPDATE sensors SET config = '[]'`, "sensors_config_is_a_json_object"},
		"sensor deleted while in use":       {`DELETE FROM sensors WHERE id = 's1'`, "processors_sensor_must_exist"},
		"edge node's name empty":            {`UPDATE edge_nodes SET name = ''`, "edge_nodes_name_is_not_empty"},
		"edge node's name taken":            {`UPDATE edge_nodes SET name = 'a'`, "edge_nodes_name_is_unique_in_its_organization"},
		"edge node's id no UUID":            {`INSERT INTO edge_nodes (id, organization_id, name) VALUES ('x', gen_random_uuid(), 'n')`, "invalid input syntax for type uuid"},
		"edge node's status":                {`UPDATE edge_nodes SET status = 'lost'`, "edge_nodes_status_is_online_offline_or_decommissioned"},
		"edge node fails over to itself":    {`UPDATE edge_nodes SET failover_target_node_id = id`, "edge_nodes_failover_target_is_another_node"},
		"edge node fails over to nowhere":   {`UPDATE edge_nodes SET failover_target_node_id = gen_random_uuid()`, "edge_nodes_failover_target_must_exist"},
		"edge node deleted while in use":    {`DELETE FROM edge_nodes WHERE name = 'a'`, "processors_edge_node_must_exist"},
		"processor's id empty":              {`INSERT INTO processors (id, processor_template_id) VALUES ('', 't1')`, "processors_id_has_1_to_512_characters"},
		"processor's id too long":           {`INSERT INTO processors (id, processor_template_id) VALUES (repeat('x', 513), 't1')`, "processors_id_has_1_to_512_characters"},
		"processor's id taken":              {`INSERT INTO processors (id, processor_template_id) VALUES ('p1', 't1')`, "processors_pkey"},
		"processor of an unknown template":  {`INSERT INTO processors (id, processor_template_id) VALUES ('x', 'no-such')`, "processors_template_must_exist"},
		"processor without template":        {`INSERT INTO processors (id) VALUES ('x')`, "processors_from_database_have_a_template"},
		"processor with unknown sensor":     {`UPDATE processors SET sensor_id = 'x' WHERE id = 'p1'`, "processors_sensor_must_exist"},
		"processor on unknown edge node":    {`UPDATE processors SET edge_node_id = gen_random_uuid() WHERE id = 'p2'`, "processors_edge_node_must_exist"},
		"managed processor on edge node":    {`UPDATE processors SET node_type = 'managed' WHERE id = 'p2'`, "processors_edge_node_id_only_with_node_type_edge"},
		"processor's node type":             {`UPDATE processors SET node_type = 'cloud'`, "processors_node_type_is_managed_or_edge"},
		"processor's namespace":             {`UPDATE processors SET k8s_namespace = 'Not_A_Namespace'`, "processors_k8s_namespace_is_a_dns_label"},
		"processor's namespace too long":    {`UPDATE processors SET k8s_namespace = repeat('a', 64)`, "processors_k8s_namespace_is_a_dns_label"},
		"processor's status":                {`UPDATE processors SET status = 'stopped'`, "processors_status_is_known"},
		"processor's selector a list":       {`UPDATE processors SET node_selector = '["a"]'`, "processors_node_selector_is_a_json_object"},
		"processor's source":                {`UPDATE processors SET source = 'file'`, "processors_source_is_database_or_kubernetes"},
		"processor's own image":             {`UPDATE processors SET image_uri = 'i' WHERE id = 'p1'`, "processors_image_uri_only_from_kubernetes"},
		"processor's epoch":                 {`UPDATE processors SET epoch = -1`, "processors_epoch_is_not_negative"},
		"Kubernetes row with template":      {`UPDATE processors SET processor_template_id = 't1' WHERE id = 'k1'`, "processors_from_kubernetes_are_edited_there"},
		"Kubernetes row made with template": {`INSERT INTO processors (id, source, k8s_name, processor_template_id) VALUES ('k2', 'kubernetes', 'k2', 't1')`, "processors_from_kubernetes_have_no_template"},
		"Kubernetes row without name":       {`UPDATE processors SET k8s_name = NULL WHERE id = 'k1'`, "processors_from_kubernetes_have_a_k8s_name"},
		"epoch zero":                        {`INSERT INTO processor_epochs (processor_id, epoch) VALUES ('x', 0)`, "processor_epochs_epoch_is_positive"},
		"epoch falls":                       {`UPDATE processor_epochs SET epoch = 4`, "processor_epochs_never_fall"},
		"epoch given to another":            {`UPDATE processor_epochs SET processor_id = 'p2'`, "processor_epochs_never_fall"},
		"epoch deleted":                     {`DELETE FROM processor_epochs`, "processor_epochs_never_fall"},
		"epochs truncated":                  {`TRUNCATE processor_epochs`, "processor_epochs_never_fall"},
	}
	conn := connect(t, server.NewDatabase(t))
	exec(t, conn, feedFixture)
	exec(t, conn, `INSERT INTO processor_epochs (processor_id, epoch) VALUES ('p1', 5)`)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := conn.Exec(t.Context(), c.sql)
			var pgErr *pgconn.PgError
			if !errors.As(err, &pgErr) {
				t.Fatalf("no error of the server: %v", err)
			}
			if pgErr.ConstraintName != c.want {
				wantContains(t, err, c.want)
			}
		})
	}
}

// TestOddButGood has rows that must not be refused.
func TestOddButGood(t *testing.T) {
	cases := map[string]string{
		"ids of any kind": `INSERT INTO processors (id, processor_template_id) VALUES
			('Proc_6', 't1'), ('with space', 't1'), ('日本', 't1'), (repeat('x', 512), 't1'), ('-', 't1')`,
		"ids by default":                    `INSERT INTO processors (processor_template_id) VALUES ('t1'), ('t1')`,
		"a template without version":        `INSERT INTO processors (processor_template_id) VALUES ('t3')`,
		"an edge processor without node":    `INSERT INTO processors (processor_template_id, node_type) VALUES ('t1', 'edge')`,
		"a digest":                          `UPDATE processor_template_versions SET digest = 'sha256:' || repeat('0a', 32)`,
		"a name given again":                `UPDATE edge_nodes SET status = 'decommissioned' WHERE name = 'a'; UPDATE edge_nodes SET name = 'a' WHERE name = 'b'`,
		"the same name elsewhere":           `INSERT INTO edge_nodes (organization_id, name) VALUES (gen_random_uuid(), 'a')`,
		"a switch of versions in two steps": `BEGIN; UPDATE processor_template_versions SET is_active = false WHERE id = 't1v1'; UPDATE processor_template_versions SET is_active = true WHERE id = 't1v2'; COMMIT`,
		"an epoch that stays":               `UPDATE processor_epochs SET epoch = 5, holder = 'x'`,
		"an epoch that rises":               `UPDATE processor_epochs SET epoch = 9`,
		"a config of 1 MB":                  `UPDATE processor_template_versions SET runtime_config_template = jsonb_build_object('env_vars', jsonb_build_object('X', repeat('x', 1 << 20)))`,
	}
	conn := connect(t, server.NewDatabase(t))
	for name, sql := range cases {
		t.Run(name, func(t *testing.T) {
			reset(t, conn)
			exec(t, conn, feedFixture)
			exec(t, conn, `INSERT INTO processor_epochs (processor_id, epoch) VALUES ('p1', 5)`)
			exec(t, conn, sql)
		})
	}
}

// TestNamesAreWhole finds names that PostgreSQL cut off at 63 characters.
func TestNamesAreWhole(t *testing.T) {
	conn := connect(t, server.NewDatabase(t))
	got := value(t, conn, `SELECT coalesce(string_agg(name, ', '), 'none') FROM (
		SELECT conname::text AS name FROM pg_constraint UNION SELECT relname::text FROM pg_class UNION SELECT tgname::text FROM pg_trigger
	) names WHERE octet_length(name) >= 63`)
	if got != "none" {
		t.Errorf("cut off: %s", got)
	}
}

// TestForeignKeysAreIndexed keeps the deletion of a referenced row from scanning the table that refers to it.
func TestForeignKeysAreIndexed(t *testing.T) {
	conn := connect(t, server.NewDatabase(t))
	got := value(t, conn, `SELECT coalesce(string_agg(c.conname::text, ', '), 'none') FROM pg_constraint c
		WHERE c.contype = 'f' AND NOT EXISTS (
			SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])`)
	if got != "none" {
		t.Errorf("foreign keys without an index: %s", got)
	}
}
