package dbsync

import (
	"context"
	"fmt"
	"maps"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/undecodable"
)

// runPass compares all rows of people's Processors with the Processors, and queues what differs.
func (r *registrar) runPass(ctx context.Context, _ scope) error {
	rows, err := r.store.ListKubernetesProcessors(ctx)
	r.health.report(ctx, err)
	if err != nil {
		return fmt.Errorf("reading the rows of Processors from Kubernetes: %w", err)
	}
	var list doryv1alpha1.ProcessorList
	if err := r.reader.List(ctx, &list, client.UnsafeDisableDeepCopy, undecodable.Tolerate); err != nil {
		return fmt.Errorf("listing all Processors from the cache: %w", err)
	}
	settled, differing := compareRows(list.Items, rows)
	for _, p := range settled {
		if r.note(client.ObjectKeyFromObject(p), p.ID(), false) {
			r.listed(p.ID())
		}
		if reason, _ := foundCondition(p); reason != "" {
			differing = append(differing, entryOf(p))
		}
	}
	r.queue.AddWithOpts(priorityqueue.AddOpts{}, differing...)
	return nil
}

// forget leaves alone the rows that may be of a Processor which cannot be decoded: its id is not known for certain.
func forget(rows map[string]store.KubernetesProcessor, p *doryv1alpha1.Processor) {
	maps.DeleteFunc(rows, func(id string, row store.KubernetesProcessor) bool {
		return id == p.ID() || (row.Namespace == p.Namespace && row.Name == p.Name)
	})
}

// compareRows sorts Processors into those whose rows are right, and everything else: Processors without a row or
// with an outdated one, and rows without a Processor.
func compareRows(items []doryv1alpha1.Processor, rows []store.KubernetesProcessor) (settled []*doryv1alpha1.Processor, differing []entry) {
	unseen := make(map[string]store.KubernetesProcessor, len(rows))
	for _, row := range rows {
		unseen[row.ID] = row
	}
	for i := range items {
		p := &items[i]
		if _, aside := undecodable.Of(p); aside {
			forget(unseen, p)
			continue
		}
		switch row, ok := unseen[p.ID()]; {
		case onceOwned(p):
		case ok && row == kubernetesRow(p):
			settled = append(settled, p)
			delete(unseen, p.ID())
		default:
			differing = append(differing, entryOf(p))
		}
	}
	for _, id := range sortedKeys(unseen) {
		row := unseen[id]
		differing = append(differing, entry{id: row.ID, namespace: row.Namespace, name: row.Name})
	}
	return settled, differing
}
