package scheduler

import (
	"maps"
	"slices"
)

// Kind of change: what about the cluster became different, and of refusal: what a different one could help with.
type Kind uint8

const (
	// KindRoom is resources, a place among the pods, or a host port.
	KindRoom Kind = 1 << iota
	// KindTaints are taints, cordons and pressure.
	KindTaints
	// KindLabels are labels of nodes.
	KindLabels
	// KindService is whether a node is ready and stays.
	KindService
	// KindPods is which pods run where, for spreading, affinity and anti-affinity.
	KindPods

	kindAll = KindRoom | KindTaints | KindLabels | KindService | KindPods
)

// Change says what an event may have made possible.
type Change struct {
	// Node that it happened to; empty where it concerns all.
	Node  string
	Kinds Kind
}

// changeOf a node's facts. Only what can help a waiting pod counts: a node that shrinks helps nobody.
func changeOf(name string, from, to *facts) Change {
	change := Change{Node: name}
	if from == nil {
		change.Kinds = kindAll
		return change
	}
	if !from.sameCapacity(to) {
		change.Kinds |= KindRoom
	}
	if from.outOfService != to.outOfService {
		change.Kinds |= KindService
	}
	if !slices.Equal(from.taints, to.taints) {
		change.Kinds |= KindTaints | KindPods // Spreading may leave tainted nodes out.
	}
	if !maps.Equal(from.labels, to.labels) {
		change.Kinds |= KindLabels | KindPods
	}
	return change
}

// podChange of a pod that was known before.
func podChange(old placed, p *Pod) Change {
	change := Change{Node: old.node}
	if old.node != p.Node || !sameNeeds(old.pod, p) {
		change.Kinds |= KindRoom | KindPods
	}
	if old.pod.terminating != p.terminating || !maps.Equal(old.pod.labels, p.labels) {
		change.Kinds |= KindPods
	}
	return change
}
