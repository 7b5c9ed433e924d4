package scheduler

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// where is what a pod asks of a node's labels, name and taints.
type where struct {
	required    nodeaffinity.RequiredNodeAffinity
	preferred   *nodeaffinity.PreferredSchedulingTerms
	best        int64 // the highest score that preferred can give
	volumes     []*nodeaffinity.LazyErrorNodeSelector
	tolerations []corev1.Toleration

	requiredKeys  keys
	preferredKeys keys
	volumeKeys    keys

	// pinned are the only nodes that required can match, by name. Nil if it does not name any.
	pinned []string
}

// keys are the labels that a selector reads, and whether it reads the node's name.
type keys struct {
	labels []string
	name   bool
}

func (k *keys) add(terms ...corev1.NodeSelectorTerm) {
	for _, term := range terms {
		for _, requirement := range term.MatchExpressions {
			k.labels = append(k.labels, requirement.Key)
		}
		k.name = k.name || len(term.MatchFields) > 0
	}
}

// readWhere leaves where nil for a pod that any node without taints suits.
func (p *Pod) readWhere(spec *corev1.PodSpec, volumes []*corev1.NodeSelector) {
	affinity := nodeAffinity(spec)
	if len(spec.NodeSelector) == 0 && affinity == nil && len(volumes) == 0 && len(spec.Tolerations) == 0 {
		return
	}
	w := &where{
		required:     nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: corev1.PodSpec{NodeSelector: spec.NodeSelector, Affinity: spec.Affinity}}),
		tolerations:  spec.Tolerations,
		requiredKeys: keys{labels: slices.Collect(maps.Keys(spec.NodeSelector))},
	}
	if affinity != nil {
		p.note(w.readAffinity(affinity))
	}
	for _, volume := range volumes {
		w.volumes = append(w.volumes, nodeaffinity.NewLazyErrorNodeSelector(volume))
		w.volumeKeys.add(volume.NodeSelectorTerms...)
	}
	p.where, p.shape = w, shapeOf(spec, affinity, volumes)
}

func nodeAffinity(spec *corev1.PodSpec) *corev1.NodeAffinity {
	if spec.Affinity == nil {
		return nil
	}
	return spec.Affinity.NodeAffinity
}

func (w *where) readAffinity(affinity *corev1.NodeAffinity) error {
	if required := affinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
		w.requiredKeys.add(required.NodeSelectorTerms...)
		w.pinned = pinnedTo(required.NodeSelectorTerms)
	}
	terms := affinity.PreferredDuringSchedulingIgnoredDuringExecution
	if len(terms) == 0 {
		return nil
	}
	var err error
	if w.preferred, err = nodeaffinity.NewPreferredSchedulingTerms(terms); err != nil {
		return err
	}
	for i := range terms {
		w.preferredKeys.add(terms[i].Preference)
		w.best += max(int64(terms[i].Weight), 0)
	}
	return nil
}

// pinnedTo is nil unless every term names nodes.
func pinnedTo(terms []corev1.NodeSelectorTerm) []string {
	pinned := []string{}
	for i := range terms {
		named := false
		for _, field := range terms[i].MatchFields {
			if field.Key == "metadata.name" && field.Operator == corev1.NodeSelectorOpIn {
				pinned, named = append(pinned, field.Values...), true
			}
		}
		if !named {
			return nil
		}
	}
	slices.Sort(pinned)
	return slices.Compact(pinned)
}

// marshaller is what all API types can.
type marshaller interface{ Marshal() ([]byte, error) }

// shapeOf writes down all that where is made of. Pods that differ in the order of terms get two shapes, which costs a
// little memory and nothing else.
func shapeOf(spec *corev1.PodSpec, affinity *corev1.NodeAffinity, volumes []*corev1.NodeSelector) string {
	shape := binary.AppendUvarint(make([]byte, 0, 256), uint64(len(spec.NodeSelector)))
	for _, key := range slices.Sorted(maps.Keys(spec.NodeSelector)) {
		shape = appendText(appendText(shape, key), spec.NodeSelector[key])
	}
	if affinity == nil {
		affinity = &corev1.NodeAffinity{}
	}
	shape = appendObject(shape, affinity)
	shape = binary.AppendUvarint(shape, uint64(len(spec.Tolerations)))
	for i := range spec.Tolerations {
		shape = appendObject(shape, &spec.Tolerations[i])
	}
	for _, volume := range volumes {
		shape = appendObject(shape, volume)
	}
	return string(shape)
}

func appendText(shape []byte, text string) []byte {
	return append(binary.AppendUvarint(shape, uint64(len(text))), text...)
}

// appendObject ignores the error, which generated code never returns for an object without raw parts.
func appendObject(shape []byte, object marshaller) []byte {
	encoded, err := object.Marshal()
	_ = err
	return append(binary.AppendUvarint(shape, uint64(len(encoded))), encoded...)
}

// answer to whether a class of nodes matches.
type answer uint8

const (
	no answer = iota
	yes
	askNode // the nodes of the class differ in it
)

// verdict is what a shape of pod thinks of a class of nodes.
type verdict struct {
	class       *class
	affinity    answer
	volumes     answer
	untolerated *corev1.Taint
	avoided     int   // how many taints ask softly not to come
	score       int64 // of preferred affinity, if scoreNode is false
	scoreNode   bool
}

func (v *verdict) refused() bool {
	return v.class.outOfService != "" || v.untolerated != nil || v.affinity == no || v.volumes == no
}

func (v *verdict) asksNode() bool { return v.affinity == askNode || v.volumes == askNode }

func (w *where) judge(c *class, own map[string]bool) verdict {
	if w == nil {
		w = &anywhere
	}
	v := verdict{class: c, affinity: yes, volumes: yes}
	v.untolerated = w.untolerated(c.taints)
	for i := range c.taints {
		if c.taints[i].Effect == corev1.TaintEffectPreferNoSchedule && !w.tolerates(&c.taints[i]) {
			v.avoided++
		}
	}
	v.affinity = w.requiredKeys.answer(own, func() bool { return w.matches(c.object) })
	v.volumes = w.volumeKeys.answer(own, func() bool { return w.reaches(c.object) })
	if w.preferred != nil {
		if v.scoreNode = w.preferredKeys.askNode(own); !v.scoreNode {
			v.score = w.preferred.Score(c.object)
		}
	}
	return v
}

var anywhere where

func (k *keys) answer(own map[string]bool, matches func() bool) answer {
	switch {
	case k.askNode(own):
		return askNode
	case matches():
		return yes
	default:
		return no
	}
}

// askNode says whether something is read that the nodes of a class have each their own of.
func (k *keys) askNode(own map[string]bool) bool {
	return k.name || slices.ContainsFunc(k.labels, func(key string) bool { return own[key] })
}

// matches takes a selector that cannot be read for one that matches nothing, as kube-scheduler does.
func (w *where) matches(node *corev1.Node) bool {
	matches, err := w.required.Match(node)
	return err == nil && matches
}

func (w *where) reaches(node *corev1.Node) bool {
	for _, volume := range w.volumes {
		if matches, err := volume.Match(node); err != nil || !matches {
			return false
		}
	}
	return true
}

// untolerated is the first taint that keeps the pod away.
func (w *where) untolerated(taints []corev1.Taint) *corev1.Taint {
	for i := range taints {
		if taints[i].Effect != corev1.TaintEffectPreferNoSchedule && !w.tolerates(&taints[i]) {
			return &taints[i]
		}
	}
	return nil
}

// tolerates knows no comparison operators: they are behind a gate that is off by default.
func (w *where) tolerates(taint *corev1.Taint) bool {
	for i := range w.tolerations {
		if w.tolerations[i].ToleratesTaint(logr.Discard(), taint, false) {
			return true
		}
	}
	return false
}
