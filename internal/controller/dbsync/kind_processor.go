package dbsync

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
)

// processors mirrors the table processors.
type processors struct {
	store Store
	// reader is the cache, to see whom an EdgeNode belongs to.
	reader client.Reader
}

func (processors) name() string               { return "Processor" }
func (processors) table() string              { return "processors" }
func (processors) newObject() client.Object   { return &doryv1alpha1.Processor{} }
func (processors) newList() client.ObjectList { return &doryv1alpha1.ProcessorList{} }

func (processors) items(list client.ObjectList) []client.Object {
	found, _ := list.(*doryv1alpha1.ProcessorList)
	return pointers(found.Items)
}

func (processors) idOf(o client.Object) string { return asProcessor(o).ID() }

func (processors) same(want, have client.Object) bool {
	return sameProcessor(asProcessor(want), asProcessor(have))
}

// fit leaves the id out where the object never had one and its name says the same: the field is immutable, and a
// Processor that people made is taken over as it is.
func (processors) fit(want, current client.Object) client.Object {
	if c := asProcessor(current); c.Spec.ProcessorID != "" || c.Name != asProcessor(want).Spec.ProcessorID {
		return want
	}
	fitted := *asProcessor(want)
	fitted.Spec.ProcessorID = ""
	return &fitted
}

func (processors) staysPut() bool { return true }

func (processors) replace(changed, want client.Object) {
	asProcessor(want).Spec.DeepCopyInto(&asProcessor(changed).Spec)
}

func (k processors) list(ctx context.Context) (listing, error) {
	rows, err := k.store.ListProcessors(ctx)
	if err != nil {
		return listing{}, fmt.Errorf("reading all processors: %w", err)
	}
	return k.listing(ctx, rows)
}

func (k processors) get(ctx context.Context, ids []string) (listing, error) {
	rows, err := k.store.GetProcessors(ctx, ids)
	if err != nil {
		return listing{}, fmt.Errorf("reading %d processors: %w", len(ids), err)
	}
	return k.listing(ctx, rows)
}

func (k processors) empty(ctx context.Context) (bool, error) {
	counts, err := k.store.CountProcessors(ctx)
	return err == nil && counts.Database == 0, err
}

func (k processors) setSyncErrors(ctx context.Context, messages map[string]string) error {
	_, err := k.store.SetSyncErrors(ctx, messages)
	return err
}

func (k processors) listing(ctx context.Context, rows []store.ProcessorRow) (listing, error) {
	found := listing{wanted: make(map[string]types.NamespacedName, len(rows))}
	for i := range rows {
		found.wanted[rows[i].ID] = processorKey(rows[i])
		if rows[i].Source == store.SourceDatabase || rows[i].Err != nil {
			found.owning++
		}
	}
	holders, err := k.edgeNodeHolders(ctx, rows)
	if err != nil {
		return listing{}, err
	}
	renderer := newRenderer()
	found.each = func(yield func(desired) bool) {
		for i := range rows {
			if !yield(desiredProcessor(renderer, rows[i], holders)) {
				return
			}
		}
	}
	return found, nil
}

func processorKey(row store.ProcessorRow) types.NamespacedName {
	key := types.NamespacedName{Namespace: row.Namespace, Name: doryv1alpha1.ObjectName(row.ID)}
	if row.Source != store.SourceDatabase && row.Err == nil && row.K8sName != "" {
		key.Name = row.K8sName
	}
	return key
}

func desiredProcessor(r *renderer, row store.ProcessorRow, holders edgeHolders) desired {
	d := desired{id: row.ID, revision: row.Revision, key: processorKey(row), told: row.SyncError, knownName: row.K8sName}
	if row.Err != nil { // Nothing else that the row says can be relied on, such as whose it is.
		d.err, d.unreadable = flatten(row.Err), true
		return d
	}
	if row.Source != store.SourceDatabase {
		d.released, d.told = true, ""
		return d
	}
	if d.err = holders.check(row.EdgeNode); d.err != nil {
		return d
	}
	p, warnings, err := r.processor(row)
	if err != nil {
		d.err = err
		return d
	}
	d.object, d.warnings = p, warnings
	return d
}

// asProcessor is for objects that were listed as Processors. Another would be a mistake in this package; it
// reads as an empty one.
func asProcessor(o client.Object) *doryv1alpha1.Processor {
	if p, ok := o.(*doryv1alpha1.Processor); ok {
		return p
	}
	return &doryv1alpha1.Processor{}
}

// pointers are the addresses of a list's items.
func pointers[T any, P interface {
	*T
	client.Object
}](items []T) []client.Object {
	objects := make([]client.Object, len(items))
	for i := range items {
		objects[i] = P(&items[i])
	}
	return objects
}
