package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Refusal says why no node was good enough.
type Refusal struct {
	// Nodes is how many there are.
	Nodes int
	// Counts are the reasons and how many nodes each holds for, the most frequent first. A node can have several.
	Counts []Count
	// Problem is a reason that lies in the pod alone; the nodes were not looked at.
	Problem string
	// OnlyBuffer says that the pod would fit if the buffer were used.
	OnlyBuffer bool

	kinds Kind
}

// Count of the nodes that a reason holds for.
type Count struct {
	Reason string
	Nodes  int
}

// String is for people: "0/500 nodes fit: 300 insufficient cpu, 200 untolerated taint {gpu: NoSchedule}".
func (r Refusal) String() string {
	if r.Problem != "" {
		return "no node is tried: " + r.Problem
	}
	parts := make([]string, 0, len(r.Counts))
	for _, c := range r.Counts {
		parts = append(parts, fmt.Sprintf("%d %s", c.Nodes, c.Reason))
	}
	text := fmt.Sprintf("0/%d nodes fit", r.Nodes)
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}

// HelpedBy says whether a change may have made a place for the pod.
func (r Refusal) HelpedBy(change Change) bool { return r.kinds&change.Kinds != 0 }

// Unsure is the same refusal, which any change may help: the cluster is no longer the one that it is about.
func (r Refusal) Unsure() Refusal {
	r.kinds = kindAll
	return r
}

// Explain counts for a pod that was refused what is wrong with each node. It looks at every node.
func (s *Snapshot) Explain(p *Pod, how How) Refusal {
	if p.problem != "" {
		return Refusal{Nodes: s.known, Problem: p.problem}
	}
	s.prepare(p, how)
	x := explanation{snapshot: s, counts: map[string]int{}, kinds: KindService} // A new node always may help.
	for number, of := range s.indexes {
		if of == nil || of.size == 0 || x.refusedClass(number, of) {
			continue
		}
		for n := range of.all {
			x.node(n)
		}
	}
	r := Refusal{Nodes: s.known, kinds: x.kinds, OnlyBuffer: x.onlyBuffer}
	for reason, nodes := range x.counts {
		r.Counts = append(r.Counts, Count{Reason: reason, Nodes: nodes})
	}
	slices.SortFunc(r.Counts, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Nodes, a.Nodes), cmp.Compare(a.Reason, b.Reason))
	})
	return r
}

type explanation struct {
	snapshot   *Snapshot
	counts     map[string]int
	kinds      Kind
	onlyBuffer bool
}

func (x *explanation) count(nodes int, kind Kind, reason string) {
	x.counts[reason] += nodes
	x.kinds |= kind
}

const (
	reasonAffinity = "node affinity or selector does not match"
	reasonVolumes  = "a volume cannot be reached"
)

// refusedClass counts a class that is refused as a whole, and makes the plan ready for another.
func (x *explanation) refusedClass(number int, of *index) bool {
	s := x.snapshot
	if s.admits(number) {
		return false
	}
	switch v := s.plan.verdict; {
	case of.class.outOfService != "":
		x.count(of.size, KindService, of.class.outOfService)
	case v.untolerated != nil:
		x.count(of.size, KindTaints, taintReason(v.untolerated))
	case v.affinity == no:
		x.count(of.size, KindLabels, reasonAffinity)
	case v.volumes == no:
		x.count(of.size, KindLabels, reasonVolumes)
	default:
		x.checks(of.size, s.plan.byClass, of.class.labels)
	}
	return true
}

func taintReason(taint *corev1.Taint) string {
	if taint.Key == corev1.TaintNodeUnschedulable {
		return "cordoned"
	}
	return "untolerated taint {" + taint.ToString() + "}"
}

// checks counts the first rule that is broken.
func (x *explanation) checks(nodes int, checks []check, labels map[string]string) {
	for i := range checks {
		if !checks[i].passes(labels) {
			x.count(nodes, KindPods|KindLabels, checks[i].reason(labels))
			return
		}
	}
}

func (c *check) reason(labels map[string]string) string {
	_, there := labels[c.key]
	switch {
	case c.kind == checkSpread && !there:
		return "no label " + c.key + " to spread over"
	case c.kind == checkSpread:
		return "more pods than spreading over " + c.key + " allows"
	case c.kind == checkAffinity && !there:
		return "no label " + c.key + " for pod affinity"
	case c.kind == checkAffinity:
		return "pod affinity: no such pod in the same " + c.key
	case c.kind == checkAntiAffinity:
		return "pod anti-affinity: such a pod in the same " + c.key
	default:
		return "anti-affinity of a pod in the same " + c.key
	}
}

// node counts what is wrong with one node of a class that is admitted: the first rule that is broken, or all that lacks.
func (x *explanation) node(n *node) {
	pl := &x.snapshot.plan
	switch {
	case n.name == pl.how.Not:
		x.count(1, 0, "is to be left")
		return
	case pl.verdict.affinity == askNode && !pl.pod.where.matches(n.facts.object):
		x.count(1, KindLabels, reasonAffinity)
		return
	case pl.verdict.volumes == askNode && !pl.pod.where.reaches(n.facts.object):
		x.count(1, KindLabels, reasonVolumes)
		return
	}
	if port, taken := n.takenPort(pl.pod); taken {
		x.count(1, KindRoom, fmt.Sprintf("host port %d/%s in use", port.port, port.protocol))
		return
	}
	if !x.resources(n) {
		x.checks(1, pl.byNode, n.facts.labels)
	}
}

// resources says whether something lacks. Only where all would fit into the buffer, that is the reason.
func (x *explanation) resources(n *node) bool {
	pl := &x.snapshot.plan
	lacking := n.lacks(pl.pod, false)
	for _, name := range lacking {
		reason := "insufficient " + string(name)
		if name == corev1.ResourcePods {
			reason = "too many pods"
		}
		x.count(1, KindRoom, reason)
	}
	if len(lacking) > 0 || pl.how.UseBuffer || len(n.lacks(pl.pod, true)) == 0 {
		return len(lacking) > 0
	}
	x.count(1, KindRoom, fmt.Sprintf("only the %d%% buffer left", x.snapshot.options.BufferPercent))
	x.onlyBuffer = x.onlyBuffer || pl.accepts(n)
	return true
}
