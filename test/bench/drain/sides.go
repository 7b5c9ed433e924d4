package main

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/bench/cluster"
)

// side is one of the two that are compared.
type side interface {
	name() string
	// create makes the counters, remove ends them.
	create(ctx context.Context) error
	remove(ctx context.Context) error
	// prefixes are how the names of each counter's pods begin.
	prefixes() []string
	// settled says whether every counter works on a node, and else what is missing.
	settled(ctx context.Context, node string) (bool, string, error)
	// note looks at what came of a drain.
	note(ctx context.Context) error
	drains() *[]drained
}

// processors are Dory's side.
type processors struct {
	*bench

	ended []drained
	// moves are the ProcessorMigrations by name, with how they went. The history in the cluster is shorter.
	moves map[string]string
}

func (p *processors) name() string       { return "dory" }
func (p *processors) drains() *[]drained { return &p.ended }

func (p *processors) names() []string {
	return p.numbered("proc")
}

func (b *bench) numbered(prefix string) []string {
	names := make([]string, b.processors)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%02d", prefix, i)
	}
	return names
}

func (p *processors) prefixes() []string {
	prefixes := p.names()
	for i, name := range prefixes {
		prefixes[i] = "dory-" + name + "-"
	}
	return prefixes
}

func (p *processors) create(ctx context.Context) error {
	for _, name := range p.names() {
		if err := p.cluster.Client.Create(ctx, p.counter(name).Processor()); err != nil {
			return err
		}
	}
	return nil
}

func (p *processors) settled(ctx context.Context, node string) (bool, string, error) {
	var list doryv1alpha1.ProcessorList
	if err := p.cluster.Client.List(ctx, &list, client.InNamespace(p.cluster.Namespace)); err != nil {
		return false, "", err
	}
	there := 0
	for i := range list.Items {
		if at := list.Items[i].Status.Instance; list.Items[i].Status.Phase == doryv1alpha1.ProcessorRunning && at != nil && at.Node == node {
			there++
		}
	}
	return there == p.processors, fmt.Sprintf("%d of %d run on %s", there, p.processors, node), nil
}

func (p *processors) note(ctx context.Context) error {
	var list doryv1alpha1.ProcessorMigrationList
	if err := p.cluster.Client.List(ctx, &list, client.InNamespace(p.cluster.Namespace)); err != nil {
		return err
	}
	for i := range list.Items {
		m := &list.Items[i]
		p.moves[m.Name] = fmt.Sprintf("%s %s %s", m.Status.Strategy, m.Status.Phase, m.Status.Reason)
	}
	return nil
}

// outcomes counts the moves by how they went.
func (p *processors) outcomes() map[string]int {
	counts := map[string]int{}
	for _, outcome := range p.moves {
		counts[outcome]++
	}
	return counts
}

// remove ends the pods, and leaves one Processor: with the last one its ServiceAccount would have no reason to be.
func (p *processors) remove(ctx context.Context) error {
	suspended := p.counter("account").Processor()
	suspended.Spec.Suspend = new(true)
	if err := p.cluster.Client.Create(ctx, suspended); err != nil {
		return err
	}
	for _, name := range p.names() {
		if err := p.cluster.Client.Delete(ctx, p.counter(name).Processor()); err != nil {
			return err
		}
	}
	return p.noPods(ctx)
}

func (b *bench) noPods(ctx context.Context) error {
	return cluster.Until(ctx, "the end of all pods", func(ctx context.Context) (bool, string, error) {
		var pods corev1.PodList
		err := b.cluster.Client.List(ctx, &pods, client.InNamespace(b.cluster.Namespace))
		return len(pods.Items) == 0, fmt.Sprintf("%d are left", len(pods.Items)), err
	})
}

// statefulSets are what a user would run without Dory.
type statefulSets struct {
	*bench

	ended []drained
}

func (s *statefulSets) name() string               { return "statefulset" }
func (s *statefulSets) drains() *[]drained         { return &s.ended }
func (s *statefulSets) note(context.Context) error { return nil }
func (s *statefulSets) names() []string            { return s.numbered("set") }
func (s *statefulSets) prefixes() []string {
	prefixes := s.names()
	for i, name := range prefixes {
		prefixes[i] = name + "-"
	}
	return prefixes
}

func (s *statefulSets) create(ctx context.Context) error {
	for _, name := range s.names() {
		set, err := s.counter(name).StatefulSet()
		if err != nil {
			return err
		}
		if err := s.cluster.Client.Create(ctx, set); err != nil {
			return err
		}
	}
	return nil
}

func (s *statefulSets) settled(ctx context.Context, node string) (bool, string, error) {
	var pods corev1.PodList
	if err := s.cluster.Client.List(ctx, &pods, client.InNamespace(s.cluster.Namespace)); err != nil {
		return false, "", err
	}
	there := 0
	for i := range pods.Items {
		p := &pods.Items[i]
		named := slices.Contains(s.names(), p.Labels["app"])
		if named && p.DeletionTimestamp == nil && p.Spec.NodeName == node && cluster.Ready(p) {
			there++
		}
	}
	return there == s.processors, fmt.Sprintf("%d of %d are ready on %s", there, s.processors, node), nil
}

func (s *statefulSets) remove(ctx context.Context) error {
	for _, name := range s.names() {
		set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: s.cluster.Namespace, Name: name}}
		if err := s.cluster.Client.Delete(ctx, set); err != nil {
			return err
		}
	}
	return s.noPods(ctx)
}
