package dbsync

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/undecodable"
)

// indexID finds an object by the id that it stands for.
const indexID = "dory.io/dbsync-id"

// kind is what differs between the two tables that are mirrored.
type kind interface {
	// name is the kind of the objects, and table where their rows are.
	name() string
	table() string
	newObject() client.Object
	newList() client.ObjectList
	// items are pointers into a list.
	items(list client.ObjectList) []client.Object
	// idOf is the id that an object says it stands for.
	idOf(object client.Object) string
	// same says whether writing want would leave have as it is.
	same(want, have client.Object) bool
	// fit is want, without what current cannot take any more.
	fit(want, current client.Object) client.Object
	// staysPut says that an object must not be replaced by one under another key, because it runs and has state.
	staysPut() bool
	// replace makes changed what want asks for, where server-side apply left something of another writer.
	replace(changed, want client.Object)

	// list reads the whole table, or fails; get reads those of the ids whose rows ask for an object.
	list(ctx context.Context) (listing, error)
	get(ctx context.Context, ids []string) (listing, error)
	// empty says whether the table has no rows at all, whatever they ask for.
	empty(ctx context.Context) (bool, error)
	setSyncErrors(ctx context.Context, messages map[string]string) error
}

// listing is rows that were read, to be rendered one by one.
type listing struct {
	// wanted has the key of each row's object by the row's id.
	wanted map[string]types.NamespacedName
	// owning counts the rows that own an object, and are not only known to the table.
	owning int
	// each renders every row.
	each func(yield func(desired) bool)
}

// takeInventory lists all objects of a kind from the cache, without copying them.
func takeInventory(ctx context.Context, reader client.Reader, k kind) (*inventory, error) {
	list := k.newList()
	if err := reader.List(ctx, list, client.UnsafeDisableDeepCopy, undecodable.Tolerate); err != nil {
		return nil, fmt.Errorf("listing all %ss from the cache: %w", k.name(), err)
	}
	items := k.items(list)
	inv := &inventory{byKey: make(map[types.NamespacedName]client.Object, len(items)), idOf: k.idOf}
	for _, object := range items {
		inv.byKey[client.ObjectKeyFromObject(object)] = object
	}
	return inv, nil
}

// byID lists the objects that stand for an id, from the cache, without copying them.
func byID(ctx context.Context, reader client.Reader, k kind, id string) ([]client.Object, error) {
	list := k.newList()
	if err := reader.List(ctx, list, client.MatchingFields{indexID: id}, client.UnsafeDisableDeepCopy, undecodable.Tolerate); err != nil {
		return nil, fmt.Errorf("listing the %ss with id %q from the cache: %w", k.name(), id, err)
	}
	return k.items(list), nil
}
