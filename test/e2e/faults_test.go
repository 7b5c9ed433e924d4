//go:build e2e

package e2e

import (
	"context"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("A node", Serial, func() {
	var (
		namespace string
		key       client.ObjectKey
		book      journal
		seen      *witness
		first     doryv1alpha1.ProcessorInstance
	)

	BeforeEach(func(ctx context.Context) {
		operatorsAreWell(ctx)
		DeferCleanup(healOperators)
		namespace = newNamespace(ctx)
		p := counter(namespace, "on-the-node")
		key = client.ObjectKeyFromObject(p)
		book, seen = keepJournal(key), watchPods(ctx, key)
		cordon(ctx, cloudNode)
		first = start(ctx, p)
		uncordon(ctx, cloudNode)
		Expect(first.Node).To(Equal(otherCloudNode))
		book.worked(ctx, first.Pod)
	})

	// staysAlone checks that nothing is started in the place of an instance that nobody can see.
	staysAlone := func(ctx context.Context) {
		GinkgoHelper()
		Consistently(func(g Gomega) {
			g.Expect(pods(ctx, g, key)).To(ConsistOf(first.Pod))
			g.Expect(epochOf(ctx, g, key).Epoch).To(Equal(first.Epoch))
		}).WithContext(ctx).WithTimeout(timeToReact / 2).Should(Succeed())
	}

	// worksOnAlone checks besides that the instance works, so that a second one would be one too many.
	worksOnAlone := func(ctx context.Context) {
		GinkgoHelper()
		before := len(book.chapters()[0].iterations)
		staysAlone(ctx)
		Expect(book.chapters()).To(HaveLen(1))
		Expect(len(book.chapters()[0].iterations)).To(BeNumerically(">", before))
	}

	saysLost := func(ctx context.Context) {
		GinkgoHelper()
		Eventually(func(g Gomega) {
			p := get(ctx, g, key)
			g.Expect(readyCondition(p).Reason).To(Equal(doryv1alpha1.ReasonNodeLost), "%+v", p.Status)
			g.Expect(p.Status.Phase).To(Equal(doryv1alpha1.ProcessorUnhealthy))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	}

	// deleted asks for the pod's end, as Kubernetes does five minutes after its node was lost.
	deleted := func(ctx context.Context) {
		GinkgoHelper()
		Expect(k8s.Delete(ctx, podOf(namespace, first.Pod))).To(Succeed())
		Eventually(func(g Gomega) {
			ready := readyCondition(get(ctx, g, key))
			g.Expect(ready.Reason).To(Equal(doryv1alpha1.ReasonWaitingForOldInstance))
			g.Expect(ready.Message).To(ContainSubstring(otherCloudNode))
		}).WithContext(ctx).Should(Succeed())
	}

	It("whose kubelet is silent keeps its processor, and no other is started", func(ctx context.Context) {
		breakNode(ctx, "stop", otherCloudNode)
		saysLost(ctx)
		worksOnAlone(ctx)

		cluster(ctx, "node", "start", otherCloudNode)
		back := runsAfter(ctx, key, first.Epoch-1)
		Expect(back.UID).To(Equal(first.UID))
		Expect(back.Epoch).To(Equal(first.Epoch))
		Expect(back.Restarts).To(BeZero())
		seen.hasSeen(first.Pod)
		book.isWhole(ctx)
	})

	It("that lost its power keeps the place of its processor until it is back", func(ctx context.Context) {
		breakNode(ctx, "kill", otherCloudNode)
		saysLost(ctx)
		deleted(ctx)
		staysAlone(ctx)

		cluster(ctx, "node", "start", otherCloudNode)
		back := runsAfter(ctx, key, first.Epoch)
		book.worked(ctx, back.Pod)
		seen.hasSeen(first.Pod, back.Pod)
		book.takesTurns()
	})

	It("that is cut off does not get its processor started twice, and loses nothing", func(ctx context.Context) {
		breakNode(ctx, "partition", otherCloudNode)
		saysLost(ctx)
		deleted(ctx)
		worksOnAlone(ctx)

		cluster(ctx, "node", "start", otherCloudNode)
		back := runsAfter(ctx, key, first.Epoch)
		book.worked(ctx, back.Pod)
		seen.hasSeen(first.Pod, back.Pod)
		book.isWhole(ctx)
	})

	It("that lost its power for ever gives its processor away once it is deleted", func(ctx context.Context) {
		breakNode(ctx, "kill", otherCloudNode)
		saysLost(ctx)
		staysAlone(ctx)
		Expect(k8s.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: otherCloudNode}})).To(Succeed())

		// Kubernetes collects the pods of a node that is gone for 40 s.
		moved := runsAfter(ctx, key, first.Epoch)
		Expect(moved.Node).To(Equal(cloudNode))
		book.worked(ctx, moved.Pod)

		cluster(ctx, "node", "start", otherCloudNode)
		Consistently(func(g Gomega) {
			g.Expect(pods(ctx, g, key)).To(ConsistOf(moved.Pod))
			g.Expect(get(ctx, g, key).Status.Instance.UID).To(Equal(moved.UID))
		}).WithContext(ctx).WithTimeout(timeToReact / 6).Should(Succeed())
		book.takesTurns()
	})
})

// healOperators lets Kubernetes put operators anew that stand together, or wait in ever longer steps for a node that is
// back already.
func healOperators(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		for _, node := range list[corev1.NodeList](ctx, g, "").Items {
			g.Expect(node.Spec.Taints).NotTo(ContainElement(HaveField("Key", HavePrefix("node.kubernetes.io/"))), node.Name)
		}
		apart := map[string]bool{}
		for _, pod := range operators(ctx, g) {
			if waits(&pod) || (podReady(&pod) && apart[pod.Spec.NodeName]) {
				g.Expect(client.IgnoreNotFound(k8s.Delete(ctx, &pod))).To(Succeed())
				continue
			}
			apart[pod.Spec.NodeName] = true
		}
		g.Expect(apart).To(HaveLen(2))
	}).WithContext(ctx).WithTimeout(timeToRun).WithPolling(time.Second).Should(Succeed())
	operatorsAreWell(ctx)
}

// waits says whether the kubelet has the container wait after a crash.
func waits(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.State.Waiting != nil && c.State.Waiting.Reason == "CrashLoopBackOff"
	})
}
