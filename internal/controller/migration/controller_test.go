package migration_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/migration"
	"github.com/dory-io/dory/internal/statexfer"
)

var _ = Describe("A ProcessorMigration", func() {
	var namespace string
	ctx := context.Background()
	BeforeEach(func() { namespace = newNamespace() })

	by := func(strategy doryv1alpha1.MigrationStrategy) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) { p.Spec.Migration.Strategy = strategy }
	}

	It("moves a processor while it works, and nothing is lost or done twice", func() {
		startOperator()
		p := apply(namespace)
		source := holder(p)
		node := &corev1.Pod{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: source}, node)).To(Succeed())
		s := ends(move(p, "m1"))
		Expect(s).To(And(HaveField("Phase", doryv1alpha1.MigrationSucceeded), HaveField("Strategy", doryv1alpha1.MigrationLive),
			HaveField("SourcePod", source), HaveField("SourceNode", node.Spec.NodeName), HaveField("SourceEpoch", int64(1)), HaveField("TargetEpoch", int64(2)),
			HaveField("TargetNode", Not(Or(BeEmpty(), Equal(node.Spec.NodeName)))), HaveField("StateBytes", BeNumerically(">", 0)),
			HaveField("Sequence", HaveValue(BeNumerically(">", 0))), HaveField("Duration", Not(BeNil()))))
		Expect(s.Pause.Duration).To(And(BeNumerically(">", 0), BeNumerically("<", 5*time.Second)))
		Expect(counts(p, source)).To(Equal(s.TargetPod))
		GinkgoWriter.Println("pause", s.Pause.Duration)
		Eventually(func() error {
			return k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: source}, &corev1.Pod{})
		}).Should(MatchError(ContainSubstring("not found")))
		Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 2)))
		Eventually(func() []string { return reasonsOf(namespace) }).Should(ContainElements("MigrationStarted", "TargetCreated", "MigrationSucceeded"))
	})

	It("moves many times, there and back", func() {
		startOperator()
		p := apply(namespace)
		for i := range 4 {
			node := fmt.Sprint("n", 1+i%3)
			s := ends(move(p, fmt.Sprint("m", i), func(m *doryv1alpha1.ProcessorMigration) { m.Spec.TargetNode = node }))
			Expect(s).To(And(HaveField("Phase", doryv1alpha1.MigrationSucceeded), HaveField("TargetNode", node)))
		}
		counts(p, "")
		Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 5)))
	})

	It("brings a changed spec", func() {
		startOperator()
		p := apply(namespace)
		source := holder(p)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Image = "counter:2" })
		target := counts(p, source)
		instance := &corev1.Pod{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: target}, instance)).To(Succeed())
		Expect(instance.Spec.Containers[0].Image).To(Equal("counter:2"))
		Expect(instance.Labels).To(HaveKeyWithValue(doryv1alpha1.LabelEpoch, "2"))
		Expect(chain(p).Whole).To(BeTrue())
	})

	It("leaves the source at work when the new version does not come up", func() {
		startOperator()
		p := apply(namespace, func(p *doryv1alpha1.Processor) { p.Spec.Migration.StartTimeoutSeconds = 2 })
		source := holder(p)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Image = "missing:1" })
		var m *doryv1alpha1.ProcessorMigration
		Eventually(func(g Gomega) {
			m = only(g, namespace)
		}).Should(Succeed())
		Expect(ends(m)).To(And(HaveField("Phase", doryv1alpha1.MigrationRolledBack), HaveField("Reason", migration.ReasonTargetImage),
			HaveField("Message", ContainSubstring("ImagePull"))))
		Expect(counts(p, "")).To(Equal(source))
		Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 1)))
	})

	It("leaves the source at work when the new version refuses the state", func() {
		startOperator()
		p := apply(namespace)
		source := holder(p)
		modify(p, func(p *doryv1alpha1.Processor) {
			p.Spec.Env = append(p.Spec.Env, corev1.EnvVar{Name: "COUNTER_STATE_VERSION", Value: "2"})
		})
		var m *doryv1alpha1.ProcessorMigration
		Eventually(func(g Gomega) { m = only(g, namespace) }).Should(Succeed())
		Expect(ends(m)).To(And(HaveField("Phase", doryv1alpha1.MigrationRolledBack), HaveField("Reason", migration.ReasonStateRefused)))
		Expect(counts(p, "")).To(Equal(source))
		Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 1)))
	})

	It("stops and copies without a loss", func() {
		startOperator()
		p := apply(namespace, by(doryv1alpha1.MigrationStopAndCopy))
		source := holder(p)
		s := ends(move(p, "m1"))
		Expect(s).To(And(HaveField("Phase", doryv1alpha1.MigrationSucceeded), HaveField("Strategy", doryv1alpha1.MigrationStopAndCopy)))
		counts(p, source)
		Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 2)))
	})

	It("overlaps, where that is wanted", func() {
		startOperator()
		p := apply(namespace, by(doryv1alpha1.MigrationOverlap))
		source := holder(p)
		before := lastOf(p, source)
		s := ends(move(p, "m1"))
		Expect(s).To(And(HaveField("Phase", doryv1alpha1.MigrationSucceeded), HaveField("Strategy", doryv1alpha1.MigrationOverlap), HaveField("TargetEpoch", int64(2))))
		target := counts(p, source)
		Expect(lastOf(p, target)).To(BeNumerically(">", before), "the target goes on from the source's state")
	})

	DescribeTable("survives that somebody dies in the middle",
		func(call string, who func(*doryv1alpha1.ProcessorMigration) string, lossy bool) {
			o := startOperator()
			p := apply(namespace)
			m := &doryv1alpha1.ProcessorMigration{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "m1"}}
			o.once(call, func() {
				defer GinkgoRecover()
				fresh := &doryv1alpha1.ProcessorMigration{}
				Expect(k8s.Get(ctx, client.ObjectKeyFromObject(m), fresh)).To(Succeed())
				Expect(kubelet.KillContainer(namespace, who(fresh))).To(Succeed())
			})
			s := ends(move(p, "m1"))
			counts(p, "")
			verdict := chain(p)
			GinkgoWriter.Println(s.Phase, s.Reason, verdict)
			Expect(verdict.EpochFell).To(BeZero())
			if !lossy {
				Expect(verdict.Whole).To(BeTrue(), "%+v", verdict)
			}
		},
		// What the source did since its last checkpoint dies with it only where nobody else has it.
		Entry("the source, after the warm copy", "restore", source, true),
		Entry("the source, when it has quiesced", "quiesce", source, false),
		Entry("the source, when the target holds the state", "verify", source, false),
		Entry("the source, when the target acts", "promote", source, false),
		Entry("the target, after the warm copy", "restore", target, false),
		Entry("the target, when the source has quiesced", "quiesce", target, false),
		Entry("the target, when it holds the state", "verify", target, false),
		Entry("the target, when it acts", "promote", target, true),
	)

	DescribeTable("goes back when a processor does not do its part",
		func(call string, err error, reason string) {
			o := startOperator()
			p := apply(namespace, func(p *doryv1alpha1.Processor) { p.Spec.Migration.HandoffTimeoutSeconds = 2 })
			source := holder(p)
			again := func() error { return nil }
			again = func() error { o.on(call, again); return err }
			o.on(call, again)
			s := ends(move(p, "m1"))
			Expect(s).To(And(HaveField("Phase", doryv1alpha1.MigrationRolledBack), HaveField("Reason", reason)))
			Expect(counts(p, "")).To(Equal(source))
			Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 1)))
		},
		Entry("the source never quiesces", "quiesce", statexfer.ErrUnavailable, migration.ReasonNotQuiesced),
		Entry("the source gives no state", "capture", statexfer.ErrNotState, migration.ReasonStateInvalid),
		Entry("the source's state is too large", "capture", statexfer.ErrTooLarge, migration.ReasonStateTooLarge),
		Entry("the source does not take the token", "capture", statexfer.ErrUnauthorized, migration.ReasonStateUnauthorized),
		Entry("the target refuses the state", "restore", statexfer.ErrRefused, migration.ReasonStateRefused),
		Entry("the target holds another state", "verify", statexfer.ErrMismatch, migration.ReasonStateMismatch),
		Entry("the target does not answer", "restore", errCut, migration.ReasonTargetUnavailable),
	)

	It("goes on when another operator takes over in the middle of the handoff", func() {
		for i, call := range []string{"quiesce", "restore", "verify", "promote"} {
			Expect(kubelet).NotTo(BeNil())
			first := startOperator()
			name := newNamespace()
			p := apply(name)
			dead := make(chan struct{})
			first.on(call, func() error {
				close(dead)
				return errCut
			})
			m := move(p, fmt.Sprint("m", i))
			<-dead
			first.stop()
			second := startOperator()
			Expect(ends(m)).To(HaveField("Phase", doryv1alpha1.MigrationSucceeded))
			counts(p, "")
			Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 2)))
			second.stop()
		}
	})

	It("rolls back when it is deleted, and lets the source go on", func() {
		o := startOperator()
		p := apply(namespace)
		source := holder(p)
		name := client.ObjectKey{Namespace: namespace, Name: "m1"}
		deleted := false
		again := func() error { return nil }
		again = func() error {
			if !deleted {
				deleted = true
				if err := k8s.Delete(ctx, &doryv1alpha1.ProcessorMigration{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}); err != nil {
					return err
				}
			}
			o.on("verify", again)
			return errCut
		}
		o.on("verify", again)
		move(p, "m1")
		Eventually(func() error { return k8s.Get(ctx, name, &doryv1alpha1.ProcessorMigration{}) }).Should(MatchError(ContainSubstring("not found")))
		Expect(counts(p, "")).To(Equal(source))
		Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 1)))
	})

	It("does not leave a source quiesced whose migration was torn away", func() {
		o := startOperator()
		p := apply(namespace)
		source := holder(p)
		name := client.ObjectKey{Namespace: namespace, Name: "m1"}
		o.on("restore", func() error { // The warm copy.
			o.on("restore", func() error {
				fresh := &doryv1alpha1.ProcessorMigration{}
				if err := k8s.Get(ctx, name, fresh); err != nil {
					return err
				}
				fresh.Finalizers = nil
				return errors.Join(k8s.Update(ctx, fresh), k8s.Delete(ctx, fresh), errCut)
			})
			return nil
		})
		move(p, "m1")
		Eventually(func() error { return k8s.Get(ctx, name, &doryv1alpha1.ProcessorMigration{}) }).Should(MatchError(ContainSubstring("not found")))
		Expect(counts(p, "")).To(Equal(source))
		Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 1)))
	})

	It("lets one go after the other, and the newer of two with the same reason", func() {
		o := startOperator()
		p := apply(namespace)
		hold := make(chan struct{})
		o.on("capture", func() error { <-hold; return nil })
		first := move(p, "m1")
		reaches(first, doryv1alpha1.MigrationWarming)
		second := move(p, "m2", drains)
		third := move(p, "m3", drains)
		close(hold)
		Expect(ends(first)).To(HaveField("Phase", doryv1alpha1.MigrationSucceeded))
		Expect(ends(second)).To(And(HaveField("Phase", doryv1alpha1.MigrationRolledBack), HaveField("Reason", migration.ReasonSuperseded)))
		Expect(ends(third)).To(HaveField("Phase", doryv1alpha1.MigrationSucceeded))
		counts(p, "")
		Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 3)))
	})

	It("keeps as much of the history as it should", func() {
		startOperator()
		p := apply(namespace, func(p *doryv1alpha1.Processor) { p.Spec.Migration.HistoryLimit = new(int32(1)) })
		ends(move(p, "m1"))
		move(p, "m2")
		Eventually(func() []string {
			var names []string
			var list doryv1alpha1.ProcessorMigrationList
			Expect(k8s.List(ctx, &list, client.InNamespace(namespace))).To(Succeed())
			for _, m := range list.Items {
				names = append(names, m.Name+" "+string(m.Status.Phase))
			}
			return names
		}).Should(ConsistOf("m2 Succeeded"))
	})
})

func drains(m *doryv1alpha1.ProcessorMigration) { m.Spec.Reason = doryv1alpha1.MigrationDrain }

func source(m *doryv1alpha1.ProcessorMigration) string { return m.Status.SourcePod }

func target(m *doryv1alpha1.ProcessorMigration) string { return m.Status.TargetPod }

// only is the namespace's one migration.
func only(g Gomega, namespace string) *doryv1alpha1.ProcessorMigration {
	var list doryv1alpha1.ProcessorMigrationList
	g.Expect(k8s.List(context.Background(), &list, client.InNamespace(namespace))).To(Succeed())
	g.Expect(list.Items).To(HaveLen(1))
	return &list.Items[0]
}

func modify(p *doryv1alpha1.Processor, change func(*doryv1alpha1.Processor)) {
	GinkgoHelper()
	Eventually(func() error {
		fresh := &doryv1alpha1.Processor{}
		if err := k8s.Get(context.Background(), client.ObjectKeyFromObject(p), fresh); err != nil {
			return err
		}
		change(fresh)
		return k8s.Update(context.Background(), fresh)
	}).Should(Succeed())
}

func reasonsOf(namespace string) []string {
	var list eventsv1.EventList
	Expect(k8s.List(context.Background(), &list, client.InNamespace(namespace))).To(Succeed())
	var reasons []string
	for _, event := range list.Items {
		reasons = append(reasons, event.Reason)
	}
	return reasons
}
