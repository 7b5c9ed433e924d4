package manifests

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	dorypod "github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/webhook"
)

var _ = Describe("config/default", func() {
	It("can be applied again and changes nothing", func() {
		out, err := kubectl("diff", "--server-side", "-k", filepath.Join(configDir, "default"))
		Expect(err).NotTo(HaveOccurred(), out)
	})

	It("runs two hardened replicas that the namespace's Pod Security admits", func(ctx context.Context) {
		deployment := &appsv1.Deployment{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: "dory-system", Name: "dory-operator"}, deployment)).To(Succeed())
		Expect(deployment.Spec.Replicas).To(HaveValue(BeEquivalentTo(2)))

		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "dory-operator-", Namespace: "dory-system", Labels: deployment.Spec.Template.Labels},
			Spec:       deployment.Spec.Template.Spec,
		}
		Expect(admin.Create(ctx, pod, client.DryRunAll)).To(Succeed())
		Expect(pod.Spec.Priority).To(HaveValue(BeEquivalentTo(1000000000)))
		container := pod.Spec.Containers[0]
		Expect(container.SecurityContext.ReadOnlyRootFilesystem).To(HaveValue(BeTrue()))
		Expect(container.Env[0].ValueFrom.SecretKeyRef.Optional).To(HaveValue(BeTrue()), "the operator starts without a database")
	})

	It("has the API server queue the operator's requests with those of Kubernetes' own controllers", func(ctx context.Context) {
		schema := &flowcontrolv1.FlowSchema{}
		Expect(admin.Get(ctx, client.ObjectKey{Name: "dory-operator"}, schema)).To(Succeed())
		level := &flowcontrolv1.PriorityLevelConfiguration{}
		Expect(admin.Get(ctx, client.ObjectKey{Name: "workload-high"}, level)).To(Succeed())
		as := rest.CopyConfig(testEnv.Config)
		as.Impersonate = rest.ImpersonationConfig{UserName: operatorUser, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
		requests, err := rest.HTTPClientFor(as)
		Expect(err).NotTo(HaveOccurred())
		Eventually(func(g Gomega) { // The API server reads its own FlowSchemas a moment later.
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, as.Host+"/api/v1/nodes?limit=1", http.NoBody)
			g.Expect(err).NotTo(HaveOccurred())
			answer, err := requests.Do(request)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(answer.Body.Close()).To(Succeed())
			g.Expect(answer.Header.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID)).To(BeEquivalentTo(schema.UID))
			g.Expect(answer.Header.Get(flowcontrolv1.ResponseHeaderMatchedPriorityLevelConfigurationUID)).To(BeEquivalentTo(level.UID))
		}).WithContext(ctx).WithTimeout(30 * time.Second).Should(Succeed())
	})

	It("takes config/headroom, whose pods keep room for others as the operator understands it", func(ctx context.Context) {
		out, err := kubectl("apply", "--server-side", "-k", filepath.Join(configDir, "headroom"))
		Expect(err).NotTo(HaveOccurred(), out)
		DeferCleanup(func() { _, _ = kubectl("delete", "-k", filepath.Join(configDir, "headroom")) }) // The suite's server ends, too.

		deployment := &appsv1.Deployment{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: "dory-system", Name: "dory-headroom"}, deployment)).To(Succeed())
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "dory-headroom-", Namespace: "dory-system", Labels: deployment.Spec.Template.Labels},
			Spec:       deployment.Spec.Template.Spec,
		}
		Expect(admin.Create(ctx, pod, client.DryRunAll)).To(Succeed(), "the namespace's Pod Security admits it")
		Expect(pod.Spec.Priority).To(HaveValue(BeEquivalentTo(-10)))
		Expect(pod.Labels).To(HaveKeyWithValue(doryv1alpha1.LabelPlaceholder, "true"))
		Expect(pod.Spec.SchedulerName).To(Equal("dory-scheduler"))

		processor := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "cam"}, Spec: doryv1alpha1.ProcessorSpec{
			Image: "counter:1", Location: doryv1alpha1.LocationManaged, Probes: doryv1alpha1.ProcessorProbes{PeriodSeconds: 10},
		}}
		placed, err := dorypod.Build(dorypod.Input{Processor: processor, Name: "cam-1", Epoch: 1})
		Expect(err).NotTo(HaveOccurred())
		Expect(pod.Spec.NodeSelector).To(Equal(placed.Spec.NodeSelector), "the room is where a processor may go")
		Expect(pod.Spec.Affinity).To(Equal(placed.Spec.Affinity))
	})

	DescribeTable("gives the operator the right to",
		func(ctx context.Context, namespace, verb, group, resource, name string) {
			Expect(allowed(ctx, operatorUser, namespace, verb, group, resource, name)).To(BeTrue())
		},
		Entry("lead", "dory-system", "update", "coordination.k8s.io", "leases", ""),
		Entry("read processors", "", "watch", "dory.io", "processors", ""),
		Entry("write their status", "default", "patch", "dory.io", "processors/status", ""),
		Entry("issue epochs", "default", "create", "dory.io", "processorepochs", ""),
		Entry("start pods", "default", "create", "", "pods", ""),
		Entry("let a started pod know its role", "default", "patch", "", "pods", ""),
		Entry("ask for moves", "default", "create", "dory.io", "processormigrations", ""),
		Entry("keep a move from being forgotten", "default", "update", "dory.io", "processormigrations", ""),
		Entry("own a move without leave from others", "default", "update", "dory.io", "processormigrations/finalizers", ""),
		Entry("say how far a move is", "default", "update", "dory.io", "processormigrations/status", ""),
		Entry("collect ended moves", "default", "delete", "dory.io", "processormigrations", ""),
		Entry("store checkpoints", "default", "update", "", "configmaps", ""),
		Entry("remove the parts of old checkpoints", "default", "delete", "", "configmaps", ""),
		Entry("make the key of the state tokens", "dory-system", "create", "", "secrets", ""),
		Entry("read the key of the state tokens", "dory-system", "get", "", "secrets", "dory-state-token-key"),
		Entry("make and replace the webhook's certificate", "dory-system", "update", "", "secrets", "dory-webhook-cert"),
		Entry("hear of the webhook's certificate", "dory-system", "watch", "", "secrets", "dory-webhook-cert"),
		Entry("hear of the database's URL", "dory-system", "watch", "", "secrets", "dory-database"),
		Entry("start itself anew", "dory-system", "patch", "apps", "deployments", "dory-operator"),
		Entry("have the API server trust the webhook", "", "patch", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "dory-eviction"),
		Entry("give a namespace its state token", "default", "update", "", "secrets", "dory-state-token"),
		Entry("say what it does", "default", "create", "events.k8s.io", "events", ""),
		Entry("give processors their role", "default", "bind", "rbac.authorization.k8s.io", "clusterroles", "dory-processor"),
		Entry("watch ConfigMaps where it must", "default", "bind", "rbac.authorization.k8s.io", "clusterroles", "dory-config-watcher"),
	)

	DescribeTable("withholds from the operator the right to",
		func(ctx context.Context, namespace, verb, group, resource, name string) {
			Expect(allowed(ctx, operatorUser, namespace, verb, group, resource, name)).To(BeFalse())
		},
		Entry("lead elsewhere", "kube-system", "update", "coordination.k8s.io", "leases", ""),
		Entry("bind any role", "default", "bind", "rbac.authorization.k8s.io", "clusterroles", "cluster-admin"),
		Entry("escalate", "default", "escalate", "rbac.authorization.k8s.io", "clusterroles", "dory-processor"),
		Entry("change roles", "", "update", "rbac.authorization.k8s.io", "clusterroles", "dory-operator"),
		Entry("delete epochs", "default", "delete", "dory.io", "processorepochs", ""),
		Entry("run commands in pods", "default", "create", "", "pods/exec", ""),
		Entry("change nodes", "", "update", "", "nodes", ""),
		Entry("delete secrets", "default", "delete", "", "secrets", ""),
		Entry("read secrets", "default", "get", "", "secrets", "somebody-elses"),
		Entry("read the key of the state tokens anywhere else", "default", "get", "", "secrets", "dory-state-token-key"),
		Entry("read the webhook's key anywhere else", "default", "get", "", "secrets", "dory-webhook-cert"),
		Entry("hear of a database's URL anywhere else", "default", "get", "", "secrets", "dory-database"),
		Entry("start anything else anew", "dory-system", "patch", "apps", "deployments", "somebody-elses"),
		Entry("start anything anew anywhere else", "default", "patch", "apps", "deployments", "dory-operator"),
		Entry("change other webhooks", "", "patch", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "somebody-elses"),
		Entry("make webhooks", "", "create", "admissionregistration.k8s.io", "validatingwebhookconfigurations", ""),
		Entry("list the states of the cluster", "", "list", "", "configmaps", ""),
		Entry("let itself read secrets", "default", "bind", "rbac.authorization.k8s.io", "clusterroles", "dory-secret-watcher"),
	)

	It("gives processors their state, in the namespaces where they are bound, and nothing else", func(ctx context.Context) {
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "dory-processor", Namespace: "default"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "dory-processor"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "dory-processor", Namespace: "default"}},
		}
		Expect(admin.Create(ctx, binding)).To(Succeed())
		DeferCleanup(admin.Delete, binding)

		processor := "system:serviceaccount:default:dory-processor"
		Eventually(func() bool { return allowed(ctx, processor, "default", "get", "", "configmaps", "dory-state-x") }).Should(BeTrue())
		Expect(allowed(ctx, processor, "default", "patch", "", "configmaps", "dory-state-x")).To(BeTrue())
		Expect(allowed(ctx, processor, "default", "delete", "", "configmaps", "dory-state-x")).To(BeFalse())
		Expect(allowed(ctx, processor, "default", "get", "", "secrets", "")).To(BeFalse())
		Expect(allowed(ctx, processor, "kube-system", "get", "", "configmaps", "")).To(BeFalse())
	})

	DescribeTable("lets people in their namespace",
		func(ctx context.Context, role string, may, mayNot []string) {
			user := "jane-" + role
			binding := &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: user, Namespace: "default"},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
			}
			Expect(admin.Create(ctx, binding)).To(Succeed())
			DeferCleanup(admin.Delete, binding)
			for _, what := range may {
				verb, resource, _ := strings.Cut(what, " ")
				Eventually(func() bool { return allowed(ctx, user, "default", verb, "dory.io", resource, "") }).Should(BeTrue(), what)
				Expect(allowed(ctx, user, "kube-system", verb, "dory.io", resource, "")).To(BeFalse(), what+" elsewhere")
			}
			for _, what := range mayNot {
				verb, resource, _ := strings.Cut(what, " ")
				Expect(allowed(ctx, user, "default", verb, "dory.io", resource, "")).To(BeFalse(), what)
			}
		},
		Entry("watch moves as viewers", "dory-view",
			[]string{"get processors", "watch processormigrations", "list processorepochs"},
			[]string{"create processormigrations", "delete processormigrations", "update processors"}),
		Entry("ask for moves and cancel them as editors, but not say how they went", "dory-edit",
			[]string{"create processormigrations", "delete processormigrations", "update processors"},
			[]string{"update processormigrations/status", "patch processormigrations/status", "patch processors/status", "delete processorepochs"}),
		Entry("give up a fence as admins", "dory-admin", []string{"delete processorepochs"}, []string{"create processorepochs", "update processorepochs"}),
	)

	It("follows another namespace everywhere, the admission policies and the webhook included", func() {
		out := build(strings.Replace(defaultKustomization(), "namespace: dory-system", "namespace: elsewhere", 1))
		Expect(out).To(ContainSubstring("'system:serviceaccount:elsewhere:dory-operator'"))
		hook := webhookIn(out)
		Expect(hook.ClientConfig.Service.Namespace).To(Equal("elsewhere"))
		Expect(hook.NamespaceSelector.MatchExpressions[0].Values).To(ConsistOf("kube-system", "elsewhere"))
		Expect(out).NotTo(ContainSubstring("namespace: dory-system"))
		Expect(out).NotTo(ContainSubstring("serviceaccount:dory-system"))
	})

	It("follows another namespace as docs/install.md says it is set", func() {
		text, err := os.ReadFile("../../docs/install.md")
		Expect(err).NotTo(HaveOccurred())
		_, command, found := strings.Cut(string(text), "\n    sed -i ")
		Expect(found).To(BeTrue())
		command, _, _ = strings.Cut(command, "\n")
		checkout := GinkgoT().TempDir()
		Expect(os.CopyFS(filepath.Join(checkout, "config"), os.DirFS(configDir))).To(Succeed())
		sed := exec.CommandContext(GinkgoT().Context(), "bash", "-c", "sed -i "+command)
		sed.Dir = checkout
		output, err := sed.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(output))
		for _, part := range []string{"guard", "foundation", "default"} {
			out, err := kubectl("kustomize", filepath.Join(checkout, "config", part))
			Expect(err).NotTo(HaveOccurred(), out)
			Expect(out).NotTo(Or(ContainSubstring("namespace: dory-system"), ContainSubstring("serviceaccount:dory-system")), part)
			switch part {
			case "foundation":
				Expect(out).To(ContainSubstring("kind: Namespace\nmetadata:\n"))
				Expect(out).To(ContainSubstring("  name: elsewhere\n"))
			case "default":
				Expect(strings.Count(out, "'system:serviceaccount:elsewhere:dory-operator'")).To(Equal(4), "three policies and the webhook")
			}
		}
	})

	It("renders with the optional components", func() {
		out := build(strings.Replace(defaultKustomization(), "components: []", "components: [../networkpolicy, ../prometheus, ../webhook-ignore]", 1))
		Expect(out).To(ContainSubstring("kind: NetworkPolicy"))
		Expect(out).To(ContainSubstring("kind: ServiceMonitor"))
		Expect(webhookIn(out).FailurePolicy).To(HaveValue(Equal(admissionregistrationv1.Ignore)))
	})

	It("asks about evictions at a port that the operator serves, and about nothing that keeps the cluster alive", func(ctx context.Context) {
		configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
		Expect(admin.Get(ctx, client.ObjectKey{Name: "dory-eviction"}, configuration)).To(Succeed())
		hook := configuration.Webhooks[0]
		Expect(hook.FailurePolicy).To(HaveValue(Equal(admissionregistrationv1.Fail)))
		Expect(hook.SideEffects).To(HaveValue(Equal(admissionregistrationv1.SideEffectClassNoneOnDryRun)))
		Expect(hook.TimeoutSeconds).To(HaveValue(BeNumerically("<=", 5)))
		Expect(hook.NamespaceSelector.MatchExpressions[0].Values).To(ConsistOf("kube-system", "dory-system"))

		service, deployment := &corev1.Service{}, &appsv1.Deployment{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: hook.ClientConfig.Service.Namespace, Name: hook.ClientConfig.Service.Name}, service)).To(Succeed())
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: "dory-system", Name: "dory-operator"}, deployment)).To(Succeed())
		Expect(service.Spec.Ports[0].Port).To(Equal(*hook.ClientConfig.Service.Port))
		container := deployment.Spec.Template.Spec.Containers[0]
		Expect(container.Ports).To(ContainElement(And(
			HaveField("Name", service.Spec.Ports[0].TargetPort.StrVal),
			WithTransform(func(p corev1.ContainerPort) string { return fmt.Sprintf("--webhook-port=%d", p.ContainerPort) }, BeElementOf(container.Args)),
		)))
		Expect(container.Lifecycle.PreStop.HTTPGet).To(And(HaveField("Path", webhook.DeparturePath), HaveField("Port.StrVal", service.Spec.Ports[0].TargetPort.StrVal)),
			"a pod that ends is asked until every node knows")
		Expect(deployment.Spec.Template.Spec.Volumes).To(BeEmpty(), "kubectl drain refuses pods with an emptyDir")
	})

	It("ships network policies that the API server takes", func() {
		out, err := kubectl("apply", "--server-side", "--dry-run=server", "-f", filepath.Join(configDir, "networkpolicy", "default_deny_ingress.yaml"),
			"-f", filepath.Join(configDir, "networkpolicy", "allow_metrics.yaml"),
			"-f", filepath.Join(configDir, "networkpolicy", "allow_webhook.yaml"),
			"-f", filepath.Join(configDir, "networkpolicy", "processors.yaml"))
		Expect(err).NotTo(HaveOccurred(), out)
	})
})

// defaultKustomization is config/default as a user would edit it.
func defaultKustomization() string {
	GinkgoHelper()
	return readConfig("default", "kustomization.yaml")
}

func readConfig(path ...string) string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(append([]string{configDir}, path...)...))
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// build renders a kustomization as if it stood in config/default.
func build(kustomization string) string {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	config, err := filepath.Abs(configDir)
	Expect(err).NotTo(HaveOccurred())
	up, err := filepath.Rel(dir, config)
	Expect(err).NotTo(HaveOccurred())
	kustomization = strings.ReplaceAll(kustomization, "../", up+"/")
	Expect(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600)).To(Succeed())

	out, err := kubectl("kustomize", dir)
	Expect(err).NotTo(HaveOccurred(), out)
	return out
}

// webhookIn is the webhook of a rendered kustomization.
func webhookIn(rendered string) admissionregistrationv1.ValidatingWebhook {
	GinkgoHelper()
	for document := range strings.SplitSeq(rendered, "\n---\n") {
		if strings.Contains(document, "kind: ValidatingWebhookConfiguration") {
			configuration := admissionregistrationv1.ValidatingWebhookConfiguration{}
			Expect(yaml.UnmarshalStrict([]byte(document), &configuration)).To(Succeed())
			Expect(configuration.Webhooks).To(HaveLen(1))
			return configuration.Webhooks[0]
		}
	}
	Fail("no ValidatingWebhookConfiguration")
	return admissionregistrationv1.ValidatingWebhook{}
}

// allowed asks RBAC whether the user may do that. An empty namespace means everywhere.
func allowed(ctx context.Context, user, namespace, verb, group, resource, name string) bool {
	GinkgoHelper()
	resource, subresource, _ := strings.Cut(resource, "/")
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: verb, Group: group, Resource: resource, Subresource: subresource, Name: name,
		},
	}}
	Expect(admin.Create(ctx, review)).To(Succeed())
	return review.Status.Allowed
}
