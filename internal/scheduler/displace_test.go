package scheduler_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/dory-io/dory/internal/scheduler"
)

func TestDisplace(t *testing.T) {
	two := nodes(aNode("a"), aNode("b"))
	low := priority(-10)
	ending := func(p *corev1.Pod) { p.DeletionTimestamp = &p.CreationTimestamp }
	never := func(p *corev1.Pod) {
		policy := corev1.PreemptNever
		p.Spec.PreemptionPolicy = &policy
	}
	for name, c := range map[string]struct {
		nodes []*corev1.Node
		keep  []*corev1.Pod // placeholders in place
		fixed []*corev1.Pod
		pod   *corev1.Pod
		how   scheduler.How
		avoid map[string]bool
		node  string
		gone  []string
	}{
		"as few as will do": {
			nodes: two, keep: []*corev1.Pod{aPod("1", on("a"), cpu("1"), low), aPod("2", on("a"), cpu("3"), low), aPod("3", on("b"), cpu("4"), low)},
			pod: aPod("p", cpu("2")), node: "a", gone: []string{"default/2"},
		},
		"and as small ones": {
			nodes: two, keep: []*corev1.Pod{aPod("1", on("a"), cpu("3"), low), aPod("2", on("a"), cpu("1"), low), aPod("3", on("b"), cpu("4"), low)},
			pod: aPod("p", cpu("1")), node: "a", gone: []string{"default/2"},
		},
		"the least important": {
			nodes: nodes(aNode("a")), keep: []*corev1.Pod{aPod("1", on("a"), cpu("2"), priority(-1)), aPod("2", on("a"), cpu("2"), low)},
			pod: aPod("p", cpu("2")), node: "a", gone: []string{"default/2"},
		},
		"rather those that end already": {
			nodes: two, keep: []*corev1.Pod{aPod("1", on("a"), cpu("4"), low), aPod("2", on("b"), cpu("4"), low, ending)},
			pod: aPod("p", cpu("1")), node: "b", gone: []string{"default/2"},
		},
		"none of the same priority":    {nodes: two, keep: []*corev1.Pod{aPod("1", on("a"), cpu("4")), aPod("2", on("b"), cpu("4"))}, pod: aPod("p", cpu("1"))},
		"none where it would not help": {nodes: two, keep: []*corev1.Pod{aPod("1", on("a"), cpu("4"), low)}, pod: aPod("p", cpu("5"))},
		"none who works": {
			nodes: two, keep: []*corev1.Pod{aPod("1", on("a"), cpu("2"), low)}, pod: aPod("p", cpu("3")),
			fixed: []*corev1.Pod{aPod("f", on("a"), cpu("2"), low), aPod("g", on("b"), cpu("2"), low)},
		},
		"none for who is to wait": {nodes: two, keep: []*corev1.Pod{aPod("1", on("a"), cpu("4"), low), aPod("2", on("b"), cpu("4"), low)}, pod: aPod("p", cpu("1"), never)},
		"not on a node to be left": {
			nodes: two, keep: []*corev1.Pod{aPod("1", on("a"), cpu("4"), low), aPod("2", on("b"), cpu("4"), low)},
			pod: aPod("p", cpu("1")), how: scheduler.How{Not: "a"}, node: "b", gone: []string{"default/2"},
		},
		"not on one to be avoided": {
			nodes: two, keep: []*corev1.Pod{aPod("1", on("a"), cpu("4"), low), aPod("2", on("b"), cpu("4"), low)},
			pod: aPod("p", cpu("1")), avoid: map[string]bool{"a": true}, node: "b", gone: []string{"default/2"},
		},
		"not where the pod may not go": {
			nodes: nodes(aNode("a", tainted("x", corev1.TaintEffectNoSchedule)), aNode("b")),
			keep:  []*corev1.Pod{aPod("1", on("a"), cpu("4"), low), aPod("2", on("b"), cpu("4"), low)},
			pod:   aPod("p", cpu("1")), node: "b", gone: []string{"default/2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := cluster(c.nodes, c.fixed...)
			for _, p := range c.keep {
				s.SetPod(placeholder(p))
			}
			node, found, ok := s.Displace(read(c.pod), c.how, c.avoid)
			if node != c.node || ok != (c.node != "") {
				t.Errorf("node %q (%t), want %q", node, ok, c.node)
			}
			if diff := cmp.Diff(c.gone, keys(found)); diff != "" {
				t.Errorf("placeholders (-want +got):\n%s", diff)
			}
			if s.Pods() != len(c.fixed)+len(c.keep) {
				t.Errorf("asking changed the snapshot: %d pods", s.Pods())
			}
		})
	}
}

func keys(pods []*scheduler.Pod) []string {
	var keys []string
	for _, p := range pods {
		keys = append(keys, p.Key)
	}
	return keys
}

// Nodes on which the pod may not run do not stand before one on which it may, however many they are.
func TestDisplaceLooksWhereThePodMayGo(t *testing.T) {
	var all []*corev1.Node
	for i := range 100 {
		all = append(all, aNode(fmt.Sprintf("a-%03d", i), tainted("x", corev1.TaintEffectNoSchedule)))
	}
	s := cluster(append(all, aNode("z")))
	for i, n := range append(all, aNode("z")) {
		s.SetPod(placeholder(aPod(strconv.Itoa(i), on(n.Name), cpu("4"), priority(-10))))
	}
	if node, _, found := s.Displace(read(aPod("p", cpu("4"))), scheduler.How{}, nil); node != "z" {
		t.Errorf("node %q (%t), want z", node, found)
	}
}

func TestDisplaceKeepsTheBuffer(t *testing.T) {
	s := scheduler.New(scheduler.Options{BufferPercent: 10})
	fill(s, nodes(aNode("a")))
	s.SetPod(placeholder(aPod("1", on("a"), cpu("3"), priority(-10))))
	p := read(aPod("p", cpu("4")))
	if node, _, found := s.Displace(p, scheduler.How{}, nil); found || s.Yields(p, "a", scheduler.How{}) {
		t.Errorf("the buffer of %s is given away", node)
	}
	if node, _, found := s.Displace(p, scheduler.How{UseBuffer: true}, nil); !found || node != "a" || !s.Yields(p, "a", scheduler.How{UseBuffer: true}) {
		t.Errorf("with the buffer: %q (%t)", node, found)
	}
}

// The room of a placeholder that is larger than who needs it is shared: nobody else has to go for the rest.
func TestTheRestOfARoomIsForTheNext(t *testing.T) {
	s := cluster(nodes(aNode("a"), aNode("b")))
	for _, p := range []*corev1.Pod{aPod("1", on("a"), cpu("4"), priority(-10)), aPod("2", on("b"), cpu("4"), priority(-10))} {
		s.SetPod(placeholder(p))
	}
	for i := range 4 {
		p := read(aPod(fmt.Sprintf("p-%d", i), cpu("1")))
		node, gone, found := s.Displace(p, scheduler.How{}, nil)
		if !found || node != "a" || len(gone) != 1 || gone[0].Key != "default/1" || gone[0].Terminating() != (i > 0) {
			t.Fatalf("pod %d: %s, %v (%t)", i, node, keys(gone), found)
		}
		if s.Fits(p, "a", scheduler.How{}) {
			t.Errorf("pod %d: the room is free before the placeholder has ended", i)
		}
		if err := s.Assume(p, node); err != nil {
			t.Fatal(err)
		}
		s.End(gone[0].Key)
	}
	if node, _, found := s.Displace(read(aPod("p-4", cpu("1"))), scheduler.How{}, nil); node != "b" {
		t.Errorf("the fifth: %q (%t), want b", node, found)
	}
}
