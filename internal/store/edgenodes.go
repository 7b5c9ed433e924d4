package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ListEdgeNodes reads all edge nodes, also decommissioned ones (see EdgeNodeRow.Desired), ordered by id.
func (s *Store) ListEdgeNodes(ctx context.Context) ([]EdgeNodeRow, error) {
	return s.edgeNodes(ctx, "list_edge_nodes", s.cfg.ListTimeout, listEdgeNodesSQL)
}

// GetEdgeNodes reads those of the ids that have a row, also decommissioned ones; others are simply absent.
func (s *Store) GetEdgeNodes(ctx context.Context, ids []string) ([]EdgeNodeRow, error) {
	ids = cleanIDs(ids)
	if len(ids) == 0 {
		return nil, nil
	}
	return s.edgeNodes(ctx, "get_edge_nodes", s.cfg.QueryTimeout, getEdgeNodesSQL, ids)
}

func (s *Store) edgeNodes(ctx context.Context, query string, timeout time.Duration, sql string, args ...any) ([]EdgeNodeRow, error) {
	var found []EdgeNodeRow
	scan := func(rows pgx.Rows) error {
		r, err := scanEdgeNode(rows)
		found = append(found, r)
		return err
	}
	if err := s.list(ctx, query, timeout, scan, sql, args...); err != nil {
		return nil, err
	}
	return found, nil
}

func scanEdgeNode(rows pgx.Rows) (EdgeNodeRow, error) {
	var r EdgeNodeRow
	err := scanColumns(rows, &r.ID, &r.OrganizationID, &r.Name, &r.Status, &r.FailoverEnabled, &r.FailoverTargetID,
		moment{&r.LastHeartbeatAt}, &r.KubernetesNode, &r.SyncError, &r.Revision)
	if r.Err, err = aboutRow(r.ID, err); err != nil {
		return r, fmt.Errorf("edge node %q: %w", r.ID, err)
	}
	return r, nil
}
