package scheduler

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// class is what nodes have in common that no selector, no taint and no state tells apart. It does not change.
type class struct {
	key          string
	labels       map[string]string
	taints       []corev1.Taint
	outOfService string
	object       *corev1.Node
}

// ownLabels are labels that each node has a value of its own of, whoever runs the cluster. Further ones are found when
// they split the nodes into too many classes.
var ownLabels = []string{
	corev1.LabelHostname,
	"alpha.eksctl.io/instance-id",
	"csi.volume.kubernetes.io/nodeid",
	"topology.ebs.csi.aws.com/node",
	"topology.hostpath.csi/node",
}

// classKey writes down what a class is made of. Own labels count as there or not there.
func classKey(f *facts, own map[string]bool) string {
	var key strings.Builder
	key.WriteString(f.outOfService)
	for _, label := range slices.Sorted(maps.Keys(f.labels)) {
		key.WriteString("\n" + label)
		if !own[label] {
			key.WriteString("=" + f.labels[label])
		}
	}
	for i := range f.taints {
		key.WriteString("\n\n" + f.taints[i].ToString())
	}
	return key.String()
}

func newClass(key string, f *facts, own map[string]bool) *class {
	c := &class{key: key, labels: map[string]string{}, taints: f.taints, outOfService: f.outOfService, object: &corev1.Node{}}
	for label, value := range f.labels {
		if own[label] {
			value = "" // Only that the label is there is common to the class.
		}
		c.labels[label] = value
	}
	c.object.Labels = c.labels
	return c
}

// classOf is the number of the index for a node with these facts.
func (s *Snapshot) classOf(f *facts) int {
	key := classKey(f, s.own)
	if number, ok := s.classes[key]; ok {
		return number
	}
	x := &index{owner: s.owner, class: newClass(key, f, s.own)}
	number := len(s.indexes)
	if last := len(s.unused) - 1; last >= 0 {
		number = s.unused[last]
		s.unused = s.unused[:last]
		s.indexes[number] = x
	} else {
		s.indexes = append(s.indexes, x)
	}
	s.classes[key] = number
	return number
}

// retire frees the number of a class without nodes.
func (s *Snapshot) retire(number int) {
	x := s.indexes[number]
	if x.size > 0 {
		return
	}
	delete(s.classes, x.class.key)
	s.indexes[number] = nil
	s.unused = append(s.unused, number)
}

// manyClasses is when it is looked for labels that split the nodes for nothing.
const manyClasses = 64

// regroup makes labels own ones that have about as many values as there are nodes, when there are many classes. It does
// not change a decision, only its price.
func (s *Snapshot) regroup() {
	if len(s.classes) < s.regroupAt || len(s.classes)*4 < s.nodes.size {
		return
	}
	found := s.findOwnLabels()
	if !found {
		s.regroupAt = 2 * len(s.classes)
		return
	}
	s.classes, s.indexes, s.unused, s.shapes = map[string]int{}, nil, nil, map[string]*shape{}
	s.dropGroups()
	for _, name := range s.names() {
		n, _ := s.nodes.get(name)
		if n.facts == nil {
			continue
		}
		n = s.ownNode(n)
		n.class = s.classOf(n.facts)
		s.indexOf(n.class).insert(n.entry())
	}
	for key, c := range s.carriers.all {
		recounted := &carrier{term: c.term, tally: newTally(s.owner)}
		for name, pods := range c.nodes {
			n, _ := s.nodes.get(name)
			recounted.add(n, pods)
		}
		s.carriers.set(s.owner, key, recounted)
	}
}

func (s *Snapshot) findOwnLabels() bool {
	values := map[string]map[string]struct{}{}
	holders := map[string]int{}
	for _, n := range s.nodes.all {
		if n.facts == nil {
			continue
		}
		for label, value := range n.facts.labels {
			if values[label] == nil {
				values[label] = map[string]struct{}{}
			}
			values[label][value] = struct{}{}
			holders[label]++
		}
	}
	own := maps.Clone(s.own)
	for label, distinct := range values {
		if len(distinct) >= manyClasses/2 && len(distinct)*2 >= holders[label] {
			own[label] = true
		}
	}
	found := len(own) > len(s.own)
	s.own = own
	return found
}
