package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// CheckpointInfo describes a stored copy of a processor's state.
type CheckpointInfo struct {
	ProcessorID string
	Namespace   string
	// Epoch, Sequence and CapturedAt, in this order, say which of two copies is newer.
	Epoch, Sequence int64
	CapturedAt      time.Time
	// PodName of the instance whose state it is.
	PodName string
	// Checksum is the contract's SHA-256 of the state, in hex.
	Checksum string
	// SizeBytes is the length of the state as canonical JSON.
	SizeBytes int64
}

// Checkpoint is a stored copy of a processor's state.
type Checkpoint struct {
	CheckpointInfo
	// Document is the compressed state document. The database knows nothing of its form.
	Document []byte
}

// SaveCheckpoint stores a copy of a processor's state, unless the stored one is as new or newer, and says whether it
// did. It is one atomic statement.
func (s *Store) SaveCheckpoint(ctx context.Context, c Checkpoint) (bool, error) {
	var changed int64
	err := s.run(ctx, "save_checkpoint", s.cfg.ListTimeout, func(ctx context.Context) error {
		tag, err := s.pool.Exec(ctx, saveCheckpointSQL, c.ProcessorID, c.Namespace, c.Epoch, c.Sequence, c.CapturedAt,
			cleanText(c.PodName), c.Checksum, c.SizeBytes, c.Document)
		changed = tag.RowsAffected()
		return err
	})
	if err != nil {
		return false, fmt.Errorf("save the checkpoint of processor %q: %w", c.ProcessorID, err)
	}
	return changed > 0, nil
}

// CheckpointInfo describes the stored copy of a processor's state; nil if there is none.
func (s *Store) CheckpointInfo(ctx context.Context, processorID string) (*CheckpointInfo, error) {
	info := CheckpointInfo{ProcessorID: processorID}
	found, err := s.one(ctx, "checkpoint_info", checkpointInfoSQL, processorID, info.fields()...)
	if err != nil || !found {
		return nil, err
	}
	return &info, nil
}

// Checkpoint reads the stored copy of a processor's state; nil if there is none.
func (s *Store) Checkpoint(ctx context.Context, processorID string) (*Checkpoint, error) {
	c := Checkpoint{CheckpointInfo: CheckpointInfo{ProcessorID: processorID}}
	found, err := s.one(ctx, "checkpoint", checkpointSQL, processorID, append(c.fields(), &c.Document)...)
	if err != nil || !found {
		return nil, err
	}
	return &c, nil
}

// DeleteCheckpoint removes the stored copy of a processor's state, unless it is newer than the given one, which is kept
// elsewhere.
func (s *Store) DeleteCheckpoint(ctx context.Context, keptElsewhere CheckpointInfo) error {
	kept := keptElsewhere
	_, err := s.exec(ctx, "delete_checkpoint", deleteCheckpointSQL, kept.ProcessorID, kept.Epoch, kept.Sequence, kept.CapturedAt)
	if err != nil {
		return fmt.Errorf("delete the checkpoint of processor %q: %w", kept.ProcessorID, err)
	}
	return nil
}

// fields are in the order of the queries' columns. The time only decides between copies of the same sequence; one that is no
// date must not make a good state unreadable.
func (i *CheckpointInfo) fields() []any {
	return []any{&i.Namespace, &i.Epoch, &i.Sequence, moment{&i.CapturedAt}, &i.PodName, &i.Checksum, &i.SizeBytes}
}

// one reads a single row of a processor, and says whether there was one.
func (s *Store) one(ctx context.Context, query, sql, processorID string, into ...any) (bool, error) {
	found := true
	err := s.run(ctx, query, s.cfg.ListTimeout, func(ctx context.Context) error {
		err := s.pool.QueryRow(ctx, sql, processorID).Scan(into...)
		if errors.Is(err, pgx.ErrNoRows) {
			found = false
			return nil
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("read the checkpoint of processor %q: %w", processorID, err)
	}
	return found, nil
}

const saveCheckpointSQL = `
INSERT INTO processor_checkpoints AS c
       (processor_id, namespace, epoch, sequence, captured_at, pod_name, checksum, size_bytes, document)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (processor_id) DO UPDATE
   SET namespace   = excluded.namespace,
       epoch       = excluded.epoch,
       sequence    = excluded.sequence,
       captured_at = excluded.captured_at,
       pod_name    = excluded.pod_name,
       checksum    = excluded.checksum,
       size_bytes  = excluded.size_bytes,
       document    = excluded.document,
       saved_at    = now()
 WHERE (c.epoch, c.sequence, c.captured_at) < (excluded.epoch, excluded.sequence, excluded.captured_at)`

const checkpointInfoSQL = `
SELECT namespace, epoch, sequence, captured_at, pod_name, checksum, size_bytes
  FROM processor_checkpoints
 WHERE processor_id = $1`

const checkpointSQL = `
SELECT namespace, epoch, sequence, captured_at, pod_name, checksum, size_bytes, document
  FROM processor_checkpoints
 WHERE processor_id = $1`

const deleteCheckpointSQL = `
DELETE FROM processor_checkpoints
 WHERE processor_id = $1
   AND (epoch, sequence, captured_at) <= ($2::bigint, $3::bigint, $4::timestamptz)`
