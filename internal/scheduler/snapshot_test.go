package scheduler_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dory-io/dory/internal/scheduler"
)

func TestAssumedPodsCount(t *testing.T) {
	s := cluster(nodes(aNode("a")))
	first, second := read(aPod("1", cpu("3"))), read(aPod("2", cpu("3")))
	if err := s.Assume(first, "a"); err != nil {
		t.Fatal(err)
	}
	wantNode(t, s, second, "")

	s.SetPod(first) // News from before the assumption.
	wantNode(t, s, second, "")
	if node, assumed := s.Assumed(first.Key); node != "a" || !assumed {
		t.Errorf("assumed: %q, %t", node, assumed)
	}

	if change := s.Forget(first); change.Node != "a" || change.Kinds&scheduler.KindRoom == 0 {
		t.Errorf("forgetting frees room on a: got %+v", change)
	}
	wantNode(t, s, second, "a")
}

func TestAnAssumptionThatCameTrueIsNotForgotten(t *testing.T) {
	s := cluster(nodes(aNode("a")))
	p := aPod("1", cpu("3"))
	if err := s.Assume(read(p), "a"); err != nil {
		t.Fatal(err)
	}
	s.SetPod(read(aPod("1", cpu("3"), on("a"))))
	s.Forget(read(p))
	wantNode(t, s, read(aPod("2", cpu("3"))), "")
}

func TestAnotherSchedulerWasFaster(t *testing.T) {
	s := cluster(nodes(aNode("a"), aNode("b")))
	if err := s.Assume(read(aPod("1", cpu("3"))), "a"); err != nil {
		t.Fatal(err)
	}
	s.SetPod(read(aPod("1", cpu("3"), on("b"))))
	wantNode(t, s, read(aPod("2", cpu("3"))), "a")
	wantNode(t, s, read(aPod("2", cpu("4"))), "a")
}

// News of a node may be seconds late: somebody else's pod was there before the decision. The node takes nothing more until
// its kubelet has refused the one that is too many.
func TestNewsThatComesTooLate(t *testing.T) {
	s := cluster(nodes(aNode("a")))
	ours, next := read(aPod("ours", cpu("3"))), read(aPod("next", cpu("1")))
	if err := s.Assume(ours, "a"); err != nil {
		t.Fatal(err)
	}
	s.SetPod(read(aPod("theirs", cpu("3"), on("a"))))
	wantNode(t, s, next, "")
	s.SetPod(read(aPod("ours", cpu("3"), on("a")))) // It was bound all the same.
	wantNode(t, s, next, "")
	if change := s.DeletePod(ours.Key); change.Node != "a" || change.Kinds&scheduler.KindRoom == 0 {
		t.Errorf("the kubelet's refusal helps: got %+v", change)
	}
	wantNode(t, s, next, "a")
	wantNode(t, s, ours, "")
}

func TestAssumeRefusesWhatCannotBe(t *testing.T) {
	s := cluster(nodes(aNode("a")), aPod("there", on("a")), aPod("lost", on("ghost")))
	for name, c := range map[string]struct{ pod, node string }{
		"unknown node":                {"p", "z"},
		"node that only pods know of": {"p", "ghost"},
		"pod in place":                {"there", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.Assume(read(aPod(c.pod)), c.node); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestANewPodOfAnOldName(t *testing.T) {
	s := cluster(nodes(aNode("a")))
	if err := s.Assume(read(aPod("1", cpu("3"))), "a"); err != nil {
		t.Fatal(err)
	}
	next := aPod("1", cpu("4"))
	next.UID = types.UID("another")
	s.SetPod(read(next))
	wantNode(t, s, read(next), "a")
}

func TestPodsAreKnownBeforeAndAfterTheirNode(t *testing.T) {
	s := cluster(nil, aPod("1", on("a"), cpu("3"), labelled("app", "web")))
	wantNode(t, s, read(aPod("2", awayFrom("web", hostname))), "")
	s.SetNode(aNode("a"))
	wantNode(t, s, read(aPod("2", cpu("2"))), "")
	wantNode(t, s, read(aPod("2", awayFrom("web", hostname))), "")
	s.DeleteNode("a")
	wantNode(t, s, read(aPod("2")), "")
	s.SetNode(aNode("a"))
	wantNode(t, s, read(aPod("2", cpu("2"))), "")
	s.DeletePod(scheduler.Key("default", "1"))
	wantNode(t, s, read(aPod("2", cpu("2"), awayFrom("web", hostname))), "a")
}

func TestAFlappingNode(t *testing.T) {
	s := cluster(nodes(aNode("a")), aPod("1", on("a"), cpu("1")))
	for range 100 {
		s.SetNode(aNode("a", withCondition(corev1.NodeReady, corev1.ConditionUnknown)))
		wantNode(t, s, read(aPod("p")), "")
		change := s.SetNode(aNode("a"))
		if change.Kinds&scheduler.KindService == 0 {
			t.Fatalf("a node that is ready again helps: got %+v", change)
		}
		wantNode(t, s, read(aPod("p")), "a")
	}
}

func TestACopyIsIndependent(t *testing.T) {
	s := cluster(nodes(aNode("a"), aNode("b")), aPod("1", on("a"), cpu("3"), labelled("app", "web")))
	away := read(aPod("p", awayFrom("web", hostname)))
	wantNode(t, s, away, "b")

	c := s.Copy()
	c.SetPod(read(aPod("2", on("b"), labelled("app", "web"))))
	c.SetPod(read(aPod("3", on("b"), awayFrom("db", hostname))))
	wantNode(t, c, away, "")
	wantNode(t, s, away, "b")
	c.DeletePod(scheduler.Key("default", "1"))
	wantNode(t, c, away, "a")
	wantNode(t, s, away, "b")
	c.DeleteNode("a")
	c.SetNode(aNode("c", has("cpu", "64")))
	wantNode(t, c, read(aPod("p", cpu("60"))), "c")
	wantNode(t, s, read(aPod("p", cpu("60"))), "")

	s.SetPod(read(aPod("4", on("b"), cpu("4"))))
	wantNode(t, s, read(aPod("p", cpu("2"))), "")
	wantNode(t, c, read(aPod("p", cpu("2"), func(p *corev1.Pod) { p.Labels["app"] = "cache" })), "b")
}

// Labels that are different on every node must not make a class of each.
func TestManyNodesWithLabelsOfTheirOwn(t *testing.T) {
	s := scheduler.New(scheduler.Options{})
	const count = 300
	for i := range count {
		name := fmt.Sprintf("n%03d", i)
		s.SetNode(aNode(name, inZone(string(rune('a'+i%3))), nodeLabel("example.com/serial", "s"+name)))
	}
	if classes := s.Classes(); classes > 100 {
		t.Errorf("%d classes for %d nodes", classes, count)
	}
	wantNode(t, s, read(aPod("p", selects("example.com/serial", "sn123"))), "n123")
	wantNode(t, s, read(aPod("p", selects(zone, "b"))), "n001")
	web := labelled("app", "web")
	s.SetPod(read(aPod("1", web, on("n000"))))
	wantNode(t, s, read(aPod("p", web, spreads("web", "example.com/serial", 1))), "n001")
	wantNode(t, s, read(aPod("p", web, spreads("web", zone, 1))), "n001")
}

func TestChangesThatHelp(t *testing.T) {
	full := aPod("o", on("a"), cpu("4"), labelled("app", "web"))
	for name, c := range map[string]struct {
		pod    *corev1.Pod
		event  func(*scheduler.Snapshot) scheduler.Change
		helped bool
	}{
		"a pod went": {
			aPod("p", cpu("1")), func(s *scheduler.Snapshot) scheduler.Change { return s.DeletePod("default/o") }, true,
		},
		"a pod became smaller": {
			aPod("p", cpu("1")), func(s *scheduler.Snapshot) scheduler.Change { return s.SetPod(read(aPod("o", on("a"), cpu("1")))) }, true,
		},
		"a pod reported its status": {
			aPod("p", cpu("1")), func(s *scheduler.Snapshot) scheduler.Change { return s.SetPod(read(full)) }, false,
		},
		"a pod came, and room is wanted": {
			aPod("p", cpu("1")), func(s *scheduler.Snapshot) scheduler.Change { return s.SetPod(read(aPod("n", on("a")))) }, false,
		},
		"a pod came that is wanted near": {
			aPod("p", near("db", hostname)), func(s *scheduler.Snapshot) scheduler.Change {
				return s.SetPod(read(aPod("n", on("a"), labelled("app", "db"))))
			}, true,
		},
		"a node came": {
			aPod("p", cpu("1")), func(s *scheduler.Snapshot) scheduler.Change { return s.SetNode(aNode("b")) }, true,
		},
		"a node reported its status": {
			aPod("p", cpu("1")), func(s *scheduler.Snapshot) scheduler.Change { return s.SetNode(aNode("a")) }, false,
		},
		"a node grew": {
			aPod("p", cpu("1")), func(s *scheduler.Snapshot) scheduler.Change { return s.SetNode(aNode("a", has("cpu", "8"))) }, true,
		},
		"a node was cordoned, and room is wanted": {
			aPod("p", cpu("1")), func(s *scheduler.Snapshot) scheduler.Change { return s.SetNode(aNode("a", cordoned)) }, false,
		},
		"a label came that is selected": {
			aPod("p", selects("disk", "ssd")), func(s *scheduler.Snapshot) scheduler.Change {
				return s.SetNode(aNode("a", nodeLabel("disk", "ssd")))
			}, true,
		},
		"nothing in the cluster helps": {
			aPod("p", cpu("-1")), func(s *scheduler.Snapshot) scheduler.Change { return s.SetNode(aNode("b")) }, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := cluster(nodes(aNode("a")), full)
			refusal := s.Explain(read(c.pod), scheduler.How{})
			if helped := refusal.HelpedBy(c.event(s)); helped != c.helped {
				t.Errorf("helped: %t, want %t (%s)", helped, c.helped, refusal)
			}
		})
	}
}
