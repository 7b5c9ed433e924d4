package dbsync

import "fmt"

// DefaultDeletionShare is the share of all database-owned objects that may go at once.
const DefaultDeletionShare = 0.2

// Action is what the guard says about a deletion.
type Action int

const (
	// Delete all of them.
	Delete Action = iota
	// Wait until earlier deletions are longer ago; then look again.
	Wait
	// Hold until the rows are back, or a person says otherwise.
	Hold
)

// Census counts what a deletion is judged by.
type Census struct {
	// TableEmpty says that the table has no rows at all.
	TableEmpty bool
	// Owned counts the database-owned objects, without those that are being deleted and those whose deletion a
	// person has approved.
	Owned int
	// Orphans counts those of Owned whose rows are gone.
	Orphans int
	// Recent counts the orphans that were deleted a short while ago.
	Recent int
	// Share of the objects that may go at once, from 0 to 1.
	Share float64
}

// Judge says whether the orphans may be deleted, and why not. One object may always go, unless its table is
// empty: that looks the same as a lost database. Deletions are rationed over time as well: rows that vanish one
// by one would otherwise take their objects along in small portions, each of them harmless. So what is left
// piles up, until the guard sees it for what it is.
func Judge(c Census) (Action, string) {
	allowed := max(1, c.Share*float64(c.Owned+c.Recent))
	switch {
	case c.Orphans == 0:
		return Delete, ""
	case c.TableEmpty:
		return Hold, fmt.Sprintf("the table is empty, and there are %d objects from it", c.Owned)
	case float64(c.Orphans) > allowed:
		return Hold, fmt.Sprintf("the rows of %d of %d objects are gone, more than %d %% at once", c.Orphans, c.Owned, int(c.Share*100))
	case float64(c.Orphans+c.Recent) > allowed:
		return Wait, fmt.Sprintf("%d objects were deleted just now", c.Recent)
	}
	return Delete, ""
}
