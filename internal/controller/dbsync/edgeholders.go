package dbsync

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/undecodable"
)

// edgeHolders has the id of the edge node behind each EdgeNode's name. Names of edge nodes are unique in their
// organisation only, those of EdgeNodes everywhere: without this look, a processor could end up on the node of
// another organisation.
type edgeHolders map[string]string

// nobodyYet stands for an EdgeNode that does not exist and that several rows could become.
const nobodyYet = "several edge nodes of that name"

// edgeNodeHolders looks up the EdgeNodes that the rows need, in the cache, and asks the database only about those
// that do not exist yet.
func (k processors) edgeNodeHolders(ctx context.Context, rows []store.ProcessorRow) (edgeHolders, error) {
	needed := map[string]bool{}
	for i := range rows {
		if rows[i].EdgeNode != nil {
			needed[doryv1alpha1.ObjectName(rows[i].EdgeNode.Name)] = true
		}
	}
	if len(needed) == 0 {
		return nil, nil
	}
	var nodes doryv1alpha1.EdgeNodeList
	if err := k.reader.List(ctx, &nodes, client.UnsafeDisableDeepCopy, undecodable.Tolerate); err != nil {
		return nil, fmt.Errorf("listing all EdgeNodes from the cache: %w", err)
	}
	holders := edgeHolders{}
	for i := range nodes.Items {
		holders[nodes.Items[i].Name] = nodes.Items[i].Spec.EdgeNodeID
		delete(needed, nodes.Items[i].Name)
	}
	if len(needed) == 0 {
		return holders, nil
	}
	table, err := k.store.ListEdgeNodes(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading all edge nodes: %w", err)
	}
	holders.foresee(needed, table)
	return holders, nil
}

// foresee adds whom a needed EdgeNode will belong to once it exists.
func (h edgeHolders) foresee(needed map[string]bool, table []store.EdgeNodeRow) {
	for i := range table {
		name := doryv1alpha1.ObjectName(table[i].Name)
		switch {
		case !needed[name] || !table[i].Desired() || table[i].Err != nil:
		case h[name] == "":
			h[name] = table[i].ID
		default:
			h[name] = nobodyYet
		}
	}
}

// check refuses an edge node whose EdgeNode belongs, or could belong, to another.
func (h edgeHolders) check(node *store.EdgeNodeRef) error {
	if node == nil {
		return nil
	}
	if holder := h[doryv1alpha1.ObjectName(node.Name)]; holder != "" && holder != node.ID {
		return fmt.Errorf("the edge node %q (%s) cannot be used, because the EdgeNode %s belongs to %s: rename one of them in edge_nodes",
			node.Name, node.ID, doryv1alpha1.ObjectName(node.Name), holder)
	}
	return nil
}
