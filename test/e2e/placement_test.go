//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("The operator's own placement", Serial, func() {
	var namespace string

	BeforeEach(func(ctx context.Context) { namespace = newNamespace(ctx) })

	It("finds a node for a Processor that asks for it, and says what one lacks that fits nowhere", func(ctx context.Context) {
		p := placedByDory(counter(namespace, "placed"), "20m")
		instance := start(ctx, p)
		Expect(instance.Node).To(BeElementOf(cloudNode, otherCloudNode))
		pod := podOf(namespace, instance.Pod)
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		Expect(pod.Spec.SchedulerName).To(Equal("dory-scheduler"))

		large := placedByDory(counter(namespace, "large"), "900")
		Expect(k8s.Create(ctx, large)).To(Succeed())
		Eventually(func(g Gomega) {
			ready := readyCondition(get(ctx, g, client.ObjectKeyFromObject(large)))
			g.Expect(ready.Reason).To(Equal(doryv1alpha1.ReasonUnschedulable))
			g.Expect(ready.Message).To(ContainSubstring("insufficient cpu"))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	})

	It("finds another node for a Processor whose pod the kubelet refuses, because somebody was faster", func(ctx context.Context) {
		cordon(ctx, otherCloudNode)
		most := share(ctx, cloudNode, mostPercent)
		start(ctx, placedByDory(counter(namespace, "faster"), most))
		p := placedByDory(counter(namespace, "refused"), most)
		key := client.ObjectKeyFromObject(p)
		Expect(k8s.Create(ctx, p)).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(readyCondition(get(ctx, g, key)).Reason).To(Equal(doryv1alpha1.ReasonUnschedulable))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		refused, epoch := pods(ctx, Default, key)[0], epochOf(ctx, Default, key).Epoch

		By("it is bound all the same, as by a scheduler that does not know yet what another one has done")
		Expect(clientset.CoreV1().Pods(namespace).Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: refused}, Target: corev1.ObjectReference{Kind: "Node", Name: cloudNode},
		}, metav1.CreateOptions{})).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(events(ctx, g, namespace, "Pod", refused)).To(ContainElement(HavePrefix("OutOfcpu")))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())

		By("and goes where there is room")
		uncordon(ctx, otherCloudNode)
		instance := runsAfter(ctx, key, epoch)
		Expect(instance.Node).To(Equal(otherCloudNode))
		Eventually(func(g Gomega) { g.Expect(pods(ctx, g, key)).To(ConsistOf(instance.Pod)) }).WithContext(ctx).Should(Succeed())
	})

	It("finds the node that has a volume for a Processor's claim, and has the claim bound", func(ctx context.Context) {
		claim := localVolume(ctx, namespace, otherCloudNode)
		p := placedByDory(counter(namespace, "claims"), "20m")
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: fmt.Appendf(nil,
			`{"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": %q}}]}`, claim)}}
		Expect(start(ctx, p).Node).To(Equal(otherCloudNode))
		bound := &corev1.PersistentVolumeClaim{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: claim}, bound)).To(Succeed())
		Expect(bound.Status.Phase).To(Equal(corev1.ClaimBound))
	})

	It("gives a Processor the room that config/headroom keeps, and lets that come back", func(ctx context.Context) {
		headroom := strings.NewReplacer("registry.k8s.io/pause:3.10", "dory-pause:1", `cpu: "1"`, "cpu: "+share(ctx, cloudNode, 50)).
			Replace(kubectl(ctx, "", "kustomize", filepath.Join("..", "..", "config", "headroom")))
		DeferCleanup(func(ctx context.Context) { kubectl(ctx, headroom, "delete", "--ignore-not-found", "-f", "-") })
		kubectl(ctx, headroom, "apply", "--server-side", "-f", "-")
		room := keepsRoom(ctx, cloudNode)

		p := on(cloudNode, counter(namespace, "needs-room"))
		p.Spec.Placement.Scheduler = doryv1alpha1.PlacementSchedulerDory
		p.Spec.Resources.Requests[corev1.ResourceCPU] = resource.MustParse(share(ctx, cloudNode, mostPercent))
		instance := start(ctx, p)
		Expect(instance.Node).To(Equal(cloudNode))
		Eventually(func(g Gomega) {
			g.Expect(events(ctx, g, operatorNamespace, "Pod", room)).To(ContainElement(HavePrefix("Displaced")))
			g.Expect(events(ctx, g, namespace, "Pod", instance.Pod)).To(ContainElement(HavePrefix("MakingRoom")))
		}).WithContext(ctx).Should(Succeed())

		Expect(k8s.Delete(ctx, p)).To(Succeed())
		isGone(ctx, p)
		Expect(keepsRoom(ctx, cloudNode)).NotTo(Equal(room))
	})
})

// mostPercent of a node's CPU fits once beside the pods of the system.
const mostPercent = 60

// share is so many percent of a node's CPU.
func share(ctx context.Context, name string, percent int64) string {
	GinkgoHelper()
	node := &corev1.Node{}
	Expect(k8s.Get(ctx, client.ObjectKey{Name: name}, node)).To(Succeed())
	return resource.NewMilliQuantity(node.Status.Allocatable.Cpu().MilliValue()*percent/100, resource.DecimalSI).String()
}

func placedByDory(p *doryv1alpha1.Processor, cpu string) *doryv1alpha1.Processor {
	p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{Scheduler: doryv1alpha1.PlacementSchedulerDory}
	p.Spec.Resources.Requests[corev1.ResourceCPU] = resource.MustParse(cpu)
	return p
}

// localVolume makes a volume that only one node has, and a claim that waits for its first consumer.
func localVolume(ctx context.Context, namespace, node string) string {
	GinkgoHelper()
	name, mode := unique("local"), storagev1.VolumeBindingWaitForFirstConsumer
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	for _, object := range []client.Object{
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &mode},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
			StorageClassName: name, Capacity: size, AccessModes: modes, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
			}}}},
		}},
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &name, AccessModes: modes, Resources: corev1.VolumeResourceRequirements{Requests: size},
		}},
	} {
		Expect(k8s.Create(ctx, object)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(client.IgnoreNotFound(k8s.Delete(ctx, object))).To(Succeed()) })
	}
	return name
}

// keepsRoom waits until a placeholder runs on the node.
func keepsRoom(ctx context.Context, node string) string {
	GinkgoHelper()
	var name string
	Eventually(func(g Gomega) {
		found := &corev1.PodList{}
		g.Expect(k8s.List(ctx, found, client.InNamespace(operatorNamespace), client.MatchingLabels{doryv1alpha1.LabelPlaceholder: "true"})).To(Succeed())
		there := slices.IndexFunc(found.Items, func(p corev1.Pod) bool {
			return p.Spec.NodeName == node && p.DeletionTimestamp == nil && podReady(&p)
		})
		g.Expect(there).NotTo(Equal(-1), "none of %d placeholders runs on %s", len(found.Items), node)
		name = found.Items[there].Name
	}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	return name
}
