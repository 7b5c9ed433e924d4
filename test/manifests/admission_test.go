package manifests

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	gomegatypes "github.com/onsi/gomega/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const ownedEdgeNode = `apiVersion: dory.io/v1alpha1
kind: EdgeNode
metadata:
  name: edge-1
  labels: {dory.io/source: database}
spec:
  edgeNodeID: 0b0e3c4e-0000-4000-8000-000000000001
`

var _ = Describe("The admission policies", func() {
	DescribeTable("refuse people who change, of an object that the database owns,",
		func(ctx context.Context, manifest string, change map[string]any, because ...string) {
			obj := create(ctx, manifest)
			merge(obj.Object, change)
			Expect(admin.Update(ctx, obj)).To(refusedBecause(because...))
			Expect(operator.Update(ctx, obj)).To(Succeed(), "the operator may")
		},
		Entry("the spec", ownedProcessor("cam-1"), spec("image", "example/camera:2"),
			"spec of Processor default/cam-1 is owned by the database",
			"edit the row of table processors where id = 'Proc_6', or its template version, instead",
			"(psql: UPDATE processors SET … WHERE id = 'Proc_6')"),
		Entry("the spec, by adding a field", ownedProcessor("cam-1"), spec("suspend", true), "owned by the database"),
		Entry("the label, by removing it", ownedProcessor("cam-1"), metadata("labels", "dory.io/source", nil),
			"label dory.io/source of Processor default/cam-1"),
		Entry("the label's value", ownedProcessor("cam-1"), metadata("labels", "dory.io/source", "me"),
			"label dory.io/source of Processor default/cam-1"),
		Entry("the row's revision", ownedProcessor("cam-1"), metadata("annotations", "dory.io/row-revision", "8"),
			"dory.io/row-revision", "written by db-sync alone", "id = 'Proc_6'"),
		Entry("the id's annotation", ownedProcessor("cam-1"), metadata("annotations", "dory.io/processor-id", nil),
			"dory.io/processor-id"),
		Entry("the spec of an edge node", ownedEdgeNode, spec("failoverPolicy", "Enabled"),
			"spec of EdgeNode edge-1 is owned by the database",
			"edit the row of table edge_nodes where id = '0b0e3c4e-0000-4000-8000-000000000001' instead"),
	)

	DescribeTable("let people change, of an object that the database owns,",
		func(ctx context.Context, change map[string]any) {
			obj := create(ctx, ownedProcessor("cam-1"))
			merge(obj.Object, change)
			Expect(admin.Update(ctx, obj)).To(Succeed())
		},
		Entry("another label", metadata("labels", "team", "audio")),
		Entry("another annotation", metadata("annotations", "dory.io/deletion-approved", "true")),
		Entry("the annotation that restarts", metadata("annotations", "kubectl.kubernetes.io/restartedAt", "2026-01-31T12:00:00Z")),
		Entry("the finalizers", map[string]any{"metadata": map[string]any{"finalizers": []any{"example.com/hold"}}}),
	)

	It("let people delete an object that the database owns", func(ctx context.Context) {
		obj := create(ctx, ownedProcessor("cam-1"))
		Expect(admin.Delete(ctx, obj)).To(Succeed())
	})

	It("let the status of an object that the database owns be written", func(ctx context.Context) {
		obj := create(ctx, ownedProcessor("cam-1"))
		obj.Object["status"] = map[string]any{"phase": "Running"}
		Expect(operator.Status().Update(ctx, obj)).To(Succeed())
	})

	It("refuse a patch and a server-side apply as they refuse an update", func(ctx context.Context) {
		obj := create(ctx, ownedProcessor("cam-1"))
		patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"port":9}}`))
		Expect(admin.Patch(ctx, obj.DeepCopy(), patch)).To(refusedBecause("owned by the database"))

		out, err := kubectl("patch", "proc", "cam-1", "-n", "default", "--type=merge", "-p", `{"spec":{"port":9}}`)
		Expect(err).To(HaveOccurred())
		Expect(out).To(ContainSubstring("edit the row of table processors"))
	})

	It("quote an id as SQL needs it", func(ctx context.Context) {
		obj := create(ctx, strings.ReplaceAll(ownedProcessor("cam-1"), "Proc_6", `"it's"`))
		merge(obj.Object, spec("port", int64(9)))
		Expect(admin.Update(ctx, obj)).To(refusedBecause("WHERE id = 'it''s'"))
	})

	It("name the object's own name where it has no other id", func(ctx context.Context) {
		obj := create(ctx, strings.ReplaceAll(ownedProcessor("cam-1"), "  processorID: Proc_6\n", ""))
		merge(obj.Object, spec("port", int64(9)))
		Expect(admin.Update(ctx, obj)).To(refusedBecause("WHERE id = 'cam-1'"))
	})

	It("refuse people who claim that the database owns an object", func(ctx context.Context) {
		because := "must not have the label dory.io/source=database"
		Expect(admin.Create(ctx, object(ownedProcessor("cam-1")))).To(refusedBecause(because))
		Expect(admin.Create(ctx, object(ownedEdgeNode))).To(refusedBecause(because))

		obj := create(ctx, processor("cam-1", "image: a"))
		merge(obj.Object, metadata("labels", "dory.io/source", "database"))
		Expect(admin.Update(ctx, obj)).To(refusedBecause(because))
		Expect(operator.Update(ctx, obj)).To(Succeed(), "the operator may")
	})

	It("leave people's own objects alone", func(ctx context.Context) {
		obj := object(processor("mine", "image: a"))
		Expect(admin.Create(ctx, obj)).To(Succeed())
		DeferCleanup(admin.Delete, obj)
		merge(obj.Object, spec("image", "b"))
		Expect(admin.Update(ctx, obj)).To(Succeed())
	})

	DescribeTable("take nobody else for the operator",
		func(ctx context.Context, user string) {
			obj := create(ctx, ownedProcessor("cam-1"))
			merge(obj.Object, spec("port", int64(9)))
			Expect(clientAs(testEnv.Config, user).Update(ctx, obj)).To(refusedBecause("owned by the database"))
		},
		Entry("with the same name in another namespace", "system:serviceaccount:default:dory-operator"),
		Entry("with another name in the same namespace", "system:serviceaccount:dory-system:default"),
		Entry("with a name that only ends alike", "x:system:serviceaccount:dory-system:dory-operator"),
	)

	DescribeTable("refuse a divisor that would break typed clients",
		func(ctx context.Context, divisor string, matcher gomegatypes.GomegaMatcher) {
			Expect(operator.Create(ctx, object(processorWithDivisor(divisor)), client.DryRunAll)).To(matcher)
		},
		Entry("of the right letters that is no quantity", "1e1.5", refusedBecause("divisor must be a quantity")),
		Entry("but not one that is a quantity", "1Mi", Succeed()),
		Entry("but not a number", "1", Succeed()),
	)

	Describe("for epochs", func() {
		It("let only the operator issue them", func(ctx context.Context) {
			Expect(admin.Create(ctx, object(epochOf("cam-1", 1, "pod-1")))).To(refusedBecause("only the operator issues epochs", "default/cam-1"))
			obj := create(ctx, epochOf("cam-1", 1, "pod-1"))
			merge(obj.Object, map[string]any{"spec": map[string]any{"epoch": int64(2), "holder": "pod-2"}})
			Expect(admin.Update(ctx, obj)).To(refusedBecause("only the operator issues epochs"))
			Expect(operator.Update(ctx, obj)).To(Succeed())
		})

		It("let others change metadata, as the garbage collector does", func(ctx context.Context) {
			obj := create(ctx, epochOf("cam-1", 1, "pod-1"))
			obj.SetFinalizers([]string{metav1.FinalizerDeleteDependents})
			Expect(admin.Update(ctx, obj)).To(Succeed())
			obj.SetFinalizers(nil)
			Expect(admin.Update(ctx, obj)).To(Succeed())
		})

		It("let admins delete them", func(ctx context.Context) {
			obj := create(ctx, epochOf("cam-1", 1, "pod-1"))
			Expect(admin.Delete(ctx, obj)).To(Succeed())
		})
	})
})

// podWith is a pod whose second container has the environment, and which belongs to no ServiceAccount that must exist.
func podWith(name, env string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default}
spec:
  automountServiceAccountToken: false
  containers:
  - {name: first, image: a}
  - {name: processor, image: a, env: %s}
`, name, env)
}

var _ = Describe("The admission policy for instances", func() {
	const identity = `[{name: A, value: a}, {name: DORY_INSTANCE, value: vision/dory-cam-x7k2}]`

	DescribeTable("refuses a pod that carries another's identity", func(ctx context.Context, name string, options ...client.CreateOption) {
		because := []string{"this pod is a copy of vision/dory-cam-x7k2", "only the operator makes its pods", "kubectl debug -it dory-cam-x7k2 --image=IMAGE --target=processor"}
		Expect(admin.Create(ctx, object(podWith(name, identity)), options...)).To(refusedBecause(because...))
	},
		Entry("under another name, as kubectl debug --copy-to makes it", "debug"),
		Entry("under the same name, as a backup restores it", "dory-cam-x7k2"),
		Entry("in a dry run, which tells what would happen", "debug", client.DryRunAll),
	)

	It("lets the operator make the pod", func(ctx context.Context) {
		Eventually(func() error {
			return operator.Create(ctx, object(podWith("dory-cam-x7k2", identity)), client.DryRunAll)
		}).WithTimeout(timeToSettle).Should(Or(Succeed(), refusedBecause("no API token found for service account")))
	})

	DescribeTable("leaves other pods alone", func(ctx context.Context, env string) {
		Eventually(func() error {
			return admin.Create(ctx, object(podWith("other", env)), client.DryRunAll)
		}).WithTimeout(timeToSettle).Should(Or(Succeed(), refusedBecause("no API token found for service account")))
	},
		Entry("without an environment", "[]"),
		Entry("of another operator", `[{name: PROCESSOR_ID, value: cam}, {name: DORY_EPOCH, value: "1"}]`),
		Entry("that were made without Dory from one of Dory's", `[{name: DORY_INSTANCE, value: ""}]`),
		Entry("that take the value from elsewhere", `[{name: DORY_INSTANCE, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]`),
	)

	It("refuses a pod whose identity is set twice", func(ctx context.Context) {
		obj := podWith("debug", `[{name: DORY_INSTANCE, value: ""}, {name: DORY_INSTANCE, value: vision/dory-cam-x7k2}]`)
		Expect(admin.Create(ctx, object(obj))).To(refusedBecause("a copy of vision/dory-cam-x7k2"))
	})
})

// create makes the object as the operator, who may make any, and deletes it after the test.
func create(ctx context.Context, manifest string) *unstructured.Unstructured {
	GinkgoHelper()
	obj := object(manifest)
	Expect(operator.Create(ctx, obj)).To(Succeed())
	DeferCleanup(func(ctx context.Context) {
		obj.SetFinalizers(nil)
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		Expect(client.IgnoreNotFound(operator.Patch(ctx, obj, patch))).To(Succeed())
		Expect(client.IgnoreNotFound(operator.Delete(ctx, obj))).To(Succeed())
	})
	return obj
}
