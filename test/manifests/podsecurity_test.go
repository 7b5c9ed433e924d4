package manifests

import (
	"context"
	"os"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	dorypod "github.com/dory-io/dory/internal/pod"
)

var _ = Describe("A namespace that enforces Pod Security restricted", func() {
	It("takes a processor with the fragment of docs/install.md, and none without", func(ctx context.Context) {
		Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "strict", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
		}})).To(Succeed())
		Expect(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "strict", Name: "dory-processor"}})).To(Succeed())
		text, err := os.ReadFile("../../docs/install.md")
		Expect(err).NotTo(HaveOccurred())
		_, fragment, found := strings.Cut(string(text), "### Pod Security\n")
		Expect(found).To(BeTrue())
		_, fragment, found = strings.Cut(fragment, "```yaml\nspec:\n")
		Expect(found).To(BeTrue())
		fragment, _, _ = strings.Cut(fragment, "```")

		try := func(spec string) error {
			GinkgoHelper()
			o := create(ctx, "apiVersion: dory.io/v1alpha1\nkind: Processor\nmetadata: {name: strict, namespace: default}\nspec:\n  image: example/camera:1\n"+spec)
			p := &doryv1alpha1.Processor{}
			Expect(typed.Get(ctx, client.ObjectKeyFromObject(o), p)).To(Succeed())
			Expect(admin.Delete(ctx, o)).To(Succeed())
			p.Namespace = "strict"
			pod, err := dorypod.Build(dorypod.Input{Processor: p, Name: "dory-strict-1", Epoch: 1})
			Expect(err).NotTo(HaveOccurred())
			return operator.Create(ctx, pod, client.DryRunAll)
		}
		Expect(try("")).To(MatchError(And(ContainSubstring("restricted"), ContainSubstring("runAsNonRoot"))))
		Expect(try(fragment)).To(Succeed())
	})
})
