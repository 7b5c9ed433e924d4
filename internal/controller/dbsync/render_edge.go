package dbsync

import (
	"cmp"
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
)

// maxNodeNameLength is the API's bound.
const maxNodeNameLength = 253

// RenderEdgeNode makes the EdgeNode of a database row. failoverTarget is the row that failover_target_node_id
// names, nil if it names none.
func RenderEdgeNode(row store.EdgeNodeRow, failoverTarget *store.EdgeNodeRow) (*doryv1alpha1.EdgeNode, error) {
	nodeName := cmp.Or(row.KubernetesNode, row.Name)
	if len(nodeName) > maxNodeNameLength {
		return nil, fmt.Errorf("the node's name %q is %d characters long, and the limit is %d: set k8s_node_name to the name of the Kubernetes node", shorten(nodeName), len(nodeName), maxNodeNameLength)
	}
	target, err := failoverTargetOf(row, failoverTarget)
	if err != nil {
		return nil, err
	}
	policy := doryv1alpha1.FailoverDisabled
	if row.FailoverEnabled {
		policy = doryv1alpha1.FailoverEnabled
	}
	return &doryv1alpha1.EdgeNode{
		ObjectMeta: metav1.ObjectMeta{
			Name:        doryv1alpha1.ObjectName(row.Name),
			Labels:      map[string]string{doryv1alpha1.LabelSource: doryv1alpha1.SourceDatabase},
			Annotations: map[string]string{doryv1alpha1.AnnotationRowRevision: strconv.FormatInt(row.Revision, 10)},
		},
		Spec: doryv1alpha1.EdgeNodeSpec{
			EdgeNodeID:     row.ID,
			OrganizationID: row.OrganizationID,
			NodeName:       nodeName,
			FailoverPolicy: policy,
			FailoverTarget: target,
		},
	}, nil
}

func failoverTargetOf(row store.EdgeNodeRow, target *store.EdgeNodeRow) (string, error) {
	switch {
	case row.FailoverTargetID == "":
		return "", nil
	case target == nil:
		return "", fmt.Errorf("failover_target_node_id %q names no row of edge_nodes: set it to one, or to NULL for the cloud", row.FailoverTargetID)
	case target.Err != nil:
		return "", fmt.Errorf("failover_target_node_id names the row %s of edge_nodes, which cannot be read: %w", target.ID, flatten(target.Err))
	case !target.Desired():
		return "", fmt.Errorf("failover_target_node_id names the edge node %q, which is decommissioned: choose another, or NULL for the cloud", target.Name)
	case doryv1alpha1.ObjectName(target.Name) == doryv1alpha1.ObjectName(row.Name):
		return "", fmt.Errorf("failover_target_node_id names an edge node of the same name, %q: rename one of them", target.Name)
	}
	return doryv1alpha1.ObjectName(target.Name), nil
}
