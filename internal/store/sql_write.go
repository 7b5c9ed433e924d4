package store

const setSyncErrorsSQL = `
UPDATE processors p
   SET sync_error = nullif(n.message, '')
  FROM unnest($1::text[], $2::text[]) AS n (id, message)
 WHERE p.id = n.id
   AND p.sync_error IS DISTINCT FROM nullif(n.message, '')`

const setEdgeNodeSyncErrorsSQL = `
UPDATE edge_nodes e
   SET sync_error = nullif(n.message, '')
  FROM unnest($1::text[], $2::text[]) AS n (id, message)
 WHERE e.id::text = n.id
   AND e.sync_error IS DISTINCT FROM nullif(n.message, '')`

// updateStatusesSQL leaves last_health_check_at out of the comparison: a check that found nothing new is no
// reason to write 10,000 rows. An epoch never falls: without an instance there is none to tell, and the last one
// stays.
const updateStatusesSQL = `
UPDATE processors p
   SET health_status        = nullif(n.health, ''),
       last_health_check_at = coalesce(n.checked, p.last_health_check_at),
       pod_name             = nullif(n.pod, ''),
       pod_ip               = nullif(n.ip, ''),
       node_name            = nullif(n.node, ''),
       phase                = nullif(n.phase, ''),
       epoch                = greatest(p.epoch, n.epoch),
       k8s_name             = coalesce(nullif(n.name, ''), p.k8s_name)
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[],
              $6::text[], $7::text[], $8::bigint[], $9::text[])
       AS n (id, health, checked, pod, ip, node, phase, epoch, name)
 WHERE p.id = n.id
   AND (p.health_status, p.pod_name, p.pod_ip, p.node_name, p.phase, p.epoch, p.k8s_name)
       IS DISTINCT FROM
       (nullif(n.health, ''), nullif(n.pod, ''), nullif(n.ip, ''), nullif(n.node, ''), nullif(n.phase, ''),
        greatest(p.epoch, n.epoch), coalesce(nullif(n.name, ''), p.k8s_name))`

// asOperator, as an item of FROM, tells the trigger that guards rows from Kubernetes who writes. It holds until
// the end of the transaction, and it is joined, so that it comes before any row is written.
const asOperator = `set_config('dory.writer', 'operator', true) AS writer`

// upsertKubernetesSQL answers the entries that it did not write because their id is another's. The guard on
// the conflict action is evaluated on the locked row, so two operators cannot overwrite each other; an entry
// that loses such a race is reported at the next call.
const upsertKubernetesSQL = `
WITH given AS (
    SELECT g.*
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
           AS g (id, namespace, name, image, node_type, position),
           ` + asOperator + `
), judged AS (
    SELECT g.*,
           CASE
               WHEN p.source = 'database' THEN 'a database row'
               WHEN p.status = 'terminated' OR p.id IS NULL THEN NULL
               WHEN (p.k8s_namespace, p.k8s_name) IS DISTINCT FROM (g.namespace, g.name)
                   THEN p.k8s_namespace || '/' || coalesce(p.k8s_name, '')
           END AS held_by
      FROM given g
      LEFT JOIN processors p ON p.id = g.id
), winners AS (
    SELECT DISTINCT ON (id) *
      FROM judged
     WHERE held_by IS NULL
     ORDER BY id, position
), written AS (
    INSERT INTO processors AS p (id, k8s_namespace, k8s_name, image_uri, node_type, source)
    SELECT id, namespace, name, nullif(image, ''), node_type, 'kubernetes'
      FROM winners
     ORDER BY id
        ON CONFLICT (id) DO UPDATE
       SET k8s_namespace = excluded.k8s_namespace,
           k8s_name      = excluded.k8s_name,
           image_uri     = excluded.image_uri,
           node_type     = excluded.node_type,
           status        = CASE WHEN p.status IN ('terminated', 'failed') THEN 'active' ELSE p.status END
     WHERE p.source = 'kubernetes'
       AND (p.status = 'terminated' OR (p.k8s_namespace, p.k8s_name) = (excluded.k8s_namespace, excluded.k8s_name))
       AND (p.status IN ('terminated', 'failed')
            OR (p.image_uri, p.node_type) IS DISTINCT FROM (excluded.image_uri, excluded.node_type))
)
SELECT j.id,
       j.namespace,
       j.name,
       j.image,
       j.node_type,
       coalesce(j.held_by, w.namespace || '/' || w.name)
  FROM judged j
  LEFT JOIN winners w ON w.id = j.id
 WHERE j.held_by IS NOT NULL
    OR (j.namespace, j.name) IS DISTINCT FROM (w.namespace, w.name)
 ORDER BY j.position`

const terminateKubernetesSQL = `
UPDATE processors p
   SET status = 'terminated'
  FROM unnest($1::text[], $2::text[], $3::text[]) AS n (id, namespace, name),
       ` + asOperator + `
 WHERE p.id = n.id
   AND p.source = 'kubernetes'
   AND p.k8s_namespace = n.namespace
   AND p.k8s_name = n.name
   AND p.status <> 'terminated'`

const issueEpochSQL = `
INSERT INTO processor_epochs AS e (processor_id, epoch, holder)
VALUES ($1, $2::bigint + 1, $3)
    ON CONFLICT (processor_id) DO UPDATE
   SET epoch     = greatest(e.epoch, $2::bigint) + 1,
       holder    = excluded.holder,
       issued_at = now()
RETURNING epoch`
