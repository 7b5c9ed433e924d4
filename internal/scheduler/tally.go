package scheduler

import (
	"maps"
	"slices"
)

// tally counts pods of a kind by node and by class.
type tally struct {
	owner   *owner
	nodes   map[string]int // by the node's name; also nodes of which nothing else is known
	classes map[int]int    // by the class's number
}

func newTally(o *owner) tally {
	return tally{owner: o, nodes: map[string]int{}, classes: map[int]int{}}
}

func (t *tally) clone(o *owner) tally {
	return tally{owner: o, nodes: maps.Clone(t.nodes), classes: maps.Clone(t.classes)}
}

func (t *tally) add(n *node, pods int) {
	count(t.nodes, n.name, pods)
	if n.class != noClass {
		count(t.classes, n.class, pods)
	}
}

func count[K comparable](counts map[K]int, key K, by int) {
	if counts[key] += by; counts[key] == 0 {
		delete(counts, key)
	}
}

// reclass follows a node from a class to another.
func (t *tally) reclass(name string, from, to int) {
	pods := t.nodes[name]
	if from != noClass {
		count(t.classes, from, -pods)
	}
	if to != noClass {
		count(t.classes, to, pods)
	}
}

// group counts the pods that a selector picks. It is made when a pod first asks for it, and then kept current.
type group struct {
	selector *selector
	tally
}

// carrier counts the pods that carry a term of anti-affinity.
type carrier struct {
	term antiTerm
	tally
}

// mostGroups bounds the memory of groups. All are dropped at once; those in use come back when they are asked for.
const mostGroups = 4096

func (s *Snapshot) group(picked *selector) *group {
	if g, ok := s.groups.get(picked.key); ok {
		return g
	}
	if s.groups.size >= mostGroups {
		s.dropGroups()
	}
	g := &group{selector: picked, tally: newTally(s.owner)}
	hint := picked.hint()
	for p, n := range s.mayMatch(hint) {
		if picked.matches(p, s.namespaceLabels) {
			g.add(n, 1)
		}
	}
	s.groups.set(s.owner, picked.key, g)
	s.groupHints.add(s.owner, hint, picked.key)
	return g
}

func (s *Snapshot) dropGroups() {
	s.groups, s.groupHints = table[*group]{}, hints{}
}

// hints find by a label what may concern a pod.
type hints struct{ table[[]string] }

func (h *hints) add(o *owner, hint, key string) {
	keys, _ := h.get(hint)
	h.set(o, hint, append(slices.Clip(keys), key))
}

func (h *hints) remove(o *owner, hint, key string) {
	keys, _ := h.get(hint)
	rest := make([]string, 0, len(keys))
	for _, other := range keys {
		if other != key {
			rest = append(rest, other)
		}
	}
	if len(rest) == 0 {
		h.delete(o, hint)
		return
	}
	h.set(o, hint, rest)
}

// each visits the keys that may concern the pod.
func (h *hints) each(p *Pod, visit func(key string)) {
	if h.size == 0 {
		return
	}
	for label, value := range p.labels {
		keys, _ := h.get(label + "=" + value)
		for _, key := range keys {
			visit(key)
		}
	}
	keys, _ := h.get("")
	for _, key := range keys {
		visit(key)
	}
}

// tell lets groups, carriers and lists know that a pod came to a node or left it.
func (s *Snapshot) tell(p *Pod, n *node, by int) {
	s.groupHints.each(p, func(key string) {
		if g, _ := s.groups.get(key); g.selector.matches(p, s.namespaceLabels) {
			s.ownGroup(key, g).add(n, by)
		}
	})
	s.relist(p, by)
	if p.terms == nil {
		return
	}
	for _, term := range p.terms.antiAffinity {
		s.carry(term, n, by)
	}
}

func (s *Snapshot) ownGroup(key string, g *group) *group {
	if g.owner != s.owner {
		g = &group{selector: g.selector, tally: g.clone(s.owner)}
		s.groups.set(s.owner, key, g)
	}
	return g
}

func (s *Snapshot) ownCarrier(key string, c *carrier) *carrier {
	if c.owner != s.owner {
		c = &carrier{term: c.term, tally: c.clone(s.owner)}
		s.carriers.set(s.owner, key, c)
	}
	return c
}

func (t antiTerm) key() string { return t.topologyKey + "|" + t.selector.key }

func (s *Snapshot) carry(term antiTerm, n *node, by int) {
	key := term.key()
	c, known := s.carriers.get(key)
	if !known {
		c = &carrier{term: term, tally: newTally(s.owner)}
		s.carriers.set(s.owner, key, c)
		s.carrierHints.add(s.owner, term.selector.hint(), key)
	}
	c = s.ownCarrier(key, c)
	c.add(n, by)
	if len(c.nodes) == 0 {
		s.carriers.delete(s.owner, key)
		s.carrierHints.remove(s.owner, term.selector.hint(), key)
	}
}

// reclass follows a node in the tallies of the pods on it.
func (s *Snapshot) reclass(n *node, from, to int) {
	groups, carriers := map[string]struct{}{}, map[string]struct{}{}
	for _, p := range n.pods {
		s.groupHints.each(p, func(key string) { groups[key] = struct{}{} })
		if p.terms == nil {
			continue
		}
		for _, term := range p.terms.antiAffinity {
			carriers[term.key()] = struct{}{}
		}
	}
	for key := range groups {
		if g, _ := s.groups.get(key); g.nodes[n.name] != 0 {
			s.ownGroup(key, g).reclass(n.name, from, to)
		}
	}
	for key := range carriers {
		c, _ := s.carriers.get(key)
		s.ownCarrier(key, c).reclass(n.name, from, to)
	}
}
