package dbsync

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/undecodable"
)

// maxLag is for how long a write of ours is believed against the cache. It only matters if the cache never saw
// an object that was made and deleted between two of its lists.
const maxLag = 30 * time.Second

// view is the cache plus our own writes that the cache has not seen yet, so that nothing is written twice only
// because the cache is late. It holds no more than the writes of the last moments.
type view struct {
	reader    client.Reader
	newObject func() client.Object
	clock     clock.PassiveClock

	mu     sync.Mutex
	writes map[types.NamespacedName]write
}

// write is what we know better than the cache.
type write struct {
	// object as the API server answered it; nil after a deletion.
	object client.Object
	// deleted is the UID of the object that was deleted.
	deleted types.UID
	at      time.Time
}

func newView(reader client.Reader, newObject func() client.Object, c clock.PassiveClock) *view {
	return &view{reader: reader, newObject: newObject, clock: c, writes: map[types.NamespacedName]write{}}
}

// get returns the object under a key, for reading only; nil if there is none.
func (v *view) get(ctx context.Context, key types.NamespacedName) (client.Object, error) {
	object := v.newObject()
	err := v.reader.Get(ctx, key, object, client.UnsafeDisableDeepCopy)
	if apierrors.IsNotFound(err) {
		return v.latest(key, nil), nil
	}
	if aside, yes := undecodable.As(err); yes {
		return v.latest(key, aside.Object), nil // It is there. The callers look at its mark.
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s from the cache: %w", describe(key), err)
	}
	return v.latest(key, object), nil
}

// withID brings a list of the cache up to date: without what we deleted, and with what we made and the cache does
// not show yet.
func (v *view) withID(cached []client.Object, match func(client.Object) bool) []client.Object {
	var found []client.Object
	listed := make(map[types.NamespacedName]bool, len(cached))
	for _, object := range cached {
		key := client.ObjectKeyFromObject(object)
		listed[key] = true
		if latest := v.latest(key, object); latest != nil {
			found = append(found, latest)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for key, written := range v.writes {
		if !listed[key] && written.object != nil && v.clock.Since(written.at) <= maxLag && match(written.object) {
			found = append(found, written.object)
		}
	}
	return found
}

// latest is the newer one of what the cache has and what we wrote.
func (v *view) latest(key types.NamespacedName, cached client.Object) client.Object {
	v.mu.Lock()
	defer v.mu.Unlock()
	written, ok := v.writes[key]
	if !ok {
		return cached
	}
	if written.outdated(cached) || v.clock.Since(written.at) > maxLag {
		delete(v.writes, key)
		return cached
	}
	return written.object
}

// outdated says whether the cache has seen the write.
func (w write) outdated(cached client.Object) bool {
	if w.object == nil {
		return cached == nil || cached.GetUID() != w.deleted
	}
	if cached == nil {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(cached.GetResourceVersion(), w.object.GetResourceVersion())
	return err != nil || order >= 0
}

// wrote remembers an object as the API server answered it.
func (v *view) wrote(object client.Object) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writes[client.ObjectKeyFromObject(object)] = write{object: object, at: v.clock.Now()}
}

// removed remembers that an object is gone for good: nothing holds it back.
func (v *view) removed(object client.Object) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writes[client.ObjectKeyFromObject(object)] = write{deleted: object.GetUID(), at: v.clock.Now()}
}

// seen tells the view what the watch showed, and says whether that was our own latest write.
func (v *view) seen(object client.Object) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := client.ObjectKeyFromObject(object)
	written, ok := v.writes[key]
	if !ok || !written.outdated(object) {
		return false
	}
	delete(v.writes, key)
	return written.object != nil && written.object.GetResourceVersion() == object.GetResourceVersion()
}

// seenGone tells the view that the watch showed an object's end.
func (v *view) seenGone(object client.Object) {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := client.ObjectKeyFromObject(object)
	if written, ok := v.writes[key]; ok && (written.object == nil || written.object.GetUID() == object.GetUID()) {
		delete(v.writes, key)
	}
}

// forgetOld drops writes that nobody asked about since the cache must have seen them.
func (v *view) forgetOld() {
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.DeleteFunc(v.writes, func(_ types.NamespacedName, w write) bool { return v.clock.Since(w.at) > maxLag })
}
