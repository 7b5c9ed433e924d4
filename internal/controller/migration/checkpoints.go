package migration

import (
	"context"
	"fmt"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

// StateStore keeps the states of moves where checkpoints are kept.
type StateStore struct{ Store *statestore.Store }

// Save makes the state durable, unless a newer one is. One of a higher epoch than the processor has is no newer one of its own.
func (s StateStore) Save(ctx context.Context, p *doryv1alpha1.Processor, epoch *doryv1alpha1.ProcessorEpoch, state *statexfer.State) error {
	document := state.Document(p.ID())
	if !state.HasPosition && epoch != nil {
		document.Metadata.Epoch = epoch.Spec.Epoch // Only the holder's own state comes here without a position.
	}
	req := statestore.SaveRequest{Key: statestore.KeyOf(p), Document: document, Lineage: statestore.LineageOf(p, epoch)}
	if p.Status.Checkpoint != nil {
		req.Previous = p.Status.Checkpoint.Storage
	}
	saved, err := s.Store.Save(ctx, req)
	if err == nil && !saved.Written && saved.Version.Epoch > max(document.Metadata.Epoch, epochOf(epoch)) {
		err = fmt.Errorf("%w: what is stored in the %s is of %s", statestore.ErrBehind, saved.Storage, saved.Version)
	}
	return err
}

func epochOf(epoch *doryv1alpha1.ProcessorEpoch) int64 {
	if epoch == nil {
		return 0
	}
	return epoch.Spec.Epoch
}

// Newest is the newest durable state that can be read, or nil.
func (s StateStore) Newest(ctx context.Context, p *doryv1alpha1.Processor, epoch *doryv1alpha1.ProcessorEpoch) (*statexfer.State, error) {
	_, document, err := s.Store.Newest(ctx, statestore.KeyOf(p), statestore.LineageOf(p, epoch))
	if err != nil || document == nil {
		return nil, err
	}
	state := document.State()
	state.HasPosition = state.Position.Sequence > 0 // The store fills in an epoch where an SDK counts nothing.
	return state, nil
}
