package dbsync

import (
	"context"

	"github.com/dory-io/dory/internal/store"
)

// Store is what the sync asks of the database. *store.Store is one.
type Store interface {
	// ListProcessors reads the whole desired set, or fails.
	ListProcessors(ctx context.Context) ([]store.ProcessorRow, error)
	// GetProcessors reads those of the ids that are in the desired set.
	GetProcessors(ctx context.Context, ids []string) ([]store.ProcessorRow, error)
	// CountProcessors counts all rows, desired or not.
	CountProcessors(ctx context.Context) (store.ProcessorCounts, error)
	// ListEdgeNodes reads all edge nodes, also decommissioned ones.
	ListEdgeNodes(ctx context.Context) ([]store.EdgeNodeRow, error)
	// GetEdgeNodes reads those of the ids that have a row.
	GetEdgeNodes(ctx context.Context, ids []string) ([]store.EdgeNodeRow, error)

	// SetSyncErrors writes processors.sync_error by id, and returns how many rows that changed.
	SetSyncErrors(ctx context.Context, messages map[string]string) (int, error)
	// SetEdgeNodeSyncErrors is SetSyncErrors for edge_nodes.
	SetEdgeNodeSyncErrors(ctx context.Context, messages map[string]string) (int, error)
	// UpdateStatuses writes statuses back where they differ.
	UpdateStatuses(ctx context.Context, statuses []store.ProcessorStatus) (int, error)

	// UpsertKubernetesProcessors gives Processors of people a row, and returns those whose id is another's.
	UpsertKubernetesProcessors(ctx context.Context, processors []store.KubernetesProcessor) ([]store.Conflict, error)
	// TerminateKubernetesProcessors ends the rows of Processors that were deleted.
	TerminateKubernetesProcessors(ctx context.Context, processors []store.KubernetesProcessor) error
	// ListKubernetesProcessors reads the rows that the two methods above have written and not ended.
	ListKubernetesProcessors(ctx context.Context) ([]store.KubernetesProcessor, error)

	// Listen delivers hints of changes until ctx ends.
	Listen(ctx context.Context, deliver func(store.Change)) error
}
