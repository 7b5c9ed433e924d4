//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

// uninstalled are operators whose rights were deleted with them, and who may have said so.
var uninstalled = map[string]bool{}

var _ = Describe("Uninstalling", Serial, func() {
	It("loses nothing, whether by kubectl or by make, with a purge and without a database", func(ctx context.Context) {
		namespace := newNamespace(ctx)
		DeferCleanup(func(ctx context.Context) {
			target(ctx, "install")
			connect(ctx)
			operatorsAreApartAgain(ctx) // A rollout may leave both on one node.
		})
		stays, ends := settle(ctx, kept(counter(namespace, "stays"))), settle(ctx, kept(counter(namespace, "ends")))

		By("kubectl delete -k config/default, with processors running")
		noteOperators(ctx)
		kubectl(ctx, "", "delete", "-k", config("default"))
		stays.staysPut(ctx)
		for range 2 { // An error makes people try again.
			Expect(kubectlRefused(ctx, "delete", "-k", config("foundation"))).To(ContainSubstring("crd processors.dory.io is kept"))
		}

		By("a processor ends meanwhile, and saves its state")
		Expect(k8s.Delete(ctx, podOf(namespace, ends.first.Pod))).To(Succeed())
		Eventually(func(g Gomega) { g.Expect(savedSequence(ctx, g, ends.key)).To(Equal(lastOf(ends.book.chapters()[0]).N)) }).
			WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())

		By("Dory is installed again")
		kubectl(ctx, "", "apply", "--server-side", "-k", config("guard"))
		kubectl(ctx, "", "apply", "--server-side", "-k", config("foundation"))
		kubectl(ctx, "", "apply", "--server-side", "-k", config("default"))
		operatorsAreWell(ctx)
		second := ends.worksOn(ctx, ends.first.Epoch)
		ends.book.isWhole(ctx)
		stays.staysPut(ctx)
		checkpointed(ctx, stays.key, lastOf(stays.book.chapters()[0]).N)

		By("make uninstall refuses while there are Processors")
		Expect(makeRefused(ctx, "uninstall")).To(And(ContainSubstring(stays.key.String()), ContainSubstring("PROCESSORS=delete ends them")))

		By("make uninstall PROCESSORS=delete PURGE=1")
		noteOperators(ctx)
		target(ctx, "uninstall", "PROCESSORS=delete", "PURGE=1")
		Expect(kubectl(ctx, "", "get", "crd", "-o", "name")).NotTo(ContainSubstring("dory.io"))
		for _, s := range []subject{stays, ends} {
			chapters := s.book.chapters()
			Expect(savedSequence(ctx, Default, s.key)).To(Equal(lastOf(chapters[len(chapters)-1]).N), "its state is what it did last")
		}

		By("Dory is installed again, without a database, and the processor applied again")
		target(ctx, "install")
		operatorsAreWell(ctx)
		again := kept(counter(namespace, "ends"))
		again.Name = ends.key.Name
		Expect(k8s.Create(ctx, again)).To(Succeed())
		third := ends.worksOn(ctx, second.Epoch)
		ends.book.isWhole(ctx)

		By("the database comes, and the operators take it up by themselves")
		connect(ctx)
		Eventually(func(g Gomega) {
			g.Expect(ask[string](ctx, g, `SELECT concat_ws(' ', phase, pod_name) FROM processors WHERE id = $1`, ends.key.Name)).To(Equal("Running " + third.Pod))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	})
})

func config(part string) string { return filepath.Join("..", "..", "config", part) }

// connect creates the database's Secret, if it is not there.
func connect(ctx context.Context) {
	GinkgoHelper()
	secret := &corev1.Secret{StringData: map[string]string{"url": os.Getenv("DORY_DATABASE_URL")}}
	secret.Namespace, secret.Name = operatorNamespace, "dory-database"
	if err := k8s.Get(ctx, client.ObjectKeyFromObject(secret), secret); err != nil {
		Expect(k8s.Create(ctx, secret)).To(Succeed())
	}
}

func noteOperators(ctx context.Context) {
	GinkgoHelper()
	for _, pod := range operators(ctx, Default) {
		uninstalled[pod.Name] = true
	}
}

// savedSequence is how many iterations are in the state that the processor's ConfigMap has.
func savedSequence(ctx context.Context, g Gomega, key client.ObjectKey) int64 {
	p := &doryv1alpha1.Processor{}
	p.Namespace, p.Name = key.Namespace, key.Name
	metadata, err := statexfer.DecodeMetadata([]byte(stateConfigMap(ctx, g, p).Data[statexfer.ConfigMapKey]))
	g.Expect(err).NotTo(HaveOccurred())
	return metadata.Sequence
}

// target runs a target of the Makefile as a person would, and answers what it prints.
func target(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := makefile(ctx, args...)
	Expect(err).NotTo(HaveOccurred(), out)
	return out
}

func makeRefused(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := makefile(ctx, args...)
	Expect(err).To(HaveOccurred(), out)
	return out
}

func makefile(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "make", append([]string{"--no-print-directory"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
