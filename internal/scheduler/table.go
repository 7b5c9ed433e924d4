package scheduler

import (
	"hash/maphash"
	"maps"
)

// owner marks what one snapshot may change in place. Whatever bears another mark is shared with a copy, and is cloned
// before it is changed. It has a size so that each one has an address of its own.
type owner struct{ _ byte }

const shards = 256

// table is a map whose copy costs one pointer for each shard.
type table[V any] struct {
	shards [shards]*shard[V]
	size   int
}

type shard[V any] struct {
	owner   *owner
	entries map[string]V
}

// seed only decides which shard holds what; nothing is ever decided by the order of a table.
var seed = maphash.MakeSeed()

func (t *table[V]) at(key string) **shard[V] {
	return &t.shards[maphash.String(seed, key)%shards]
}

func (t *table[V]) get(key string) (V, bool) {
	if s := *t.at(key); s != nil {
		value, ok := s.entries[key]
		return value, ok
	}
	var none V
	return none, false
}

func (t *table[V]) set(o *owner, key string, value V) {
	s := t.own(o, key)
	before := len(s.entries)
	s.entries[key] = value
	t.size += len(s.entries) - before
}

func (t *table[V]) delete(o *owner, key string) {
	if _, ok := t.get(key); !ok {
		return
	}
	delete(t.own(o, key).entries, key)
	t.size--
}

func (t *table[V]) own(o *owner, key string) *shard[V] {
	at := t.at(key)
	switch s := *at; {
	case s == nil:
		*at = &shard[V]{owner: o, entries: map[string]V{}}
	case s.owner != o:
		*at = &shard[V]{owner: o, entries: maps.Clone(s.entries)}
	}
	return *at
}

// all visits the values in no particular order.
func (t *table[V]) all(yield func(string, V) bool) {
	for _, s := range t.shards {
		if s == nil {
			continue
		}
		for key, value := range s.entries {
			if !yield(key, value) {
				return
			}
		}
	}
}
