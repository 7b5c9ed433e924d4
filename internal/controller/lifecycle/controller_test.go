package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	podbuilder "github.com/dory-io/dory/internal/pod"
)

var _ = Describe("A Processor", func() {
	var (
		ctx       = context.Background()
		namespace string
	)
	BeforeEach(func() { namespace = newNamespace() })

	reason := func(p *doryv1alpha1.Processor) func() string {
		return func() string {
			if ready := meta.FindStatusCondition(statusOf(p)().Conditions, doryv1alpha1.ConditionReady); ready != nil {
				return ready.Reason
			}
			return ""
		}
	}
	phase := func(p *doryv1alpha1.Processor) func() doryv1alpha1.ProcessorPhase {
		return func() doryv1alpha1.ProcessorPhase { return statusOf(p)().Phase }
	}
	// runs brings the Processor's first pod up on node n1.
	runs := func(p *doryv1alpha1.Processor) *corev1.Pod {
		GinkgoHelper()
		node("n1", corev1.ConditionTrue)
		pod := thePod(p, "1")
		bind(pod, "n1")
		kubeletSays(pod, running("127.8.8.1"))
		Eventually(phase(p)).Should(Equal(doryv1alpha1.ProcessorRunning))
		return pod
	}

	It("that names only an image runs, with everything that its pod needs", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		pod := runs(p)

		Expect(k8s.Get(ctx, types.NamespacedName{Namespace: namespace, Name: "dory-processor"}, &corev1.ServiceAccount{})).To(Succeed())
		binding := &rbacv1.RoleBinding{}
		Expect(k8s.Get(ctx, types.NamespacedName{Namespace: namespace, Name: "dory-processor"}, binding)).To(Succeed())
		Expect(binding.RoleRef.Name).To(Equal("dory-processor"))
		secret := &corev1.Secret{}
		Expect(k8s.Get(ctx, types.NamespacedName{Namespace: namespace, Name: "dory-state-token"}, secret)).To(Succeed())
		Expect(secret.Data).To(HaveKeyWithValue("token", []byte(tokens.For(namespace))))

		Expect(epochOf(p)()).To(And(HaveField("Epoch", int64(1)), HaveField("Holder", pod.Name), HaveField("ProcessorID", "cam")))
		status := statusOf(p)()
		Expect(*status.Instance).To(And(HaveField("Pod", pod.Name), HaveField("UID", string(pod.UID)), HaveField("Node", "n1"),
			HaveField("IP", "127.8.8.1"), HaveField("Epoch", int64(1)), HaveField("Location", doryv1alpha1.LocationManaged)))
		Expect(status.ObservedGeneration).To(Equal(int64(1)))
		Expect(meta.IsStatusConditionTrue(status.Conditions, doryv1alpha1.ConditionUpdated)).To(BeTrue())
		Eventually(func() []string {
			var events eventsv1.EventList
			Expect(k8s.List(ctx, &events, client.InNamespace(namespace))).To(Succeed())
			var reasons []string
			for _, event := range events.Items {
				reasons = append(reasons, event.Reason)
			}
			return reasons
		}).Should(ConsistOf("InstanceCreated"))
	})

	It("uses the image pull secret only where it exists", func() {
		Expect(k8s.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ecr-registry-secret"}})).To(Succeed())
		startOperator(operatorOptions{})
		Expect(thePod(apply(namespace, "cam"), "1").Spec.ImagePullSecrets).To(ConsistOf(corev1.LocalObjectReference{Name: "ecr-registry-secret"}))
		Expect(thePod(apply(newNamespace(), "cam"), "1").Spec.ImagePullSecrets).To(BeEmpty())
	})

	DescribeTable("whose pod is deleted returns only after the kubelet confirmed the end",
		func(options ...client.DeleteOption) {
			startOperator(operatorOptions{})
			p := apply(namespace, "cam")
			first := runs(p)
			Expect(k8s.Delete(ctx, first, options...)).To(Succeed())
			Eventually(phase(p)).Should(Equal(doryv1alpha1.ProcessorStopping))
			Consistently(pods(p)).Should(HaveLen(1))
			Expect(epochOf(p)().Epoch).To(Equal(int64(1)))

			kubeletEnds(first, corev1.PodSucceeded)
			second := thePod(p, "2")
			Expect(second.Name).NotTo(Equal(first.Name))
			Expect(epochOf(p)()).To(And(HaveField("Epoch", int64(2)), HaveField("Holder", second.Name), HaveField("Reason", doryv1alpha1.EpochReplace)))
			Expect(statusOf(p)().Backoff).To(BeNil(), "a deletion is no failure")
		},
		Entry("gracefully"),
		Entry("by force", client.GracePeriodSeconds(0)),
	)

	It("lets its pod go with the namespace", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		pod := runs(p)
		Expect(k8s.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})).To(Succeed())
		By("Kubernetes removes the pods of a namespace before anything else")
		Expect(k8s.Delete(ctx, pod)).To(Succeed())
		kubeletEnds(pod, corev1.PodSucceeded)
		Eventually(pods(p)).Should(BeEmpty())
		Expect(reason(p)()).To(Equal(doryv1alpha1.ReasonPodRejected))
	})

	It("on a silent node is not started elsewhere, and says why", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		pod := runs(p)
		node("n1", corev1.ConditionUnknown)
		Eventually(reason(p)).Should(Equal(doryv1alpha1.ReasonNodeLost))
		Expect(k8s.Delete(ctx, pod)).To(Succeed())
		Eventually(func() string {
			return meta.FindStatusCondition(statusOf(p)().Conditions, doryv1alpha1.ConditionReady).Message
		}).Should(ContainSubstring("out-of-service"))
		Consistently(pods(p)).Should(HaveLen(1))
		Expect(epochOf(p)().Epoch).To(Equal(int64(1)))
	})

	It("does not start without the state that it requires, and says what to do", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) {
			p.Spec.State = &doryv1alpha1.ProcessorState{OnMissing: doryv1alpha1.OnMissingRequire}
		})
		first := runs(p)
		recordCheckpoint(p, doryv1alpha1.ProcessorCheckpoint{
			Time: metav1.Now(), Epoch: 1, Checksum: strings.Repeat("0", 64), Storage: doryv1alpha1.CheckpointConfigMap,
		}, true)
		Expect(k8s.Delete(ctx, first)).To(Succeed())
		kubeletEnds(first, corev1.PodFailed)
		Eventually(reason(p)).Should(Equal(doryv1alpha1.ReasonStateMissing))
		Expect(meta.FindStatusCondition(statusOf(p)().Conditions, doryv1alpha1.ConditionReady).Message).To(ContainSubstring("spec.state.onMissing"))
		Expect(epochOf(p)().Epoch).To(Equal(int64(1)), "no epoch is spent on a start that is refused")

		By("a person gives the state up")
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.State.OnMissing = doryv1alpha1.OnMissingDiscard })
		Expect(thePod(p, "2").Annotations).To(HaveKeyWithValue(doryv1alpha1.AnnotationRole, doryv1alpha1.RolePrimary))
	})

	Describe("whose state was written under epoch 108, in a cluster that knows nothing of it", func() {
		It("goes on above that epoch, whether it is restored or its ProcessorEpoch was deleted", func() {
			startOperator(operatorOptions{})
			storeState(namespace, "cam", 108)
			p := apply(namespace, "cam")
			pod := thePod(p, "109")
			Expect(pod.Spec.Containers[0].Env).To(ContainElement(And(HaveField("Name", "DORY_EPOCH"),
				HaveField("ValueFrom.FieldRef.FieldPath", "metadata.labels['dory.io/epoch']"))), "its SDK refuses a state from above that")
			Expect(epochOf(p)().Epoch).To(Equal(int64(109)))

			By("all that knows the epoch is deleted, but for the state")
			node("n1", corev1.ConditionTrue)
			bind(pod, "n1")
			kubeletSays(pod, running("10.0.0.9"))
			storeState(namespace, "cam", 109)
			Expect(k8s.Delete(ctx, p)).To(Succeed())
			kubeletEnds(pod, corev1.PodSucceeded)
			Eventually(pods(p)).Should(BeEmpty())
			Expect(k8s.Delete(ctx, &doryv1alpha1.ProcessorEpoch{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cam"}})).To(Succeed())
			Eventually(epochOf(p)).Should(BeZero())
			thePod(apply(namespace, "cam"), "110")
		})

		It("does not start under a lower epoch that was issued before the state came", func() {
			storeState(namespace, "cam", 108)
			issued, err := fence.NewIssuer(k8s, nil, clocktesting.NewFakeClock(time.Now())).Issue(ctx, fence.Request{
				Namespace: namespace, ProcessorID: "cam", Holder: "dory-cam-bcdfghjk", Reason: doryv1alpha1.EpochStart,
			})
			Expect(err).NotTo(HaveOccurred())
			Expect(issued.Spec.Epoch).To(Equal(int64(1)))
			startOperator(operatorOptions{})
			Expect(thePod(apply(namespace, "cam"), "109").Name).NotTo(Equal(issued.Spec.Holder))
		})

		It("is adopted above that epoch", func() {
			storeState(namespace, "cam", 108)
			legacy := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cam-by-hand", Labels: map[string]string{
					doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy, doryv1alpha1.LabelProcessorID: "cam",
				}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "processor", Image: "counter:1"}}},
			}
			Expect(k8s.Create(ctx, legacy)).To(Succeed())
			startOperator(operatorOptions{})
			Expect(thePod(apply(namespace, "cam"), "109").UID).To(Equal(legacy.UID))
		})

		It("is started anew above that epoch, where an instance below it ends again and again", func() {
			startOperator(operatorOptions{})
			p := apply(namespace, "cam")
			first := runs(p)
			storeState(namespace, "cam", 108)
			kubeletSays(first, crashLooping("10.0.0.9"))
			Eventually(func(g Gomega) {
				g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(first), first)).To(Succeed())
				g.Expect(first.DeletionTimestamp).NotTo(BeNil())
			}).Should(Succeed())
			kubeletEnds(first, corev1.PodFailed)
			thePod(p, "109")
		})

		It("says so where that epoch is not believed, and spends none", func() {
			startOperator(operatorOptions{})
			storeState(namespace, "cam", 1<<62)
			p := apply(namespace, "cam")
			Eventually(reason(p)).Should(Equal(doryv1alpha1.ReasonEpochBehindState))
			Expect(meta.FindStatusCondition(statusOf(p)().Conditions, doryv1alpha1.ConditionReady).Message).
				To(And(ContainSubstring("dory-state-cam"), ContainSubstring("remove it")))
			Expect(pods(p)()).To(BeEmpty())
			Expect(epochOf(p)().Epoch).To(BeZero())

			By("it is removed")
			Expect(k8s.Delete(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "dory-state-cam"}})).To(Succeed())
			thePod(p, "1")
		})

		It("says so where an instance ends again and again because of an epoch that is not believed", func() {
			startOperator(operatorOptions{})
			p := apply(namespace, "cam")
			first := runs(p)
			storeState(namespace, "cam", 1<<62)
			kubeletSays(first, crashLooping("10.0.0.9"))
			Eventually(reason(p)).Should(Equal(doryv1alpha1.ReasonEpochBehindState))
			Expect(thePod(p, "1").DeletionTimestamp).To(BeNil())
		})
	})

	DescribeTable("whose state is too large for where its SDK looks",
		func(handoff bool, role string) {
			startOperator(operatorOptions{})
			p := apply(namespace, "cam")
			first := runs(p)
			recordCheckpoint(p, largeState(p, 1), handoff)
			Expect(k8s.Delete(ctx, first)).To(Succeed())
			kubeletEnds(first, corev1.PodFailed)
			Expect(thePod(p, "2").Annotations).To(HaveKeyWithValue(doryv1alpha1.AnnotationRole, role))
		},
		Entry("waits for it, where it can", true, doryv1alpha1.RoleStandby),
		Entry("starts, where it cannot wait", false, doryv1alpha1.RolePrimary),
	)

	It("asks for one move when its spec changes, and for none again that the new version is to blame for", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		first := runs(p)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Image = "counter:2" })
		Eventually(updated(p)).Should(HaveField("Reason", doryv1alpha1.ReasonReplacing))
		Consistently(migrations(p)).Should(HaveLen(1))
		move := migrations(p)()[0]
		Expect(move.Spec).To(And(HaveField("Reason", doryv1alpha1.MigrationUpdate), HaveField("Processor", "cam"), HaveField("TargetRevision", Not(BeEmpty()))))
		Expect(metav1.IsControlledBy(&move, p)).To(BeTrue())

		By("the move is given up because the new version does not take the state")
		end(&move, doryv1alpha1.MigrationRolledBack, doryv1alpha1.MigrationReasonStateRefused)
		Eventually(updated(p)).Should(And(HaveField("Reason", doryv1alpha1.ReasonUpdateRolledBack), HaveField("Message", ContainSubstring(move.Name))))
		Consistently(migrations(p)).Should(HaveLen(1))
		Expect(thePod(p, "1").UID).To(Equal(first.UID), "the old version must work on")

		By("its record is deleted")
		Expect(k8s.Delete(ctx, &move)).To(Succeed())
		Eventually(migrations(p)).Should(ConsistOf(HaveField("UID", Not(Equal(move.UID)))))
	})

	It("leaves the pods of a move alone, and takes over when the move ends without an instance", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		source := runs(p)
		move := &doryv1alpha1.ProcessorMigration{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "by-hand"},
			Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: "cam"},
		}
		Expect(k8s.Create(ctx, move)).To(Succeed())
		move.Status = doryv1alpha1.ProcessorMigrationStatus{Phase: doryv1alpha1.MigrationWarming, SourcePod: source.Name, TargetPod: "dory-cam-target"}
		Expect(k8s.Status().Update(ctx, move)).To(Succeed())
		target, err := podbuilder.Build(podbuilder.Input{Processor: p, Name: "dory-cam-target", Standby: true, Move: &podbuilder.Move{Migration: "by-hand"}})
		Expect(err).NotTo(HaveOccurred())
		Expect(k8s.Create(ctx, target)).To(Succeed())
		Consistently(func() *metav1.Time {
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(target), target)).To(Succeed())
			return target.DeletionTimestamp
		}).Should(BeNil())

		By("the source ends")
		kubeletEnds(source, corev1.PodFailed)
		Consistently(func() int64 { return epochOf(p)().Epoch }).Should(Equal(int64(1)), "the next instance is the move's to start")

		By("the move fails")
		end(move, doryv1alpha1.MigrationFailed, "SourceLost")
		Eventually(func() bool {
			return apierrors.IsNotFound(k8s.Get(ctx, client.ObjectKeyFromObject(target), target))
		}).Should(BeTrue(), "nobody needs the target any more")
		Eventually(func() int64 { return epochOf(p)().Epoch }).Should(Equal(int64(2)))
	})

	DescribeTable("is restarted by one move for each request, and by none when a request is taken back",
		func(request func(p *doryv1alpha1.Processor, value string)) {
			startOperator(operatorOptions{})
			p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) { p.Annotations = map[string]string{} })
			first := runs(p)
			modify(p, func(p *doryv1alpha1.Processor) { request(p, "2026-01-31T12:00:00Z") })
			Eventually(migrations(p)).Should(HaveLen(1))
			Consistently(migrations(p)).Should(HaveLen(1))
			restart := migrations(p)()[0]
			Expect(restart.Spec.Reason).To(Equal(doryv1alpha1.MigrationUpdate))
			Eventually(updated(p)).Should(HaveField("Reason", doryv1alpha1.ReasonReplacing))

			By("it is taken back before anything came of it")
			modify(p, func(p *doryv1alpha1.Processor) { request(p, "") })
			Eventually(updated(p)).Should(HaveField("Status", metav1.ConditionTrue))
			end(&restart, doryv1alpha1.MigrationRolledBack, doryv1alpha1.MigrationReasonSuperseded)
			Consistently(migrations(p)).Should(HaveLen(1))
			Expect(thePod(p, "1").UID).To(Equal(first.UID))

			By("an older time is another request")
			modify(p, func(p *doryv1alpha1.Processor) { request(p, "2020-01-31T12:00:00Z") })
			Eventually(migrations(p)).Should(HaveLen(2))
		},
		Entry("in the annotation that kubectl writes", func(p *doryv1alpha1.Processor, value string) {
			delete(p.Annotations, doryv1alpha1.AnnotationRestartedAt)
			if value != "" {
				metav1.SetMetaDataAnnotation(&p.ObjectMeta, doryv1alpha1.AnnotationRestartedAt, value)
			}
		}),
		Entry("in the spec", func(p *doryv1alpha1.Processor, value string) { p.Spec.RestartedAt = value }),
	)

	It("is restarted as its update strategy says", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) {
			p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateOnDelete}
		})
		first := runs(p)
		modify(p, func(p *doryv1alpha1.Processor) {
			metav1.SetMetaDataAnnotation(&p.ObjectMeta, doryv1alpha1.AnnotationRestartedAt, "2026-01-31T12:00:00Z")
		})
		Eventually(updated(p)).Should(HaveField("Reason", doryv1alpha1.ReasonOnDelete))
		Consistently(migrations(p)).Should(BeEmpty())
		Expect(thePod(p, "1").DeletionTimestamp).To(BeNil())

		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Update.Strategy = doryv1alpha1.UpdateRecreate })
		Eventually(phase(p)).Should(Equal(doryv1alpha1.ProcessorStopping))
		Eventually(func() []string { return eventsOf(p) }).Should(ContainElement("Ending pod " + first.Name + " because a restart was asked for"))
		kubeletEnds(first, corev1.PodSucceeded)
		Expect(thePod(p, "2").Annotations).To(HaveKeyWithValue(doryv1alpha1.AnnotationRestartedAt, "2026-01-31T12:00:00Z"))
		Expect(migrations(p)()).To(BeEmpty())
	})

	It("is replaced when its spec changes and its update strategy is Recreate", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) {
			p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateRecreate}
		})
		first := runs(p)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Image = "counter:2" })
		Eventually(phase(p)).Should(Equal(doryv1alpha1.ProcessorStopping))
		kubeletEnds(first, corev1.PodSucceeded)
		Expect(thePod(p, "2").Spec.Containers[0].Image).To(Equal("counter:2"))
	})

	It("keeps running when its new spec makes no pod", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		first := runs(p)
		modify(p, func(p *doryv1alpha1.Processor) {
			p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(`{"hostNetwrok":true}`)}}
		})
		Eventually(func() *metav1.Condition {
			return meta.FindStatusCondition(statusOf(p)().Conditions, doryv1alpha1.ConditionUpdated)
		}).Should(And(HaveField("Reason", doryv1alpha1.ReasonInvalidPodTemplate), HaveField("Message", ContainSubstring("hostNetwrok"))))
		Consistently(phase(p)).Should(Equal(doryv1alpha1.ProcessorRunning))
		Expect(thePod(p, "1").DeletionTimestamp).To(BeNil())
		Expect(first.UID).To(Equal(thePod(p, "1").UID))
	})

	It("shows what the API server says against its pod", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) {
			p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(`{"restartPolicy":"Sometimes"}`)}}
		})
		Eventually(func() string {
			if ready := meta.FindStatusCondition(statusOf(p)().Conditions, doryv1alpha1.ConditionReady); ready != nil {
				return ready.Reason + ": " + ready.Message
			}
			return ""
		}).Should(And(HavePrefix(doryv1alpha1.ReasonPodRejected), ContainSubstring("restartPolicy")))
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.PodTemplate = nil })
		thePod(p, "1")
	})

	It("is suspended and resumed", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		first := runs(p)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(true) })
		Eventually(phase(p)).Should(Equal(doryv1alpha1.ProcessorStopping))
		kubeletEnds(first, corev1.PodSucceeded)
		Eventually(pods(p)).Should(BeEmpty())
		Eventually(phase(p)).Should(Equal(doryv1alpha1.ProcessorSuspended))
		Expect(epochOf(p)()).To(And(HaveField("Epoch", int64(1)), HaveField("Holder", "")))
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(false) })
		thePod(p, "2")
	})

	It("deleted and made again goes on with a higher epoch", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		first := runs(p)
		Expect(k8s.Delete(ctx, p)).To(Succeed())
		again := apply(namespace, "cam")
		Eventually(reason(again)).Should(Equal(doryv1alpha1.ReasonWaitingForOldInstance))
		kubeletEnds(first, corev1.PodSucceeded)
		second := thePod(again, "2")
		Expect(metav1.IsControlledBy(second, again)).To(BeTrue())

		Expect(k8s.Delete(ctx, again)).To(Succeed())
		Eventually(pods(again)).Should(BeEmpty(), "a pod that was never bound has nothing to confirm")
		Expect(epochOf(again)().Epoch).To(Equal(int64(2)), "the ProcessorEpoch outlives its Processor")
		thePod(apply(namespace, "cam"), "3")
	})

	It("goes on above the pod's epoch when its ProcessorEpoch was deleted", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		first := runs(p)
		Expect(k8s.Delete(ctx, first)).To(Succeed())
		kubeletEnds(first, corev1.PodSucceeded)
		second := thePod(p, "2")
		bind(second, "n1")
		kubeletSays(second, running("127.8.8.2"))
		Expect(k8s.Delete(ctx, &doryv1alpha1.ProcessorEpoch{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cam"}})).To(Succeed())
		Eventually(func() *metav1.Time { return pods(p)()[0].DeletionTimestamp }).ShouldNot(BeNil())
		kubeletEnds(second, corev1.PodSucceeded)
		thePod(p, "3")
	})

	It("under another name waits until the last instance of its id is gone, and goes on above its epoch", func() {
		startOperator(operatorOptions{})
		named := func(p *doryv1alpha1.Processor) { p.Spec.ProcessorID = "Cam_1" }
		before := apply(namespace, "before", named)
		first := runs(before)
		Expect(k8s.Delete(ctx, before)).To(Succeed())
		after := apply(namespace, "after", named)
		Eventually(reason(after)).Should(Equal(doryv1alpha1.ReasonWaitingForOldInstance))
		Consistently(pods(after)).Should(HaveLen(1))
		kubeletEnds(first, corev1.PodSucceeded)
		Expect(metav1.IsControlledBy(thePod(after, "2"), after)).To(BeTrue())
	})

	It("made again with another id under its old name starts", func() {
		startOperator(operatorOptions{})
		before := apply(namespace, "cam", func(p *doryv1alpha1.Processor) { p.Spec.ProcessorID = "one" })
		thePod(before, "1")
		Expect(k8s.Delete(ctx, before)).To(Succeed())
		Eventually(pods(before)).Should(BeEmpty())
		after := apply(namespace, "cam", func(p *doryv1alpha1.Processor) { p.Spec.ProcessorID = "two" })
		Expect(thePod(after, "1").Annotations).To(HaveKeyWithValue(doryv1alpha1.AnnotationProcessorID, "two"))
	})

	It("ends a second pod that claims its id", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		first := runs(p)
		impostor := legacyPod(namespace, "by-hand", "cam")
		Expect(k8s.Create(ctx, impostor)).To(Succeed())
		Eventually(func() []corev1.Pod { return pods(p)() }).Should(HaveLen(1))
		Expect(pods(p)()[0].UID).To(Equal(first.UID))
	})

	It("adopts a pod that ran before it, without restarting it", func() {
		legacy := legacyPod(namespace, "proc-6-abc", "Proc_6")
		Expect(k8s.Create(ctx, legacy)).To(Succeed())
		node("n1", corev1.ConditionTrue)
		bind(legacy, "n1")
		kubeletSays(legacy, running("127.8.8.9"))
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) { p.Spec.ProcessorID = "Proc_6" })
		adopted := thePod(p, "1")
		Expect(adopted.UID).To(Equal(legacy.UID))
		Expect(metav1.IsControlledBy(adopted, p)).To(BeTrue())
		Expect(adopted.Finalizers).To(ContainElement(doryv1alpha1.FinalizerFence))
		Eventually(phase(p)).Should(Equal(doryv1alpha1.ProcessorRunning))
		Expect(epochOf(p)()).To(And(HaveField("Holder", "proc-6-abc"), HaveField("Reason", doryv1alpha1.EpochAdopt)))
		Consistently(func() *metav1.Time { return pods(p)()[0].DeletionTimestamp }).Should(BeNil())
	})

	It("leaves the pods of other controllers alone", func() {
		startOperator(operatorOptions{})
		foreign := legacyPod(namespace, "of-a-replicaset", "cam")
		foreign.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "rs", UID: "x", Controller: new(true)}}
		Expect(k8s.Create(ctx, foreign)).To(Succeed())
		p := apply(namespace, "cam")
		Eventually(pods(p)).Should(HaveLen(2))
		Consistently(pods(p)).Should(HaveLen(2))
	})

	It("backs off visibly when its instances fail", func() {
		o := startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		kubeletEnds(runs(p), corev1.PodFailed)
		second := thePod(p, "2")
		bind(second, "n1")
		kubeletEnds(second, corev1.PodFailed)
		Eventually(phase(p)).Should(Equal(doryv1alpha1.ProcessorBackingOff))
		Expect(statusOf(p)().Backoff.Failures).To(Equal(int32(2)))
		Consistently(pods(p)).Should(HaveLen(1))
		o.clock.Step(11 * time.Second)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(false) }) // the queue's own timer runs on the real clock
		Expect(thePod(p, "3").Spec.Containers[0].Env).To(ContainElement(corev1.EnvVar{Name: "RESTART_COUNT", Value: "2"}))
	})

	It("waits for its edge node to be known, and is bound to the node that it stands for", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) {
			p.Spec.Location = doryv1alpha1.LocationEdge
			p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{EdgeNode: "gate-" + namespace}
		})
		Eventually(reason(p)).Should(Equal(doryv1alpha1.ReasonEdgeNodeUnknown))
		Expect(epochOf(p)().Epoch).To(BeZero(), "an epoch was spent on nothing")
		gate := &doryv1alpha1.EdgeNode{ObjectMeta: metav1.ObjectMeta{Name: "gate-" + namespace}, Spec: doryv1alpha1.EdgeNodeSpec{NodeName: "gate-k8s"}}
		Expect(k8s.Create(ctx, gate)).To(Succeed())
		DeferCleanup(func() { Expect(k8s.Delete(ctx, gate)).To(Succeed()) })
		terms := thePod(p, "1").Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		Expect(terms[0].MatchFields[0].Values).To(ConsistOf("gate-k8s"))
	})

	It("with the id of an older one of its namespace does not run", func() {
		startOperator(operatorOptions{})
		first := apply(namespace, "cam")
		thePod(first, "1")
		second := apply(namespace, "cam-too", func(p *doryv1alpha1.Processor) { p.Spec.ProcessorID = "cam" })
		Eventually(reason(second)).Should(Equal(doryv1alpha1.ReasonIDConflict))
		Consistently(func() *metav1.Time { return thePod(first, "1").DeletionTimestamp }).Should(BeNil())
		By("the older one goes")
		Expect(k8s.Delete(ctx, first)).To(Succeed())
		Expect(metav1.IsControlledBy(thePod(second, "2"), second)).To(BeTrue())
	})

	It("with the id of one in another namespace does not run where a database holds every id once", func() {
		startOperator(operatorOptions{ledger: &ledger{}})
		first := apply(namespace, "cam")
		thePod(first, "1")
		second := apply(newNamespace(), "cam")
		// Of two that were made within one second the names decide, and those of the namespaces are random.
		both := func() []string { return []string{reason(first)(), reason(second)()} }
		Eventually(both).Should(ConsistOf(doryv1alpha1.ReasonIDConflict, doryv1alpha1.ReasonStarting))
		instances := func() int { return len(pods(first)()) + len(pods(second)()) }
		Eventually(instances).Should(Equal(1))
		Consistently(instances).Should(Equal(1))
	})

	It("keeps running when the API server refuses the pod of its new spec", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		runs(p)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Env = []corev1.EnvVar{{Name: "BAD=NAME", Value: "1"}} })
		Eventually(func() *metav1.Condition {
			return meta.FindStatusCondition(statusOf(p)().Conditions, doryv1alpha1.ConditionUpdated)
		}).Should(And(HaveField("Reason", doryv1alpha1.ReasonPodRejected), HaveField("Message", ContainSubstring("BAD=NAME"))))
		Consistently(func() *metav1.Time { return thePod(p, "1").DeletionTimestamp }).Should(BeNil())
		Expect(phase(p)()).To(Equal(doryv1alpha1.ProcessorRunning))
	})

	It("keeps its epoch rising when suspended and its ProcessorEpoch is deleted", func() {
		startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		first := runs(p)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(true) })
		Eventually(phase(p)).Should(Equal(doryv1alpha1.ProcessorStopping))
		kubeletEnds(first, corev1.PodSucceeded)
		Eventually(func() string { return epochOf(p)().Holder }).Should(BeEmpty())
		Expect(k8s.Delete(ctx, &doryv1alpha1.ProcessorEpoch{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cam"}})).To(Succeed())
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(false) })
		thePod(p, "2")
	})

	It("is not ended on the word of a cache that does not have its epoch yet", func() {
		o := startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		runs(p)
		o.lateEpochs.Store(true)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(false) })
		Consistently(func() *metav1.Time { return thePod(p, "1").DeletionTimestamp }).Should(BeNil())
	})

	It("does not lose its epoch on the word of a cache that does not have its pod yet", func() {
		o := startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		first := runs(p)
		o.latePods.Store(true)
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(true) })
		Consistently(func() string { return epochOf(p)().Holder }).Should(Equal(first.Name))
		o.latePods.Store(false)
		Eventually(phase(p)).Should(Equal(doryv1alpha1.ProcessorStopping))
	})

	It("is left alone at rest", func() {
		o := startOperator(operatorOptions{})
		p := apply(namespace, "cam")
		runs(p)
		Eventually(func() bool { return statusOf(p)().Instance.Node == "n1" }).Should(BeTrue())
		before := o.written()
		Expect(before).To(And(HaveKeyWithValue("create Pod", 1), HaveKeyWithValue("create ProcessorEpoch", 1)))
		modify(p, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(false) }) // a pass with nothing to do
		Eventually(func() int64 { return statusOf(p)().ObservedGeneration }).Should(Equal(int64(2)))
		after := o.written()
		Consistently(o.written).Should(Equal(after))
		after["update status Processor"]-- // observedGeneration
		Expect(after).To(Equal(before))
	})

	It("never has two instances, nor an epoch that falls, under two operators at once", func() {
		stop := watchInvariants(namespace)
		startOperator(operatorOptions{})
		startOperator(operatorOptions{})
		node("n1", corev1.ConditionTrue)
		var all []*doryv1alpha1.Processor
		for i := range 10 {
			all = append(all, apply(namespace, fmt.Sprintf("cam-%d", i)))
		}
		for range 3 { // Kill every pod three times over, while it runs.
			Eventually(func(g Gomega) {
				g.Expect(pods(all[0])()).To(HaveLen(10))
				for _, pod := range pods(all[0])() {
					g.Expect(pod.DeletionTimestamp).To(BeNil())
				}
			}).Should(Succeed())
			for _, pod := range pods(all[0])() {
				bind(&pod, "n1")
				kubeletSays(&pod, running("127.8.8.1"))
				Expect(k8s.Delete(ctx, &pod)).To(Succeed())
			}
			Consistently(pods(all[0])).Should(HaveLen(10))
			for _, pod := range pods(all[0])() {
				kubeletEnds(&pod, corev1.PodSucceeded)
			}
		}
		Expect(stop()).To(BeEmpty())
	})

	Describe("with a database", func() {
		It("waits while its last epoch cannot be known", func() {
			ledger := &ledger{err: errors.New("connection refused")}
			startOperator(operatorOptions{ledger: ledger})
			p := apply(namespace, "cam")
			Eventually(reason(p)).Should(Equal(doryv1alpha1.ReasonEpochUnavailable))
			Consistently(pods(p)).Should(BeEmpty())
			ledger.set(41, nil)
			Expect(epochOf(p)().Epoch).To(BeNumerically("<=", 42))
			thePod(p, "42")
		})

		It("goes on without it where the ProcessorEpoch tells the last epoch", func() {
			ledger := &ledger{}
			startOperator(operatorOptions{ledger: ledger})
			p := apply(namespace, "cam")
			first := runs(p)
			ledger.set(0, errors.New("connection refused"))
			Expect(k8s.Delete(ctx, first)).To(Succeed())
			kubeletEnds(first, corev1.PodSucceeded)
			thePod(p, "2")
		})
	})

	Describe("of an unknown SDK", func() {
		// sdk serves like a processor of that generation and runs as the pod's address.
		sdk := func(handler http.HandlerFunc) (int32, string) {
			server := httptest.NewServer(handler)
			DeferCleanup(server.Close)
			host, port, err := net.SplitHostPort(server.Listener.Addr().String())
			Expect(err).NotTo(HaveOccurred())
			number, err := strconv.ParseInt(port, 10, 32)
			Expect(err).NotTo(HaveOccurred())
			return int32(number), host
		}
		start := func(handler http.HandlerFunc) (*doryv1alpha1.Processor, *corev1.Pod) {
			port, ip := sdk(handler)
			startOperator(operatorOptions{discovery: true})
			p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) { p.Spec.Port = port })
			node("n1", corev1.ConditionTrue)
			pod := thePod(p, "1")
			bind(pod, "n1")
			kubeletSays(pod, running(ip))
			return p, pod
		}

		It("shows the version that it says", func() {
			p, _ := start(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Dory-SDK-Version", "3.1.4") })
			Eventually(func() string { return statusOf(p)().Instance.SDKVersion }).Should(Equal("3.1.4"))
			Expect(statusOf(p)().LivenessPath).To(BeEmpty())
		})

		It("is asked at the port of its pod, also where the spec has another one since", func() {
			port, ip := sdk(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Dory-SDK-Version", "3.1.4") })
			startOperator(operatorOptions{discovery: true})
			p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) {
				p.Spec.Port, p.Spec.Update = port, &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateOnDelete}
			})
			node("n1", corev1.ConditionTrue)
			pod := thePod(p, "1")
			Eventually(func() error {
				fresh := &doryv1alpha1.Processor{}
				if err := k8s.Get(ctx, client.ObjectKeyFromObject(p), fresh); err != nil {
					return err
				}
				fresh.Spec.Port = 1
				return k8s.Update(ctx, fresh)
			}).Should(Succeed())
			bind(pod, "n1")
			kubeletSays(pod, running(ip))
			Eventually(func() string {
				if instance := statusOf(p)().Instance; instance != nil {
					return instance.SDKVersion
				}
				return ""
			}).Should(Equal("3.1.4"))
		})

		It("of 2.1, which knows no /health, gets /healthz probed", func() {
			p, first := start(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/healthz" {
					http.NotFound(w, r)
				}
			})
			Expect(first.Spec.Containers[0].LivenessProbe.HTTPGet.Path).To(Equal("/health"))
			Eventually(func() doryv1alpha1.LivenessPath { return statusOf(p)().LivenessPath }).Should(Equal(doryv1alpha1.LivenessPathHealthz))
			kubeletEnds(first, corev1.PodSucceeded)
			Expect(thePod(p, "2").Spec.Containers[0].LivenessProbe.HTTPGet.Path).To(Equal("/healthz"))
		})
	})
})

func legacyPod(namespace, name, id string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{
			"managed-by": "dory-orchestrator", "processor-id": id, "workload-location": "managed",
		}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "legacy:1"}}},
	}
}

// ledger stands in for the database's record of epochs; the real one is tested in internal/store.
type ledger struct {
	mu   sync.Mutex
	last int64
	err  error
}

func (l *ledger) IssueEpoch(_ context.Context, _ string, floor int64, _ string) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	l.last = max(l.last, floor) + 1
	return l.last, nil
}

func (l *ledger) set(last int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last, l.err = last, err
}

// watchInvariants follows every pod and epoch of the namespace until stopped, and answers what was broken.
func watchInvariants(namespace string) (stop func() []string) {
	GinkgoHelper()
	watching, err := client.NewWithWatch(apiServer, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	podEvents, err := watching.Watch(context.Background(), &corev1.PodList{}, client.InNamespace(namespace))
	Expect(err).NotTo(HaveOccurred())
	epochEvents, err := watching.Watch(context.Background(), &doryv1alpha1.ProcessorEpochList{}, client.InNamespace(namespace))
	Expect(err).NotTo(HaveOccurred())
	var (
		broken   []string
		stopping atomic.Bool
	)
	// A watch that broke off by itself would have missed something; one that we stop may say goodbye with an error.
	brokeOff := func(event watch.Event) {
		if event.Type == watch.Error && !stopping.Load() {
			broken = append(broken, fmt.Sprintf("a watch broke off: %+v", event.Object))
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		alive, epochs := map[string]map[types.UID]bool{}, map[string]int64{}
		podResults, epochResults := podEvents.ResultChan(), epochEvents.ResultChan()
		for podResults != nil || epochResults != nil {
			select {
			case event, ok := <-podResults:
				if !ok {
					podResults = nil
					continue
				}
				brokeOff(event)
				broken = append(broken, secondInstance(alive, event)...)
			case event, ok := <-epochResults:
				if !ok {
					epochResults = nil
					continue
				}
				brokeOff(event)
				epoch, ok := event.Object.(*doryv1alpha1.ProcessorEpoch)
				if !ok {
					continue
				}
				if epoch.Spec.Epoch < epochs[epoch.Name] {
					broken = append(broken, fmt.Sprintf("epoch of %s fell from %d to %d", epoch.Name, epochs[epoch.Name], epoch.Spec.Epoch))
				}
				epochs[epoch.Name] = epoch.Spec.Epoch
			}
		}
	}()
	return func() []string {
		stopping.Store(true)
		podEvents.Stop()
		epochEvents.Stop()
		<-done
		return broken
	}
}

func secondInstance(alive map[string]map[types.UID]bool, event watch.Event) []string {
	pod, ok := event.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	processor := pod.Annotations[doryv1alpha1.AnnotationProcessorID]
	if alive[processor] == nil {
		alive[processor] = map[types.UID]bool{}
	}
	if event.Type == watch.Deleted || fence.Ended(pod) {
		delete(alive[processor], pod.UID)
		return nil
	}
	alive[processor][pod.UID] = true
	if len(alive[processor]) > 1 {
		return []string{fmt.Sprintf("%d instances of %s at once", len(alive[processor]), processor)}
	}
	return nil
}
