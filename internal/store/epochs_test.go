package store

import (
	"math"
	"sync"
	"testing"
)

func TestIssueEpoch(t *testing.T) {
	s, conn := open(t)
	steps := []struct {
		floor, want int64
		why         string
	}{
		{0, 1, "the first"},
		{0, 2, "the row is higher"},
		{2, 3, "both agree"},
		{10, 11, "the floor is higher, as after a restore of the database"},
		{5, 12, "the row is higher again"},
	}
	for _, step := range steps {
		got, err := s.IssueEpoch(t.Context(), "p", step.floor, "pod-1")
		if err != nil || got != step.want {
			t.Errorf("%s: floor %d gives %d, %v, want %d", step.why, step.floor, got, err, step.want)
		}
	}
	if got, err := s.Epoch(t.Context(), "p"); err != nil || got != 12 {
		t.Errorf("stored %d, %v, want 12", got, err)
	}
	if got, err := s.Epoch(t.Context(), "other"); err != nil || got != 0 {
		t.Errorf("of another: %d, %v, want 0", got, err)
	}
	if got, err := s.IssueEpoch(t.Context(), "other", 41, "pod-2"); err != nil || got != 42 {
		t.Errorf("no row, only a floor: %d, %v, want 42", got, err)
	}
	if got := value(t, conn, `SELECT holder FROM processor_epochs WHERE processor_id = 'other'`); got != "pod-2" {
		t.Errorf("holder %s", got)
	}
}

func TestIssueEpochRefuses(t *testing.T) {
	s := openURL(t, "postgres://nobody@127.0.0.1:1/nothing")
	for name, call := range map[string]func() (int64, error){
		"negative floor": func() (int64, error) { return s.IssueEpoch(t.Context(), "p", -1, "pod") },
		"last number":    func() (int64, error) { return s.IssueEpoch(t.Context(), "p", math.MaxInt64, "pod") },
		"no id":          func() (int64, error) { return s.IssueEpoch(t.Context(), "", 0, "pod") },
	} {
		if epoch, err := call(); err == nil {
			t.Errorf("%s: got %d", name, epoch)
		}
	}
}

// TestEpochsAreDistinct is invariant 1 in small: no number is given to two.
func TestEpochsAreDistinct(t *testing.T) {
	s, _ := open(t)
	const callers = 100
	var mu sync.Mutex
	seen := map[int64]bool{}
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			first, err := s.IssueEpoch(t.Context(), "p", 0, "pod")
			second, err2 := s.IssueEpoch(t.Context(), "p", first, "pod")
			if err != nil || err2 != nil || second <= first {
				t.Errorf("%d then %d, %v, %v", first, second, err, err2)
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[first] || seen[second] {
				t.Errorf("%d or %d was issued twice", first, second)
			}
			seen[first], seen[second] = true, true
		})
	}
	wg.Wait()
	if got, err := s.Epoch(t.Context(), "p"); err != nil || got != 2*callers || len(seen) != 2*callers {
		t.Errorf("%d numbers up to %d, %v", len(seen), got, err)
	}
}

// TestEpochOutlivesItsRow is invariant 2: a processor that is deleted and made again goes on counting.
func TestEpochOutlivesItsRow(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	for want := int64(1); want <= 3; want++ {
		insertProcessors(t, conn, "t", "p")
		if got, err := s.IssueEpoch(t.Context(), "p", 0, "pod"); err != nil || got != want {
			t.Errorf("got %d, %v, want %d", got, err, want)
		}
		exec(t, conn, `DELETE FROM processors`)
	}
}
