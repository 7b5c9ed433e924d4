//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/docs/markdown"
)

const (
	// timeToFollow bounds one document, of which each wait has a timeout of its own.
	timeToFollow = 5 * time.Minute
	// timeToWatch is for how long a newcomer looks at what does not end.
	timeToWatch = 4 * time.Second
)

// The README drains a node, and so nothing else may count on where it is.
var _ = Describe("The documents, followed to the letter", Serial, func() {
	It("lead through README's first processor, move, drain, live update and row", func(ctx context.Context) {
		willGo(ctx, "first")
		DeferCleanup(func(ctx context.Context) {
			execute(ctx, `DELETE FROM processors WHERE k8s_namespace = 'first'`)
			execute(ctx, `DELETE FROM processor_templates WHERE id = 'greeter'`)
		})
		DeferCleanup(func(ctx context.Context) {
			for _, node := range []string{cloudNode, otherCloudNode} {
				uncordon(ctx, node)
			}
			operatorsAreApartAgain(ctx)
			approveDeletions(ctx, "first")
		})
		follow(ctx, "README.md")
		Eventually(func(g Gomega) {
			found := list[doryv1alpha1.ProcessorList](ctx, g, "first").Items
			g.Expect(found).To(HaveLen(2))
			for _, p := range found {
				g.Expect(p.Status.Phase).To(Equal(doryv1alpha1.ProcessorRunning), "%s: %+v", p.Name, p.Status)
			}
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	}, NodeTimeout(2*timeToFollow))

	It("lead through the SDK's README to a processor of one's own, and to its next version", func(ctx context.Context) {
		willGo(ctx, "mine")
		printed := follow(ctx, "sdk/README.md")
		Expect(printed).To(ContainSubstring("count 1\n"))
		By("what the first version counted is what the second goes on with")
		Eventually(func(g Gomega) {
			p := get(ctx, g, client.ObjectKey{Namespace: "mine", Name: "mine"})
			g.Expect(p.Status.Instance).NotTo(BeNil())
			log, err := clientset.CoreV1().Pods("mine").GetLogs(p.Status.Instance.Pod, &corev1.PodLogOptions{}).DoRaw(ctx)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(string(log)).To(ContainSubstring("counter "))
			g.Expect(string(log)).NotTo(MatchRegexp(`counter 1\n`), "it began anew")
		}).WithContext(ctx).Should(Succeed())
	}, NodeTimeout(2*timeToFollow))

	It("have samples that run as they are", func(ctx context.Context) {
		out, err := shell(ctx, "kubectl apply --server-side -k config/samples")
		DeferCleanup(func(ctx context.Context) {
			out, err := shell(ctx, "kubectl delete -k config/samples --ignore-not-found --wait=true --timeout=90s; "+
				"kubectl delete processorepoch --all; kubectl delete configmap --field-selector metadata.name!=kube-root-ca.crt")
			Expect(err).NotTo(HaveOccurred(), out)
		})
		Expect(err).NotTo(HaveOccurred(), out)
		out, err = shell(ctx, "kubectl wait --for=condition=Ready --timeout=120s processor --all && kubectl wait --for=condition=Succeeded --timeout=60s procmig --all")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(strings.Count(out, "condition met")).To(BeNumerically(">=", 10), out)
	}, NodeTimeout(timeToFollow))
})

// willGo removes a namespace that a document makes, and everything in it, after the test.
func willGo(ctx context.Context, name string) {
	GinkgoHelper()
	Expect(client.IgnoreNotFound(k8s.Get(ctx, client.ObjectKey{Name: name}, &corev1.Namespace{}))).To(Succeed())
	DeferCleanup(func(ctx context.Context) {
		Expect(client.IgnoreNotFound(k8s.DeleteAllOf(ctx, &doryv1alpha1.Processor{}, client.InNamespace(name)))).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(list[corev1.PodList](ctx, g, name).Items).To(BeEmpty())
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, namespace))).To(Succeed())
		isGone(ctx, namespace)
		execute(ctx, `DELETE FROM processors WHERE k8s_namespace = $1`, name)
	})
}

// follow does all that the document tells to, from a checkout of this repository, and returns what was to be seen.
func follow(ctx context.Context, path string) string {
	GinkgoHelper()
	doc, err := markdown.Read(filepath.Join("..", ".."), path)
	Expect(err).NotTo(HaveOccurred())
	script := markdown.Walkthrough(doc, timeToWatch, true)
	Expect(script).NotTo(BeEmpty())
	out, err := shell(ctx, script)
	Expect(err).NotTo(HaveOccurred(), out)
	return out
}

// shell runs a script where a reader of the documents would: in the root of the repository, with kubectl at hand, and a home to
// make folders in.
func shell(ctx context.Context, script string) (string, error) {
	GinkgoHelper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	Expect(err).NotTo(HaveOccurred())
	caches, err := exec.CommandContext(ctx, "go", "env", "GOPATH", "GOCACHE", "GOMODCACHE").Output()
	Expect(err).NotTo(HaveOccurred())
	paths := strings.Fields(string(caches))
	Expect(paths).To(HaveLen(3))
	home, err := os.MkdirTemp("", "reader-") // The test's own would be another clean-up, which a clean-up must not ask for.
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = os.RemoveAll(home) }()
	ctx, cancel := context.WithTimeout(ctx, timeToFollow)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-O", "expand_aliases")
	command.Dir = root
	command.Stdin = strings.NewReader(script)
	command.Env = append(os.Environ(), "HOME="+home, "PATH="+filepath.Join(root, "bin", "k8s")+":"+os.Getenv("PATH"),
		"GOPATH="+paths[0], "GOCACHE="+paths[1], "GOMODCACHE="+paths[2])
	out, err := command.CombinedOutput()
	GinkgoWriter.Println(string(out))
	return string(out), err
}
