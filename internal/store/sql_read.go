package store

// selectProcessors joins what a Processor is made of. The columns are in the order of processorScan.row.
// Left joins keep a row whose template has no active version, so that its author can be told.
const selectProcessors = `
SELECT p.id,
       p.k8s_namespace,
       p.node_type,
       p.status,
       p.source,
       greatest(p.revision, t.revision, v.revision, s.revision, e.revision),
       coalesce(p.processor_template_id, ''),
       coalesce(t.slug, ''),
       coalesce(v.id, ''),
       coalesce(v.image_uri, p.image_uri, ''),
       coalesce(v.digest, ''),
       coalesce(v.version, ''),
       v.runtime_config_template::text,
       coalesce(p.sensor_id, ''),
       coalesce(s.id, ''),
       coalesce(s.name, ''),
       coalesce(s.type, ''),
       coalesce(s.location, ''),
       s.config::text,
       coalesce(e.id::text, ''),
       coalesce(e.name, ''),
       coalesce(e.k8s_node_name, ''),
       p.node_selector::text,
       coalesce(p.sync_error, ''),
       coalesce(p.k8s_name, '')
  FROM processors p
  LEFT JOIN processor_templates t ON t.id = p.processor_template_id
  LEFT JOIN processor_template_versions v ON v.processor_template_id = t.id AND v.is_active
  LEFT JOIN sensors s ON s.id = p.sensor_id
  LEFT JOIN edge_nodes e ON e.id = p.edge_node_id
 WHERE p.status NOT IN ('terminated', 'failed')`

const listProcessorsSQL = selectProcessors + `
 ORDER BY p.id`

const getProcessorsSQL = selectProcessors + `
   AND p.id = ANY ($1::text[])
 ORDER BY p.id`

const countProcessorsSQL = `
SELECT count(*) FILTER (WHERE source = 'database'),
       count(*) FILTER (WHERE source = 'database' AND status NOT IN ('terminated', 'failed')),
       count(*) FILTER (WHERE source = 'kubernetes')
  FROM processors`

// selectEdgeNodes has its columns in the order of scanEdgeNode.
const selectEdgeNodes = `
SELECT id::text,
       organization_id::text,
       name,
       status,
       failover_enabled,
       coalesce(failover_target_node_id::text, ''),
       last_heartbeat_at,
       coalesce(k8s_node_name, ''),
       coalesce(sync_error, ''),
       revision
  FROM edge_nodes`

const listEdgeNodesSQL = selectEdgeNodes + `
 ORDER BY id`

// getEdgeNodesSQL compares as text, so that an id that is no UUID is not found instead of an error. The
// table is small.
const getEdgeNodesSQL = selectEdgeNodes + `
 WHERE id::text = ANY ($1::text[])
 ORDER BY id`

const listKubernetesSQL = `
SELECT id,
       k8s_namespace,
       coalesce(k8s_name, ''),
       coalesce(image_uri, ''),
       node_type
  FROM processors
 WHERE source = 'kubernetes'
   AND status <> 'terminated'
 ORDER BY id`

const epochSQL = `
SELECT epoch
  FROM processor_epochs
 WHERE processor_id = $1`
