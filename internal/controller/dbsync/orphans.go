package dbsync

import (
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// inventory is everything that there is of a kind, as the cache shows it. For reading only.
type inventory struct {
	byKey map[types.NamespacedName]client.Object
	idOf  func(client.Object) string
}

// orphans are the database-owned objects that no row asks for. wanted has the key of each row's object by the
// row's id. Where a row has moved to another namespace, the old object stays until the new one exists: it may
// never come to exist.
func (inv inventory) orphans(wanted map[string]types.NamespacedName) (orphans []client.Object, total int) {
	for key, object := range inv.byKey {
		if !owned(object) || object.GetDeletionTimestamp() != nil {
			continue
		}
		total++
		place, isWanted := wanted[inv.idOf(object)]
		if !isWanted || (place != key && inv.standsFor(place, inv.idOf(object))) {
			orphans = append(orphans, object)
		}
	}
	return orphans, total
}

// standsFor says whether a database-owned object with this id lives under the key.
func (inv inventory) standsFor(key types.NamespacedName, id string) bool {
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
