package scheduler

import (
	"cmp"
	"slices"
)

// Displace finds a node that would fit a refused pod if placeholders of lower priority were gone, and names them: those
// first that end already, then as few and as small ones as it can find. It leaves out nodes that are to be avoided, and does
// not change the snapshot. False: there is no such node.
func (s *Snapshot) Displace(p *Pod, how How, avoid map[string]bool) (string, []*Pod, bool) {
	if p.problem != "" || p.patient || p.placeholder {
		return "", nil, false
	}
	var best displacement
	for _, name := range s.worthDisplacing(p, how, avoid) {
		n, _ := s.nodes.get(name)
		for _, size := range []bySize{largestFirst, smallestFirst} {
			found, ok := s.Copy().displace(p, n, size, how)
			if ok && (best.node == "" || found.compare(&best) < 0) {
				best = found
			}
		}
	}
	return best.node, best.placeholders, best.node != ""
}

// KeepsRoom says whether there is any placeholder.
func (s *Snapshot) KeepsRoom() bool { return s.keepers.size > 0 }

// Yields says whether a node has room for a pod as far as can be told at once, if placeholders count as gone.
func (s *Snapshot) Yields(p *Pod, name string, how How) bool {
	if _, keeps := s.keepers.get(name); !keeps {
		return false
	}
	n, _ := s.nodes.get(name)
	_, enough := n.withoutPlaceholders(p, how)
	return enough
}

// End notes that a pod was told to end, before it is known to. Its room is still taken.
func (s *Snapshot) End(key string) Change {
	at, found := s.pods.get(key)
	if !found || at.pod.terminating {
		return Change{}
	}
	ending := *at.pod
	ending.terminating = true
	s.take(at)
	s.put(&ending, at.node, at.assumed)
	return Change{Node: at.node, Kinds: KindPods}
}

// displacement is a way to make room at the cost of placeholders.
type displacement struct {
	node         string
	placeholders []*Pod
	ended        int   // how many of them work on until they are told
	share        int64 // of the node that these hold
}

func (d *displacement) compare(other *displacement) int {
	return cmp.Or(cmp.Compare(d.ended, other.ended), cmp.Compare(d.share, other.share), cmp.Compare(d.node, other.node))
}

// worthDisplacing are the nodes that lack nothing but what their placeholders hold, those first where the least has to go.
func (s *Snapshot) worthDisplacing(p *Pod, how How, avoid map[string]bool) []string {
	var worth []prospect
	s.prepare(p, how)
	for name := range s.keepers.all {
		n, _ := s.nodes.get(name)
		if n.facts == nil || name == how.Not || avoid[name] || !s.admits(n.class) || !s.plan.matches(n) {
			continue
		}
		if missing, enough := n.withoutPlaceholders(p, how); enough {
			worth = append(worth, prospect{name: name, missing: missing})
		}
	}
	return leastMissing(worth)
}

// withoutPlaceholders is how full the node is beyond what p needs, and whether it would do without them.
func (n *node) withoutPlaceholders(p *Pod, how How) (missing int64, enough bool) {
	placeholders := n.placeholders(p, largestFirst)
	if n.facts == nil || len(placeholders) == 0 {
		return 0, false
	}
	return n.missing(p, placeholders, how)
}

// placeholders that are to go for p, those first that go already, then the least important.
func (n *node) placeholders(p *Pod, size bySize) []*Pod {
	pods := n.less(p, size, func(other *Pod) bool { return other.placeholder })
	slices.SortStableFunc(pods, func(a, b *Pod) int { return cmp.Compare(a.stays(), b.stays()) })
	return pods
}

// stays is 0 for a pod that ends.
func (p *Pod) stays() int {
	if p.terminating {
		return 0
	}
	return 1
}

// displace placeholders of a node of this copy.
func (s *Snapshot) displace(p *Pod, n *node, size bySize, how How) (displacement, bool) {
	d := displacement{node: n.name, placeholders: s.vacate(p, n.name, n.placeholders(p, size), how)}
	for _, other := range d.placeholders {
		if !other.terminating {
			d.ended++
			d.share += share(other.request.cpu, n.facts.allocatable.cpu) + share(other.request.memory, n.facts.allocatable.memory)
		}
	}
	return d, len(d.placeholders) > 0
}
