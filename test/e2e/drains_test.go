//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("kubectl drain", Serial, func() {
	var namespace string

	BeforeEach(func(ctx context.Context) {
		operatorsAreWell(ctx)
		DeferCleanup(operatorsAreApartAgain)
		namespace = newNamespace(ctx)
	})

	It("without flags moves every processor off the node while it works, and the operator's replica there leaves as well", func(ctx context.Context) {
		subjects := settleOn(ctx, cloudNode, namespace, 4)
		DeferCleanup(func(ctx context.Context) { uncordon(ctx, cloudNode) })

		By("one of them has just refused a new version")
		old := subjects[0]
		change(ctx, old.key, func(p *doryv1alpha1.Processor) {
			p.Spec.Env = append(p.Spec.Env, corev1.EnvVar{Name: "COUNTER_STATE_VERSION", Value: "2"})
		})
		Eventually(func(g Gomega) {
			g.Expect(updated(get(ctx, g, old.key))).To(HaveField("Reason", doryv1alpha1.ReasonUpdateRolledBack))
			g.Expect(pods(ctx, g, old.key)).To(ConsistOf(old.first.Pod))
		}).WithContext(ctx).WithTimeout(timeToMove).Should(Succeed())
		refused := list[doryv1alpha1.ProcessorMigrationList](ctx, Default, namespace).Items
		Expect(refused).To(HaveLen(1))

		kubectl(ctx, "", "drain", cloudNode)
		var after []doryv1alpha1.ProcessorInstance
		for _, s := range subjects {
			moved := s.worksOn(ctx, s.first.Epoch)
			Expect(moved.Node).To(Equal(otherCloudNode))
			s.book.isWhole(ctx)
			if s.key == old.key {
				s.seen.hasSeen(s.first.Pod, refused[0].Status.TargetPod, moved.Pod)
			} else {
				s.seen.hasSeen(s.first.Pod, moved.Pod)
			}
			after = append(after, moved)
			AddReportEntry("pause", s.book.pauses())
		}
		Expect(podsOn(ctx, cloudNode, namespace)).To(BeEmpty())
		Expect(podsOn(ctx, cloudNode, operatorNamespace)).To(BeEmpty())
		for _, m := range list[doryv1alpha1.ProcessorMigrationList](ctx, Default, namespace).Items {
			if m.Spec.Reason == doryv1alpha1.MigrationUpdate {
				continue // It was rolled back before.
			}
			Expect(m.Spec.Reason).To(Equal(doryv1alpha1.MigrationDrain))
			Expect(m.Status).To(And(HaveField("Phase", doryv1alpha1.MigrationSucceeded), HaveField("Strategy", doryv1alpha1.MigrationLive)))
		}

		By("what moved is the version that works, and the spec that it refused is reverted")
		Expect(updated(get(ctx, Default, old.key))).To(HaveField("Reason", doryv1alpha1.ReasonUpdateRolledBack))
		change(ctx, old.key, func(p *doryv1alpha1.Processor) { p.Spec.Env = p.Spec.Env[:len(p.Spec.Env)-1] })
		Eventually(func(g Gomega) {
			g.Expect(updated(get(ctx, g, old.key))).To(HaveField("Reason", doryv1alpha1.ReasonCurrent))
		}).WithContext(ctx).Should(Succeed())

		By("nothing comes back by itself")
		uncordon(ctx, cloudNode)
		for i, s := range subjects {
			s.book.worked(ctx, after[i].Pod)
			Expect(get(ctx, Default, s.key).Status.Instance).To(HaveValue(And(HaveField("Pod", after[i].Pod), HaveField("Epoch", after[i].Epoch))))
		}
	})

	It("waits where no other node takes the processor, says why, and is withdrawn by uncordon", func(ctx context.Context) {
		s := settleOn(ctx, cloudNode, namespace, 1)[0]
		cordon(ctx, otherCloudNode)
		DeferCleanup(func(ctx context.Context) { uncordon(ctx, cloudNode) })

		said := kubectlRefused(ctx, "drain", cloudNode, "--timeout=20s")
		Expect(said).To(And(ContainSubstring("Eviction triggered evacuation of Processor "+s.key.String()), ContainSubstring("finds no node: ")))
		Eventually(func(g Gomega) {
			g.Expect(events(ctx, g, namespace, "Processor", s.key.Name)).To(ContainElement(HavePrefix("DrainUnplaceable: ")))
			g.Expect(events(ctx, g, namespace, "Pod", s.first.Pod)).To(ContainElement(HavePrefix("DrainUnplaceable: ")))
		}).WithContext(ctx).Should(Succeed())
		s.staysPut(ctx)

		uncordon(ctx, cloudNode)
		Eventually(func(g Gomega) {
			moves := list[doryv1alpha1.ProcessorMigrationList](ctx, g, namespace).Items
			g.Expect(moves).NotTo(BeEmpty())
			for _, m := range moves {
				g.Expect(m.Status.Phase).To(Equal(doryv1alpha1.MigrationRolledBack), "%+v", m.Status)
			}
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		s.staysPut(ctx)
	})

	It("ends processors that it does not ask about, and they go on from what they saved", func(ctx context.Context) {
		s := settleOn(ctx, cloudNode, namespace, 1)[0]
		DeferCleanup(func(ctx context.Context) { uncordon(ctx, cloudNode) })
		kubectl(ctx, "", "drain", cloudNode, "--disable-eviction")
		second := s.worksOn(ctx, s.first.Epoch)
		Expect(second.Node).To(Equal(otherCloudNode))
		s.book.isWhole(ctx)
		s.seen.hasSeen(s.first.Pod, second.Pod)
		Expect(list[doryv1alpha1.ProcessorMigrationList](ctx, Default, namespace).Items).To(BeEmpty())
	})
})

// settleOn starts processors on that node, though nothing ties them to it.
func settleOn(ctx context.Context, node, namespace string, count int) []subject {
	GinkgoHelper()
	other := otherNode(node)
	setUnschedulable(ctx, other, true)
	DeferCleanup(func(ctx context.Context) { uncordon(ctx, other) })
	var subjects []subject
	for i := range count {
		subjects = append(subjects, settle(ctx, counter(namespace, fmt.Sprintf("drained-%d", i))))
	}
	uncordon(ctx, other)
	return subjects
}

// podsOn are the pods of a namespace on a node.
func podsOn(ctx context.Context, node, namespace string) []string {
	GinkgoHelper()
	var names []string
	for _, p := range list[corev1.PodList](ctx, Default, namespace).Items {
		if p.Spec.NodeName == node {
			names = append(names, p.Name)
		}
	}
	return names
}

// kubectlRefused runs kubectl, which must fail, and answers what it said.
func kubectlRefused(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := exec.CommandContext(ctx, filepath.Join("..", "..", "bin", "k8s", "kubectl"), args...).CombinedOutput()
	Expect(err).To(HaveOccurred(), string(out))
	return string(out)
}

// operatorsAreApartAgain lets one of the replicas start anew, as both are on one node after a drain of the other.
func operatorsAreApartAgain(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		found := operators(ctx, g)
		g.Expect(found).To(HaveLen(2))
		for i := range found {
			g.Expect(podReady(&found[i])).To(BeTrue())
		}
		if found[0].Spec.NodeName == found[1].Spec.NodeName {
			g.Expect(k8s.Delete(ctx, &found[0])).To(Succeed())
		}
		g.Expect(found[0].Spec.NodeName).NotTo(Equal(found[1].Spec.NodeName))
	}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	operatorsAreWell(ctx)
}
