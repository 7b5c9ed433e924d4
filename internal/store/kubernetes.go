package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// UpsertKubernetesProcessors lists Processors that were applied to Kubernetes in the database, in one
// statement that writes only what differs. A terminated row comes back to life. An id that belongs to a row
// with SourceDatabase (in any status), or to another living object, is a conflict: it is returned and not
// written. Of several entries for one id the first counts, unless a row decides otherwise.
func (s *Store) UpsertKubernetesProcessors(ctx context.Context, processors []KubernetesProcessor) ([]Conflict, error) {
	if len(processors) == 0 {
		return nil, nil
	}
	c := kubernetesColumnsOf(processors)
	var conflicts []Conflict
	scan := func(rows pgx.Rows) error {
		var k Conflict
		err := scanColumns(rows, &k.ID, &k.Namespace, &k.Name, &k.Image, &k.NodeType, &k.HeldBy)
		conflicts = append(conflicts, k)
		return err
	}
	err := s.list(ctx, "upsert_kubernetes_processors", s.cfg.QueryTimeout, scan, upsertKubernetesSQL,
		c.ids, c.namespaces, c.names, c.images, c.nodeTypes)
	if err != nil {
		return nil, err
	}
	return conflicts, nil
}

// TerminateKubernetesProcessors marks the rows of deleted Processors as terminated. Only a row whose id,
// namespace and name all match is touched, so that deleting the loser of a conflict does no harm; Image and
// NodeType do not matter. Rows that are terminated already or do not exist are ignored.
func (s *Store) TerminateKubernetesProcessors(ctx context.Context, processors []KubernetesProcessor) error {
	if len(processors) == 0 {
		return nil
	}
	c := kubernetesColumnsOf(processors)
	_, err := s.exec(ctx, "terminate_kubernetes_processors", terminateKubernetesSQL, c.ids, c.namespaces, c.names)
	return err
}

// ListKubernetesProcessors reads the rows with SourceKubernetes that are not terminated, ordered by id. What of a row cannot be
// read is empty, so that the row differs from its Processor and is written anew.
func (s *Store) ListKubernetesProcessors(ctx context.Context) ([]KubernetesProcessor, error) {
	var found []KubernetesProcessor
	scan := func(rows pgx.Rows) error {
		var k KubernetesProcessor
		err := scanColumns(rows, &k.ID, &k.Namespace, &k.Name, &k.Image, &k.NodeType)
		if ofRow, ofListing := aboutRow(k.ID, err); ofRow == nil && ofListing != nil {
			return fmt.Errorf("processor %q: %w", k.ID, err)
		}
		found = append(found, k)
		return nil
	}
	err := s.list(ctx, "list_kubernetes_processors", s.cfg.ListTimeout, scan, listKubernetesSQL)
	if err != nil {
		return nil, err
	}
	return found, nil
}

// kubernetesColumns is a batch turned into one array for each column, as unnest takes it.
type kubernetesColumns struct {
	ids, namespaces, names, images, nodeTypes []string
}

func kubernetesColumnsOf(processors []KubernetesProcessor) kubernetesColumns {
	var c kubernetesColumns
	for _, k := range processors {
		c.ids = append(c.ids, cleanText(k.ID))
		c.namespaces = append(c.namespaces, cleanText(k.Namespace))
		c.names = append(c.names, cleanText(k.Name))
		c.images = append(c.images, cleanText(k.Image))
		c.nodeTypes = append(c.nodeTypes, cleanText(k.NodeType))
	}
	return c
}
