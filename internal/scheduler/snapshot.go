package scheduler

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// DefaultBufferPercent of every node's CPU and memory is kept free.
const DefaultBufferPercent = 10

// Options are how a snapshot decides.
type Options struct {
	// BufferPercent of a node's CPU and memory stays free: 0 to 99.
	BufferPercent int32
}

// Snapshot is the cluster as far as placement is concerned.
type Snapshot struct {
	options Options
	owner   *owner

	nodes      table[*node]
	pods       table[placed]
	namespaces table[map[string]string]
	known      int // nodes with facts

	keepers table[int] // how many placeholders are on a node

	own       map[string]bool // labels that each node has a value of its own of; replaced, never changed
	classes   map[string]int  // the numbers of the indexes by the key of their class
	indexes   []*index        // nil where unused
	unused    []int
	regroupAt int

	groups       table[*group]
	groupHints   hints
	carriers     table[*carrier]
	carrierHints hints

	listed       table[*list] // by label=value
	listedLabels []string     // replaced, never changed

	shapes map[string]*shape
	values map[string]*labelValues
	plan   plan // of the decision under way
}

// placed is a pod with its node.
type placed struct {
	pod     *Pod
	node    string
	assumed bool
}

// New makes an empty snapshot.
func New(opts Options) *Snapshot {
	opts.BufferPercent = min(max(opts.BufferPercent, 0), 99)
	s := &Snapshot{
		options: opts, owner: &owner{}, own: map[string]bool{}, classes: map[string]int{}, regroupAt: manyClasses,
		shapes: map[string]*shape{}, values: map[string]*labelValues{},
	}
	for _, label := range ownLabels {
		s.own[label] = true
	}
	return s
}

// Copy makes a snapshot to ask "what if" of. Neither sees what happens to the other.
func (s *Snapshot) Copy() *Snapshot {
	c := *s
	c.owner, s.owner = &owner{}, &owner{}
	c.classes = maps.Clone(s.classes)
	c.indexes = slices.Clone(s.indexes)
	c.unused = slices.Clone(s.unused)
	c.shapes, c.values, c.plan = map[string]*shape{}, map[string]*labelValues{}, plan{}
	return &c
}

// SetNode takes in a node as it is now.
func (s *Snapshot) SetNode(n *corev1.Node) Change {
	f := newFacts(n, s.options.BufferPercent)
	old, found := s.nodes.get(n.Name)
	if !found {
		old = &node{owner: s.owner, name: n.Name, class: noClass}
	}
	if old.facts != nil && old.facts.equal(f) {
		return Change{}
	}
	change := changeOf(n.Name, old.facts, f)
	s.setFacts(old, f)
	s.regroup()
	return change
}

// DeleteNode forgets a node. Pods that say they run on it stay known until they are deleted themselves.
func (s *Snapshot) DeleteNode(name string) Change {
	old, found := s.nodes.get(name)
	if !found || old.facts == nil {
		return Change{}
	}
	s.setFacts(old, nil)
	return Change{Node: name, Kinds: KindPods}
}

// setFacts brings a node to its class.
func (s *Snapshot) setFacts(old *node, f *facts) {
	s.unlist(old)
	n := s.ownNode(old)
	from := n.class
	s.track(n.facts, f)
	n.facts, n.class = f, noClass
	if f != nil {
		n.class = s.classOf(f)
		s.indexOf(n.class).insert(n.entry())
	}
	if from != n.class {
		s.reclass(n, from, n.class)
		if from != noClass {
			s.retire(from)
		}
	}
	if f == nil && len(n.pods) == 0 {
		s.nodes.delete(s.owner, n.name)
	}
}

// track counts nodes, and the values of labels that a spread constraint asked about.
func (s *Snapshot) track(from, to *facts) {
	if from != nil {
		s.known--
	}
	if to != nil {
		s.known++
	}
	for key, v := range s.values {
		v.count(key, from, -1)
		v.count(key, to, 1)
	}
}

// SetPod takes in a pod as it is now. A waiting pod that was assumed to run somewhere still is: the news is only old.
func (s *Snapshot) SetPod(p *Pod) Change {
	old, found := s.pods.get(p.Key)
	if p.over || p.Node == "" {
		if !found || (p.Node == "" && !p.over && old.assumed && old.pod.UID == p.UID) {
			return Change{}
		}
		return s.DeletePod(p.Key)
	}
	if !found {
		s.put(p, p.Node, false)
		return Change{Node: p.Node, Kinds: KindPods}
	}
	s.take(old)
	s.put(p, p.Node, false)
	return podChange(old, p)
}

// DeletePod forgets a pod.
func (s *Snapshot) DeletePod(key string) Change {
	old, found := s.pods.get(key)
	if !found {
		return Change{}
	}
	s.take(old)
	return Change{Node: old.node, Kinds: KindRoom | KindPods}
}

// Assume counts a waiting pod as running on a node, before it is known to.
func (s *Snapshot) Assume(p *Pod, name string) error {
	n, found := s.nodes.get(name)
	if !found || n.facts == nil {
		return fmt.Errorf("pod %s cannot be assumed on node %s: there is no such node", p.Key, name)
	}
	if old, found := s.pods.get(p.Key); found {
		return fmt.Errorf("pod %s cannot be assumed on node %s: it is already on %s", p.Key, name, old.node)
	}
	s.put(p, name, true)
	return nil
}

// Forget undoes an assumption, unless it has come true.
func (s *Snapshot) Forget(p *Pod) Change {
	if old, found := s.pods.get(p.Key); !found || !old.assumed || old.pod.UID != p.UID {
		return Change{}
	}
	return s.DeletePod(p.Key)
}

// Assumed says where a pod is assumed to run, if it is.
func (s *Snapshot) Assumed(key string) (string, bool) {
	at, found := s.pods.get(key)
	return at.node, found && at.assumed
}

// SetNamespace takes in the labels of a namespace, which selectors of pod affinity may read.
func (s *Snapshot) SetNamespace(name string, labels map[string]string) Change {
	if old, found := s.namespaces.get(name); found && maps.Equal(old, labels) {
		return Change{}
	}
	s.namespaces.set(s.owner, name, labels)
	return s.namespaceChanged()
}

// DeleteNamespace forgets a namespace.
func (s *Snapshot) DeleteNamespace(name string) Change {
	if _, found := s.namespaces.get(name); !found {
		return Change{}
	}
	s.namespaces.delete(s.owner, name)
	return s.namespaceChanged()
}

func (s *Snapshot) namespaceChanged() Change {
	for _, g := range s.groups.all {
		if g.selector.readsNamespaces() {
			s.dropGroups()
			break
		}
	}
	return Change{Kinds: KindPods}
}

func (s *Snapshot) namespaceLabels(name string) map[string]string {
	labels, _ := s.namespaces.get(name)
	return labels
}

// put adds a pod to its node.
func (s *Snapshot) put(p *Pod, name string, assumed bool) {
	n, found := s.nodes.get(name)
	if !found {
		n = &node{owner: s.owner, name: name, class: noClass}
	}
	s.unlist(n)
	n = s.ownNode(n)
	n.add(p)
	s.list(n)
	s.pods.set(s.owner, p.Key, placed{pod: p, node: name, assumed: assumed})
	s.keep(p, name, 1)
	s.tell(p, n, 1)
}

// take removes a pod from its node.
func (s *Snapshot) take(at placed) {
	n, _ := s.nodes.get(at.node)
	s.unlist(n)
	n = s.ownNode(n)
	n.drop(at.pod)
	s.list(n)
	s.pods.delete(s.owner, at.pod.Key)
	s.keep(at.pod, at.node, -1)
	s.tell(at.pod, n, -1)
	if n.facts == nil && len(n.pods) == 0 {
		s.nodes.delete(s.owner, n.name)
	}
}

// keep counts the placeholders of a node.
func (s *Snapshot) keep(p *Pod, name string, by int) {
	if !p.placeholder {
		return
	}
	count, _ := s.keepers.get(name)
	if count += by; count > 0 {
		s.keepers.set(s.owner, name, count)
	} else {
		s.keepers.delete(s.owner, name)
	}
}

// ownNode is the node, ready to be changed.
func (s *Snapshot) ownNode(n *node) *node {
	owned := n.ownedBy(s.owner)
	if known, found := s.nodes.get(n.name); !found || known != owned {
		s.nodes.set(s.owner, n.name, owned)
	}
	return owned
}

func (s *Snapshot) indexOf(number int) *index {
	s.indexes[number] = s.indexes[number].ownedBy(s.owner)
	return s.indexes[number]
}

func (s *Snapshot) list(n *node) {
	if n.class != noClass {
		s.indexOf(n.class).insert(n.entry())
	}
}

func (s *Snapshot) unlist(n *node) {
	if n.class != noClass {
		s.indexOf(n.class).remove(n.place())
	}
}

// names of all nodes in order.
func (s *Snapshot) names() []string {
	names := make([]string, 0, s.nodes.size)
	for name := range s.nodes.all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Classes is how many kinds of nodes are told apart.
func (s *Snapshot) Classes() int { return len(s.classes) }

// Nodes is how many nodes there are.
func (s *Snapshot) Nodes() int { return s.known }

// Pods is how many pods have a place, or are assumed to.
func (s *Snapshot) Pods() int { return s.pods.size }
