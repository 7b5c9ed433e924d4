package packing

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/dory-io/dory/internal/scheduler"
)

// Dory is our engine.
type Dory struct{ snapshot *scheduler.Snapshot }

// NewDory keeps a share of every node free.
func NewDory(bufferPercent int32) Dory {
	return Dory{snapshot: scheduler.New(scheduler.Options{BufferPercent: bufferPercent})}
}

// AddNode implements Packer.
func (d Dory) AddNode(n *corev1.Node) { d.snapshot.SetNode(n) }

// RemoveNode implements Packer.
func (d Dory) RemoveNode(n *corev1.Node) error {
	d.snapshot.DeleteNode(n.Name)
	return nil
}

// Choose implements Packer.
func (d Dory) Choose(_ context.Context, p *corev1.Pod) (string, error) {
	node, _ := d.snapshot.Decide(scheduler.NewPod(p, scheduler.PodOptions{}), scheduler.How{})
	return node, nil
}

// Place implements Packer.
func (d Dory) Place(p *corev1.Pod) error {
	d.snapshot.SetPod(scheduler.NewPod(p, scheduler.PodOptions{}))
	return nil
}

// Remove implements Packer.
func (d Dory) Remove(p *corev1.Pod) error {
	d.snapshot.DeletePod(scheduler.Key(p.Namespace, p.Name))
	return nil
}
