package dbsync

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// The policy dory-database-owned refuses every edit of such an object by a person and points to the row, so the row must be enough.
var _ = Describe("an object of a row that cannot be decoded", func() {
	It("is written again from its row, with what the row does not name, and stays the same object", func(ctx context.Context) {
		w := newWorld(postgres)
		w.rows("cam", "other")
		w.run(patient)
		w.settled(2)
		before := w.mustProcessor("cam")
		loosen(ctx, "state", "checkpointInterval")
		spoil(ctx, before, `{"spec":{"state":{"checkpointInterval":"1d"}}}`)
		Eventually(func(g Gomega) {
			after, err := w.processor("cam")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(after.UID).To(Equal(before.UID))
			g.Expect(after.DeletionTimestamp).To(BeNil())
			g.Expect(after.ResourceVersion).NotTo(Equal(before.ResourceVersion))
			g.Expect(after.Spec).To(Equal(before.Spec))
		}).Should(Succeed())
		Expect(w.syncError("cam")).To(BeEmpty())

		By("its row cannot be applied, and then can")
		w.exec(`UPDATE processors SET k8s_namespace = 'elsewhere' WHERE id = 'cam'`)
		Eventually(func() string { return w.syncError("cam") }).Should(ContainSubstring("its state would stay behind"))
		spoil(ctx, before, `{"spec":{"state":{"checkpointInterval":"1d"}}}`)
		Eventually(func() string { return w.syncError("cam") }).Should(ContainSubstring("cannot be decoded (spec.state.checkpointInterval"))
		w.exec(`UPDATE processors SET k8s_namespace = $1 WHERE id = 'cam'`, w.namespace)
		Eventually(func(g Gomega) {
			after, err := w.processor("cam")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(after.UID).To(Equal(before.UID))
			g.Expect(after.Spec).To(Equal(before.Spec))
			g.Expect(w.syncError("cam")).To(BeEmpty())
		}).Should(Succeed())
	})
})

// loosen has the API server take anything in a field of a Processor's spec, as an older CRD might, until the test ends.
func loosen(ctx context.Context, path ...string) {
	GinkgoHelper()
	get := func(ctx context.Context) *unstructured.Unstructured {
		crd := &unstructured.Unstructured{}
		crd.SetAPIVersion("apiextensions.k8s.io/v1")
		crd.SetKind("CustomResourceDefinition")
		Expect(direct.Get(ctx, types.NamespacedName{Name: "processors.dory.io"}, crd)).To(Succeed())
		return crd
	}
	strict := get(ctx)
	loose := strict.DeepCopy()
	versions, _, err := unstructured.NestedSlice(loose.Object, "spec", "versions")
	Expect(err).NotTo(HaveOccurred())
	field := []string{"schema", "openAPIV3Schema", "properties", "spec"}
	for _, step := range path {
		unstructured.RemoveNestedField(versions[0].(map[string]any), append(append([]string{}, field...), "x-kubernetes-validations")...)
		field = append(field, "properties", step)
	}
	Expect(unstructured.SetNestedMap(versions[0].(map[string]any), map[string]any{"x-kubernetes-preserve-unknown-fields": true}, field...)).To(Succeed())
	Expect(unstructured.SetNestedSlice(loose.Object, versions, "spec", "versions")).To(Succeed())
	Expect(direct.Update(ctx, loose)).To(Succeed())
	DeferCleanup(func(ctx context.Context) {
		strict.SetResourceVersion(get(ctx).GetResourceVersion())
		Expect(direct.Update(ctx, strict)).To(Succeed())
	})
}

// spoil patches a Processor, once the API server takes that.
func spoil(ctx context.Context, p *doryv1alpha1.Processor, patch string) {
	GinkgoHelper()
	Eventually(func() error {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(doryv1alpha1.GroupVersion.WithKind("Processor"))
		o.SetNamespace(p.Namespace)
		o.SetName(p.Name)
		return direct.Patch(ctx, o, client.RawPatch(types.MergePatchType, []byte(patch)))
	}).Should(Succeed())
}
