package migration_test

import (
	"context"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/migration"
	podbuilder "github.com/dory-io/dory/internal/pod"
)

// Who only wants another place does not get another version, and nothing good is ended for what cannot start.
var _ = Describe("The version that runs", func() {
	var namespace string
	ctx := context.Background()
	BeforeEach(func() { namespace = newNamespace() })

	refuseState := func(p *doryv1alpha1.Processor) {
		p.Spec.Env = append(p.Spec.Env, corev1.EnvVar{Name: "COUNTER_STATE_VERSION", Value: "2"})
	}
	image := func(name string) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) { p.Spec.Image = name }
	}
	updates := func(strategy doryv1alpha1.UpdateStrategy) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) { p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: strategy} }
	}
	moves := func(strategy doryv1alpha1.MigrationStrategy) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) { p.Spec.Migration.Strategy = strategy }
	}
	as := func(strategy doryv1alpha1.MigrationStrategy, reason doryv1alpha1.MigrationReason) func(*doryv1alpha1.ProcessorMigration) {
		return func(m *doryv1alpha1.ProcessorMigration) { m.Spec.Strategy, m.Spec.Reason = strategy, reason }
	}
	instance := func(name string) *corev1.Pod {
		GinkgoHelper()
		pod := &corev1.Pod{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod)).To(Succeed())
		return pod
	}
	updated := func(p *doryv1alpha1.Processor) func() string {
		return func() string {
			fresh := &doryv1alpha1.Processor{}
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(p), fresh)).To(Succeed())
			if c := meta.FindStatusCondition(fresh.Status.Conditions, doryv1alpha1.ConditionUpdated); c != nil {
				return c.Reason + ": " + c.Message
			}
			return ""
		}
	}
	rolledBack := func(p *doryv1alpha1.Processor) *doryv1alpha1.ProcessorMigration {
		GinkgoHelper()
		modify(p, refuseState)
		var m *doryv1alpha1.ProcessorMigration
		Eventually(func(g Gomega) { m = only(g, namespace) }).Should(Succeed())
		Expect(ends(m)).To(HaveField("Reason", migration.ReasonStateRefused))
		return m
	}

	DescribeTable("moves, and not the spec whose update was rolled back",
		func(strategy doryv1alpha1.MigrationStrategy, reason doryv1alpha1.MigrationReason) {
			startOperator()
			p := apply(namespace)
			source := holder(p)
			revision := podbuilder.RevisionOf(instance(source))
			rolledBack(p)
			s := ends(move(p, "m1", as(strategy, reason)))
			Expect(s).To(And(HaveField("Phase", doryv1alpha1.MigrationSucceeded), HaveField("Revision", revision)))
			target := counts(p, source)
			Expect(podbuilder.RevisionOf(instance(target))).To(Equal(revision))
			Expect(instance(target).Spec.Containers[0].Env).NotTo(ContainElement(HaveField("Name", "COUNTER_STATE_VERSION")))
			Eventually(updated(p)).Should(HavePrefix(doryv1alpha1.ReasonUpdateRolledBack))
			Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 2)))

			By("the spec is reverted")
			modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Env = p.Spec.Env[:len(p.Spec.Env)-1] })
			Eventually(updated(p)).Should(HavePrefix(doryv1alpha1.ReasonCurrent))
			Expect(counts(p, "")).To(Equal(target))
		},
		Entry("for a drain", doryv1alpha1.MigrationStrategy(""), doryv1alpha1.MigrationDrain),
		Entry("by hand", doryv1alpha1.MigrationStrategy(""), doryv1alpha1.MigrationManual),
		Entry("as a drain's last resort", doryv1alpha1.MigrationStopAndCopy, doryv1alpha1.MigrationDrain),
	)

	It("moves where the spec waits for a person to apply it, which an Update does", func() {
		startOperator()
		p := apply(namespace, updates(doryv1alpha1.UpdateOnDelete))
		source := holder(p)
		modify(p, image("counter:2"))
		Eventually(updated(p)).Should(HavePrefix(doryv1alpha1.ReasonOnDelete))
		Expect(ends(move(p, "m1"))).To(HaveField("Phase", doryv1alpha1.MigrationSucceeded))
		second := counts(p, source)
		Expect(instance(second).Spec.Containers[0].Image).To(Equal("counter:1"))
		Expect(ends(move(p, "m2", as("", doryv1alpha1.MigrationUpdate)))).To(HaveField("Phase", doryv1alpha1.MigrationSucceeded))
		Expect(instance(counts(p, second)).Spec.Containers[0].Image).To(Equal("counter:2"))
		Expect(chain(p).Whole).To(BeTrue())
	})

	It("moves on when the spec changes in the middle of it", func() {
		o := startOperator()
		p := apply(namespace)
		source := holder(p)
		o.on("capture", func() error { modify(p, image("counter:2")); return nil })
		s := ends(move(p, "m1", drains))
		Expect(s.Phase).To(Equal(doryv1alpha1.MigrationSucceeded))
		second := counts(p, source)
		Eventually(func() string { return instance(counts(p, "")).Spec.Containers[0].Image }).Should(Equal("counter:2"), "the update follows")
		GinkgoWriter.Println(second)
		Expect(chain(p).Whole).To(BeTrue())
	})

	It("does not move by a word of anybody else", func() {
		startOperator()
		p := apply(namespace)
		source := instance(holder(p))
		evil := p.DeepCopy()
		evil.Spec.Image = "counter:2"
		forged := podbuilder.NewOrigin(evil, "", podbuilder.NewTokens([]byte("another key")))
		rolledBack(p)
		changed := source.DeepCopy()
		podbuilder.StampOrigin(changed, forged)
		Expect(k8s.Patch(ctx, changed, client.MergeFrom(source))).To(Succeed())
		s := ends(move(p, "m1", as(doryv1alpha1.MigrationStopAndCopy, doryv1alpha1.MigrationDrain)))
		Expect(s).To(And(HaveField("Phase", doryv1alpha1.MigrationRolledBack), HaveField("Reason", doryv1alpha1.ReasonUpdateRolledBack)))
		Expect(counts(p, "")).To(Equal(source.Name), "what runs is not known, and the present spec does not work: nothing is ended for it")
	})

	DescribeTable("is back with its state when the next one does not start",
		func(changes []func(*doryv1alpha1.Processor), broken string) {
			startOperator()
			p := apply(namespace, changes...)
			source := holder(p)
			modify(p, image(broken))
			Eventually(updated(p)).Should(HavePrefix(doryv1alpha1.ReasonRevertedToLastGood))
			third := counts(p, source)
			Expect(instance(third).Spec.Containers[0].Image).To(Equal("counter:1"))
			Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("EpochFell", BeZero())))
			Consistently(func() string { return holder(p) }, 2*time.Second).Should(Equal(third), "no flapping")
			Eventually(func() []string { return reasonsOf(namespace) }).Should(ContainElement(doryv1alpha1.ReasonRevertedToLastGood))

			By("a spec that works")
			modify(p, image("counter:2"))
			Eventually(func() string { return instance(counts(p, "")).Spec.Containers[0].Image }).Should(Equal("counter:2"))
			Eventually(updated(p)).Should(HavePrefix(doryv1alpha1.ReasonCurrent))
			Expect(chain(p).Whole).To(BeTrue())
		},
		Entry("Recreate, and it crashes", []func(*doryv1alpha1.Processor){updates(doryv1alpha1.UpdateRecreate)}, "crashing:1"),
		Entry("Recreate, and its image is nowhere", []func(*doryv1alpha1.Processor){updates(doryv1alpha1.UpdateRecreate)}, "missing:1"),
		Entry("StopAndCopy, and it crashes", []func(*doryv1alpha1.Processor){moves(doryv1alpha1.MigrationStopAndCopy)}, "crashing:1"),
	)

	It("gives way to a corrected spec at once, also where the old one was ended for the wrong one", func() {
		startOperator()
		p := apply(namespace, moves(doryv1alpha1.MigrationStopAndCopy), func(p *doryv1alpha1.Processor) { p.Spec.Migration.StartTimeoutSeconds = 3600 })
		source := holder(p)
		modify(p, image("missing:1"))
		var m *doryv1alpha1.ProcessorMigration
		Eventually(func(g Gomega) {
			m = only(g, namespace)
			g.Expect(m.Status.Phase).To(Equal(doryv1alpha1.MigrationStarting))
		}).Should(Succeed())
		corrected := time.Now()
		modify(p, image("counter:2"))
		Expect(ends(m)).To(And(HaveField("Phase", doryv1alpha1.MigrationFailed), HaveField("Reason", migration.ReasonSuperseded)))
		Expect(instance(counts(p, source)).Spec.Containers[0].Image).To(Equal("counter:2"))
		Expect(time.Since(corrected)).To(BeNumerically("<", 25*time.Second))
		Expect(chain(p).Whole).To(BeTrue())
	})

	DescribeTable("is not ended by StopAndCopy for a target that is refused",
		func(template, says string) {
			startOperator()
			p := apply(namespace, moves(doryv1alpha1.MigrationStopAndCopy))
			source := holder(p)
			modify(p, func(p *doryv1alpha1.Processor) {
				p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(template)}}
			})
			s := ends(move(p, "m1", as(doryv1alpha1.MigrationStopAndCopy, doryv1alpha1.MigrationUpdate)))
			Expect(s).To(And(HaveField("Phase", doryv1alpha1.MigrationRolledBack), HaveField("Reason", migration.ReasonTargetRejected), HaveField("Message", ContainSubstring(says))))
			Expect(counts(p, "")).To(Equal(source))
			Expect(chain(p)).To(And(HaveField("Whole", true), HaveField("Pods", 1)))
		},
		Entry("for its PriorityClass", `{"priorityClassName":"no-such-class"}`, "no PriorityClass"),
		Entry("for its claim", `{"volumes":[{"name":"disk","persistentVolumeClaim":{"claimName":"missing"}}]}`, "PersistentVolumeClaim"),
	)

	It("says of pods who made them, and nothing that the Processor does not say", func() {
		startOperator()
		p := apply(namespace)
		a := instance(holder(p)).Annotations
		Expect(a).To(And(HaveKey(doryv1alpha1.AnnotationSpec), HaveKey(doryv1alpha1.AnnotationSeal)))
		Expect(strings.Contains(a[doryv1alpha1.AnnotationSpec], tokens.For(namespace))).To(BeFalse())
		Expect(a[doryv1alpha1.AnnotationSpec]).To(HavePrefix(`{"spec":{`))
	})
})
