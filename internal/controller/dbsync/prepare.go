package dbsync

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
)

// The waits between two tries to prepare the database.
const (
	firstPrepareRetry = time.Second
	lastPrepareRetry  = 30 * time.Second
)

// prepared tries to prepare the database until that succeeds. It is false if ctx ended first. All that needs no
// database goes on meanwhile.
func (s *Syncer) prepared(ctx context.Context) bool {
	if s.prepare == nil {
		return true
	}
	failures := newRetryBetween(firstPrepareRetry, lastPrepareRetry)
	for {
		err := s.prepare(ctx)
		if ctx.Err() != nil {
			return false
		}
		wasDown := s.health.record(err)
		if err == nil {
			if wasDown {
				log.FromContext(ctx).Info("The database is prepared")
			}
			return true
		}
		wait := failures.next()
		log.FromContext(ctx).Error(err, "The database cannot be prepared: no row is read until it is", "retryAfter", wait.String())
		select {
		case <-ctx.Done():
			return false
		case <-s.options.Clock.After(wait):
		}
	}
}
