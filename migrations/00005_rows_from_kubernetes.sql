-- A row with source = kubernetes mirrors a Processor that was applied to Kubernetes. An edit of it would be lost
-- without a word: the operator writes back what the Processor says. So it is refused, and says what to edit.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION dory_refuse_edit_of_mirror() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT AS -- for writers whose search_path is another
$$
BEGIN
    -- The operator says so in its own statements, for one transaction at a time.
    IF current_setting('dory.writer', true) = 'operator' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'check_violation',
        CONSTRAINT = 'processors_from_kubernetes_are_edited_there',
        TABLE = 'processors',
        MESSAGE = format('the row of processor %L mirrors the Processor %s/%s of Kubernetes and does not decide about it: edit that Processor instead',
                         OLD.id, OLD.k8s_namespace, OLD.k8s_name),
        HINT = format('Use: kubectl edit processor %s --namespace %s. To let this row decide from now on, set source = ''database'', processor_template_id, and image_uri = NULL. To leave such rows out of a statement, add: WHERE source = ''database''.',
                      OLD.k8s_name, OLD.k8s_namespace);
END
$$;
-- +goose StatementEnd

-- The columns are those that raise the revision. A change of source is a handover, and allowed.
CREATE TRIGGER processors_from_kubernetes_are_edited_there BEFORE UPDATE ON processors FOR EACH ROW
    WHEN (OLD.source = 'kubernetes' AND NEW.source = 'kubernetes'
          AND (OLD.id, OLD.processor_template_id, OLD.sensor_id, OLD.node_type, OLD.k8s_namespace, OLD.status,
               OLD.edge_node_id, OLD.node_selector, OLD.image_uri)
              IS DISTINCT FROM
              (NEW.id, NEW.processor_template_id, NEW.sensor_id, NEW.node_type, NEW.k8s_namespace, NEW.status,
               NEW.edge_node_id, NEW.node_selector, NEW.image_uri))
    EXECUTE FUNCTION dory_refuse_edit_of_mirror();
