-- A node at the edge, by the name that it has in Kubernetes, and a processor that belongs there.
BEGIN;

INSERT INTO edge_nodes (id, organization_id, name, k8s_node_name)
VALUES ('0b0e3c4e-7d7a-4c55-9a31-5f2f6a1d0001', '6f1c7c0e-8a52-4d54-9a53-0a2b1c3d4e5f', 'gatehouse', :'node')
ON CONFLICT (id) DO UPDATE SET name = excluded.name, k8s_node_name = excluded.k8s_node_name, status = 'online';

INSERT INTO processors (id, processor_template_id, k8s_namespace, node_type, edge_node_id)
VALUES ('gate', 'counter', 'dory-demo', 'edge', '0b0e3c4e-7d7a-4c55-9a31-5f2f6a1d0001')
ON CONFLICT (id) DO UPDATE
    SET processor_template_id = excluded.processor_template_id, k8s_namespace = excluded.k8s_namespace,
        node_type = excluded.node_type, edge_node_id = excluded.edge_node_id, status = 'active';

COMMIT;
