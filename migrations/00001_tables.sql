-- The tables of the processor contract, plus what the operator needs to keep them and Kubernetes in step.
-- Names of constraints are sentences: they are what the author of a refused row gets to read.

-- +goose Up

-- One sequence for the revisions of all tables: the greatest revision of joined rows then rises with every
-- change of any of them.
CREATE SEQUENCE dory_revision AS bigint;

CREATE TABLE processor_templates (
    id          text        NOT NULL DEFAULT gen_random_uuid()::text,
    slug        text        NOT NULL,
    name        text        NOT NULL DEFAULT '',
    revision    bigint      NOT NULL DEFAULT nextval('dory_revision'),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT processor_templates_pkey PRIMARY KEY (id),
    CONSTRAINT processor_templates_slug_is_unique UNIQUE (slug),
    CONSTRAINT processor_templates_id_has_1_to_512_characters CHECK (char_length(id) BETWEEN 1 AND 512),
    CONSTRAINT processor_templates_slug_is_not_empty CHECK (slug <> '')
);

CREATE TABLE processor_template_versions (
    id                      text        NOT NULL DEFAULT gen_random_uuid()::text,
    processor_template_id   text        NOT NULL,
    image_uri               text        NOT NULL,
    digest                  text,
    version                 text        NOT NULL,
    is_active               boolean     NOT NULL DEFAULT false,
    runtime_config_template jsonb       NOT NULL DEFAULT '{}',
    revision                bigint      NOT NULL DEFAULT nextval('dory_revision'),
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT processor_template_versions_pkey PRIMARY KEY (id),
    CONSTRAINT processor_template_versions_template_must_exist
        FOREIGN KEY (processor_template_id) REFERENCES processor_templates (id) ON DELETE CASCADE,
    CONSTRAINT processor_template_versions_version_is_unique_in_its_template
        UNIQUE (processor_template_id, version),
    -- What a partial unique index says, but checked at the end of the statement, so that one UPDATE can
    -- switch from one version to another: SET is_active = (version = '2').
    CONSTRAINT processor_template_versions_one_active_version_per_template
        EXCLUDE USING btree (processor_template_id WITH =) WHERE (is_active) DEFERRABLE INITIALLY IMMEDIATE,
    CONSTRAINT processor_template_versions_image_uri_is_not_empty CHECK (image_uri <> ''),
    CONSTRAINT processor_template_versions_version_is_not_empty CHECK (version <> ''),
    CONSTRAINT processor_template_versions_digest_is_algorithm_colon_hex
        CHECK (digest = '' OR digest ~ '^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$')
);

CREATE TABLE sensors (
    id          text        NOT NULL DEFAULT gen_random_uuid()::text,
    name        text        NOT NULL DEFAULT '',
    type        text        NOT NULL DEFAULT '',
    location    text        NOT NULL DEFAULT '',
    config      jsonb       NOT NULL DEFAULT '{}',
    revision    bigint      NOT NULL DEFAULT nextval('dory_revision'),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT sensors_pkey PRIMARY KEY (id),
    CONSTRAINT sensors_id_has_1_to_512_characters CHECK (char_length(id) BETWEEN 1 AND 512),
    CONSTRAINT sensors_config_is_a_json_object CHECK (jsonb_typeof(config) = 'object')
);

CREATE TABLE edge_nodes (
    id                      uuid        NOT NULL DEFAULT gen_random_uuid(),
    organization_id         uuid        NOT NULL,
    name                    text        NOT NULL,
    status                  text        NOT NULL DEFAULT 'online',
    failover_enabled        boolean     NOT NULL DEFAULT false,
    failover_target_node_id uuid,
    last_heartbeat_at       timestamptz,
    k8s_node_name           text,
    sync_error              text,
    revision                bigint      NOT NULL DEFAULT nextval('dory_revision'),
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT edge_nodes_pkey PRIMARY KEY (id),
    CONSTRAINT edge_nodes_failover_target_must_exist
        FOREIGN KEY (failover_target_node_id) REFERENCES edge_nodes (id),
    CONSTRAINT edge_nodes_failover_target_is_another_node CHECK (failover_target_node_id <> id),
    CONSTRAINT edge_nodes_name_is_not_empty CHECK (name <> ''),
    CONSTRAINT edge_nodes_status_is_online_offline_or_decommissioned
        CHECK (status IN ('online', 'offline', 'decommissioned'))
);

-- A decommissioned node keeps its row, and its name may be given again.
CREATE UNIQUE INDEX edge_nodes_name_is_unique_in_its_organization
    ON edge_nodes (organization_id, name) WHERE status <> 'decommissioned';

-- For the foreign key's check when a node is deleted.
CREATE INDEX edge_nodes_by_failover_target
    ON edge_nodes (failover_target_node_id) WHERE failover_target_node_id IS NOT NULL;

CREATE TABLE processors (
    id                    text        NOT NULL DEFAULT gen_random_uuid()::text,
    processor_template_id text,
    sensor_id             text,
    node_type             text        NOT NULL DEFAULT 'managed',
    k8s_namespace         text        NOT NULL DEFAULT 'default',
    status                text        NOT NULL DEFAULT 'active',
    edge_node_id          uuid,
    node_selector         jsonb,
    source                text        NOT NULL DEFAULT 'database',
    image_uri             text,
    revision              bigint      NOT NULL DEFAULT nextval('dory_revision'),
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),
    health_status         text,
    last_health_check_at  timestamptz,
    k8s_name              text,
    pod_name              text,
    pod_ip                text,
    node_name             text,
    phase                 text,
    epoch                 bigint      NOT NULL DEFAULT 0,
    sync_error            text,

    CONSTRAINT processors_pkey PRIMARY KEY (id),
    CONSTRAINT processors_template_must_exist
        FOREIGN KEY (processor_template_id) REFERENCES processor_templates (id),
    CONSTRAINT processors_sensor_must_exist FOREIGN KEY (sensor_id) REFERENCES sensors (id),
    CONSTRAINT processors_edge_node_must_exist FOREIGN KEY (edge_node_id) REFERENCES edge_nodes (id),
    -- Ids appear in notifications, which hold 8000 bytes.
    CONSTRAINT processors_id_has_1_to_512_characters CHECK (char_length(id) BETWEEN 1 AND 512),
    CONSTRAINT processors_node_type_is_managed_or_edge CHECK (node_type IN ('managed', 'edge')),
    CONSTRAINT processors_k8s_namespace_is_a_dns_label
        CHECK (k8s_namespace ~ '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$'),
    CONSTRAINT processors_status_is_known
        CHECK (status IN ('pending', 'active', 'running', 'suspended', 'terminated', 'failed')),
    CONSTRAINT processors_edge_node_id_only_with_node_type_edge
        CHECK (edge_node_id IS NULL OR node_type = 'edge'),
    CONSTRAINT processors_node_selector_is_a_json_object CHECK (jsonb_typeof(node_selector) = 'object'),
    CONSTRAINT processors_source_is_database_or_kubernetes CHECK (source IN ('database', 'kubernetes')),
    CONSTRAINT processors_from_database_have_a_template
        CHECK (source <> 'database' OR processor_template_id IS NOT NULL),
    CONSTRAINT processors_from_kubernetes_have_no_template
        CHECK (source <> 'kubernetes' OR processor_template_id IS NULL),
    CONSTRAINT processors_from_kubernetes_have_a_k8s_name
        CHECK (source <> 'kubernetes' OR k8s_name IS NOT NULL),
    CONSTRAINT processors_image_uri_only_from_kubernetes
        CHECK (source = 'kubernetes' OR image_uri IS NULL),
    CONSTRAINT processors_epoch_is_not_negative CHECK (epoch >= 0)
) WITH (fillfactor = 80); -- Room in each page, so that the status written back touches no index.

CREATE INDEX processors_by_template ON processors (processor_template_id);
CREATE INDEX processors_by_sensor ON processors (sensor_id) WHERE sensor_id IS NOT NULL;
CREATE INDEX processors_by_edge_node ON processors (edge_node_id) WHERE edge_node_id IS NOT NULL;

COMMENT ON TABLE processors IS 'One row is one processor: exactly one active instance, kept alive by the Dory operator.';
COMMENT ON COLUMN processors.status IS 'Yours. terminated and failed remove the processor, suspended removes its pod, the others run it.';
COMMENT ON COLUMN processors.source IS 'database: this row decides. kubernetes: written by the operator for a Processor applied to Kubernetes; edit that instead.';
COMMENT ON COLUMN processors.image_uri IS 'Of rows from Kubernetes only, for the listing; others take the image of the active template version.';
COMMENT ON COLUMN processors.node_selector IS 'Labels that the node must have, on top of those of the node_type: {"name": "value"}.';
COMMENT ON COLUMN processors.revision IS 'Rises with every change of the desired state; maintained by a trigger.';
COMMENT ON COLUMN processors.updated_at IS 'Last change of the desired state; maintained by a trigger.';
COMMENT ON COLUMN processors.health_status IS 'Written by the operator.';
COMMENT ON COLUMN processors.last_health_check_at IS 'Written by the operator, together with a change of the health or the place.';
COMMENT ON COLUMN processors.k8s_name IS 'Written by the operator: name of the Processor object, which differs from an id that is no legal name.';
COMMENT ON COLUMN processors.pod_name IS 'Written by the operator.';
COMMENT ON COLUMN processors.pod_ip IS 'Written by the operator.';
COMMENT ON COLUMN processors.node_name IS 'Written by the operator: the Kubernetes node.';
COMMENT ON COLUMN processors.phase IS 'Written by the operator.';
COMMENT ON COLUMN processors.epoch IS 'Written by the operator, for readers; processor_epochs is the fence.';
COMMENT ON COLUMN processors.sync_error IS 'Written by the operator: why this row could not become a Processor. NULL is well.';
COMMENT ON COLUMN processor_template_versions.is_active IS 'At most one version of a template is active; its processors run that one.';
COMMENT ON COLUMN edge_nodes.k8s_node_name IS 'Name of the Kubernetes node; NULL means the same as name.';
COMMENT ON COLUMN edge_nodes.status IS 'decommissioned removes the node; online and offline are written by the operator.';
COMMENT ON COLUMN edge_nodes.failover_target_node_id IS 'Where processors go when the node is lost; NULL means the cloud.';
