package scheduler

import (
	"cmp"
	"math"
	"slices"
)

// How to decide, beyond what the pod says.
type How struct {
	// Not is a node that is no choice, such as the one to be left; empty for none.
	Not string
	// UseBuffer lets the pod have what is otherwise kept free.
	UseBuffer bool
}

// shape remembers what the pods of a shape think of each class.
type shape struct{ verdicts []verdict }

// mostShapes bounds the memory of verdicts. All are dropped at once.
const mostShapes = 1024

// plan is what a decision looks at, worked out before it looks at nodes.
type plan struct {
	pod     *Pod
	how     How
	need    room
	shape   *shape
	byClass []check // rules that all nodes of a class share
	byNode  []check // rules that each node has to be asked about
	verdict *verdict
}

// candidate is a node to run on, and what speaks for it.
type candidate struct {
	entry
	score   int64
	avoided int
}

// compare puts first what the pod prefers, then what nobody asks to keep free, then the fuller node.
func (c *candidate) compare(other *candidate) int {
	return cmp.Or(cmp.Compare(other.score, c.score), cmp.Compare(c.avoided, other.avoided), c.entry.compare(other.place()))
}

// Decide names the node for a pod: of those that it prefers, the fullest with room. False: there is none now.
func (s *Snapshot) Decide(p *Pod, how How) (string, bool) {
	if p.problem != "" {
		return "", false
	}
	s.prepare(p, how)
	choose := s.choose
	if p.pinned() {
		choose = s.choosePinned
	}
	best, found := choose()
	if !found {
		return "", false
	}
	return best.node.name, true
}

// Fits says whether a pod could go to one node now.
func (s *Snapshot) Fits(p *Pod, name string, how How) bool {
	n, found := s.nodes.get(name)
	if !found || n.facts == nil || p.problem != "" {
		return false
	}
	s.prepare(p, how)
	_, fits := s.consider(n)
	return fits
}

func (p *Pod) pinned() bool { return p.where != nil && p.where.pinned != nil }

func (s *Snapshot) prepare(p *Pod, how How) {
	pl := &s.plan
	pl.pod, pl.how, pl.need, pl.shape = p, how, needOf(p), s.shape(p)
	pl.byClass, pl.byNode = pl.byClass[:0], pl.byNode[:0]
	if p.terms == nil && s.carriers.size == 0 {
		return
	}
	for _, c := range s.checks(p, pl.shape) {
		if s.own[c.key] {
			pl.byNode = append(pl.byNode, c)
		} else {
			pl.byClass = append(pl.byClass, c)
		}
	}
}

// needOf asks for nothing of what the pod does not use, so that nodes with less than nothing left of it do.
func needOf(p *Pod) room {
	need := room{cpu: math.MinInt64, memory: math.MinInt64, pods: 1}
	if p.request.cpu > 0 {
		need.cpu = p.request.cpu
	}
	if p.request.memory > 0 {
		need.memory = p.request.memory
	}
	return need
}

// shape is nil for a pod that names its nodes: it looks at few classes, and few pods look like it.
func (s *Snapshot) shape(p *Pod) *shape {
	if p.pinned() {
		return nil
	}
	known, found := s.shapes[p.shape]
	if !found {
		if len(s.shapes) >= mostShapes {
			clear(s.shapes)
		}
		known = &shape{}
		s.shapes[p.shape] = known
	}
	return known
}

func (s *Snapshot) verdict(known *shape, p *Pod, number int) *verdict {
	c := s.indexes[number].class
	if known == nil {
		v := p.where.judge(c, s.own)
		return &v
	}
	if number >= len(known.verdicts) {
		known.verdicts = slices.Grow(known.verdicts, len(s.indexes)-len(known.verdicts))[:len(s.indexes)]
	}
	v := &known.verdicts[number]
	if v.class != c {
		*v = p.where.judge(c, s.own)
	}
	return v
}

// choose looks at all classes.
func (s *Snapshot) choose() (candidate, bool) {
	var best candidate
	found := false
	for number, x := range s.indexes {
		if x == nil || x.size == 0 || !s.admits(number) {
			continue
		}
		if better, ok := s.chooseIn(x, best, found); ok {
			best, found = better, true
		}
	}
	return best, found
}

// admits says whether nodes of a class come into question, and makes the plan ready for them.
func (s *Snapshot) admits(number int) bool {
	pl := &s.plan
	pl.verdict = s.verdict(pl.shape, pl.pod, number)
	if pl.verdict.refused() {
		return false
	}
	for i := range pl.byClass {
		if !pl.byClass[i].passes(s.indexes[number].class.labels) {
			return false
		}
	}
	return true
}

// chooseIn finds a better candidate in a class than the best so far, if there is one.
func (s *Snapshot) chooseIn(x *index, best candidate, found bool) (candidate, bool) {
	pl := &s.plan
	if pl.verdict.scoreNode || pl.how.UseBuffer {
		return s.chooseSlowly(x, best, found)
	}
	var bound *entry
	if found {
		tier := candidate{entry: best.entry, score: pl.verdict.score, avoided: pl.verdict.avoided}
		switch tier.compare(&best) {
		case 0:
			bound = &best.entry
		case 1:
			return best, false
		}
	}
	var accepts func(*node) bool
	if pl.asksNodes() {
		accepts = pl.accepts
	}
	e := x.first(pl.need, bound, accepts)
	if e == nil {
		return best, false
	}
	return candidate{entry: *e, score: pl.verdict.score, avoided: pl.verdict.avoided}, true
}

// chooseSlowly asks node after node, where their order in the index does not help, until none can be better.
func (s *Snapshot) chooseSlowly(x *index, best candidate, found bool) (candidate, bool) {
	improved := false
	for n := range x.all {
		c, fits := s.rate(n)
		if !fits || (found && c.compare(&best) >= 0) {
			continue
		}
		best, found, improved = c, true, true
		if !s.plan.verdict.scoreNode || c.score >= s.plan.pod.where.best {
			break
		}
	}
	return best, improved
}

// choosePinned looks only at the nodes that the pod names.
func (s *Snapshot) choosePinned() (candidate, bool) {
	var best candidate
	found := false
	for _, name := range s.plan.pod.where.pinned {
		n, known := s.nodes.get(name)
		if !known || n.facts == nil {
			continue
		}
		if c, fits := s.consider(n); fits && (!found || c.compare(&best) < 0) {
			best, found = c, true
		}
	}
	return best, found
}

// consider one node by all rules.
func (s *Snapshot) consider(n *node) (candidate, bool) {
	if !s.admits(n.class) {
		return candidate{}, false
	}
	return s.rate(n)
}

// rate a node of a class that is admitted.
func (s *Snapshot) rate(n *node) (candidate, bool) {
	pl := &s.plan
	e := n.entry()
	if pl.how.UseBuffer {
		e.room.cpu, e.room.memory = n.facts.allocatable.cpu-n.used.cpu, n.facts.allocatable.memory-n.used.memory
	}
	if !e.room.holds(pl.need) || !pl.accepts(n) {
		return candidate{}, false
	}
	c := candidate{entry: e, score: pl.verdict.score, avoided: pl.verdict.avoided}
	if pl.verdict.scoreNode {
		c.score = pl.pod.where.preferred.Score(n.facts.object)
	}
	return c, true
}

// asksNodes says whether there is more to a node than its class and its room.
func (pl *plan) asksNodes() bool {
	r := &pl.pod.request
	return pl.how.Not != "" || pl.verdict.asksNode() || len(pl.byNode) > 0 ||
		len(pl.pod.ports) > 0 || len(r.extended) > 0 || r.storage > 0
}

// accepts a node by all that its class and its room do not tell.
func (pl *plan) accepts(n *node) bool {
	if n.name == pl.how.Not || !pl.matches(n) || !n.spares(&pl.pod.request) {
		return false
	}
	if len(pl.pod.ports) > 0 {
		if _, taken := n.takenPort(pl.pod); taken {
			return false
		}
	}
	for i := range pl.byNode {
		if !pl.byNode[i].passes(n.facts.labels) {
			return false
		}
	}
	return true
}

func (pl *plan) matches(n *node) bool {
	return (pl.verdict.affinity != askNode || pl.pod.where.matches(n.facts.object)) &&
		(pl.verdict.volumes != askNode || pl.pod.where.reaches(n.facts.object))
}

// spares says whether the node has what only it knows of: ephemeral storage and extended resources.
func (n *node) spares(r *request) bool {
	if r.storage > 0 && r.storage > n.facts.free.storage-n.used.storage {
		return false
	}
	for _, e := range r.extended {
		if e.amount > n.facts.extended[e.name]-n.extended[e.name] {
			return false
		}
	}
	return true
}
