package dbsync

import (
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/undecodable"
)

// inventory is everything that there is of a kind, as the cache shows it. For reading only, by one goroutine.
type inventory struct {
	byKey map[types.NamespacedName]client.Object
	idOf  func(client.Object) string
	// byID is byKey by another key, made when it is first needed.
	byID map[string][]client.Object
}

// withID are the objects that stand for an id.
func (inv *inventory) withID(id string) []client.Object {
	if inv.byID == nil {
		inv.byID = make(map[string][]client.Object, len(inv.byKey))
		for _, object := range inv.byKey {
			inv.byID[inv.idOf(object)] = append(inv.byID[inv.idOf(object)], object)
		}
	}
	return inv.byID[id]
}

// settlement is the object of a row that lives under another key than the row's; nil if there is none. An object
// that people made is the row's if the row knows it by name: then its author moved the row to source database.
func settlement(row desired, ofID []client.Object) client.Object {
	var found client.Object
	for _, o := range ofID {
		switch {
		case client.ObjectKeyFromObject(o) == row.key || (!onceOwned(o) && o.GetName() != row.knownName):
		case found == nil || client.ObjectKeyFromObject(o).String() < client.ObjectKeyFromObject(found).String():
			found = o // Of several always the same one, so that what is said about the row does not change.
		}
	}
	return found
}

// orphans are the database-owned objects that no row asks for. wanted has the key of each row's object by the
// row's id.
func (inv *inventory) orphans(wanted map[string]types.NamespacedName) (orphans []client.Object, total int) {
	for key, object := range inv.byKey {
		if !owned(object) || object.GetDeletionTimestamp() != nil {
			continue
		}
		total++
		if _, aside := undecodable.Of(object); aside {
			continue // What it is called is not known for certain, and nothing is written to it.
		}
		if inv.orphaned(key, inv.idOf(object), wanted) {
			orphans = append(orphans, object)
		}
	}
	return orphans, total
}

// orphaned says whether no row asks for the object under a key. Where the row asks for one under another key, this
// one stays until that one exists: it may never come to exist.
func (inv *inventory) orphaned(key types.NamespacedName, id string, wanted map[string]types.NamespacedName) bool {
	place, isWanted := wanted[id]
	return !isWanted || (place != key && inv.standsFor(place, id))
}

// standsFor says whether a database-owned object with this id lives under the key.
func (inv *inventory) standsFor(key types.NamespacedName, id string) bool {
	object, ok := inv.byKey[key]
	return ok && owned(object) && inv.idOf(object) == id
}

// splitApproved takes out the objects whose deletion a person has approved.
func splitApproved(orphans []client.Object) (approved, rest []client.Object) {
	for _, o := range orphans {
		if o.GetAnnotations()[doryv1alpha1.AnnotationDeletionApproved] == "true" {
			approved = append(approved, o)
		} else {
			rest = append(rest, o)
		}
	}
	return approved, rest
}
