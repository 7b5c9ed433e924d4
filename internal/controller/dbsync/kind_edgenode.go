package dbsync

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
)

// edgeNodes mirrors the table edge_nodes.
type edgeNodes struct{ store Store }

func (edgeNodes) name() string               { return "EdgeNode" }
func (edgeNodes) table() string              { return "edge_nodes" }
func (edgeNodes) newObject() client.Object   { return &doryv1alpha1.EdgeNode{} }
func (edgeNodes) newList() client.ObjectList { return &doryv1alpha1.EdgeNodeList{} }

func (edgeNodes) items(list client.ObjectList) []client.Object {
	found, _ := list.(*doryv1alpha1.EdgeNodeList)
	return pointers(found.Items)
}

func (edgeNodes) idOf(o client.Object) string { return asEdgeNode(o).Spec.EdgeNodeID }

func (edgeNodes) same(want, have client.Object) bool {
	return sameEdgeNode(asEdgeNode(want), asEdgeNode(have))
}

// staysPut: an EdgeNode has no state, and those of a renamed row may replace each other.
func (edgeNodes) staysPut() bool { return false }

func (edgeNodes) fit(want, _ client.Object) client.Object { return want }

func (edgeNodes) replace(changed, want client.Object) {
	asEdgeNode(changed).Spec = asEdgeNode(want).Spec
}

func (k edgeNodes) list(ctx context.Context) (listing, error) {
	rows, err := k.store.ListEdgeNodes(ctx)
	if err != nil {
		return listing{}, fmt.Errorf("reading all edge nodes: %w", err)
	}
	return edgeListing(rows, rows), nil
}

func (k edgeNodes) get(ctx context.Context, ids []string) (listing, error) {
	rows, err := k.store.GetEdgeNodes(ctx, ids)
	if err != nil {
		return listing{}, fmt.Errorf("reading %d edge nodes: %w", len(ids), err)
	}
	var targets []string
	for i := range rows {
		if rows[i].FailoverTargetID != "" {
			targets = append(targets, rows[i].FailoverTargetID)
		}
	}
	targetRows, err := k.store.GetEdgeNodes(ctx, targets)
	if err != nil {
		return listing{}, fmt.Errorf("reading %d failover targets: %w", len(targets), err)
	}
	return edgeListing(rows, targetRows), nil
}

func (k edgeNodes) empty(ctx context.Context) (bool, error) {
	rows, err := k.store.ListEdgeNodes(ctx)
	return err == nil && len(rows) == 0, err
}

func (k edgeNodes) setSyncErrors(ctx context.Context, messages map[string]string) error {
	_, err := k.store.SetEdgeNodeSyncErrors(ctx, messages)
	return err
}

func edgeListing(rows, targets []store.EdgeNodeRow) listing {
	byID := make(map[string]*store.EdgeNodeRow, len(targets))
	for i := range targets {
		byID[targets[i].ID] = &targets[i]
	}
	found := listing{wanted: make(map[string]types.NamespacedName, len(rows))}
	for i := range rows {
		if rows[i].Desired() {
			found.wanted[rows[i].ID] = edgeNodeKey(rows[i])
			found.owning++
		}
	}
	found.each = func(yield func(desired) bool) {
		for i := range rows {
			if rows[i].Desired() && !yield(desiredEdgeNode(rows[i], byID[rows[i].FailoverTargetID])) {
				return
			}
		}
	}
	return found
}

func edgeNodeKey(row store.EdgeNodeRow) types.NamespacedName {
	return types.NamespacedName{Name: doryv1alpha1.ObjectName(row.Name)}
}

func desiredEdgeNode(row store.EdgeNodeRow, target *store.EdgeNodeRow) desired {
	d := desired{id: row.ID, revision: row.Revision, key: edgeNodeKey(row), told: row.SyncError}
	if row.Err != nil {
		d.err, d.unreadable = flatten(row.Err), true
		return d
	}
	node, err := RenderEdgeNode(row, target)
	if err != nil {
		d.err = err
		return d
	}
	d.object = node
	return d
}

// asEdgeNode is asProcessor for EdgeNodes.
func asEdgeNode(o client.Object) *doryv1alpha1.EdgeNode {
	if n, ok := o.(*doryv1alpha1.EdgeNode); ok {
		return n
	}
	return &doryv1alpha1.EdgeNode{}
}
