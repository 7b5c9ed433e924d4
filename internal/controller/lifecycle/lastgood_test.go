package lifecycle_test

import (
	"context"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	podbuilder "github.com/dory-io/dory/internal/pod"
)

var _ = Describe("An instance that works", func() {
	var namespace string
	ctx := context.Background()
	BeforeEach(func() { namespace = newNamespace() })

	recreate := func(p *doryv1alpha1.Processor) {
		p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateRecreate}
	}
	template := func(raw string) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) {
			p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(raw)}}
		}
	}
	image := func(name string) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) { p.Spec.Image = name }
	}
	// works brings a pod to where it has been ready for a while.
	works := func(pod *corev1.Pod) *corev1.Pod {
		GinkgoHelper()
		node("n-lastgood", corev1.ConditionTrue)
		bind(pod, "n-lastgood")
		status := running("127.8.9.1")
		status.Conditions[0].LastTransitionTime = metav1.NewTime(time.Now().Add(-time.Minute))
		kubeletSays(pod, status)
		return pod
	}
	running := func(p *doryv1alpha1.Processor, epoch string) *corev1.Pod {
		GinkgoHelper()
		pod := works(thePod(p, epoch))
		Eventually(func() doryv1alpha1.ProcessorPhase { return statusOf(p)().Phase }).Should(Equal(doryv1alpha1.ProcessorRunning))
		return pod
	}
	records := func() []string {
		GinkgoHelper()
		var list appsv1.ControllerRevisionList
		Expect(k8s.List(ctx, &list, client.InNamespace(namespace))).To(Succeed())
		var names []string
		for _, r := range list.Items {
			names = append(names, r.Name)
		}
		return names
	}
	isEnding := func(pod *corev1.Pod) {
		GinkgoHelper()
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
			g.Expect(pod.DeletionTimestamp).NotTo(BeNil())
		}).Should(Succeed())
	}
	crashes := func(pod *corev1.Pod) {
		GinkgoHelper()
		bind(pod, "n-lastgood")
		kubeletSays(pod, corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: new(metav1.Now()),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()}},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: podbuilder.ContainerName, RestartCount: 2, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error"}},
			}},
		})
	}
	// reverted has a version tried that crashes, and answers the pod of the one before, which came back.
	reverted := func(p *doryv1alpha1.Processor) *corev1.Pod {
		GinkgoHelper()
		first := running(p, "1")
		modify(p, image("broken:1"))
		isEnding(first)
		kubeletEnds(first, corev1.PodSucceeded)
		second := thePod(p, "2")
		crashes(second)
		isEnding(second)
		kubeletEnds(second, corev1.PodFailed)
		third := works(thePod(p, "3"))
		Eventually(updated(p)).Should(HaveField("Reason", doryv1alpha1.ReasonRevertedToLastGood))
		return third
	}

	DescribeTable("is not ended for a pod that is refused",
		func(before func(), change func(*doryv1alpha1.Processor), says string) {
			startOperator(operatorOptions{})
			p := apply(namespace, "cam", recreate)
			first := running(p, "1")
			before()
			modify(p, change)
			Eventually(updated(p)).Should(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", doryv1alpha1.ReasonPodRejected), HaveField("Message", ContainSubstring(says))))
			Consistently(func() *metav1.Time { return thePod(p, "1").DeletionTimestamp }).Should(BeNil())

			By("a spec that makes a pod")
			modify(p, func(p *doryv1alpha1.Processor) {
				p.Spec.PodTemplate, p.Spec.Resources, p.Spec.Image = nil, small(), "counter:3"
			})
			isEnding(first)
		},
		Entry("an unknown PriorityClass", func() {}, template(`{"priorityClassName":"no-such-class"}`), "no PriorityClass"),
		Entry("a limit above what the namespace allows", func() {
			Expect(k8s.Create(ctx, &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "most"}, Spec: corev1.LimitRangeSpec{
				Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}},
			}})).To(Succeed())
		}, image("counter:2"), "maximum cpu usage"),
		Entry("a claim that does not exist", func() {}, template(`{"volumes":[{"name":"disk","persistentVolumeClaim":{"claimName":"missing"}}]}`), "PersistentVolumeClaim"),
		Entry("a node that does not exist", func() {}, template(`{"nodeName":"nowhere"}`), "nowhere"),
	)

	It("is not ended while its state is where nothing answers, so that no successor would start", func() {
		database := &silentDatabase{}
		startOperator(operatorOptions{database: database})
		p := apply(namespace, "cam", recreate)
		first := running(p, "1")
		recordCheckpoint(p, doryv1alpha1.ProcessorCheckpoint{
			Time: metav1.Now(), Epoch: 1, Sequence: new(int64(9)), Checksum: strings.Repeat("c", 64), SizeBytes: 2 << 20, Storage: doryv1alpha1.CheckpointDatabase,
		}, false)
		modify(p, image("counter:2"))
		Eventually(updated(p)).Should(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", doryv1alpha1.ReasonStateMissing),
			HaveField("Message", ContainSubstring("in the database, which does not answer"))))
		Consistently(func() *metav1.Time { return thePod(p, "1").DeletionTimestamp }).Should(BeNil())

		By("the database is back")
		database.back.Store(true)
		isEnding(first)
	})

	It("is not ended beside a stored copy whose epoch is not believed, so that no successor would start", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", recreate)
		running(p, "1")
		storeState(namespace, "cam", 1<<62)
		modify(p, image("counter:2"))
		Eventually(updated(p)).Should(And(HaveField("Reason", doryv1alpha1.ReasonEpochBehindState), HaveField("Message", And(
			ContainSubstring("is not ended"), ContainSubstring("dory-state-cam")))))
		Consistently(func() *metav1.Time { return thePod(p, "1").DeletionTimestamp }).Should(BeNil())
	})

	It("is not ended, either, where a namespace became restricted", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", recreate)
		running(p, "1")
		ns := &corev1.Namespace{}
		Expect(k8s.Get(ctx, client.ObjectKey{Name: namespace}, ns)).To(Succeed())
		ns.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
		Expect(k8s.Update(ctx, ns)).To(Succeed())
		Eventually(func() error {
			return k8s.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "probe"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "b"}}}}, client.DryRunAll)
		}).ShouldNot(Succeed())
		modify(p, image("counter:2"))
		Eventually(updated(p)).Should(And(HaveField("Reason", doryv1alpha1.ReasonPodRejected), HaveField("Message", ContainSubstring("PodSecurity"))))
		Consistently(func() *metav1.Time { return thePod(p, "1").DeletionTimestamp }).Should(BeNil())
	})

	It("comes back by itself when the version that took its place does not work, and is not left for that one again", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", recreate)
		first := running(p, "1")
		modify(p, image("broken:1"))
		isEnding(first)
		Expect(records()).To(HaveLen(1), "what it was made from is durable before it is ended")
		kubeletEnds(first, corev1.PodSucceeded)
		second := thePod(p, "2")
		Expect(second.Spec.Containers[0].Image).To(Equal("broken:1"))
		crashes(second)
		isEnding(second)
		kubeletEnds(second, corev1.PodFailed)
		third := thePod(p, "3")
		Expect(third.Spec.Containers[0].Image).To(Equal("counter:1"))
		works(third)
		Eventually(updated(p)).Should(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", doryv1alpha1.ReasonRevertedToLastGood),
			HaveField("Message", And(ContainSubstring("exit code 3"), ContainSubstring(records()[0])))))
		Consistently(func() *metav1.Time { return thePod(p, "3").DeletionTimestamp }).Should(BeNil(), "no flapping")

		By("it is lost, and comes back as what works")
		Expect(k8s.Delete(ctx, third)).To(Succeed())
		kubeletEnds(third, corev1.PodSucceeded)
		fourth := thePod(p, "4")
		Expect(fourth.Spec.Containers[0].Image).To(Equal("counter:1"))
		works(fourth)

		By("a spec that works")
		modify(p, image("counter:2"))
		isEnding(fourth)
		kubeletEnds(fourth, corev1.PodSucceeded)
		fifth := thePod(p, "5")
		Expect(fifth.Spec.Containers[0].Image).To(Equal("counter:2"))
		Expect(records()).To(HaveLen(1), "it has yet to show that it works")
		works(fifth)
		Eventually(records).Should(BeEmpty())
		Eventually(updated(p)).Should(HaveField("Reason", doryv1alpha1.ReasonCurrent))
	})

	It("does not come back because of an epoch that is behind the state, which no version can work with", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", recreate)
		first := running(p, "1")
		modify(p, image("counter:2"))
		isEnding(first)
		kubeletEnds(first, corev1.PodSucceeded)
		second := thePod(p, "2")
		storeState(namespace, "cam", 50)
		crashes(second) // For the third time when it is first seen.
		isEnding(second)
		kubeletEnds(second, corev1.PodFailed)
		Expect(thePod(p, "51").Spec.Containers[0].Image).To(Equal("counter:2"))
		Expect(updated(p)()).To(Or(BeNil(), HaveField("Reason", Not(Equal(doryv1alpha1.ReasonRevertedToLastGood)))))
	})

	// forgets what it was made from, as one that an older operator made.
	forgets := func(pod *corev1.Pod) {
		GinkgoHelper()
		patch := `{"metadata":{"annotations":{"` + doryv1alpha1.AnnotationSpec + `":null,"` + doryv1alpha1.AnnotationSeal + `":null}}}`
		Expect(k8s.Patch(ctx, pod, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
	}

	It("is told what it was made from where an older operator made it", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", recreate)
		first := running(p, "1")
		forgets(first)
		Eventually(func() map[string]string { return thePod(p, "1").Annotations }).Should(And(
			HaveKey(doryv1alpha1.AnnotationSpec), HaveKey(doryv1alpha1.AnnotationSeal)))
		modify(p, image("broken:1"))
		isEnding(first)
		Expect(records()).To(HaveLen(1))
	})

	It("says so when there is no way back to it", func() {
		operator := startOperator(operatorOptions{})
		p := apply(namespace, "cam", recreate)
		first := running(p, "1")
		operator.stop()
		forgets(first)
		modify(p, image("broken:1"))
		startOperator(operatorOptions{})
		isEnding(first)
		Eventually(func() []string { return eventsOf(p) }).Should(ContainElement(ContainSubstring("does not come back")))
	})

	It("is started anew as it is when a restart is asked for while the present spec is not applied", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", recreate)
		third := reverted(p)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.RestartedAt = "2026-11-30T12:00:00Z" })
		isEnding(third)
		kubeletEnds(third, corev1.PodSucceeded)
		fourth := works(thePod(p, "4"))
		Expect(fourth.Spec.Containers[0].Image).To(Equal("counter:1"))
		Eventually(updated(p)).Should(HaveField("Reason", doryv1alpha1.ReasonRevertedToLastGood))
		Consistently(func() *metav1.Time { return thePod(p, "4").DeletionTimestamp }).Should(BeNil(), "once is enough")
	})

	It("is left for that version once more when a person deletes the record", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", recreate)
		third := reverted(p)
		Expect(k8s.Delete(ctx, &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: records()[0]}})).To(Succeed())
		isEnding(third)
		Expect(records()).To(HaveLen(1))
	})

	It("is started anew as it was when it is lost after its update was rolled back", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		first := running(p, "1")
		modify(p, image("broken:1"))
		Eventually(migrations(p)).Should(HaveLen(1))
		move := migrations(p)()[0]
		end(&move, doryv1alpha1.MigrationRolledBack, doryv1alpha1.MigrationReasonStateRefused)
		Eventually(updated(p)).Should(HaveField("Reason", doryv1alpha1.ReasonUpdateRolledBack))
		Expect(k8s.Delete(ctx, first)).To(Succeed())
		kubeletEnds(first, corev1.PodFailed)
		second := thePod(p, "2")
		Expect(second.Spec.Containers[0].Image).To(Equal("counter:1"))
		works(second)
		Eventually(updated(p)).Should(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", doryv1alpha1.ReasonUpdateRolledBack)))

		By("its record is deleted")
		Expect(k8s.Delete(ctx, &move)).To(Succeed())
		Eventually(migrations(p)).Should(ConsistOf(HaveField("UID", Not(Equal(move.UID)))))
	})

	It("is started anew as it was when the present spec makes no pod", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		first := running(p, "1")
		modify(p, template(`{"hostNetwrok":true}`))
		Eventually(updated(p)).Should(HaveField("Reason", doryv1alpha1.ReasonInvalidPodTemplate))
		Expect(k8s.Delete(ctx, first)).To(Succeed())
		kubeletEnds(first, corev1.PodFailed)
		Expect(thePod(p, "2").Spec.Containers[0].Image).To(Equal("counter:1"))
	})

	It("comes back when the API server refuses the version that was to follow it", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) {
			p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateOnDelete}
		})
		first := running(p, "1")
		modify(p, template(`{"priorityClassName":"no-such-class"}`))
		Eventually(updated(p)).Should(HaveField("Reason", doryv1alpha1.ReasonOnDelete))
		Expect(k8s.Delete(ctx, first)).To(Succeed())
		By("its kubelet says how it was until its end")
		status := corev1.PodStatus{Phase: corev1.PodFailed, StartTime: new(metav1.Now())}
		status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()}}
		status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: podbuilder.ContainerName, Image: "counter:1", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 1, StartedAt: metav1.NewTime(time.Now().Add(-time.Minute)), FinishedAt: metav1.Now(),
			}},
		}}
		kubeletSays(first, status)
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, first, client.GracePeriodSeconds(0)))).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(pods(p)()).To(ConsistOf(And(HaveField("Spec.PriorityClassName", ""), HaveField("Name", Not(Equal(first.Name))))))
		}).Should(Succeed())
		Eventually(updated(p)).Should(And(HaveField("Reason", doryv1alpha1.ReasonRevertedToLastGood), HaveField("Message", ContainSubstring("no PriorityClass"))))
	})

	It("is followed by the new version once a quota has room that is full for a while after its end", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", recreate)
		first := running(p, "1")
		quota := &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "one"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}},
		}
		Expect(k8s.Create(ctx, quota)).To(Succeed())
		used := func(pods string) {
			GinkgoHelper() // There is no quota controller here.
			quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: corev1.ResourceList{corev1.ResourcePods: resource.MustParse(pods)}}
			Expect(k8s.Status().Update(ctx, quota)).To(Succeed())
		}
		used("1")
		modify(p, image("counter:2"))
		isEnding(first)
		kubeletEnds(first, corev1.PodSucceeded)
		Eventually(func() []metav1.Condition { return statusOf(p)().Conditions }).Should(ContainElement(And(
			HaveField("Type", doryv1alpha1.ConditionReady), HaveField("Message", ContainSubstring("exceeded quota")))))
		Expect(updated(p)()).To(Or(BeNil(), HaveField("Reason", Not(Equal(doryv1alpha1.ReasonRevertedToLastGood)))))
		used("0")
		Expect(thePod(p, "2").Spec.Containers[0].Image).To(Equal("counter:2"))
	})

	It("comes back, too, where the epoch that was issued for that must be issued anew", func() {
		operator := startOperator(operatorOptions{})
		p := apply(namespace, "cam", recreate)
		third := reverted(p)

		By("it is lost, and so is the operator that issued the next epoch, before it created a pod; a backup brings a state")
		operator.stop()
		clearPods(namespace)
		Expect(client.IgnoreNotFound(k8s.Get(ctx, client.ObjectKeyFromObject(third), third))).To(Succeed())
		var epoch doryv1alpha1.ProcessorEpoch
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: doryv1alpha1.ObjectName("cam")}, &epoch)).To(Succeed())
		epoch.Spec.Epoch, epoch.Spec.Holder = 4, podbuilder.Name("cam", "unborn")
		Expect(k8s.Update(ctx, &epoch)).To(Succeed())
		storeState(namespace, "cam", 9)
		startOperator(operatorOptions{})
		Expect(thePod(p, "10").Spec.Containers[0].Image).To(Equal("counter:1"))
	})

	It("says nothing about what comes back where the first spec ever does not work", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", image("broken:1"))
		crashes(thePod(p, "1"))
		Consistently(records).Should(BeEmpty())
		Expect(thePod(p, "1").DeletionTimestamp).To(BeNil())
		modify(p, image("counter:1"))
		isEnding(thePod(p, "1"))
		Expect(records()).To(BeEmpty(), "there is no going back to what never worked")
	})
})

func small() *doryv1alpha1.ProcessorResources {
	one := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	return &doryv1alpha1.ProcessorResources{Requests: one, Limits: one}
}
