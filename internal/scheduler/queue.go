package scheduler

import "container/heap"

// Queue orders waiting pods: the higher priority first, then the older, then by name.
type Queue struct {
	items  items
	places map[string]*item
}

type item struct {
	pod *Pod
	at  int
}

// NewQueue makes an empty queue.
func NewQueue() *Queue { return &Queue{places: map[string]*item{}} }

// Len is how many pods wait.
func (q *Queue) Len() int { return len(q.items) }

// Push adds a pod, or replaces what is known of it.
func (q *Queue) Push(p *Pod) {
	if known, found := q.places[p.Key]; found {
		known.pod = p
		heap.Fix(&q.items, known.at)
		return
	}
	added := &item{pod: p}
	q.places[p.Key] = added
	heap.Push(&q.items, added)
}

// Pop takes the first pod out. False: nobody waits.
func (q *Queue) Pop() (*Pod, bool) {
	if len(q.items) == 0 {
		return nil, false
	}
	first := q.items[0]
	q.Remove(first.pod.Key)
	return first.pod, true
}

// Remove takes a pod out, if it is in.
func (q *Queue) Remove(key string) {
	known, found := q.places[key]
	if !found {
		return
	}
	delete(q.places, key)
	heap.Remove(&q.items, known.at)
}

// Has says whether a pod is in the queue.
func (q *Queue) Has(key string) bool {
	_, found := q.places[key]
	return found
}

// items implement heap.Interface.
type items []*item

func (h items) Len() int           { return len(h) }
func (h items) Less(a, b int) bool { return Compare(h[a].pod, h[b].pod) < 0 }

func (h items) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].at, h[b].at = a, b
}

func (h *items) Push(x any) {
	added, ok := x.(*item)
	if !ok {
		return
	}
	added.at = len(*h)
	*h = append(*h, added)
}

func (h *items) Pop() any {
	last := len(*h) - 1
	taken := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return taken
}
