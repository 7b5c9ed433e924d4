//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("A copy of a processor's pod", func() {
	It("is refused and, where it gets in all the same, does not act", func(ctx context.Context) {
		namespace := newNamespace(ctx)
		p := counter(namespace, "copied")
		book := keepJournal(client.ObjectKeyFromObject(p))
		original := start(ctx, p)
		book.worked(ctx, original.Pod)
		pod := podIn(ctx, original.Pod, namespace)

		By("asking kubectl debug for a copy")
		Expect(kubectlRefused(ctx, "-n", namespace, "debug", original.Pod, "--copy-to=debug", "--image="+counterImage, "--set-image=*="+counterImage, "--attach=false")).
			To(And(ContainSubstring("this pod is a copy of "+namespace+"/"+original.Pod), ContainSubstring("--target=processor")))
		By("making a pod from the exported manifest")
		exported := filepath.Join(GinkgoT().TempDir(), "exported.yaml")
		writeManifest(exported, copyOf(pod, "dory-"+p.Name+"-exported", nil))
		Expect(kubectlRefused(ctx, "create", "-f", exported)).To(ContainSubstring("only the operator makes its pods"))

		By("making copies that no admission refuses")
		copies := []*corev1.Pod{
			copyOf(pod, "dory-"+p.Name+"-debug", nil),
			copyOf(pod, "dory-"+p.Name+"-labeled", map[string]string{doryv1alpha1.LabelEpoch: pod.Labels[doryv1alpha1.LabelEpoch]}),
		}
		for _, c := range copies {
			Expect(asOperator().Create(ctx, c)).To(Succeed())
		}
		for _, c := range copies {
			says := "this pod is " + namespace + "/" + c.Name + ", a copy of " + namespace + "/" + original.Pod
			Eventually(func() string { return kubectl(ctx, "", "-n", namespace, "logs", "--ignore-errors", c.Name) }).WithContext(ctx).WithTimeout(timeToRun).Should(ContainSubstring(says))
			Expect(podReady(podIn(ctx, c.Name, namespace))).To(BeFalse())
		}
		book.goesOnAlone(ctx, original.Pod)
		for _, c := range copies {
			Expect(k8s.Delete(ctx, c)).To(Succeed())
		}
		for _, c := range copies {
			isGone(ctx, c) // And has saved nothing, or the original could not.
		}
		Expect(k8s.Delete(ctx, podOf(namespace, original.Pod))).To(Succeed())
		next := runsAfter(ctx, client.ObjectKeyFromObject(p), original.Epoch)
		book.worked(ctx, next.Pod)
		book.isWhole(ctx)
	})
})

// goesOnAlone checks that the pod works on, and that no other has ever worked.
func (j journal) goesOnAlone(ctx context.Context, pod string) {
	GinkgoHelper()
	before := len(j.chapters()[0].iterations)
	Eventually(func(g Gomega) {
		chapters := j.chapters()
		g.Expect(chapters).To(HaveLen(1))
		g.Expect(chapters[0].pod).To(Equal(pod))
		g.Expect(len(chapters[0].iterations)).To(BeNumerically(">", before+10))
	}).WithContext(ctx).Should(Succeed())
}

// copyOf is what people make of a pod's manifest: without its node, its owner and what the API server has filled in.
func copyOf(pod *corev1.Pod, name string, labels map[string]string) *corev1.Pod {
	spec := pod.Spec.DeepCopy()
	spec.NodeName = ""
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: name, Labels: labels, Annotations: pod.Annotations},
		Spec:       *spec,
	}
}

func writeManifest(path string, object any) {
	GinkgoHelper()
	text, err := yaml.Marshal(object)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(path, text, 0o600)).To(Succeed())
}

// asOperator is the administrator under the operator's name, which the admission policies let make any pod.
func asOperator() client.Client {
	GinkgoHelper()
	config, err := ctrl.GetConfig()
	Expect(err).NotTo(HaveOccurred())
	config.Impersonate.UserName = "system:serviceaccount:" + operatorNamespace + ":dory-operator"
	config.Impersonate.Groups = []string{"system:masters"}
	c, err := client.New(config, client.Options{Scheme: k8s.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	return c
}
