package checkpoint

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statestore"
)

const (
	// verifyAfter is after how many looks that found nothing new it is checked that what was stored is still there.
	verifyAfter = 10
	// failuresToTell in a row, or intervalsToTell without a checkpoint, are told in the condition. Less than that may
	// be a processor that is busy, or restarts.
	failuresToTell  = 3
	intervalsToTell = 2
	// holdDelay and maxHolds bound how long a state that looks as if its process had restarted waits for its kubelet to
	// say so.
	holdDelay = 3 * time.Second
	maxHolds  = 4
)

// entry is what is remembered of one processor, so that a look that finds nothing new costs one request to it.
// Only the worker that has the processor in hand touches it, but for what the book guards.
type entry struct {
	uid      types.UID
	interval time.Duration

	// next is when to look again. upcoming is the instance that it was set for.
	next     time.Time
	upcoming instance
	// instance was looked at last, successfully.
	instance instance
	// raw is the checksum of the last state as its process wrote it. saved is the newest stored copy.
	raw   string
	saved statestore.Copy
	slot  statestore.Slot
	// previous is where the last copy went that a save elsewhere makes obsolete.
	previous doryv1alpha1.CheckpointStorage
	// unchanged counts looks since it was last known that the stored copy is there.
	unchanged int
	// doubtful: ask the instance for its role.
	doubtful bool
	// at and uptime are of the last capture.
	at     time.Time
	uptime time.Duration
	holds  int

	// since is when the state was last known to be safe, or when the entry was made. The book guards it.
	since time.Time
	// runs says whether there was an instance at the last pass. The book guards it.
	runs     bool
	failures int
	// trouble is what the condition says is wrong, and its event has told.
	trouble *trouble
	// current says that a checkpoint of this instance has succeeded.
	current bool
	// progress is how the processor's iterations go.
	progress progress
	// generation is that of the Processor at the last look.
	generation int64
	told       told
}

// trouble is why there are no checkpoints.
type trouble struct {
	reason, message string
	// class tells apart what the message would tell with other words each time, such as port numbers.
	class string
}

// book holds all entries.
type book struct {
	mu      sync.Mutex
	entries map[types.NamespacedName]*entry
	// doubts are processors of which a pod or a migration has ended: a late save may have overwritten what was stored, and
	// the instance may have been left without somebody who lets it work.
	doubts map[types.NamespacedName]bool
}

func newBook() *book {
	return &book{entries: map[types.NamespacedName]*entry{}, doubts: map[types.NamespacedName]bool{}}
}

func keyOf(p *doryv1alpha1.Processor) types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

// entry is that of the Processor, a new one if it was made anew.
func (b *book) entry(o *observation) *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := keyOf(o.processor)
	e := b.entries[key]
	if e == nil || e.uid != o.processor.UID {
		e = &entry{uid: o.processor.UID, since: o.now}
		b.entries[key] = e
	}
	running := o.running()
	if !running || !e.runs {
		e.since = o.now // A processor that does not run does not fall behind.
	}
	e.runs = running
	e.interval = o.processor.CheckpointInterval()
	if b.doubts[key] {
		delete(b.doubts, key)
		e.unchanged, e.doubtful = verifyAfter, true
	}
	return e
}

func (b *book) forget(key types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.entries, key)
	delete(b.doubts, key)
}

// doubt makes the next look check that what was stored is still there, and that the instance works.
func (b *book) doubt(key types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entries[key] != nil { // Of the others nothing is remembered that could be doubted.
		b.doubts[key] = true
	}
}

// safe notes that the state is stored, and answers for how long that was not known.
func (b *book) safe(e *entry, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	age := now.Sub(e.since)
	e.since = now
	return age
}

// oldest is since when the state of some processor is not known to be safe.
func (b *book) oldest(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	var oldest time.Duration
	for _, e := range b.entries {
		if e.interval > 0 && e.runs {
			oldest = max(oldest, now.Sub(e.since))
		}
	}
	return oldest
}

func (r *Reconciler) oldestAge() float64 { return r.book.oldest(r.clock.Now()).Seconds() }
