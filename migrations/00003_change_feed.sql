-- Notifications on the channel dory_changes, for every change that can alter a pod. They are hints: lost
-- while nobody listens, so listeners read the tables, and read all of them now and then.
--   {"processors": ["a", "b"]}    read these again
--   {"edge_nodes": ["<uuid>"]}    and these
--   {"resync": true}              too many to list: read everything again

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION dory_notify(kind text, ids text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT AS -- for writers whose search_path is another
$$
DECLARE
    max_ids   CONSTANT int := 200;  -- above, reading everything is cheaper for all
    max_bytes CONSTANT int := 7000; -- PostgreSQL allows 7999 for a payload; the frame needs some
    id   text;
    item text;
    list text := '';
BEGIN
    IF cardinality(ids) > max_ids THEN
        PERFORM pg_notify('dory_changes', '{"resync":true}');
        RETURN;
    END IF;
    FOREACH id IN ARRAY coalesce(ids, '{}') LOOP
        item := to_json(id)::text;
        IF list <> '' AND octet_length(list) + octet_length(item) > max_bytes THEN
            PERFORM pg_notify('dory_changes', format('{"%s":[%s]}', kind, list));
            list := '';
        END IF;
        list := concat_ws(',', nullif(list, ''), item);
    END LOOP;
    IF list <> '' THEN
        PERFORM pg_notify('dory_changes', format('{"%s":[%s]}', kind, list));
    END IF;
END
$$;
-- +goose StatementEnd

-- Rows from Kubernetes are the operator's own writing and alter no pod; only rows that are or were from the
-- database are told. A full join also shows a changed id, as one row gone and one row new.
-- +goose StatementBegin
CREATE FUNCTION dory_processors_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT AS -- for writers whose search_path is another
$$
DECLARE
    ids text[];
BEGIN
    CASE TG_OP
        WHEN 'INSERT' THEN
            SELECT array_agg(id ORDER BY id) INTO ids FROM new_rows WHERE source = 'database';
        WHEN 'DELETE' THEN
            SELECT array_agg(id ORDER BY id) INTO ids FROM old_rows WHERE source = 'database';
        ELSE
            SELECT array_agg(id ORDER BY id) INTO ids
              FROM old_rows o
              FULL JOIN new_rows n USING (id)
             WHERE o.revision IS DISTINCT FROM n.revision
               AND 'database' IN (o.source, n.source);
    END CASE;
    PERFORM dory_notify('processors', ids);
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER processors_inserted AFTER INSERT ON processors
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_processors_changed();

CREATE TRIGGER processors_updated AFTER UPDATE ON processors
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_processors_changed();

CREATE TRIGGER processors_deleted AFTER DELETE ON processors
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_processors_changed();

-- Templates and sensors cannot be deleted while a processor refers to them, and nothing refers to them
-- when they are inserted; updates are all there is to tell. Versions tell through their template.
-- +goose StatementBegin
CREATE FUNCTION dory_templates_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT AS -- for writers whose search_path is another
$$
BEGIN
    PERFORM dory_notify('processors', (
        SELECT array_agg(p.id ORDER BY p.id)
          FROM old_rows o
          JOIN new_rows n USING (id)
          JOIN processors p ON p.processor_template_id = n.id
         WHERE o.revision <> n.revision
           AND p.source = 'database'
           AND p.status NOT IN ('terminated', 'failed')));
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER processor_templates_updated AFTER UPDATE ON processor_templates
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_templates_changed();

-- +goose StatementBegin
CREATE FUNCTION dory_sensors_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT AS -- for writers whose search_path is another
$$
BEGIN
    PERFORM dory_notify('processors', (
        SELECT array_agg(p.id ORDER BY p.id)
          FROM old_rows o
          JOIN new_rows n USING (id)
          JOIN processors p ON p.sensor_id = n.id
         WHERE o.revision <> n.revision
           AND p.source = 'database'
           AND p.status NOT IN ('terminated', 'failed')));
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER sensors_updated AFTER UPDATE ON sensors
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_sensors_changed();

-- +goose StatementBegin
CREATE FUNCTION dory_edge_nodes_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT AS -- for writers whose search_path is another
$$
DECLARE
    ids uuid[];
BEGIN
    CASE TG_OP
        WHEN 'INSERT' THEN
            SELECT array_agg(id ORDER BY id) INTO ids FROM new_rows;
        WHEN 'DELETE' THEN
            SELECT array_agg(id ORDER BY id) INTO ids FROM old_rows;
        ELSE
            SELECT array_agg(id ORDER BY id) INTO ids
              FROM old_rows o
              FULL JOIN new_rows n USING (id)
             WHERE o.revision IS DISTINCT FROM n.revision;
    END CASE;
    PERFORM dory_notify('edge_nodes', ids::text[]);
    PERFORM dory_notify('processors', (
        SELECT array_agg(p.id ORDER BY p.id)
          FROM processors p
         WHERE p.edge_node_id = ANY (ids)
           AND p.source = 'database'
           AND p.status NOT IN ('terminated', 'failed')));
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER edge_nodes_inserted AFTER INSERT ON edge_nodes
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_edge_nodes_changed();

CREATE TRIGGER edge_nodes_updated AFTER UPDATE ON edge_nodes
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_edge_nodes_changed();

CREATE TRIGGER edge_nodes_deleted AFTER DELETE ON edge_nodes
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_edge_nodes_changed();

-- TRUNCATE fires none of the triggers above.
-- +goose StatementBegin
CREATE FUNCTION dory_truncated() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT AS -- for writers whose search_path is another
$$
BEGIN
    PERFORM pg_notify('dory_changes', '{"resync":true}');
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER processors_truncated AFTER TRUNCATE ON processors
    FOR EACH STATEMENT EXECUTE FUNCTION dory_truncated();
CREATE TRIGGER processor_template_versions_truncated AFTER TRUNCATE ON processor_template_versions
    FOR EACH STATEMENT EXECUTE FUNCTION dory_truncated();
CREATE TRIGGER edge_nodes_truncated AFTER TRUNCATE ON edge_nodes
    FOR EACH STATEMENT EXECUTE FUNCTION dory_truncated();
