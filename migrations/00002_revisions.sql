-- A revision for each row, raised by a change of the desired state and by nothing else.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION dory_raise_revision() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT AS -- for writers whose search_path is another
$$
BEGIN
    NEW.revision := nextval('dory_revision');
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
-- +goose StatementEnd

-- The lists below are the one place that says which columns can alter a pod. The change feed compares
-- revisions and so follows them. Columns that the operator writes back must never appear here.

CREATE TRIGGER processors_revision BEFORE UPDATE ON processors FOR EACH ROW
    WHEN ((OLD.id, OLD.processor_template_id, OLD.sensor_id, OLD.node_type, OLD.k8s_namespace, OLD.status,
           OLD.edge_node_id, OLD.node_selector, OLD.source, OLD.image_uri)
          IS DISTINCT FROM
          (NEW.id, NEW.processor_template_id, NEW.sensor_id, NEW.node_type, NEW.k8s_namespace, NEW.status,
           NEW.edge_node_id, NEW.node_selector, NEW.source, NEW.image_uri))
    EXECUTE FUNCTION dory_raise_revision();

CREATE TRIGGER processor_templates_revision BEFORE UPDATE ON processor_templates FOR EACH ROW
    WHEN ((OLD.id, OLD.slug) IS DISTINCT FROM (NEW.id, NEW.slug))
    EXECUTE FUNCTION dory_raise_revision();

CREATE TRIGGER processor_template_versions_revision BEFORE UPDATE ON processor_template_versions FOR EACH ROW
    WHEN ((OLD.id, OLD.processor_template_id, OLD.image_uri, OLD.digest, OLD.version, OLD.is_active,
           OLD.runtime_config_template)
          IS DISTINCT FROM
          (NEW.id, NEW.processor_template_id, NEW.image_uri, NEW.digest, NEW.version, NEW.is_active,
           NEW.runtime_config_template))
    EXECUTE FUNCTION dory_raise_revision();

CREATE TRIGGER sensors_revision BEFORE UPDATE ON sensors FOR EACH ROW
    WHEN ((OLD.id, OLD.name, OLD.type, OLD.location, OLD.config)
          IS DISTINCT FROM
          (NEW.id, NEW.name, NEW.type, NEW.location, NEW.config))
    EXECUTE FUNCTION dory_raise_revision();

-- Between online and offline nothing is desired anew: the operator writes these as heartbeats come and go.
CREATE TRIGGER edge_nodes_revision BEFORE UPDATE ON edge_nodes FOR EACH ROW
    WHEN ((OLD.id, OLD.organization_id, OLD.name, OLD.status = 'decommissioned', OLD.failover_enabled,
           OLD.failover_target_node_id, OLD.k8s_node_name)
          IS DISTINCT FROM
          (NEW.id, NEW.organization_id, NEW.name, NEW.status = 'decommissioned', NEW.failover_enabled,
           NEW.failover_target_node_id, NEW.k8s_node_name))
    EXECUTE FUNCTION dory_raise_revision();

-- A version that is gone or not active any more is not joined, so its revision cannot tell of it. The
-- template's does: it rises with every change of the active version. The same goes for notifications.
-- +goose StatementBegin
CREATE FUNCTION dory_active_version_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT AS -- for writers whose search_path is another
$$
DECLARE
    touched text[];
BEGIN
    CASE TG_OP
        WHEN 'INSERT' THEN
            SELECT array_agg(processor_template_id) INTO touched FROM new_rows WHERE is_active;
        WHEN 'DELETE' THEN
            SELECT array_agg(processor_template_id) INTO touched FROM old_rows WHERE is_active;
        ELSE
            SELECT array_agg(o.processor_template_id) || array_agg(n.processor_template_id) INTO touched
              FROM old_rows o
              FULL JOIN new_rows n USING (id)
             WHERE o.revision IS DISTINCT FROM n.revision
               AND (o.is_active OR n.is_active);
    END CASE;
    UPDATE processor_templates
       SET revision = nextval('dory_revision'), updated_at = now()
     WHERE id = ANY (touched);
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER processor_template_versions_inserted AFTER INSERT ON processor_template_versions
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_active_version_changed();

CREATE TRIGGER processor_template_versions_updated AFTER UPDATE ON processor_template_versions
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_active_version_changed();

CREATE TRIGGER processor_template_versions_deleted AFTER DELETE ON processor_template_versions
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION dory_active_version_changed();
