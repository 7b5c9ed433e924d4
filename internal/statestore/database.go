package statestore

import (
	"context"
	"errors"
	"fmt"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/internal/store"
)

// Database is the part of store.Store that keeps large checkpoints.
type Database interface {
	SaveCheckpoint(ctx context.Context, c store.Checkpoint) (bool, error)
	CheckpointInfo(ctx context.Context, processorID string) (*store.CheckpointInfo, error)
	Checkpoint(ctx context.Context, processorID string) (*store.Checkpoint, error)
	DeleteCheckpoint(ctx context.Context, keptElsewhere store.CheckpointInfo) error
}

// away says that the database cannot be asked now.
func away(err error) bool { return errors.Is(err, store.ErrUnavailable) }

func (s *Store) lookInDatabase(ctx context.Context, key Key, found *Inventory) error {
	if s.database == nil {
		return nil
	}
	info, err := s.database.CheckpointInfo(ctx, key.ProcessorID)
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		found.Problems = append(found.Problems, Problem{Storage: doryv1alpha1.CheckpointDatabase, Away: true, Err: err})
	case info != nil:
		found.Copies = append(found.Copies, fromInfo(info))
	}
	return nil
}

func fromInfo(info *store.CheckpointInfo) *Copy {
	return &Copy{
		Storage: doryv1alpha1.CheckpointDatabase,
		Version: Version{Position: statexfer.Position{Epoch: info.Epoch, Sequence: info.Sequence}, Time: info.CapturedAt},
		PodName: info.PodName, Checksum: info.Checksum, Size: info.SizeBytes,
	}
}

func infoOf(key Key, c Copy) store.CheckpointInfo {
	return store.CheckpointInfo{
		ProcessorID: key.ProcessorID, Namespace: key.Namespace,
		Epoch: c.Version.Epoch, Sequence: c.Version.Sequence, CapturedAt: c.Version.Time,
		PodName: c.PodName, Checksum: c.Checksum, SizeBytes: c.Size,
	}
}

func (s *Store) readDatabase(ctx context.Context, key Key) ([]byte, error) {
	row, err := s.database.Checkpoint(ctx, key.ProcessorID)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, damaged(fmt.Errorf("the checkpoint of processor %q was in the database a moment ago, and is gone", key.ProcessorID))
	}
	return row.Document, nil
}

// saveInDatabase leaves the comparison to the database, which makes it in the same step as the write.
func (s *Store) saveInDatabase(ctx context.Context, req SaveRequest, target Copy, packed []byte) (Saved, error) {
	target.Storage = doryv1alpha1.CheckpointDatabase
	written, err := s.database.SaveCheckpoint(ctx, store.Checkpoint{CheckpointInfo: infoOf(req.Key, target), Document: packed})
	if err != nil || written {
		return Saved{Copy: target, Written: written}, err
	}
	info, err := s.database.CheckpointInfo(ctx, req.Key.ProcessorID)
	if err != nil {
		return Saved{}, err
	}
	if info == nil {
		return Saved{}, fmt.Errorf("%w: the checkpoint of processor %q in the database", ErrContended, req.Key.ProcessorID)
	}
	return Saved{Copy: *fromInfo(info)}, nil
}

// removeFromDatabase removes what is not newer than the version, which is kept elsewhere.
func (s *Store) removeFromDatabase(ctx context.Context, key Key, kept Version) error {
	if s.database == nil {
		return nil
	}
	err := s.database.DeleteCheckpoint(ctx, infoOf(key, Copy{Version: kept}))
	if away(err) {
		return nil // It stays, and is known to be older.
	}
	return err
}
