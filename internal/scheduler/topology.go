package scheduler

import (
	"math"
	"slices"
	"strings"
)

// checkKind is which rule about other pods a check stands for.
type checkKind uint8

const (
	checkSpread checkKind = iota
	checkAffinity
	checkAntiAffinity // of the pod against others
	checkRepelled     // of others against the pod
)

// check is a rule about other pods, counted out for one pod: what the value of one label of a node may be.
type check struct {
	kind   checkKind
	key    string
	counts map[string]int // pods that matter, by the label's value
	first  bool           // affinity: the pod is the first of its kind and needs no company
	skew   int            // spread: how many pods a domain may have at most before this one
}

func (c *check) passes(labels map[string]string) bool {
	value, there := labels[c.key]
	switch c.kind {
	case checkSpread:
		return there && c.counts[value] <= c.skew
	case checkAffinity:
		return there && (c.first || c.counts[value] > 0)
	default:
		return !there || c.counts[value] == 0
	}
}

// checks of a pod against what runs now.
func (s *Snapshot) checks(p *Pod, sh *shape) []check {
	var checks []check
	s.carrierHints.each(p, func(key string) {
		c, _ := s.carriers.get(key)
		if c.term.selector.matches(p, s.namespaceLabels) {
			checks = append(checks, check{kind: checkRepelled, key: c.term.topologyKey, counts: s.domains(&c.tally, c.term.topologyKey)})
		}
	})
	// Which of two rules refuses a node must not depend on the order in which pods came.
	slices.SortFunc(checks, func(a, b check) int { return strings.Compare(a.key, b.key) })
	if p.terms == nil {
		return checks
	}
	for i := range p.terms.spread {
		checks = append(checks, s.spreadCheck(p, i, sh))
	}
	for _, term := range p.terms.antiAffinity {
		counts := s.domains(&s.group(term.selector).tally, term.topologyKey)
		checks = append(checks, check{kind: checkAntiAffinity, key: term.topologyKey, counts: counts})
	}
	return append(checks, s.affinityChecks(p)...)
}

// affinityChecks let the first pod of a kind that wants company of its own kind go anywhere.
func (s *Snapshot) affinityChecks(p *Pod) []check {
	if p.terms.affinity == nil {
		return nil
	}
	company := s.group(p.terms.affinity)
	checks := make([]check, 0, len(p.terms.affinityKeys))
	alone := true
	for _, key := range p.terms.affinityKeys {
		counts := s.domains(&company.tally, key)
		alone = alone && len(counts) == 0
		checks = append(checks, check{kind: checkAffinity, key: key, counts: counts})
	}
	if alone && p.terms.affinity.matches(p, s.namespaceLabels) {
		for i := range checks {
			checks[i].first = true
		}
	}
	return checks
}

// domains counts the pods of a tally by a label's value of their nodes.
func (s *Snapshot) domains(t *tally, key string) map[string]int {
	counts := map[string]int{}
	if !s.own[key] {
		for number, pods := range t.classes {
			if value, there := s.indexes[number].class.labels[key]; there {
				counts[value] += pods
			}
		}
		return counts
	}
	for name, pods := range t.nodes {
		if n, _ := s.nodes.get(name); n.facts != nil {
			if value, there := n.facts.labels[key]; there {
				counts[value] += pods
			}
		}
	}
	return counts
}

// spreadCheck counts as kube-scheduler does: only nodes that have the labels of all constraints, and that the policies
// do not leave out, make domains.
func (s *Snapshot) spreadCheck(p *Pod, at int, sh *shape) check {
	constraint := &p.terms.spread[at]
	c := spreadCount{snapshot: s, pod: p, constraint: constraint, shape: sh, counts: map[string]int{}}
	if constraint.selector != nil {
		c.tally = &s.group(constraint.selector).tally
	}
	least := c.count()
	skew := constraint.maxSkew - constraint.self + least
	return check{kind: checkSpread, key: constraint.topologyKey, counts: c.counts, skew: skew}
}

type spreadCount struct {
	snapshot   *Snapshot
	pod        *Pod
	constraint *spread
	shape      *shape
	tally      *tally // nil if no pod matches
	counts     map[string]int
}

// count fills counts and finds how few pods a domain has at least.
func (c *spreadCount) count() int {
	s, key := c.snapshot, c.constraint.topologyKey
	if s.own[key] && s.distinct(key) {
		if least, ok := c.countSparsely(); ok {
			return least
		}
		clear(c.counts)
	}
	for number, x := range s.indexes {
		if x == nil {
			continue
		}
		switch included := c.included(number); {
		case included == no:
		case included == yes && !s.own[key]:
			c.counts[x.class.labels[key]] += c.inClass(number)
		default:
			c.countNodes(x, included)
		}
	}
	return c.least(len(c.counts))
}

func (c *spreadCount) countNodes(x *index, included answer) {
	for n := range x.all {
		if included == yes || c.pod.where.matches(n.facts.object) {
			c.counts[n.facts.labels[c.constraint.topologyKey]] += c.onNode(n.name)
		}
	}
}

// countSparsely looks only at nodes that have pods, where each node is a domain of its own.
func (c *spreadCount) countSparsely() (int, bool) {
	s, domains := c.snapshot, 0
	for number, x := range s.indexes {
		if x == nil {
			continue
		}
		switch c.included(number) {
		case askNode:
			return 0, false
		case yes:
			domains += x.size
		case no:
		}
	}
	if c.tally != nil {
		for name, pods := range c.tally.nodes {
			n, _ := s.nodes.get(name)
			if n.class != noClass && c.included(n.class) == yes {
				c.counts[n.facts.labels[c.constraint.topologyKey]] = pods
			}
		}
	}
	return c.least(domains), true
}

func (c *spreadCount) least(domains int) int {
	if domains < c.constraint.minDomains || domains > len(c.counts) {
		return 0
	}
	least := math.MaxInt32
	for _, pods := range c.counts {
		least = min(least, pods)
	}
	return least
}

// included says whether the nodes of a class count.
func (c *spreadCount) included(number int) answer {
	s := c.snapshot
	x := s.indexes[number]
	for i := range c.pod.terms.spread {
		if _, there := x.class.labels[c.pod.terms.spread[i].topologyKey]; !there {
			return no
		}
	}
	v := s.verdict(c.shape, c.pod, number)
	if c.constraint.honourTaints && v.untolerated != nil {
		return no
	}
	if c.constraint.honourAffinity {
		return v.affinity
	}
	return yes
}

func (c *spreadCount) inClass(number int) int {
	if c.tally == nil {
		return 0
	}
	return c.tally.classes[number]
}

func (c *spreadCount) onNode(name string) int {
	if c.tally == nil {
		return 0
	}
	return c.tally.nodes[name]
}

// labelValues counts how many nodes have each value of a label.
type labelValues struct {
	values map[string]int
	nodes  int
}

func (v *labelValues) count(key string, f *facts, by int) {
	if f == nil {
		return
	}
	if value, there := f.labels[key]; there {
		count(v.values, value, by)
		v.nodes += by
	}
}

// distinct says whether no two nodes have the same value of a label.
func (s *Snapshot) distinct(key string) bool {
	v, found := s.values[key]
	if !found {
		v = &labelValues{values: map[string]int{}}
		for _, n := range s.nodes.all {
			v.count(key, n.facts, 1)
		}
		s.values[key] = v
	}
	return len(v.values) == v.nodes
}
