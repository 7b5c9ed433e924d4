package manifests

import (
	"context"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/controller/databasesecret"
)

var _ = Describe("config/foundation", func() {
	crd := func(name string) client.Object {
		return named(apiextensionsv1.SchemeGroupVersion.String(), "CustomResourceDefinition", name)
	}
	role := func(name string) client.Object { return named(rbacv1.SchemeGroupVersion.String(), "ClusterRole", name) }
	namespace := func(name string) client.Object { return named("v1", "Namespace", name) }

	It("can be applied again and changes nothing", func() {
		out, err := kubectl("diff", "--server-side", "-k", filepath.Join(configDir, "foundation"))
		Expect(err).NotTo(HaveOccurred(), out)
	})

	It("has all that must outlive the operator, and config/default has none of it", func() {
		stays, err := kubectl("kustomize", filepath.Join(configDir, "foundation"))
		Expect(err).NotTo(HaveOccurred(), stays)
		goes := build(defaultKustomization())
		for _, what := range []string{"kind: CustomResourceDefinition", "kind: Namespace\n", "name: dory-processor\n"} {
			Expect(stays).To(ContainSubstring(what))
			Expect(goes).NotTo(ContainSubstring(what))
		}
		guard, err := kubectl("kustomize", filepath.Join(configDir, "guard"))
		Expect(err).NotTo(HaveOccurred(), guard)
		Expect(guard).To(ContainSubstring("name: dory-deletion-guard"))
		Expect(stays+goes).NotTo(ContainSubstring("dory-deletion-guard"), "or it is deleted with what it guards")
		stays += "\n---\n" + guard
		Expect(strings.Count(stays, "argocd.argoproj.io/sync-options: Prune=false,Delete=false")).
			To(Equal(strings.Count(stays, "\n---\n")+1), "tools that prune leave each of them alone")
	})

	It("follows another namespace", func() {
		out := build("namespace: elsewhere\nresources: [../foundation]\n")
		Expect(out).To(ContainSubstring("name: elsewhere"))
		Expect(out).NotTo(ContainSubstring("dory-system"))
	})

	DescribeTable("lets no one delete, unless asked for,",
		func(ctx context.Context, object client.Object, says ...string) {
			Expect(admin.Delete(ctx, object, client.DryRunAll)).To(refusedBecause(append(says, "is kept", "dory.io/deletion-approved=true", "kubectl delete -k config/default")...))
			Expect(operator.Delete(ctx, object, client.DryRunAll)).To(refusedBecause("is kept"))

			annotate := func(ctx context.Context, value string) {
				patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"dory.io/deletion-approved":`+value+`}}}`))
				Expect(admin.Patch(ctx, object.DeepCopyObject().(client.Object), patch)).To(Succeed())
			}
			DeferCleanup(annotate, "null") // With a context of its own: that of the spec has ended by then.
			annotate(ctx, `"no"`)
			Expect(admin.Delete(ctx, object, client.DryRunAll)).To(refusedBecause("is kept"))
			annotate(ctx, `"true"`)
			Expect(admin.Delete(ctx, object, client.DryRunAll)).To(Succeed())
		},
		Entry("Processors", crd("processors.dory.io"), "crd processors.dory.io", "all processors of the cluster would be deleted"),
		Entry("epochs", crd("processorepochs.dory.io"), "all processorepochs"),
		Entry("moves", crd("processormigrations.dory.io"), "all processormigrations"),
		Entry("edge nodes", crd("edgenodes.dory.io"), "all edgenodes"),
		Entry("the right to save", role("dory-processor"), "clusterrole dory-processor", "no running processor can save its state"),
		Entry("the operator's namespace", namespace("dory-system"), "namespace dory-system", "the key by which the operator reads the state"),
	)

	It("lets no one delete all CRDs at once, and keeps no one from deleting other CRDs", func(ctx context.Context) {
		all := &unstructured.Unstructured{}
		all.SetAPIVersion(apiextensionsv1.SchemeGroupVersion.String())
		all.SetKind("CustomResourceDefinition")
		Expect(admin.DeleteAllOf(ctx, all, client.DryRunAll)).To(refusedBecause("is kept"))
		for _, theirs := range []client.Object{role("dory-view"), role("system:heapster"), namespace("kube-node-lease")} {
			Expect(client.IgnoreNotFound(admin.Delete(ctx, theirs, client.DryRunAll))).To(Succeed(), theirs.GetName())
		}
	})

	It("survives being deleted as it was applied, twice, with a word for each of them", func() {
		DeferCleanup(func() {
			out, err := kubectl("apply", "--server-side", "-k", filepath.Join(configDir, "foundation"))
			Expect(err).NotTo(HaveOccurred(), out)
		})
		for range 2 { // An error makes people try again.
			out, err := kubectl("delete", "-k", filepath.Join(configDir, "foundation"))
			Expect(err).To(HaveOccurred())
			for _, name := range []string{"crd processors.dory.io", "crd processorepochs.dory.io", "crd processormigrations.dory.io", "crd edgenodes.dory.io", "clusterrole dory-processor", "namespace dory-system"} {
				Expect(out).To(ContainSubstring(name + " is kept"))
			}
			// The API server would enforce a policy that is gone for a moment longer, so what is refused right after it proves nothing.
			out, err = kubectl("get", "validatingadmissionpolicy/dory-deletion-guard", "validatingadmissionpolicybinding/dory-deletion-guard")
			Expect(err).NotTo(HaveOccurred(), out)
			for _, what := range []string{"crd -o jsonpath={.items[*].metadata.deletionTimestamp}", "namespace dory-system -o jsonpath={.metadata.deletionTimestamp}"} {
				out, err = kubectl(append([]string{"get"}, strings.Fields(what)...)...)
				Expect(err).NotTo(HaveOccurred(), out)
				Expect(out).To(BeEmpty())
			}
		}
	})

	It("lets config/default be deleted as it was applied", func() {
		out, err := kubectl("delete", "--dry-run=server", "-k", filepath.Join(configDir, "default"))
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(out).NotTo(Or(ContainSubstring("customresourcedefinition"), ContainSubstring(`namespace "`), ContainSubstring("dory-processor")))
	})
})

var _ = Describe("A Secret dory-database that comes after the operator has started", func() {
	It("has the Deployment start anew, once for each URL, by the operator's own rights", func(ctx context.Context) {
		as := rest.CopyConfig(testEnv.Config)
		as.Impersonate = rest.ImpersonationConfig{UserName: operatorUser, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
		c, err := client.New(as, client.Options{})
		Expect(err).NotTo(HaveOccurred())
		follower := &databasesecret.Follower{Secrets: c, Client: c, Reader: c, Namespace: "dory-system"}
		follow := func() (annotation string, generation int64) {
			GinkgoHelper()
			Eventually(func() error { // RBAC may be a moment late.
				_, err := follower.Reconcile(ctx, ctrl.Request{})
				return err
			}).WithContext(ctx).Should(Succeed())
			deployment := &appsv1.Deployment{}
			Expect(admin.Get(ctx, client.ObjectKey{Namespace: "dory-system", Name: databasesecret.DeploymentName}, deployment)).To(Succeed())
			return deployment.Spec.Template.Annotations[databasesecret.Annotation], deployment.Generation
		}
		before, generation := follow()
		Expect(before).To(BeEmpty(), "without a Secret nothing happens")
		Expect(databasesecret.Required(ctx, c, "dory-system")).To(Succeed())

		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "dory-system", Name: databasesecret.SecretName}, StringData: map[string]string{"url": "postgres://a"}}
		Expect(admin.Create(ctx, secret)).To(Succeed())
		DeferCleanup(admin.Delete, secret)
		first, restarted := follow()
		Expect(first).NotTo(BeEmpty())
		Expect(first).NotTo(ContainSubstring("postgres"), "the URL may hold a password")
		Expect(restarted).To(Equal(generation + 1))
		_, again := follow()
		Expect(again).To(Equal(restarted), "asked for once")

		By("the new process has the URL, and the Secret is touched")
		follower.URL = "postgres://a"
		secret.Labels = map[string]string{"team": "vision"}
		Expect(admin.Update(ctx, secret)).To(Succeed())
		var same string
		same, again = follow()
		Expect(same).To(Equal(first), "the pods stay")
		restarted = again // The record alone makes a Deployment another.
		_, again = follow()
		Expect(again).To(Equal(restarted))

		By("it says that there is a database, for an operator that starts without its URL")
		DeferCleanup(func() {
			out, err := kubectl("-n", "dory-system", "annotate", "deployment", "dory-operator", "dory.io/database-")
			Expect(err).NotTo(HaveOccurred(), out)
		})
		Expect(databasesecret.Required(ctx, c, "dory-system")).To(MatchError(And(
			ContainSubstring("create the Secret again"), ContainSubstring("kubectl -n dory-system annotate deployment dory-operator dory.io/database-"),
		)))

		By("the URL changes")
		secret.StringData = map[string]string{"url": "postgres://b\n"}
		Expect(admin.Update(ctx, secret)).To(Succeed())
		second, again := follow()
		Expect(second).NotTo(Equal(first))
		Expect(again).To(Equal(restarted + 1))

		By("the Secret is emptied, which is no reason to give the database up")
		secret.Data, secret.StringData = map[string][]byte{}, nil
		Expect(admin.Update(ctx, secret)).To(Succeed())
		_, last := follow()
		Expect(last).To(Equal(again))
	})
})

func named(apiVersion, kind, name string) client.Object {
	object := &unstructured.Unstructured{}
	object.SetAPIVersion(apiVersion)
	object.SetKind(kind)
	object.SetName(name)
	return object
}
