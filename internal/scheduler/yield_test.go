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
		held   []*corev1.Pod // by placeholders
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
		"placeholders end, as few as will do": {
			nodes: two, held: []*corev1.Pod{
				aPod("1", on("a"), cpu("1"), priority(-10)), aPod("2", on("a"), cpu("3"), priority(-10)), aPod("3", on("b"), cpu("4"), priority(-10)),
			},
			pod: aPod("p", cpu("2")), node: "a", moves: []scheduler.Move{{Pod: "default/2", From: "a"}},
		},
		"a placeholder rather than a move": {
			nodes: two, moving: []*corev1.Pod{aPod("1", on("a"), cpu("1"))}, fixed: []*corev1.Pod{aPod("f", on("a"), cpu("3"))},
			held: []*corev1.Pod{aPod("2", on("b"), cpu("1"), priority(-10)), aPod("3", on("b"), cpu("1"), priority(-10)), aPod("4", on("b"), cpu("1"), priority(-10))},
			pod:  aPod("p", cpu("3"), priority(1)), node: "b", moves: []scheduler.Move{{Pod: "default/3", From: "b"}, {Pod: "default/2", From: "b"}},
		},
		"a placeholder and a move": {
			nodes: nodes(aNode("a"), aNode("b", has("cpu", "2"))), moving: []*corev1.Pod{aPod("1", on("a"), cpu("2"))},
			held: []*corev1.Pod{aPod("2", on("a"), cpu("2"), priority(-10))},
			pod:  aPod("p", cpu("4"), priority(1)), node: "a", moves: []scheduler.Move{{Pod: "default/1", From: "a", To: "b"}, {Pod: "default/2", From: "a"}},
		},
		"no placeholder of the same priority": {
			nodes: two, held: []*corev1.Pod{aPod("1", on("a"), cpu("4")), aPod("2", on("b"), cpu("4"))}, pod: aPod("p", cpu("1")),
		},
		"no placeholder where it would not help": {
			nodes: two, held: []*corev1.Pod{aPod("1", on("a"), cpu("4"), priority(-10)), aPod("2", on("b"), cpu("4"), priority(-10))}, pod: aPod("p", cpu("5")),
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := cluster(c.nodes, c.fixed...)
			for _, p := range c.moving {
				s.SetPod(movable(p))
			}
			for _, p := range c.held {
				s.SetPod(placeholder(p))
			}
			node, moves, found := s.MakeRoom(read(c.pod), scheduler.How{})
			if node != c.node || found != (c.node != "") {
				t.Errorf("node %q (%t), want %q", node, found, c.node)
			}
			if diff := cmp.Diff(c.moves, moves); diff != "" {
				t.Errorf("moves (-want +got):\n%s", diff)
			}
			if s.Pods() != len(c.fixed)+len(c.moving)+len(c.held) {
				t.Errorf("asking changed the snapshot: %d pods", s.Pods())
			}
		})
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

// Two pods do not count on the same placeholder.
func TestAPlaceholderEndsForOnePod(t *testing.T) {
	s := cluster(nodes(aNode("a"), aNode("b")))
	for _, p := range []*corev1.Pod{aPod("1", on("a"), cpu("4"), priority(-10)), aPod("2", on("b"), cpu("4"), priority(-10))} {
		s.SetPod(placeholder(p))
	}
	for i, want := range []string{"default/1", "default/2"} {
		_, moves, found := s.MakeRoom(read(aPod("p", cpu("4"))), scheduler.How{})
		if !found || len(moves) != 1 || moves[0].Pod != want {
			t.Fatalf("pod %d: %v (%t), want the end of %s", i, moves, found, want)
		}
		s.End(moves[0].Pod)
		if !s.Has(want) || s.Fits(read(aPod("p", cpu("1"))), moves[0].From, scheduler.How{}) {
			t.Errorf("the room of %s is free before it has ended", want)
		}
	}
	if _, moves, found := s.MakeRoom(read(aPod("p", cpu("4"))), scheduler.How{}); found {
		t.Errorf("a third pod: %v", moves)
	}
	s.SetPod(placeholder(aPod("1", on("a"), cpu("4"), priority(-10)))) // It was not ended after all.
	if _, moves, found := s.MakeRoom(read(aPod("p", cpu("4"))), scheduler.How{}); !found || moves[0].Pod != "default/1" {
		t.Errorf("after the news: %v (%t)", moves, found)
	}
}

func TestWhoMayAskForRoom(t *testing.T) {
	s := cluster(nodes(aNode("a")))
	ask := func(p *corev1.Pod, with func(*corev1.Pod) *scheduler.Pod, want bool) {
		t.Helper()
		if got := s.MayAsk(with(p)); got != want {
			t.Errorf("pod %s may ask: %t, want %t", p.Name, got, want)
		}
	}
	ask(aPod("usual"), read, false)
	ask(aPod("urgent", priority(1)), read, true)
	s.SetPod(placeholder(aPod("1", on("a"), priority(-10))))
	ask(aPod("usual"), read, true)
	ask(aPod("another", priority(-5)), placeholder, false)
	s.DeletePod("default/1")
	ask(aPod("usual"), read, false)
}
