package scheduler

import (
	"cmp"
	"slices"
)

// Move of a pod from one node to another.
type Move struct {
	Pod      string // the key
	From, To string
}

// mostTried bounds how many nodes are looked at for making room.
const mostTried = 32

// MakeRoom finds a node that would fit a refused pod if pods of lower priority, all of them movable, went on elsewhere,
// and names their moves: as few as it can find, of as low a priority as possible. The snapshot is not changed, and nobody
// is killed: each move ends only when the pod runs in its new place. False: there is no such node.
func (s *Snapshot) MakeRoom(p *Pod, how How) (string, []Move, bool) {
	if p.problem != "" || p.patient {
		return "", nil, false
	}
	var best relief
	for _, name := range s.worthTrying(p, how) {
		n, _ := s.nodes.get(name)
		for _, yielding := range [][]*Pod{n.yielding(p, largestFirst), n.yielding(p, smallestFirst)} {
			found, ok := s.Copy().relieve(p, name, yielding, how)
			if ok && (best.node == "" || found.compare(&best) < 0) {
				best = found
			}
		}
	}
	return best.node, best.moves, best.node != ""
}

// relief is a way to make room.
type relief struct {
	node     string
	moves    []Move
	priority int32 // the highest of those that move
}

func (r *relief) compare(other *relief) int {
	return cmp.Or(cmp.Compare(len(r.moves), len(other.moves)), cmp.Compare(r.priority, other.priority), cmp.Compare(r.node, other.node))
}

// worthTrying are the nodes that lack nothing but what their movable pods have, those first where the least has to go.
func (s *Snapshot) worthTrying(p *Pod, how How) []string {
	var worth []prospect
	for _, name := range s.names() {
		n, _ := s.nodes.get(name)
		yielding := n.yielding(p, largestFirst)
		if n.facts == nil || name == how.Not || len(yielding) == 0 {
			continue
		}
		if missing, enough := n.missing(p, yielding, how); enough {
			worth = append(worth, prospect{name: name, missing: missing})
		}
	}
	return leastMissing(worth)
}

// prospect is a node that is worth trying, and how full it is beyond what the pod needs.
type prospect struct {
	name    string
	missing int64
}

// leastMissing are the nodes where the least has to go, as many as are looked at.
func leastMissing(worth []prospect) []string {
	slices.SortFunc(worth, func(a, b prospect) int { return cmp.Or(cmp.Compare(a.missing, b.missing), cmp.Compare(a.name, b.name)) })
	names := make([]string, 0, mostTried)
	for _, w := range worth[:min(len(worth), mostTried)] {
		names = append(names, w.name)
	}
	return names
}

// bySize orders pods that are equally important. The largest first makes the fewest moves; the smallest find a place more
// easily.
type bySize int

const (
	largestFirst  bySize = 1
	smallestFirst bySize = -1
)

// yielding are the pods that may be asked to move for p, the least important first.
func (n *node) yielding(p *Pod, size bySize) []*Pod {
	return n.less(p, size, func(other *Pod) bool { return other.movable && other.Node != "" && !other.terminating })
}

// less important pods than p, of a kind, the least important first.
func (n *node) less(p *Pod, size bySize, kind func(*Pod) bool) []*Pod {
	var pods []*Pod
	for _, other := range n.pods {
		if other.Priority < p.Priority && kind(other) {
			pods = append(pods, other)
		}
	}
	slices.SortFunc(pods, func(a, b *Pod) int {
		larger := cmp.Or(cmp.Compare(b.request.cpu, a.request.cpu), cmp.Compare(b.request.memory, a.request.memory))
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), int(size)*larger, cmp.Compare(a.Key, b.Key))
	})
	return pods
}

// missing is how full the node is beyond what p needs, and whether it would do if all that may yield did.
func (n *node) missing(p *Pod, yielding []*Pod, how How) (int64, bool) {
	free := n.facts.free
	if how.UseBuffer {
		free = n.facts.allocatable
	}
	need := n.used.plus(p.request.amounts)
	over := need.minus(free)
	for _, other := range yielding {
		need = need.minus(other.request.amounts)
	}
	enough := need.cpu <= free.cpu && need.memory <= free.memory
	return share(over.cpu, n.facts.allocatable.cpu) + share(over.memory, n.facts.allocatable.memory), enough
}

// relieve a node of this copy.
func (s *Snapshot) relieve(p *Pod, name string, yielding []*Pod, how How) (relief, bool) {
	leaving := s.vacate(p, name, yielding, how)
	if len(leaving) == 0 {
		return relief{}, false
	}
	return s.rehouse(p, name, leaving, how)
}

// vacate takes away from a node of this copy until p fits, then gives back what need not have gone. Nobody is left who leaves
// where that does not help, or p fits as it is.
func (s *Snapshot) vacate(p *Pod, name string, yielding []*Pod, how How) []*Pod {
	var gone []*Pod
	for _, other := range yielding {
		if s.Fits(p, name, how) {
			break
		}
		s.DeletePod(other.Key)
		gone = append(gone, other)
	}
	if !s.Fits(p, name, how) {
		return nil
	}
	return s.giveBack(p, name, how, gone)
}

// giveBack returns, the most important first, whoever leaves p its room.
func (s *Snapshot) giveBack(p *Pod, name string, how How, gone []*Pod) []*Pod {
	var leaving []*Pod
	for _, other := range slices.Backward(gone) {
		s.put(other, name, false)
		if !s.Fits(p, name, how) {
			s.DeletePod(other.Key)
			leaving = append(leaving, other)
		}
	}
	return leaving
}

// rehouse finds a place for everybody who leaves, p being in its own. The most important choose first.
func (s *Snapshot) rehouse(p *Pod, name string, leaving []*Pod, how How) (relief, bool) {
	s.put(p, name, true)
	r := relief{node: name, priority: leaving[0].Priority}
	for _, other := range leaving {
		to, found := s.Decide(other, How{Not: name, UseBuffer: how.UseBuffer})
		if !found {
			return relief{}, false
		}
		s.put(other, to, true)
		r.moves = append(r.moves, Move{Pod: other.Key, From: name, To: to})
	}
	return r, true
}
