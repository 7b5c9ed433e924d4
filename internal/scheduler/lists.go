package scheduler

import (
	"iter"
	"slices"
	"strings"
)

// list holds the pods in place that have one value of a label.
type list struct {
	owner *owner
	pods  []*Pod
}

// mostLists bounds for how many labels there are lists: those that selectors of pods ask for by a value. They make it
// cheap to count the pods of a selector that is new, which would otherwise look at every pod.
const mostLists = 16

// mayMatch are the pods in place that have a label of a value, or all without a hint.
func (s *Snapshot) mayMatch(hint string) iter.Seq2[*Pod, *node] {
	label, _, _ := strings.Cut(hint, "=")
	if hint == "" || !s.lists(label) {
		return s.allPods
	}
	return func(yield func(*Pod, *node) bool) {
		l, _ := s.listed.get(hint)
		if l == nil {
			return
		}
		for _, p := range l.pods {
			at, _ := s.pods.get(p.Key)
			n, _ := s.nodes.get(at.node)
			if !yield(p, n) {
				return
			}
		}
	}
}

func (s *Snapshot) allPods(yield func(*Pod, *node) bool) {
	for _, n := range s.nodes.all {
		for _, p := range n.pods {
			if !yield(p, n) {
				return
			}
		}
	}
}

// lists says whether there are lists for a label, and makes them if there may be more.
func (s *Snapshot) lists(label string) bool {
	if slices.Contains(s.listedLabels, label) {
		return true
	}
	if len(s.listedLabels) >= mostLists {
		return false
	}
	for p := range s.allPods {
		s.relistBy(label, p, 1)
	}
	s.listedLabels = append(slices.Clip(s.listedLabels), label)
	return true
}

// relist puts a pod into its lists, or takes it out.
func (s *Snapshot) relist(p *Pod, by int) {
	for _, label := range s.listedLabels {
		s.relistBy(label, p, by)
	}
}

func (s *Snapshot) relistBy(label string, p *Pod, by int) {
	value, there := p.labels[label]
	if !there {
		return
	}
	key := label + "=" + value
	l, _ := s.listed.get(key)
	switch {
	case l == nil:
		l = &list{owner: s.owner}
		s.listed.set(s.owner, key, l)
	case l.owner != s.owner:
		l = &list{owner: s.owner, pods: slices.Clone(l.pods)}
		s.listed.set(s.owner, key, l)
	}
	if by > 0 {
		l.pods = append(l.pods, p)
		return
	}
	l.pods = without(l.pods, p)
	if len(l.pods) == 0 {
		s.listed.delete(s.owner, key)
	}
}

// without takes a pod out, and leaves the others in another order.
func without(pods []*Pod, p *Pod) []*Pod {
	at, last := slices.Index(pods, p), len(pods)-1
	pods[at], pods[last] = pods[last], nil
	return pods[:last]
}
