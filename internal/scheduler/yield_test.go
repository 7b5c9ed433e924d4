package scheduler_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/dory-io/dory/internal/scheduler"
)

func TestMakeRoom(t *testing.T) {
	two := nodes(aNode("a"), aNode("b"))
	for name, c := range map[string]struct {
		nodes  []*corev1.Node
		moving []*corev1.Pod // movable pods in place
		fixed  []*corev1.Pod
		pod    *corev1.Pod
		node   string
		moves  []scheduler.Move
	}{
		"the smallest move that helps": {
			nodes:  two,
			moving: []*corev1.Pod{aPod("1", on("a"), cpu("1")), aPod("2", on("a"), cpu("2")), aPod("3", on("b"), cpu("3"))},
			pod:    aPod("p", cpu("2"), priority(1)), node: "a", moves: []scheduler.Move{{Pod: "default/1", From: "a", To: "b"}},
		},
		"nobody of the same priority": {
			nodes: two, moving: []*corev1.Pod{aPod("1", on("a"), cpu("1"), priority(1)), aPod("2", on("b"), cpu("1"), priority(1))},
			pod: aPod("p", cpu("4"), priority(1)),
		},
		"nobody who cannot move": {
			nodes: two, fixed: []*corev1.Pod{aPod("1", on("a"), cpu("1")), aPod("2", on("b"), cpu("1"))}, pod: aPod("p", cpu("4"), priority(1)),
		},
		"nobody who has nowhere to go": {
			nodes: two, moving: []*corev1.Pod{aPod("1", on("a"), cpu("3")), aPod("2", on("b"), cpu("3"))}, pod: aPod("p", cpu("4"), priority(1)),
		},
		"the least important goes": {
			nodes:  nodes(aNode("a"), aNode("b"), aNode("c", has("cpu", "1"))),
			moving: []*corev1.Pod{aPod("1", on("a"), cpu("1"), priority(2)), aPod("2", on("b"), cpu("1"), priority(1))},
			fixed:  []*corev1.Pod{aPod("f", on("a"), cpu("3")), aPod("g", on("b"), cpu("3"))},
			pod: aPod("p", cpu("1"), priority(5), memory("2Gi"), func(p *corev1.Pod) { p.Spec.NodeSelector = nil }, requires(corev1.NodeSelectorRequirement{
				Key: hostname, Operator: corev1.NodeSelectorOpNotIn, Values: []string{"c"},
			})),
			node: "b", moves: []scheduler.Move{{Pod: "default/2", From: "b", To: "c"}},
		},
		"not to a tainted node": {
			nodes:  nodes(aNode("a"), aNode("b", tainted("x", corev1.TaintEffectNoSchedule))),
			moving: []*corev1.Pod{aPod("1", on("a"), cpu("1"))}, pod: aPod("p", cpu("4"), priority(1)),
		},
		"a host port": {
			nodes: two, moving: []*corev1.Pod{aPod("1", on("a"), hostPort(80, ""))}, fixed: []*corev1.Pod{aPod("f", on("b"), cpu("4"))},
			pod: aPod("p", cpu("4"), hostPort(80, ""), priority(1)), node: "a", moves: []scheduler.Move{{Pod: "default/1", From: "a", To: "b"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := cluster(c.nodes, c.fixed...)
			for _, p := range c.moving {
				s.SetPod(movable(p))
			}
			node, moves, found := s.MakeRoom(read(c.pod), scheduler.How{})
			if node != c.node || found != (c.node != "") {
				t.Errorf("node %q (%t), want %q", node, found, c.node)
			}
			if diff := cmp.Diff(c.moves, moves); diff != "" {
				t.Errorf("moves (-want +got):\n%s", diff)
			}
			if s.Pods() != len(c.fixed)+len(c.moving) {
				t.Errorf("asking changed the snapshot: %d pods", s.Pods())
			}
		})
	}
}

func TestMakeRoomAsksNobodyWhoIsNotThereYet(t *testing.T) {
	s := cluster(nodes(aNode("a"), aNode("b")))
	coming := aPod("1", cpu("1"))
	s.SetPod(movable(aPod("2", on("b"), cpu("4"))))
	if err := s.Assume(movable(coming), "a"); err != nil {
		t.Fatal(err)
	}
	if _, moves, found := s.MakeRoom(read(aPod("p", cpu("4"), priority(1))), scheduler.How{}); found {
		t.Errorf("asked to move: %v", moves)
	}
}

func TestMakeRoomKeepsTheBuffer(t *testing.T) {
	s := scheduler.New(scheduler.Options{BufferPercent: 10})
	fill(s, nodes(aNode("a"), aNode("b")), aPod("f", on("b"), cpu("3")))
	s.SetPod(movable(aPod("1", on("a"), cpu("1"))))
	if node, moves, found := s.MakeRoom(read(aPod("p", cpu("3600m"), priority(1))), scheduler.How{}); found {
		t.Errorf("made room on %s by %v, into the buffer of b", node, moves)
	}
	if _, moves, found := s.MakeRoom(read(aPod("p", cpu("3600m"), priority(1))), scheduler.How{UseBuffer: true}); !found || len(moves) != 1 {
		t.Errorf("with the buffer: %t, %v", found, moves)
	}
}
