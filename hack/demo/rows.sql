-- A template, two versions of it of which one is active, and the processors that are made from it. It can be run again:
-- everything goes back to how it is here.
BEGIN;

INSERT INTO processor_templates (id, slug, name)
VALUES ('counter', 'counter', 'Counts, and keeps a hash chain over every iteration')
ON CONFLICT (id) DO UPDATE SET slug = excluded.slug, name = excluded.name;

INSERT INTO processor_template_versions (id, processor_template_id, image_uri, version, runtime_config_template)
SELECT 'counter-' || version, 'counter', :'image', version, jsonb_build_object(
           'env_vars', jsonb_build_object('COUNTER_INTERVAL', '200ms', 'COUNTER_LABEL', 'version ' || version),
           'container', jsonb_build_object('image_pull_policy', 'IfNotPresent'),
           'resources', jsonb_build_object('cpu_request', '50m', 'memory_request', '64Mi',
                                           'cpu_limit', '500m', 'memory_limit', '128Mi'),
           'health_probes', jsonb_build_object('initial_delay_sec', 5))
  FROM unnest(ARRAY ['1', '2']) AS version
ON CONFLICT (id) DO UPDATE
    SET image_uri = excluded.image_uri, runtime_config_template = excluded.runtime_config_template;

UPDATE processor_template_versions SET is_active = (version = '1') WHERE processor_template_id = 'counter';

INSERT INTO sensors (id, name, type, location)
VALUES ('camera-7', 'Camera at the north gate', 'camera', 'north gate')
ON CONFLICT (id) DO NOTHING;

-- Proc_6 is no name that Kubernetes would accept. It stays the id all the same.
INSERT INTO processors (id, processor_template_id, sensor_id, k8s_namespace)
VALUES ('orders', 'counter', NULL, 'dory-demo'),
       ('camera-north', 'counter', 'camera-7', 'dory-demo'),
       ('Proc_6', 'counter', NULL, 'dory-demo')
ON CONFLICT (id) DO UPDATE
    SET processor_template_id = excluded.processor_template_id, sensor_id = excluded.sensor_id,
        k8s_namespace = excluded.k8s_namespace, status = 'active';

COMMIT;
