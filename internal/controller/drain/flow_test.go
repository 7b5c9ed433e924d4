package drain_test

import (
	"fmt"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/drain"
	"github.com/dory-io/dory/test/processkubelet"
)

var _ = Describe("A drain", func() {
	// slow leaves time to do something before a target is ready.
	slow := processkubelet.Delays{Start: 2 * time.Second}

	It("moves processors off a cordoned node before anybody evicts, if it is to", func() {
		c := start(2, settings{proactive: true})
		p := c.apply("cam", "n1")
		c.cordon("n1", true)
		c.worksOn(p, "n2")
		c.whole(p)
		Expect(c.migrations(p)).To(HaveExactElements(And(
			HaveField("Name", MatchRegexp(`^cam-drain-[a-z0-9]{8}-1$`)), HaveField("Status.Phase", doryv1alpha1.MigrationSucceeded),
			HaveField("Status.Strategy", doryv1alpha1.MigrationLive), HaveField("Labels", HaveKeyWithValue(doryv1alpha1.LabelDrainedNode, "n1")))))
		c.told("Processor", "cam", drain.EventRequested, "leaves node n1")
	})

	It("waits for an eviction where a node is only cordoned, and then for the handoff", func() {
		c := start(2, settings{})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		c.cordon("n1", true)
		Consistently(func() []doryv1alpha1.ProcessorMigration { return c.migrations(p) }).Should(BeEmpty())
		tried, err := c.desk.Ask(ctx, drain.Request{Pod: client.ObjectKeyFromObject(source), DryRun: true})
		Expect(err).NotTo(HaveOccurred())
		Expect(tried).To(And(HaveField("Allowed", true), HaveField("Reason", drain.ReasonWouldMove)))
		Consistently(func() []doryv1alpha1.ProcessorMigration { return c.migrations(p) }).Should(BeEmpty())
		c.kubelet.SetDelays(slow)

		answers := c.evict(source)
		Expect(answers[0]).To(And(HaveField("Allowed", false), HaveField("Reason", drain.ReasonQueued), HaveField("Message", HavePrefix("Eviction triggered evacuation"))))
		Expect(answers).To(ContainElement(And(HaveField("Reason", drain.ReasonMoving), HaveField("Message", Or(ContainSubstring("is not ready yet"), ContainSubstring("waits for a node"))))))
		Expect(answers).NotTo(ContainElement(And(HaveField("Allowed", true), HaveField("Reason", Not(BeElementOf(drain.ReasonNotOurs, drain.ReasonFinished, drain.ReasonTerminating))))))
		c.worksOn(p, "n2")
		c.whole(p)
		Expect(c.migrations(p)).To(HaveLen(1))
		Expect(c.ask(client.ObjectKeyFromObject(source))).To(And(HaveField("Allowed", true), HaveField("Reason", drain.ReasonNotOurs)))
	})

	It("moves processors off a node that is announced to go, as Karpenter does", func() {
		c := start(2, settings{})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		c.taint("n1", "karpenter.sh/disrupted")
		c.drainOf(p)
		c.evict(source)
		c.worksOn(p, "n2")
		c.whole(p)
		Expect(c.migrations(p)).To(HaveLen(1))
	})

	It("moves processors off a node that shuts down", func() {
		c := start(2, settings{})
		p := c.apply("cam", "n1")
		node := &corev1.Node{}
		Expect(k8s.Get(ctx, client.ObjectKey{Name: "n1"}, node)).To(Succeed())
		node.Status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: "node is shutting down",
			LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
		}}
		Expect(k8s.Status().Update(ctx, node)).To(Succeed())
		c.worksOn(p, "n2")
		c.whole(p)
	})

	It("is withdrawn when the node is uncordoned, and nothing comes back", func() {
		c := start(2, settings{proactive: true})
		p := c.apply("cam", "n1")
		moved := c.apply("mic", "n1")
		c.cordon("n1", true)
		c.worksOn(moved, "n2")
		c.worksOn(p, "n2")
		c.cordon("n1", false)
		Consistently(func() string { return c.instance(p).Spec.NodeName }).Should(Equal("n2"), "what has moved stays")

		source := c.instance(p)
		c.kubelet.SetDelays(slow)
		c.cordon("n2", true)
		m := c.drainOf(p, in(doryv1alpha1.MigrationStarting))
		c.cordon("n2", false)
		c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonCancelled))
		Expect(c.worksOn(p, "n2").Name).To(Equal(source.Name))
		count := len(c.migrations(p))
		Consistently(func() int { return len(c.migrations(p)) }).WithTimeout(3 * time.Second).Should(Equal(count))
		c.whole(p)
		c.whole(moved)
		c.told("ProcessorMigration", m.Name, drain.EventWithdrawn, "node n2 is not being left any more")
	})

	It("is withdrawn also where it began before the node was seen to be cordoned", func() {
		c := start(2, settings{})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		c.kubelet.SetDelays(slow)
		c.ask(client.ObjectKeyFromObject(source))
		m := c.drainOf(p)
		Expect(m.Labels).NotTo(HaveKey(doryv1alpha1.LabelDrainedNode))
		c.cordon("n1", true)
		c.drainOf(p, func(m *doryv1alpha1.ProcessorMigration) bool { return m.Labels[doryv1alpha1.LabelDrainedNode] == "n1" })
		c.cordon("n1", false)
		c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonCancelled))
		Expect(c.worksOn(p, "n1").Name).To(Equal(source.Name))
	})

	It("takes a move elsewhere whose target's node starts to leave", func() {
		c := start(3, settings{proactive: true})
		p := c.apply("cam", "n1")
		c.kubelet.SetDelays(slow)
		c.cordon("n1", true)
		m := c.drainOf(p, in(doryv1alpha1.MigrationStarting))
		other := map[string]string{"n2": "n3", "n3": "n2"}[m.Status.TargetNode]
		c.cordon(m.Status.TargetNode, true)
		c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonCancelled))
		c.worksOn(p, other)
		c.whole(p)
		Expect(c.migrations(p)).To(HaveLen(2))
		c.told("Processor", "cam", drain.EventMisled, "is on node "+m.Status.TargetNode)
	})

	It("moves nothing back and forth between two nodes that are drained, and says why the instances stay", func() {
		c := start(2, settings{proactive: true, patience: 24 * time.Second})
		one, two := c.apply("cam", "n1"), c.apply("mic", "n2")
		pods := map[*doryv1alpha1.Processor]string{one: c.instance(one).Name, two: c.instance(two).Name}
		c.cordon("n1", true)
		c.cordon("n2", true)
		for _, p := range []*doryv1alpha1.Processor{one, two} {
			node := c.instance(p).Spec.NodeName
			Eventually(func() drain.Answer { return c.ask(client.ObjectKey{Namespace: p.Namespace, Name: pods[p]}) }).Should(
				And(HaveField("Allowed", false), HaveField("Message", ContainSubstring("finds no node: no node fits")),
					HaveField("Causes", ContainElement(And(HaveField("Type", drain.CauseWaitsFor), HaveField("Message", ContainSubstring("no node fits")))))))
			c.told("Pod", pods[p], drain.EventUnplaceable, "no node fits")
			c.told("Processor", p.Name, drain.EventUnplaceable, "no node fits")
			c.told("Node", node, drain.EventUnplaceable, "Processor "+p.Namespace+"/"+p.Name)
			c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonDeadlineExceeded))
			Expect(c.ask(client.ObjectKey{Namespace: p.Namespace, Name: pods[p]})).To(HaveField("Allowed", false), "the patience is over, and the instance still works")
			Expect(c.working(p)).To(Equal(pods[p]))
			for _, m := range c.migrations(p) {
				Expect(m.Spec.Strategy).NotTo(Equal(doryv1alpha1.MigrationStopAndCopy))
			}
		}
		c.cordon("n2", false)
		c.worksOn(one, "n2")
		Expect(c.worksOn(two, "n2").Name).To(Equal(pods[two]))
		c.whole(one)
		c.whole(two)
	})

	It("takes no processor back to the node that it leaves, whatever its pods tolerate", func() {
		c := start(1, settings{})
		p := c.apply("cam", "n1", func(p *doryv1alpha1.Processor) {
			p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(`{"tolerations":[{"operator":"Exists"}]}`)}}
		})
		source := c.instance(p)
		c.taint("n1", "karpenter.sh/disrupted")
		c.told("Pod", source.Name, drain.EventUnplaceable, "no node fits")
		Expect(c.working(p)).To(Equal(source.Name))
		for _, m := range c.migrations(p) {
			Expect(m.Status.TargetNode).To(BeEmpty())
		}
	})

	It("is fair between two nodes with room for one, and lets the other wait with the reason", func() {
		c := start(3, settings{limits: drain.Limits{PerNode: 1, Total: 1}})
		one, two := c.apply("cam", "n1"), c.apply("mic", "n2")
		c.kubelet.SetDelays(processkubelet.Delays{Start: time.Second})
		c.taint("n1", "karpenter.sh/disrupted")
		c.taint("n2", "karpenter.sh/disrupted")
		var first, second *doryv1alpha1.Processor
		Eventually(func() string {
			for _, p := range []*doryv1alpha1.Processor{one, two} {
				for _, m := range c.migrations(p) {
					if m.Status.TargetNode != "" {
						first, second = p, map[*doryv1alpha1.Processor]*doryv1alpha1.Processor{one: two, two: one}[p]
						return m.Status.TargetNode
					}
				}
			}
			return ""
		}).Should(Equal("n3"))
		waiting := c.drainOf(second)
		Expect(waiting.Status).To(And(HaveField("Phase", doryv1alpha1.MigrationPending), HaveField("Message", ContainSubstring("--drain-parallel"))))
		c.taint("n3", "full") // There is room for one.
		c.worksOn(first, "n3")
		stays := c.instance(second)
		Eventually(func() string { return c.ask(client.ObjectKeyFromObject(stays)).Message }).Should(ContainSubstring("no node fits"))
		Expect(c.working(second)).To(Equal(stays.Name))
		c.taint("n3")
		c.worksOn(second, "n3")
		c.whole(one)
		c.whole(two)
	})

	It("moves no more processors at once than it may, and all of them in the end", func() {
		c := start(2, settings{proactive: true, limits: drain.Limits{PerNode: 2, Total: 40}})
		var all []*doryv1alpha1.Processor
		for i := range 5 {
			all = append(all, c.apply(fmt.Sprint("cam", i), "n1"))
		}
		c.cordon("n1", true)
		Eventually(func() int {
			var moves doryv1alpha1.ProcessorMigrationList // of one moment
			Expect(k8s.List(ctx, &moves, client.InNamespace(all[0].Namespace))).To(Succeed())
			moving, ended := 0, 0
			for _, m := range moves.Items {
				if m.Active() && m.Status.Phase != doryv1alpha1.MigrationRetiring {
					moving++
				}
				if m.Ended() {
					ended++
				}
			}
			Expect(moving).To(BeNumerically("<=", 2))
			return ended
		}).WithPolling(10 * time.Millisecond).Should(Equal(5))
		for _, p := range all {
			c.worksOn(p, "n2")
			c.whole(p)
		}
	})

	// broken lets no new instance come up.
	broken := func(c *cluster) { c.kubelet.SetProgram("counter:1", processkubelet.Program{Path: "/bin/false"}) }
	mended := func(c *cluster) { c.kubelet.SetProgram("counter:1", processkubelet.Program{Path: counter}) }

	It("restarts a processor elsewhere that cannot be moved within the patience", func() {
		c := start(2, settings{patience: 24 * time.Second})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		c.cordon("n1", true)
		broken(c)
		c.ask(client.ObjectKeyFromObject(source))
		c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonDeadlineExceeded))
		mended(c)
		answers := c.evict(source)
		Expect(answers).To(ContainElement(HaveField("Reason", drain.ReasonFallingBack)))
		c.worksOn(p, "n2")
		c.whole(p)
		Expect(c.drainOf(p, in(doryv1alpha1.MigrationSucceeded)).Status.Strategy).To(Equal(doryv1alpha1.MigrationStopAndCopy))
		c.told("Processor", "cam", drain.EventFallback, "restarted elsewhere from its state")
	})

	It("restarts no processor that forbids it", func() {
		c := start(2, settings{patience: 24 * time.Second})
		p := c.apply("cam", "n1", func(p *doryv1alpha1.Processor) { p.Spec.Migration.DrainFallback = doryv1alpha1.DrainFallbackNever })
		source := c.instance(p)
		c.cordon("n1", true)
		broken(c)
		c.ask(client.ObjectKeyFromObject(source))
		c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonDeadlineExceeded))
		Eventually(func() drain.Answer { return c.ask(client.ObjectKeyFromObject(source)) }).
			Should(And(HaveField("Allowed", false), HaveField("Reason", drain.ReasonWaiting)))
		Expect(c.working(p)).To(Equal(source.Name))
		mended(c)
		c.evict(source)
		c.worksOn(p, "n2")
		c.whole(p)
		Expect(c.drainOf(p, in(doryv1alpha1.MigrationSucceeded)).Status.Strategy).To(Equal(doryv1alpha1.MigrationLive))
	})

	It("lets an Update that is under way carry the processor away", func() {
		c := start(2, settings{proactive: true})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		c.kubelet.SetDelays(slow)
		c.cordon("n1", true)
		Eventually(func() error {
			fresh := &doryv1alpha1.Processor{}
			if err := k8s.Get(ctx, client.ObjectKeyFromObject(p), fresh); err != nil {
				return err
			}
			fresh.Spec.Image = "counter:2"
			return k8s.Update(ctx, fresh)
		}).Should(Succeed())
		c.evict(source)
		moved := c.worksOn(p, "n2")
		Eventually(func() string { return c.instance(p).Spec.Containers[0].Image }).Should(Equal("counter:2"))
		Eventually(func() bool { return c.ended(p) }).Should(BeTrue())
		c.whole(p)
		Expect(moved.Name).NotTo(Equal(source.Name))
		for _, m := range c.migrations(p) {
			if m.Status.Phase == doryv1alpha1.MigrationSucceeded {
				Expect(m.Status.TargetNode).To(Equal("n2"))
			}
		}
	})

	It("moves a processor off the node after an Update that was to carry it away is rolled back", func() {
		c := start(2, settings{proactive: true})
		p := c.apply("cam", "n1", func(p *doryv1alpha1.Processor) {
			p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateOnDelete}
		})
		c.kubelet.SetDelays(slow)
		m := &doryv1alpha1.ProcessorMigration{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: "update"},
			Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: p.Name, Reason: doryv1alpha1.MigrationUpdate, TargetNode: "n2"},
		}
		Expect(k8s.Create(ctx, m)).To(Succeed())
		phase := func() doryv1alpha1.MigrationPhase {
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(m), m)).To(Succeed())
			return m.Status.Phase
		}
		Eventually(phase).Should(Equal(doryv1alpha1.MigrationStarting))
		c.cordon("n1", true)
		Consistently(func() int { return len(c.migrations(p)) }).Should(Equal(1), "the Update carries it away")
		Expect(k8s.Patch(ctx, m, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"cancel":true}}`)))).To(Succeed())
		Eventually(phase).Should(Equal(doryv1alpha1.MigrationRolledBack))
		c.kubelet.SetDelays(processkubelet.Delays{})
		c.worksOn(p, "n2")
		c.whole(p)
	})

	It("answers evictions while a move goes back, and moves the processor after it", func() {
		c := start(2, settings{})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		key := client.ObjectKeyFromObject(source)
		c.cordon("n1", true)
		c.kubelet.SetDelays(processkubelet.Delays{Start: time.Second, Stop: 2 * time.Second})
		c.ask(key)
		m := c.drainOf(p, in(doryv1alpha1.MigrationStarting))
		Expect(k8s.Patch(ctx, m, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"cancel":true}}`)))).To(Succeed())
		c.drainOf(p, in(doryv1alpha1.MigrationRollingBack))
		Eventually(func() drain.Answer { return c.ask(key) }).Should(
			And(HaveField("Allowed", false), HaveField("Reason", drain.ReasonRollingBack), HaveField("Message", ContainSubstring("another attempt follows"))))
		c.evict(source)
		c.worksOn(p, "n2")
		c.whole(p)
	})

	It("goes on when a node is deleted in the middle", func() {
		c := start(3, settings{proactive: true})
		p := c.apply("cam", "n1")
		c.kubelet.SetDelays(slow)
		c.cordon("n1", true)
		m := c.drainOf(p, in(doryv1alpha1.MigrationStarting))
		By("the target's")
		Expect(c.kubelet.LoseNode(ctx, m.Status.TargetNode)).To(Succeed())
		c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonTargetLost))
		m = c.drainOf(p, in(doryv1alpha1.MigrationStarting))
		By("the source's")
		Expect(c.kubelet.LoseNode(ctx, "n1")).To(Succeed())
		c.kubelet.SetDelays(processkubelet.Delays{})
		c.worksOn(p, m.Status.TargetNode)
		Eventually(func() bool { return c.ended(p) }).Should(BeTrue())
	})

	It("lets a pod go whose Processor was deleted", func() {
		c := start(1, settings{})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		c.kubelet.SetDelays(processkubelet.Delays{Stop: 2 * time.Second})
		Expect(k8s.Delete(ctx, p)).To(Succeed())
		Eventually(func() drain.Answer { return c.ask(client.ObjectKeyFromObject(source)) }).Should(
			And(HaveField("Allowed", true), HaveField("Reason", BeElementOf(drain.ReasonProcessorGone, drain.ReasonTerminating))))
		Eventually(func() bool { return c.ended(p) }).Should(BeTrue(), "what was made before the deletion was seen")
	})

	It("is taken back when whoever asked does not want it any more", func() {
		c := start(2, settings{})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		request := drain.Request{Pod: client.ObjectKeyFromObject(source), UID: source.UID, By: "eviction request"}
		c.kubelet.SetDelays(slow)
		_, err := c.desk.Ask(ctx, request)
		Expect(err).NotTo(HaveOccurred())
		c.drainOf(p, in(doryv1alpha1.MigrationStarting))
		Expect(c.desk.Withdraw(ctx, request)).To(Succeed())
		c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonCancelled))
		Expect(c.worksOn(p, "n1").Name).To(Equal(source.Name))
		c.whole(p)
	})

	It("is foretold by the condition Migratable", func() {
		c := start(2, settings{})
		p := c.apply("cam", "n1")
		says := func() string {
			fresh := &doryv1alpha1.Processor{}
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(p), fresh)).To(Succeed())
			condition := meta.FindStatusCondition(fresh.Status.Conditions, doryv1alpha1.ConditionMigratable)
			if condition == nil {
				return ""
			}
			return string(condition.Status) + " " + condition.Reason
		}
		Eventually(says).Should(Equal("True OverlapMigratable"), "nobody has asked the instance what it can do")
		c.cordon("n2", true)
		Eventually(says).Should(Equal("False NoOtherNode"))
		tried, err := c.desk.Ask(ctx, drain.Request{Pod: client.ObjectKeyFromObject(c.instance(p)), DryRun: true})
		Expect(err).NotTo(HaveOccurred())
		Expect(tried).To(And(HaveField("Allowed", false), HaveField("Message", ContainSubstring("would not get through: no other node"))))
		c.cordon("n2", false)
		Eventually(says).Should(Equal("True OverlapMigratable"))
	})
})

// working is the pod that counts on, whatever else there is of the processor.
func (c *cluster) working(p *doryv1alpha1.Processor) string {
	GinkgoHelper()
	var name string
	Eventually(func(g Gomega) {
		found := c.instance(p)
		g.Expect(found).NotTo(BeNil())
		name = found.Name
		before := c.lines(p, name)
		g.Eventually(func() int { return c.lines(p, name) }).WithTimeout(2 * time.Second).Should(BeNumerically(">", before))
	}).Should(Succeed())
	return name
}

// ended says whether all moves of the processor are over.
func (c *cluster) ended(p *doryv1alpha1.Processor) bool {
	GinkgoHelper()
	return !slices.ContainsFunc(c.migrations(p), func(m doryv1alpha1.ProcessorMigration) bool { return !m.Ended() })
}
