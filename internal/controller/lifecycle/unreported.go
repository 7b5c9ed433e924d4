package lifecycle

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// unreported remembers, by Processor, the pods that were created and that no status tells of yet. It may forget when
// the operator dies: then a pod that somebody stripped of its finalizer and deleted before the first status was written
// is created once more under its name and epoch, which is safe because the finalizer's removal says that it is gone.
type unreported struct {
	mu   sync.Mutex
	pods map[types.NamespacedName]newborn
}

type newborn struct {
	pod string
	at  time.Time
}

func (u *unreported) add(o *observation) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pods == nil {
		u.pods = map[types.NamespacedName]newborn{}
	}
	name, _ := o.holder()
	u.pods[o.key] = newborn{name, o.now}
}

// remove forgets a pod once a status that tells of it is written, or there is nothing to tell.
func (u *unreported) remove(o *observation) {
	if name, holder := o.holder(); o.processor != nil && name != "" && holder == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.pods, o.key)
}

// createdAt is when the pod was created, or zero if that is not known here.
func (u *unreported) createdAt(key types.NamespacedName, pod string) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if newborn := u.pods[key]; newborn.pod == pod {
		return newborn.at
	}
	return time.Time{}
}
