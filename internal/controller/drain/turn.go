package drain

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Limits bound how many moves of drains are under way at once.
type Limits struct {
	// PerNode is for those off one node, Total for the cluster.
	PerNode, Total int
}

// Mover is a processor that a drain moves, as its turn goes by it.
type Mover struct {
	// Key names the ProcessorMigration.
	Key types.NamespacedName
	// Node is where it leaves.
	Node string
	// Priority is the pod's: the higher goes first.
	Priority int32
	// StateBytes is the size of its newest checkpoint: the smaller goes first.
	StateBytes int64
	// Since is when its drain began: the earlier goes first.
	Since time.Time

	// processor is what the ProcessorMigration moves.
	processor string
}

// NextTurns are those of the waiting whose turn it is, the first one first. Nodes of which fewer processors move go first,
// so that a large drain does not keep a small one waiting.
func NextTurns(waiting, active []Mover, limits Limits) []Mover {
	moving := map[string]int{}
	for _, m := range active {
		moving[m.Node]++
	}
	waiting = slices.SortedFunc(slices.Values(waiting), compare)
	var next []Mover
	for len(active)+len(next) < limits.Total {
		best := -1
		for i, m := range waiting {
			if moving[m.Node] < limits.PerNode && (best < 0 || moving[m.Node] < moving[waiting[best].Node]) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		moving[waiting[best].Node]++
		next = append(next, waiting[best])
		waiting = slices.Delete(waiting, best, best+1)
	}
	return next
}

// compare orders the processors of one node.
func compare(a, b Mover) int {
	return cmp.Or(
		cmp.Compare(b.Priority, a.Priority),
		cmp.Compare(a.StateBytes, b.StateBytes),
		a.Since.Compare(b.Since),
		cmp.Compare(a.Key.Namespace, b.Key.Namespace),
		cmp.Compare(a.Key.Name, b.Key.Name),
	)
}
