package scheduler_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/dory-io/dory/internal/scheduler"
)

func TestTheFullestNodeIsChosen(t *testing.T) {
	s := cluster(nodes(aNode("a"), aNode("b"), aNode("c"), aNode("full")),
		aPod("1", on("b"), cpu("1")), aPod("2", on("c"), cpu("2")), aPod("3", on("full"), cpu("3900m")))
	wantNode(t, s, read(aPod("p", cpu("1"))), "c")
	wantNode(t, s, read(aPod("p", cpu("2500m"))), "b")
	wantNode(t, s, read(aPod("p", cpu("100m"))), "full")
}

func TestTiesGoToTheLowerName(t *testing.T) {
	s := cluster(nodes(aNode("b"), aNode("c", inZone("z")), aNode("a", nodeLabel("x", "y"))))
	wantNode(t, s, read(aPod("p", cpu("1"))), "a")
}

func TestTheBufferIsKept(t *testing.T) {
	s := fill(scheduler.New(scheduler.Options{BufferPercent: scheduler.DefaultBufferPercent}), nodes(aNode("a")))
	wantNode(t, s, read(aPod("p", cpu("3600m"))), "a")
	p := read(aPod("p", cpu("3601m")))
	wantNode(t, s, p, "")
	refusal := s.Explain(p, scheduler.How{})
	if got, want := refusal.String(), "0/1 nodes fit: 1 only the 10% buffer left"; got != want || !refusal.OnlyBuffer {
		t.Errorf("refusal: got %s (only buffer: %t), want %s", got, refusal.OnlyBuffer, want)
	}
	if node, found := s.Decide(p, scheduler.How{UseBuffer: true}); !found || node != "a" {
		t.Errorf("with the buffer the pod goes to %q", node)
	}
	tooLarge := read(aPod("p", cpu("4001m")))
	if node, found := s.Decide(tooLarge, scheduler.How{UseBuffer: true}); found {
		t.Errorf("a pod larger than the node goes to %q", node)
	}
	if refusal := s.Explain(tooLarge, scheduler.How{}); refusal.OnlyBuffer {
		t.Errorf("the buffer would not help: %s", refusal)
	}
}

func TestPreferencesComeBeforeFullness(t *testing.T) {
	full := aPod("o", on("a"), cpu("3"))
	for name, c := range map[string]struct {
		nodes []*corev1.Node
		pod   *corev1.Pod
		want  string
	}{
		"none":             {nodes(aNode("a"), aNode("b")), aPod("p", cpu("1")), "a"},
		"avoid a node":     {nodes(aNode("a"), aNode("b")), aPod("p", cpu("1"), prefers(named(corev1.NodeSelectorOpNotIn, "a"))), "b"},
		"nothing but that": {nodes(aNode("a")), aPod("p", cpu("1"), prefers(named(corev1.NodeSelectorOpNotIn, "a"))), "a"},
		"by label":         {nodes(aNode("a"), aNode("b", nodeLabel("disk", "ssd"))), aPod("p", cpu("1"), prefers(withDisk("ssd"))), "b"},
		"no room there":    {nodes(aNode("a"), aNode("b", nodeLabel("disk", "ssd"), has("cpu", "500m"))), aPod("p", cpu("1"), prefers(withDisk("ssd"))), "a"},
		"a soft taint":     {nodes(aNode("a", tainted("x", corev1.TaintEffectPreferNoSchedule)), aNode("b")), aPod("p", cpu("1")), "b"},
		"tolerated":        {nodes(aNode("a", tainted("x", corev1.TaintEffectPreferNoSchedule)), aNode("b")), aPod("p", cpu("1"), tolerates("x")), "a"},
		"only soft taints": {nodes(aNode("a", tainted("x", corev1.TaintEffectPreferNoSchedule))), aPod("p", cpu("1")), "a"},
		"preferred, tainted": {
			nodes(aNode("a"), aNode("b", nodeLabel("disk", "ssd"), tainted("x", corev1.TaintEffectPreferNoSchedule))),
			aPod("p", cpu("1"), prefers(withDisk("ssd"))), "b",
		},
	} {
		t.Run(name, func(t *testing.T) { wantNode(t, cluster(c.nodes, full), read(c.pod), c.want) })
	}
}

func withDisk(value string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
		{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{value}},
	}}
}

func TestANodeToBeLeftIsNoChoice(t *testing.T) {
	s := cluster(nodes(aNode("a"), aNode("b")))
	if node, _ := s.Decide(read(aPod("p")), scheduler.How{Not: "a"}); node != "b" {
		t.Errorf("got %q, want b", node)
	}
	if got, want := s.Explain(read(aPod("p")), scheduler.How{Not: "a"}).String(), "0/2 nodes fit: 1 is to be left"; got != want {
		t.Errorf("refusal: got %s, want %s", got, want)
	}
}
