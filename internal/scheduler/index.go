package scheduler

import (
	"cmp"
	"slices"
)

// chunkSize bounds the nodes of a chunk. A search looks at every chunk's summary and into few chunks, so it is about
// the square root of some thousand nodes.
const chunkSize = 64

// room is what is left of a node's CPU, memory and number of pods, the buffer taken off.
type room struct {
	cpu, memory, pods int64
}

func (r room) holds(need room) bool {
	return r.cpu >= need.cpu && r.memory >= need.memory && r.pods >= need.pods
}

func (r room) max(other room) room {
	return room{cpu: max(r.cpu, other.cpu), memory: max(r.memory, other.memory), pods: max(r.pods, other.pods)}
}

// touches says whether one of the two amounts is the same: whether taking other away can change a maximum of r.
func (r room) touches(other room) bool {
	return r.cpu == other.cpu || r.memory == other.memory || r.pods == other.pods
}

// place is where a node stands in the order: the fuller before the emptier, then by name.
type place struct {
	fullness int64
	name     string
}

func (p place) compare(other place) int {
	if c := cmp.Compare(other.fullness, p.fullness); c != 0 {
		return c
	}
	return cmp.Compare(p.name, other.name)
}

type entry struct {
	fullness int64
	room     room
	node     *node
}

func (e *entry) place() place { return place{fullness: e.fullness, name: e.node.name} }

// compare reads the name only where it must: it lies elsewhere.
func (e *entry) compare(p place) int {
	if c := cmp.Compare(p.fullness, e.fullness); c != 0 {
		return c
	}
	return cmp.Compare(e.node.name, p.name)
}

// index holds the nodes of one class in order.
type index struct {
	owner  *owner
	class  *class
	size   int
	chunks []chunk
}

// chunk is a run of the order. Its summary lies in the index, so that a search reads memory in sequence.
type chunk struct {
	first   place
	most    room // of each the largest, not all of one node
	owner   *owner
	entries []entry
}

func (c *chunk) summarise() {
	c.first = c.entries[0].place()
	c.most = c.entries[0].room
	for i := range c.entries {
		c.most = c.most.max(c.entries[i].room)
	}
}

func (c *chunk) own(o *owner) {
	if c.owner == o {
		return
	}
	c.entries = append(make([]entry, 0, chunkSize+1), c.entries...)
	c.owner = o
}

// search is like slices.BinarySearchFunc, and copies no entries.
func (c *chunk) search(p place) (int, bool) {
	low, high := 0, len(c.entries)
	for low < high {
		middle := low + (high-low)/2
		if c.entries[middle].compare(p) < 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, low < len(c.entries) && c.entries[low].compare(p) == 0
}

// ownedBy is the index, or a clone that o may change.
func (x *index) ownedBy(o *owner) *index {
	if x.owner == o {
		return x
	}
	return &index{owner: o, class: x.class, size: x.size, chunks: slices.Clone(x.chunks)}
}

// locate is the chunk that holds a place or would hold it.
func (x *index) locate(p place) int {
	low, high := 0, len(x.chunks)
	for low < high {
		middle := low + (high-low)/2
		if x.chunks[middle].first.compare(p) <= 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return max(low-1, 0)
}

func (x *index) insert(e entry) {
	x.size++
	if len(x.chunks) == 0 {
		c := chunk{owner: x.owner, entries: append(make([]entry, 0, chunkSize+1), e)}
		c.summarise()
		x.chunks = append(x.chunks, c)
		return
	}
	at := x.locate(e.place())
	c := &x.chunks[at]
	c.own(x.owner)
	i, _ := c.search(e.place())
	c.entries = slices.Insert(c.entries, i, e)
	c.first, c.most = c.entries[0].place(), c.most.max(e.room)
	if len(c.entries) > chunkSize {
		x.split(at)
	}
}

func (x *index) split(at int) {
	c := &x.chunks[at]
	half := len(c.entries) / 2
	right := chunk{owner: x.owner, entries: append(make([]entry, 0, chunkSize+1), c.entries[half:]...)}
	right.summarise()
	clear(c.entries[half:])
	c.entries = c.entries[:half]
	c.summarise()
	x.chunks = slices.Insert(x.chunks, at+1, right)
}

// remove takes out the node at a place. It must be there.
func (x *index) remove(p place) {
	at := x.locate(p)
	c := &x.chunks[at]
	c.own(x.owner)
	i, found := c.search(p)
	if !found {
		return
	}
	gone := c.entries[i].room
	c.entries = slices.Delete(c.entries, i, i+1)
	x.size--
	switch {
	case len(c.entries) == 0:
		x.chunks = slices.Delete(x.chunks, at, at+1)
	case c.most.touches(gone):
		c.summarise()
	default:
		c.first = c.entries[0].place()
	}
}

// first is the first node in order that has the room and is accepted, and that comes before the bound, if there is one.
func (x *index) first(need room, bound *entry, accepts func(*node) bool) *entry {
	for i := range x.chunks {
		c := &x.chunks[i]
		if bound != nil && c.first.compare(bound.place()) >= 0 {
			return nil
		}
		if !c.most.holds(need) {
			continue
		}
		if found, over := c.find(need, bound, accepts); found != nil || over {
			return found
		}
	}
	return nil
}

// find also says whether the bound was reached.
func (c *chunk) find(need room, bound *entry, accepts func(*node) bool) (*entry, bool) {
	for i := range c.entries {
		e := &c.entries[i]
		if !e.room.holds(need) {
			continue
		}
		if bound != nil && e.compare(bound.place()) >= 0 {
			return nil, true
		}
		if accepts == nil || accepts(e.node) {
			return e, false
		}
	}
	return nil, false
}

// all visits the nodes in order.
func (x *index) all(yield func(*node) bool) {
	for i := range x.chunks {
		for j := range x.chunks[i].entries {
			if !yield(x.chunks[i].entries[j].node) {
				return
			}
		}
	}
}
