//go:build e2e

package e2e

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("The operator", Serial, func() {
	var (
		namespace string
		works     client.ObjectKey
		book      journal
		before    doryv1alpha1.ProcessorInstance
	)

	BeforeEach(func(ctx context.Context) {
		operatorsAreWell(ctx)
		namespace = newNamespace(ctx)
		p := counter(namespace, "works")
		works = client.ObjectKeyFromObject(p)
		book = keepJournal(works)
		before = start(ctx, p)
		DeferCleanup(operatorsAreWell)
	})

	// worksOn checks that the processor did not notice anything.
	worksOn := func(ctx context.Context) {
		GinkgoHelper()
		Expect(get(ctx, Default, works).Status.Instance).To(HaveValue(And(
			HaveField("Pod", before.Pod), HaveField("UID", before.UID), HaveField("Epoch", before.Epoch), HaveField("Restarts", int32(0)))))
		Expect(pods(ctx, Default, works)).To(ConsistOf(before.Pod))
		book.worked(ctx, before.Pod)
		book.isWhole(ctx)
	}

	It("that leads is killed, and the other goes on", func(ctx context.Context) {
		name := leader(ctx, Default)
		killPod(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: name})
		Eventually(func(g Gomega) { g.Expect(leader(ctx, g)).NotTo(Equal(name)) }).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())

		worksOn(ctx)
		p := counter(namespace, "under-the-next-leader")
		next := start(ctx, p)
		Eventually(func(g Gomega) {
			g.Expect(ask[string](ctx, g, `SELECT concat_ws(' ', phase, pod_name) FROM processors WHERE id = $1`, p.Name)).To(Equal("Running " + next.Pod))
		}).WithContext(ctx).Should(Succeed())
	})

	It("is away for a while, and catches up", func(ctx context.Context) {
		p := counter(namespace, "returns")
		returns := client.ObjectKeyFromObject(p)
		returning := keepJournal(returns)
		first := start(ctx, p)
		returning.worked(ctx, first.Pod)

		By("both are killed, and meanwhile a pod is deleted")
		for _, pod := range operators(ctx, Default) {
			killPod(ctx, client.ObjectKeyFromObject(&pod))
		}
		Expect(k8s.Delete(ctx, podOf(namespace, first.Pod))).To(Succeed())

		second := runsAfter(ctx, returns, first.Epoch)
		returning.worked(ctx, second.Pod)
		returning.isWhole(ctx)
		worksOn(ctx)
	})
})

// killPod kills a pod's container, and removes the pod so that it does not come back under its name.
func killPod(ctx context.Context, key client.ObjectKey) {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(k8s.Get(ctx, key, pod)).To(Succeed())
	kill(ctx, key)
	Expect(client.IgnoreNotFound(k8s.Delete(ctx, pod, client.GracePeriodSeconds(0)))).To(Succeed())
}
