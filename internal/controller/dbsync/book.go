package dbsync

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// trouble is one row in error.
type trouble struct {
	problem string
	// key is the object that the row waits for.
	key types.NamespacedName
	// revision of the row, and refused if it was the API server that did not take it: then nothing but a try
	// tells whether it would now.
	revision int64
	refused  bool
}

// book lists the rows in error.
type book struct {
	mu   sync.Mutex
	rows map[string]trouble
}

func newBook() *book { return &book{rows: map[string]trouble{}} }

// set records a row's state; a row without a problem leaves the book.
func (b *book) set(id string, t trouble) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.problem == "" {
		delete(b.rows, id)
		return
	}
	b.rows[id] = t
}

// refusal is why the API server did not take the row in this revision.
func (b *book) refusal(id string, revision int64) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.rows[id]; t.refused && t.revision == revision {
		return t.problem
	}
	return ""
}

// has says whether a row is in error.
func (b *book) has(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.rows[id]
	return ok
}

// keepOnly drops the rows that are not wanted any more.
func (b *book) keepOnly(wanted map[string]types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.rows {
		if _, ok := wanted[id]; !ok {
			delete(b.rows, id)
		}
	}
}

// waitingFor lists the rows in error whose object has the key.
func (b *book) waitingFor(key types.NamespacedName) []string {
	return b.where(func(t trouble) bool { return t.key == key })
}

// inNamespace lists the rows in error whose object belongs into a namespace.
func (b *book) inNamespace(namespace string) []string {
	return b.where(func(t trouble) bool { return t.key.Namespace == namespace })
}

func (b *book) where(match func(trouble) bool) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for id, t := range b.rows {
		if match(t) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (b *book) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.rows)
}
