package dbsync

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestJudge(t *testing.T) {
	const share = DefaultDeletionShare
	tests := map[string]struct {
		census Census
		want   Action
		says   string
	}{
		"nothing to delete":                                   {Census{Owned: 10, Share: share}, Delete, ""},
		"nothing to delete from an empty table":               {Census{TableEmpty: true, Share: share}, Delete, ""},
		"one of one":                                          {Census{Owned: 1, Orphans: 1, Share: share}, Delete, ""},
		"one of one, and the table is empty":                  {Census{TableEmpty: true, Owned: 1, Orphans: 1, Share: share}, Hold, "the table is empty"},
		"all, and the table is empty":                         {Census{TableEmpty: true, Owned: 9, Orphans: 9, Share: share}, Hold, "9 objects"},
		"one of two":                                          {Census{Owned: 2, Orphans: 1, Share: share}, Delete, ""},
		"two of three":                                        {Census{Owned: 3, Orphans: 2, Share: share}, Hold, "2 of 3 objects"},
		"exactly the share":                                   {Census{Owned: 10, Orphans: 2, Share: share}, Delete, ""},
		"one above the share":                                 {Census{Owned: 10, Orphans: 3, Share: share}, Hold, "3 of 10 objects are gone, more than 20 % at once"},
		"half of many":                                        {Census{Owned: 10000, Orphans: 5000, Share: share}, Hold, "5000 of 10000"},
		"the share of many":                                   {Census{Owned: 10000, Orphans: 2000, Share: share}, Delete, ""},
		"the share, right after another":                      {Census{Owned: 8, Orphans: 2, Recent: 2, Share: share}, Wait, "2 objects were deleted just now"},
		"the second one, right after the first":               {Census{Owned: 2, Orphans: 1, Recent: 1, Share: share}, Wait, "just now"},
		"the rest of the share":                               {Census{Owned: 99, Orphans: 10, Recent: 1, Share: share}, Delete, ""},
		"everything, where that is allowed":                   {Census{Owned: 5, Orphans: 5, Share: 1}, Delete, ""},
		"everything in an empty table, where that is allowed": {Census{TableEmpty: true, Owned: 5, Orphans: 5, Share: 1}, Hold, "empty"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, why := Judge(tt.census)
			if got != tt.want || !strings.Contains(why, tt.says) || (why == "") != (tt.want == Delete) {
				t.Errorf("Judge(%+v) = %v, %q, want %v and %q", tt.census, got, why, tt.want, tt.says)
			}
		})
	}
}

// However rows vanish, no more than a share of the objects, or one, goes with them in one window.
func TestJudgeNeverLetsMoreThanTheShareGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		owned := rapid.IntRange(0, 500).Draw(t, "objects")
		share := rapid.Float64Range(0.01, 1).Draw(t, "share")
		allowed := max(1, share*float64(owned))
		orphans, deleted := 0, 0
		for range rapid.IntRange(1, 50).Draw(t, "passes") {
			orphans += rapid.IntRange(0, owned-deleted-orphans).Draw(t, "rows that vanish")
			if action, _ := Judge(Census{Owned: owned - deleted, Orphans: orphans, Recent: deleted, Share: share}); action == Delete {
				deleted, orphans = deleted+orphans, 0
			}
			if float64(deleted) > allowed {
				t.Fatalf("%d of %d objects were deleted, more than %g", deleted, owned, allowed)
			}
		}
	})
}
