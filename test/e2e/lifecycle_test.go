//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("A Processor", func() {
	var namespace string

	BeforeEach(func(ctx context.Context) { namespace = newNamespace(ctx) })

	It("runs when it names only an image", func(ctx context.Context) {
		p := &doryv1alpha1.Processor{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: unique("minimal")},
			Spec:       doryv1alpha1.ProcessorSpec{Image: counterImage},
		}
		instance := start(ctx, p)
		Expect(instance.Epoch).To(BeEquivalentTo(1))
		Expect(instance.Node).To(BeElementOf(cloudNode, otherCloudNode))
		Expect(instance.IP).NotTo(BeEmpty())
		Eventually(func(g Gomega) {
			g.Expect(get(ctx, g, client.ObjectKeyFromObject(p)).Status.Instance.SDKVersion).NotTo(BeElementOf("", "unknown"))
		}).WithContext(ctx).Should(Succeed())
	})

	It("goes on where it was when its pod is deleted", func(ctx context.Context) {
		p := counter(namespace, "deleted-pod")
		key := client.ObjectKeyFromObject(p)
		book, seen := keepJournal(key), watchPods(ctx, key)
		first := start(ctx, p)
		book.worked(ctx, first.Pod)

		Expect(k8s.Delete(ctx, podOf(namespace, first.Pod))).To(Succeed())
		second := runsAfter(ctx, key, first.Epoch)
		book.worked(ctx, second.Pod)
		book.isWhole(ctx)
		seen.hasSeen(first.Pod, second.Pod)
	})

	It("is not started a second time before the containers of a pod stopped that was deleted by force", func(ctx context.Context) {
		p := counter(namespace, "forced")
		key := client.ObjectKeyFromObject(p)
		book, seen := keepJournal(key), watchPods(ctx, key)
		first := start(ctx, p)
		book.worked(ctx, first.Pod)

		Expect(k8s.Delete(ctx, podOf(namespace, first.Pod), client.GracePeriodSeconds(0))).To(Succeed())
		second := runsAfter(ctx, key, first.Epoch)
		book.worked(ctx, second.Pod)
		book.takesTurns()
		seen.hasSeen(first.Pod, second.Pod)
	})

	It("goes on in its pod from the state saved last when its process is killed", func(ctx context.Context) {
		p := counter(namespace, "killed")
		p.Spec.State = &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{}} // Its own saves are all there is.
		key := client.ObjectKeyFromObject(p)
		book := keepJournal(key)
		first := start(ctx, p)
		book.worked(ctx, first.Pod)
		Expect(k8s.Delete(ctx, podOf(namespace, first.Pod))).To(Succeed())
		second := runsAfter(ctx, key, first.Epoch)
		book.worked(ctx, second.Pod)

		kill(ctx, client.ObjectKey{Namespace: namespace, Name: second.Pod})
		Eventually(func(g Gomega) {
			p := get(ctx, g, key)
			g.Expect(p.Status.Phase).To(Equal(doryv1alpha1.ProcessorRunning))
			g.Expect(p.Status.Instance).To(HaveValue(And(
				HaveField("UID", second.UID), HaveField("Epoch", second.Epoch), HaveField("Restarts", int32(1)))))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		book.worked(ctx, second.Pod)
		book.takesTurns()
		chapters := book.chapters()
		Expect(chapters).To(HaveLen(3))
		Expect(chapters[2].iterations[0]).To(And(
			HaveField("N", chapters[1].iterations[0].N), HaveField("Hash", chapters[1].iterations[0].Hash)),
			"the last save was the one at the end of the first pod")
	})

	It("keeps its pod when nothing that the pod is made of changes", func(ctx context.Context) {
		p := counter(namespace, "unchanged")
		key := client.ObjectKeyFromObject(p)
		seen := watchPods(ctx, key)
		first := start(ctx, p)
		change(ctx, key, func(p *doryv1alpha1.Processor) { p.Labels = map[string]string{"team": "vision"} })
		Consistently(func(g Gomega) {
			g.Expect(get(ctx, g, key).Status.Instance.Pod).To(Equal(first.Pod))
			g.Expect(pods(ctx, g, key)).To(ConsistOf(first.Pod))
		}).WithContext(ctx).WithTimeout(timeToReact / 10).Should(Succeed())
		seen.hasSeen(first.Pod)
	})

	It("keeps its state while it is suspended", func(ctx context.Context) {
		p := counter(namespace, "suspended")
		key := client.ObjectKeyFromObject(p)
		book, seen := keepJournal(key), watchPods(ctx, key)
		first := start(ctx, p)
		book.worked(ctx, first.Pod)

		change(ctx, key, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(true) })
		Eventually(func(g Gomega) {
			p := get(ctx, g, key)
			g.Expect(p.Status.Phase).To(Equal(doryv1alpha1.ProcessorSuspended))
			g.Expect(readyCondition(p).Reason).To(Equal(doryv1alpha1.ReasonSuspended))
			g.Expect(pods(ctx, g, key)).To(BeEmpty())
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())

		change(ctx, key, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = nil })
		second := runsAfter(ctx, key, first.Epoch)
		book.worked(ctx, second.Pod)
		book.isWhole(ctx)
		seen.hasSeen(first.Pod, second.Pod)
	})

	It("goes on where it was, under a higher epoch, when it was deleted and made again", func(ctx context.Context) {
		p := counter(namespace, "again")
		key, again := client.ObjectKeyFromObject(p), p.DeepCopy()
		book, seen := keepJournal(key), watchPods(ctx, key)
		first := start(ctx, p)
		book.worked(ctx, first.Pod)
		Expect(k8s.Delete(ctx, p)).To(Succeed())
		isGone(ctx, p)

		Expect(k8s.Create(ctx, again)).To(Succeed())
		second := runsAfter(ctx, key, first.Epoch)
		book.worked(ctx, second.Pod)
		book.isWhole(ctx)
		seen.hasSeen(first.Pod, second.Pod)
	})

	It("goes with its namespace", func(ctx context.Context) {
		start(ctx, counter(namespace, "leaves"))
		gone := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
		Expect(k8s.Delete(ctx, gone)).To(Succeed())
		isGone(ctx, gone)
	})

	It("says why it does not run when its container crashes again and again", func(ctx context.Context) {
		p := counter(namespace, "crashing")
		p.Spec.Env[0].Value = "never"
		Expect(k8s.Create(ctx, p)).To(Succeed())
		Eventually(func(g Gomega) {
			ready := readyCondition(get(ctx, g, client.ObjectKeyFromObject(p)))
			g.Expect(ready.Reason).To(Equal(doryv1alpha1.ReasonContainerWaiting))
			g.Expect(ready.Message).To(ContainSubstring("CrashLoopBackOff"))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	})

	It("says why it does not run when its image is nowhere", func(ctx context.Context) {
		p := counter(namespace, "no-image")
		p.Spec.Image, p.Spec.ImagePullPolicy = "dory-nowhere:1", corev1.PullNever
		Expect(k8s.Create(ctx, p)).To(Succeed())
		Eventually(func(g Gomega) {
			ready := readyCondition(get(ctx, g, client.ObjectKeyFromObject(p)))
			g.Expect(ready.Reason).To(Equal(doryv1alpha1.ReasonContainerWaiting))
			g.Expect(ready.Message).To(And(ContainSubstring("ErrImageNeverPull"), ContainSubstring("dory-nowhere:1")))
		}).WithContext(ctx).Should(Succeed())
	})

	It("says why it does not run when no node takes it", func(ctx context.Context) {
		p := on("no-such-node", counter(namespace, "no-node"))
		Expect(k8s.Create(ctx, p)).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(readyCondition(get(ctx, g, client.ObjectKeyFromObject(p))).Reason).To(Equal(doryv1alpha1.ReasonUnschedulable))
		}).WithContext(ctx).Should(Succeed())
	})

	It("runs at the edge, and only there", func(ctx context.Context) {
		node := &doryv1alpha1.EdgeNode{
			ObjectMeta: metav1.ObjectMeta{Name: unique("gate")},
			Spec:       doryv1alpha1.EdgeNodeSpec{NodeName: edgeNode},
		}
		Expect(k8s.Create(ctx, node)).To(Succeed())
		DeferCleanup(k8s.Delete, node)
		p := counter(namespace, "edge")
		p.Spec.Location = doryv1alpha1.LocationEdge
		p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{EdgeNode: node.Name}
		Expect(start(ctx, p).Node).To(Equal(edgeNode))
	})

	It("takes over one of two pods that ran before, and ends the other", func(ctx context.Context) {
		p := counter(namespace, "legacy")
		key := client.ObjectKeyFromObject(p)
		book := keepJournal(key)
		By("two pods of the same id that nobody owns, as the original orchestrator left them")
		legacyAccount(ctx, namespace)
		var made []string
		for _, suffix := range []string{"old", "new"} {
			pod := legacyPod(namespace, p.Name, suffix)
			Expect(k8s.Create(ctx, pod)).To(Succeed())
			made = append(made, pod.Name)
		}
		Eventually(func(g Gomega) {
			for _, pod := range list[corev1.PodList](ctx, g, namespace).Items {
				g.Expect(podReady(&pod)).To(BeTrue(), pod.Name)
			}
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())

		By("the Processor of that id")
		instance := start(ctx, p)
		Expect(made).To(ContainElement(instance.Pod))
		onlyOneLeft(ctx, key, instance.Pod)
		Expect(get(ctx, Default, key).Status.Instance).To(HaveValue(HaveField("Restarts", int32(0))))

		By("it is one of ours from now on")
		Expect(k8s.Delete(ctx, podOf(namespace, instance.Pod))).To(Succeed())
		successor := runsAfter(ctx, key, instance.Epoch)
		book.worked(ctx, successor.Pod)
		adopted := journal{name: key, logs: book.logs, prefix: instance.Pod}.chapters()[0].iterations
		Expect(book.chapters()[0].iterations[0].N).To(Equal(adopted[len(adopted)-1].N+1), "it goes on where the adopted one was")
	})

	It("ends a pod that somebody makes with its identity", func(ctx context.Context) {
		p := counter(namespace, "single")
		key := client.ObjectKeyFromObject(p)
		instance := start(ctx, p)
		Expect(k8s.Create(ctx, legacyPod(namespace, p.Name, "twin"))).To(Succeed())
		onlyOneLeft(ctx, key, instance.Pod)
		Expect(get(ctx, Default, key).Status.Instance).To(HaveValue(And(HaveField("UID", instance.UID), HaveField("Epoch", instance.Epoch))))
	})

	DescribeTable("that makes no sense is refused by the API server, in words",
		func(ctx context.Context, words string, mutate func(*doryv1alpha1.Processor)) {
			p := counter(namespace, "refused")
			mutate(p)
			Expect(k8s.Create(ctx, p)).To(MatchError(And(ContainSubstring("is invalid"), ContainSubstring(words))))
		},
		Entry("without an image", "spec.image", func(p *doryv1alpha1.Processor) { p.Spec.Image = "" }),
		Entry("at the edge, and nowhere there", "spec.placement", func(p *doryv1alpha1.Processor) { p.Spec.Location = doryv1alpha1.LocationEdge }),
		Entry("with a negative quantity", "requests", func(p *doryv1alpha1.Processor) {
			p.Spec.Resources.Requests["cpu"] = resource.MustParse("-1")
		}),
	)
})

// onlyOneLeft waits until that pod is alone in its namespace, and the end of the others was told.
func onlyOneLeft(ctx context.Context, key client.ObjectKey, pod string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(list[corev1.PodList](ctx, g, key.Namespace).Items).To(ConsistOf(HaveField("Name", pod)))
		g.Expect(events(ctx, g, key.Namespace, "Processor", key.Name)).To(ContainElement(HavePrefix("SurplusInstance")))
	}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
}

func podOf(namespace, name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func podReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// legacyAccount makes the account of such pods, and lets it keep their state.
func legacyAccount(ctx context.Context, namespace string) {
	GinkgoHelper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: "dory-processor"}
	for _, object := range []client.Object{&corev1.ServiceAccount{ObjectMeta: meta}, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: meta.Name}},
	}} {
		Expect(k8s.Create(ctx, object)).To(Succeed())
	}
}

// legacyPod is a pod as the original orchestrator made them: the contract's labels, and no owner.
func legacyPod(namespace, id, suffix string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: fmt.Sprintf("%s-%s", id, suffix),
			Labels: map[string]string{
				doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy, doryv1alpha1.LabelProcessorID: id,
				doryv1alpha1.LabelLocation: "managed",
			},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "dory-processor",
			NodeSelector:       map[string]string{"workload-type": "application"},
			Containers: []corev1.Container{{
				Name: "processor", Image: counterImage,
				Env: []corev1.EnvVar{
					{Name: "PROCESSOR_ID", Value: id},
					{Name: "DORY_PROCESSOR_ID", Value: id},
					{Name: "COUNTER_INTERVAL", Value: "200ms"},
					{Name: "POD_NAMESPACE", Value: namespace},
					{Name: "DORY_POD_NAMESPACE", Value: namespace},
				},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(8080)}}, PeriodSeconds: 2},
			}},
		},
	}
}
