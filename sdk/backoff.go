package sdk

import (
	"context"
	"time"
)

// backoff is how long to wait after failures in a row: base, doubled each time up to limit, less a random part of up to
// a half, so that many processors do not come back at the same moment.
type backoff struct {
	base, limit time.Duration
}

var (
	// remoteBackoff is the contract's, for everything that is asked of somebody else.
	remoteBackoff = backoff{base: time.Second, limit: 30 * time.Second}
	// iterationBackoff starts short, because most errors of an iteration pass soon.
	iterationBackoff = backoff{base: 100 * time.Millisecond, limit: 30 * time.Second}
)

func (b backoff) delay(failures int, random float64) time.Duration {
	d := b.base
	for i := 1; i < failures && d < b.limit; i++ {
		d *= 2
	}
	d = min(d, b.limit)
	return d - time.Duration(random*float64(d)/2)
}

// pause waits, and says whether it waited all the time.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
