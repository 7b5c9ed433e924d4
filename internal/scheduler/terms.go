package scheduler

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// terms is what a pod asks of other pods.
type terms struct {
	spread       []spread
	affinity     *selector // matches pods that match every term of the affinity
	affinityKeys []string  // topology keys of the affinity's terms
	antiAffinity []antiTerm
}

// antiTerm keeps pods that match out of the domain.
type antiTerm struct {
	selector    *selector
	topologyKey string
}

// spread is a topology spread constraint that must be kept.
type spread struct {
	selector       *selector // nil if it matches no pod
	topologyKey    string
	maxSkew        int
	minDomains     int
	self           int // 1 if the pod itself matches
	honourAffinity bool
	honourTaints   bool
}

// selector picks pods: those that match every part.
type selector struct {
	// key is the same for selectors that pick the same.
	key   string
	parts []part
	// living leaves terminating pods out.
	living bool
}

type part struct {
	namespaces        []string
	namespaceSelector labels.Selector
	labels            labels.Selector
}

func (s *selector) matches(p *Pod, namespaceLabels func(string) map[string]string) bool {
	if s.living && p.terminating {
		return false
	}
	for i := range s.parts {
		if !s.parts[i].matches(p, namespaceLabels) {
			return false
		}
	}
	return true
}

func (a *part) matches(p *Pod, namespaceLabels func(string) map[string]string) bool {
	if !slices.Contains(a.namespaces, p.namespace) &&
		(a.namespaceSelector == nil || !a.namespaceSelector.Matches(labels.Set(namespaceLabels(p.namespace)))) {
		return false
	}
	return a.labels.Matches(labels.Set(p.labels))
}

// readsNamespaces says whether labels of namespaces matter.
func (s *selector) readsNamespaces() bool {
	return slices.ContainsFunc(s.parts, func(a part) bool { return a.namespaceSelector != nil })
}

// hint is a label that every pod has that is picked, as key=value; empty if there is none. It finds the selectors that
// may pick a pod without trying all.
func (s *selector) hint() string {
	for i := range s.parts {
		requirements, _ := s.parts[i].labels.Requirements()
		for _, r := range requirements {
			if value, ok := single(r); ok {
				return r.Key() + "=" + value
			}
		}
	}
	return ""
}

func single(r labels.Requirement) (string, bool) {
	switch r.Operator() {
	case selection.Equals, selection.DoubleEquals, selection.In:
		if values := r.ValuesUnsorted(); len(values) == 1 {
			return values[0], true
		}
	default:
	}
	return "", false
}

func newSelector(parts []part, living bool) *selector {
	var key strings.Builder
	for i := range parts {
		fmt.Fprintf(&key, "%v|%s|%s;", parts[i].namespaces, text(parts[i].namespaceSelector), text(parts[i].labels))
	}
	fmt.Fprintf(&key, "%t", living)
	return &selector{key: key.String(), parts: parts, living: living}
}

// text tells the selector of everything from that of nothing.
func text(s labels.Selector) string {
	if s == nil {
		return "-"
	}
	if _, some := s.Requirements(); !some {
		return "!"
	}
	return s.String()
}

// readTerms reads of a pod that is in its place and stays there only what others have to respect.
func (p *Pod) readTerms(pod *corev1.Pod) error {
	var t terms
	stays := p.Node != "" && !p.movable
	if affinity := pod.Spec.Affinity; affinity != nil {
		if err := t.readAntiAffinity(p.namespace, affinity.PodAntiAffinity); err != nil {
			return err
		}
		if !stays {
			if err := t.readAffinity(p.namespace, affinity.PodAffinity); err != nil {
				return err
			}
		}
	}
	if !stays {
		if err := t.readSpread(p, pod.Spec.TopologySpreadConstraints); err != nil {
			return err
		}
	}
	if len(t.spread) > 0 || t.affinity != nil || len(t.antiAffinity) > 0 {
		p.terms = &t
	}
	return nil
}

func (t *terms) readAntiAffinity(namespace string, affinity *corev1.PodAntiAffinity) error {
	if affinity == nil {
		return nil
	}
	for _, term := range affinity.RequiredDuringSchedulingIgnoredDuringExecution {
		read, err := partOf(namespace, &term)
		if err != nil {
			return fmt.Errorf("its pod anti-affinity cannot be read: %w", err)
		}
		t.antiAffinity = append(t.antiAffinity, antiTerm{selector: newSelector([]part{read}, false), topologyKey: term.TopologyKey})
	}
	return nil
}

func (t *terms) readAffinity(namespace string, affinity *corev1.PodAffinity) error {
	if affinity == nil || len(affinity.RequiredDuringSchedulingIgnoredDuringExecution) == 0 {
		return nil
	}
	var parts []part
	for _, term := range affinity.RequiredDuringSchedulingIgnoredDuringExecution {
		read, err := partOf(namespace, &term)
		if err != nil {
			return fmt.Errorf("its pod affinity cannot be read: %w", err)
		}
		parts = append(parts, read)
		t.affinityKeys = append(t.affinityKeys, term.TopologyKey)
	}
	t.affinity = newSelector(parts, false)
	return nil
}

// partOf needs no matchLabelKeys: the API server has merged them into the selector.
func partOf(namespace string, term *corev1.PodAffinityTerm) (part, error) {
	picked, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
	if err != nil {
		return part{}, err
	}
	a := part{labels: picked, namespaces: slices.Sorted(slices.Values(term.Namespaces))}
	if term.NamespaceSelector == nil {
		if len(a.namespaces) == 0 {
			a.namespaces = []string{namespace}
		}
		return a, nil
	}
	a.namespaceSelector, err = metav1.LabelSelectorAsSelector(term.NamespaceSelector)
	return a, err
}

func (t *terms) readSpread(p *Pod, constraints []corev1.TopologySpreadConstraint) error {
	for i := range constraints {
		c := &constraints[i]
		if c.WhenUnsatisfiable != corev1.DoNotSchedule {
			continue
		}
		picked, err := spreadSelector(c, p.labels)
		if err != nil {
			return fmt.Errorf("its topology spread cannot be read: %w", err)
		}
		t.spread = append(t.spread, newSpread(c, picked, p))
	}
	return nil
}

func newSpread(c *corev1.TopologySpreadConstraint, picked labels.Selector, p *Pod) spread {
	s := spread{
		topologyKey: c.TopologyKey, maxSkew: int(c.MaxSkew), minDomains: 1,
		honourAffinity: c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor,
		honourTaints:   c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor,
	}
	if c.MinDomains != nil {
		s.minDomains = int(*c.MinDomains)
	}
	if picked.Matches(labels.Set(p.labels)) {
		s.self = 1
	}
	// kube-scheduler counts no pods for an empty selector.
	if !picked.Empty() {
		s.selector = newSelector([]part{{namespaces: []string{p.namespace}, labels: picked}}, true)
	}
	return s
}

func spreadSelector(c *corev1.TopologySpreadConstraint, own map[string]string) (labels.Selector, error) {
	picked, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
	if err != nil {
		return nil, err
	}
	for _, key := range c.MatchLabelKeys {
		value, ok := own[key]
		if !ok {
			continue
		}
		same, err := labels.NewRequirement(key, selection.In, []string{value})
		if err != nil {
			return nil, err
		}
		picked = picked.Add(*same)
	}
	return picked, nil
}
