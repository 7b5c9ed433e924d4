package packing

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Packer places pods. It is told of what happens, and asked for a node for each pod.
type Packer interface {
	AddNode(*corev1.Node)
	RemoveNode(*corev1.Node) error
	// Choose is empty if no node fits.
	Choose(context.Context, *corev1.Pod) (string, error)
	// Place puts a pod onto the node that is named in it.
	Place(*corev1.Pod) error
	Remove(*corev1.Pod) error
}

// Use is how many nodes there were on average, and at most, after the warm-up.
type Use struct{ Mean, Most float64 }

// use sums up.
type use struct {
	sum, most float64
	samples   int
}

func (u *use) add(nodes float64) {
	u.sum += nodes
	u.most = max(u.most, nodes)
	u.samples++
}

func (u *use) result() Use { return Use{Mean: u.sum / float64(u.samples), Most: u.most} }

// pool grows by a node when nothing fits, and loses nodes that nobody runs on, as an autoscaler does it.
type pool struct {
	packer Packer
	nodes  map[string]*corev1.Node
	pods   map[string]int // on each node
	made   int
}

// Replay plays a trace. The first warmUp arrivals fill the pool and are not counted.
func Replay(ctx context.Context, items []*Item, warmUp int, packer Packer) (Use, error) {
	p := &pool{packer: packer, nodes: map[string]*corev1.Node{}, pods: map[string]int{}}
	leaving := departures(items)
	var counted use
	for i, item := range items {
		for len(leaving) > 0 && leaving[0].Leaves <= item.Arrives {
			if err := p.leave(leaving[0].Pod); err != nil {
				return Use{}, err
			}
			leaving = leaving[1:]
		}
		if err := p.arrive(ctx, item.Pod); err != nil {
			return Use{}, err
		}
		if i >= warmUp {
			counted.add(float64(len(p.nodes)))
		}
	}
	return counted.result(), nil
}

func (p *pool) arrive(ctx context.Context, pod *corev1.Pod) error {
	pod.Spec.NodeName = ""
	node, err := p.packer.Choose(ctx, pod)
	if err == nil && node == "" {
		p.made++
		added := Node(fmt.Sprintf("node-%04d", p.made))
		p.nodes[added.Name] = added
		p.packer.AddNode(added)
		node, err = p.packer.Choose(ctx, pod)
	}
	switch {
	case err != nil:
		return fmt.Errorf("placing %s: %w", pod.Name, err)
	case p.nodes[node] == nil:
		return fmt.Errorf("placing %s: an empty node was refused, and %q chosen", pod.Name, node)
	}
	pod.Spec.NodeName = node
	p.pods[node]++
	return p.packer.Place(pod)
}

func (p *pool) leave(pod *corev1.Pod) error {
	name := pod.Spec.NodeName
	if err := p.packer.Remove(pod); err != nil {
		return err
	}
	if p.pods[name]--; p.pods[name] > 0 {
		return nil
	}
	node := p.nodes[name]
	delete(p.nodes, name)
	delete(p.pods, name)
	return p.packer.RemoveNode(node)
}

// LowerBound is how many nodes nobody can do with less than: at each moment, for the resource of which the most is
// needed, the sum over all pods as a share of a node, rounded up. That is what the linear relaxation of the packing gives.
func LowerBound(items []*Item, warmUp int) Use {
	leaving := departures(items)
	var cpu, memory int64
	var counted use
	for i, item := range items {
		for len(leaving) > 0 && leaving[0].Leaves <= item.Arrives {
			cpu, memory = cpu-leaving[0].MilliCPU, memory-leaving[0].MemoryMiB
			leaving = leaving[1:]
		}
		cpu, memory = cpu+item.MilliCPU, memory+item.MemoryMiB
		if i >= warmUp {
			counted.add(float64(max(ceil(cpu, nodeMilliCPU), ceil(memory, nodeMemoryMiB))))
		}
	}
	return counted.result()
}

func ceil(amount, each int64) int64 { return (amount + each - 1) / each }
