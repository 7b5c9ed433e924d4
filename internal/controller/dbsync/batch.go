package dbsync

import "sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"

// maxBatch bounds how many rows are read by one query, and for how long a hint may wait for a batch before it.
const maxBatch = 100

// nextBatch waits for an item and takes what else is ready; nil at the end. Items are given back at once: an
// item that comes again meanwhile is simply served again. Only one caller at a time: what another one takes between the
// look at the length and the taking would be waited for.
func nextBatch[T comparable](queue priorityqueue.PriorityQueue[T]) []T {
	var batch []T
	taken := map[T]bool{}
	for len(batch) == 0 || (len(batch) < maxBatch && queue.Len() > 0) {
		item, _, shutdown := queue.GetWithPriority()
		if shutdown {
			return nil
		}
		queue.Done(item)
		if !taken[item] {
			taken[item] = true
			batch = append(batch, item)
		}
	}
	return batch
}
