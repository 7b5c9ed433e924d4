package store

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
)

// IssueEpoch makes and returns the next epoch of a processor, max(stored, floor)+1, and records its holder.
// It is one atomic statement: no two calls ever return the same number for a processor. The floor is the
// greatest epoch that the caller knows of, 0 if none; it wins over a database that was restored from an
// older backup. An error may hide an epoch that was issued: a gap in the numbers, and harmless.
func (s *Store) IssueEpoch(ctx context.Context, processorID string, floor int64, holder string) (int64, error) {
	if processorID == "" {
		return 0, errors.New("issue epoch: the processor id is empty")
	}
	if floor < 0 || floor == math.MaxInt64 {
		return 0, fmt.Errorf("issue epoch of processor %q: the floor %d is not an epoch", processorID, floor)
	}
	var epoch int64
	err := s.run(ctx, "issue_epoch", s.cfg.QueryTimeout, func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, issueEpochSQL, processorID, floor, cleanText(holder)).Scan(&epoch)
	})
	if err != nil {
		return 0, fmt.Errorf("issue epoch of processor %q: %w", processorID, err)
	}
	return epoch, nil
}

// Epoch returns the last epoch issued for a processor, 0 if none was.
func (s *Store) Epoch(ctx context.Context, processorID string) (int64, error) {
	var epoch int64
	err := s.run(ctx, "epoch", s.cfg.QueryTimeout, func(ctx context.Context) error {
		err := s.pool.QueryRow(ctx, epochSQL, processorID).Scan(&epoch)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("epoch of processor %q: %w", processorID, err)
	}
	return epoch, nil
}
