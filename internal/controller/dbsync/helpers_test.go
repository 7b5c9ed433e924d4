package dbsync

import (
	"encoding/json"
	"testing"
	"time"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

func start() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }

// roundTrip is what the cache would have of an object: itself by way of JSON.
func roundTrip(tb testing.TB, p *doryv1alpha1.Processor) *doryv1alpha1.Processor {
	tb.Helper()
	encoded, err := json.Marshal(p)
	if err != nil {
		tb.Fatal(err)
	}
	decoded := &doryv1alpha1.Processor{}
	if err := json.Unmarshal(encoded, decoded); err != nil {
		tb.Fatal(err)
	}
	return decoded
}
