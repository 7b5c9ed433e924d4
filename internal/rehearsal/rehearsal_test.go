package rehearsal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/dory-io/dory/internal/rehearsal"
)

var k8s client.Client

func TestRehearsal(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "rehearsal")
}

var _ = BeforeSuite(func() {
	scheme := runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	environment := &envtest.Environment{}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		environment.BinaryAssetsDirectory = filepath.Join("..", "..", "bin", "k8s")
	}
	// All of admission, as clusters have it; envtest leaves out the one of ServiceAccounts.
	environment.ControlPlane.GetAPIServer().Configure().Disable("disable-admission-plugins")
	apiServer, err := environment.Start()
	Expect(err).NotTo(HaveOccurred(), "envtest needs kube-apiserver and etcd: make envtest-binaries")
	DeferCleanup(environment.Stop)
	apiServer.QPS = -1
	k8s, err = client.New(apiServer, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
})

// place is a namespace with an instance that works.
type place struct {
	namespace string
	old       *corev1.Pod
}

func newPlace(labels map[string]string) *place {
	GinkgoHelper()
	ctx := context.Background()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "rehearsal-", Labels: labels}}
	Expect(k8s.Create(ctx, ns)).To(Succeed())
	for _, name := range []string{"default", "dory-processor"} {
		Expect(k8s.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: name}})).To(Succeed())
	}
	return &place{namespace: ns.Name}
}

// works makes the instance that is there already.
func (p *place) works() {
	GinkgoHelper()
	p.old = p.pod("old")
	Expect(k8s.Create(context.Background(), p.old)).To(Succeed())
	p.old.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}}
	Expect(k8s.Status().Update(context.Background(), p.old)).To(Succeed())
}

func (p *place) pod(name string, changes ...func(*corev1.PodSpec)) *corev1.Pod {
	one := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	made := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: "dory-processor",
			SecurityContext:    &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "processor", Image: "counter:1", Resources: corev1.ResourceRequirements{Requests: one.DeepCopy(), Limits: one},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
	for _, change := range changes {
		change(&made.Spec)
	}
	return made
}

func (p *place) rehearse(next *corev1.Pod) error {
	return rehearsal.Rehearsal{Client: k8s, Reader: k8s}.Replace(context.Background(), next, p.old)
}

func (p *place) quota(hard corev1.ResourceList, scopes ...corev1.ResourceQuotaScope) {
	GinkgoHelper()
	ctx := context.Background()
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, GenerateName: "q-"}, Spec: corev1.ResourceQuotaSpec{Hard: hard, Scopes: scopes}}
	Expect(k8s.Create(ctx, q)).To(Succeed())
	// The quota controller's part, which envtest has not: admission counts on from there.
	q.Status.Hard, q.Status.Used = hard, corev1.ResourceList{}
	for name := range hard {
		q.Status.Used[name] = resource.MustParse("0")
	}
	Expect(k8s.Status().Update(ctx, q)).To(Succeed())
}

func limits(cpu string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		s.Containers[0].Resources.Limits[corev1.ResourceCPU] = resource.MustParse(cpu)
		s.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
}

func refusal() OmegaMatcher {
	return WithTransform(rehearsal.Refused, BeTrue())
}

var _ = Describe("A rehearsal", func() {
	ctx := context.Background()
	same := func(*corev1.PodSpec) {}

	DescribeTable("heeds every refusal",
		func(before, after func(*place), change func(*corev1.PodSpec), says string) {
			p := newPlace(nil)
			before(p)
			p.works()
			Expect(p.rehearse(p.pod("next"))).To(Succeed())
			after(p)
			err := p.rehearse(p.pod("next", change))
			Expect(err).To(And(refusal(), MatchError(ContainSubstring(says))))
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(p.pod("next")), &corev1.Pod{})).NotTo(Succeed(), "it is only a trial")
		},
		Entry("an invalid pod", nothing, nothing, func(s *corev1.PodSpec) { s.Containers[0].Image = " " }, "image"),
		Entry("an unknown PriorityClass", nothing, nothing, func(s *corev1.PodSpec) { s.PriorityClassName = "no-such-class" }, "no PriorityClass"),
		Entry("a missing ServiceAccount", nothing, nothing, func(s *corev1.PodSpec) { s.ServiceAccountName = "missing" }, "service account"),
		Entry("a limit above what the namespace allows", func(p *place) {
			Expect(k8s.Create(ctx, &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: "most"}, Spec: corev1.LimitRangeSpec{
				Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}},
			}})).To(Succeed())
		}, nothing, limits("3"), "maximum cpu usage"),
		Entry("a namespace that became restricted", nothing, func(p *place) {
			ns := &corev1.Namespace{}
			Expect(k8s.Get(ctx, client.ObjectKey{Name: p.namespace}, ns)).To(Succeed())
			ns.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
			Expect(k8s.Update(ctx, ns)).To(Succeed())
			Eventually(func() error { return k8s.Create(ctx, p.pod("probe", privileged), client.DryRunAll) }).ShouldNot(Succeed())
		}, privileged, "violates PodSecurity"),
		Entry("a policy's denial", nothing, func(p *place) {
			deny(p.namespace)
			Eventually(func() error { return k8s.Create(ctx, p.pod("probe"), client.DryRunAll) }).ShouldNot(Succeed())
		}, same, "not while the auditors are here"),
		Entry("a quota that the end of the old pod makes no room in", func(p *place) {
			p.quota(corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("2")})
		}, nothing, limits("3"), "would not make room"),
		Entry("a quota that names a resource which the pod does not", nothing, func(p *place) {
			p.quota(corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse("1Gi")})
			Eventually(func() error { return p.rehearse(p.pod("next", unlimited)) }).ShouldNot(Succeed())
		}, unlimited, "must specify limits.memory"),
		Entry("a node that does not exist", nothing, nothing, func(s *corev1.PodSpec) { s.NodeName = "nowhere" }, "node \"nowhere\""),
		Entry("a claim that does not exist", nothing, nothing, func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "disk", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "missing"}}}}
		}, "PersistentVolumeClaim \"missing\""),
		Entry("a ConfigMap that does not exist, as a volume", nothing, nothing, func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}}}}}
		}, "ConfigMap \"missing\""),
		Entry("a ConfigMap that does not exist, in the environment", nothing, nothing, func(s *corev1.PodSpec) {
			s.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}}}}
		}, "ConfigMap \"missing\""),
		Entry("a ConfigMap that does not exist, in a projected volume", nothing, nothing, projected("missing"), "ConfigMap \"missing\""),
		Entry("a key that a ConfigMap has not, in the environment", config, nothing, variable("absent", nil), "key \"absent\" of ConfigMap \"conf\""),
		Entry("a key that a ConfigMap has not, in a volume", config, nothing, item("absent", nil), "key \"absent\" of ConfigMap \"conf\""),
		Entry("a key that a ConfigMap has not, in a projected volume", config, nothing, projected("conf", "absent"), "key \"absent\" of ConfigMap \"conf\""),
		Entry("an image that another pod waits for", nothing, func(p *place) {
			other := p.pod("other", image("broken:1"))
			Expect(k8s.Create(ctx, other)).To(Succeed())
			other.Status.ContainerStatuses = []corev1.ContainerStatus{{
				Name: "processor", Image: "broken:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"}},
			}}
			Expect(k8s.Status().Update(ctx, other)).To(Succeed())
		}, image("broken:1"), "waits for the image"),
		Entry("an init container's image that another pod waits for", nothing, func(p *place) {
			other := p.pod("other", initContainer("broken:1"))
			Expect(k8s.Create(ctx, other)).To(Succeed())
			other.Status.InitContainerStatuses = []corev1.ContainerStatus{{
				Name: "init", Image: "broken:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}},
			}}
			Expect(k8s.Status().Update(ctx, other)).To(Succeed())
		}, initContainer("broken:1"), "waits for the image"),
	)

	DescribeTable("has nothing against a ConfigMap that has what it needs, or that it can do without",
		func(change func(*corev1.PodSpec)) {
			p := newPlace(nil)
			config(p)
			p.works()
			Expect(p.rehearse(p.pod("next", change))).To(Succeed())
		},
		Entry("a variable", variable("present", nil)),
		Entry("a variable of binary data", variable("binary", nil)),
		Entry("an optional variable", variable("absent", new(true))),
		Entry("a file", item("present", nil)),
		Entry("an optional file", item("absent", new(true))),
		Entry("a projected file", projected("conf", "present")),
	)

	DescribeTable("lets the old pod make room in a quota that it fills",
		func(hard corev1.ResourceList, change func(*corev1.PodSpec), scopes ...corev1.ResourceQuotaScope) {
			p := newPlace(nil)
			p.quota(hard, scopes...)
			p.works()
			Expect(k8s.Create(ctx, p.pod("next", change), client.DryRunAll)).To(MatchError(ContainSubstring("exceeded quota")), "else this shows nothing")
			Expect(p.rehearse(p.pod("next", change))).To(Succeed())
			Expect(rehearsal.Rehearsal{Client: k8s, Reader: k8s}.Beside(ctx, p.pod("next", change))).To(Succeed())
		},
		Entry("limits", corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("1"), corev1.ResourceLimitsMemory: resource.MustParse("64Mi")}, same),
		Entry("requests, by their short name", corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}, limits("1500m")),
		Entry("pods", corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}, same),
		Entry("pods, as objects", corev1.ResourceList{"count/pods": resource.MustParse("1")}, same),
		Entry("of pods that do not end", corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}, same, corev1.ResourceQuotaScopeNotTerminating),
	)

	It("does not take a second quota for granted, of which the API server says nothing", func() {
		p := newPlace(nil)
		p.quota(corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")})
		p.quota(corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("2")})
		p.works()
		Expect(p.rehearse(p.pod("next"))).To(Succeed())
		Expect(p.rehearse(p.pod("next", limits("3")))).To(refusal())
	})

	It("takes a webhook that does not answer for no permission, and for no refusal", func() {
		p := newPlace(nil)
		p.works()
		hook := &admissionv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: p.namespace},
			Webhooks: []admissionv1.ValidatingWebhook{{
				Name: "absent.dory.io", AdmissionReviewVersions: []string{"v1"}, SideEffects: new(admissionv1.SideEffectClassNone), TimeoutSeconds: new(int32(1)),
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": p.namespace}},
				ClientConfig:      admissionv1.WebhookClientConfig{URL: new("https://127.0.0.1:1/")},
				Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create}, Rule: admissionv1.Rule{
					APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
				}}},
			}},
		}
		Expect(k8s.Create(ctx, hook)).To(Succeed())
		DeferCleanup(func() { Expect(k8s.Delete(ctx, hook)).To(Succeed()) })
		Eventually(func() error { return p.rehearse(p.pod("next")) }).ShouldNot(Succeed())
		err := p.rehearse(p.pod("next"))
		Expect(err).To(MatchError(ContainSubstring("failed calling webhook")))
		_, unknown := rehearsal.AsUnknown(err)
		Expect(unknown).To(BeTrue())
	})

	It("says nothing against what mends an instance that waits for the same image", func() {
		p := newPlace(nil)
		p.old = p.pod("old", image("private:1"))
		Expect(k8s.Create(ctx, p.old)).To(Succeed())
		p.old.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "processor", Image: "private:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}
		Expect(k8s.Status().Update(ctx, p.old)).To(Succeed())
		Expect(p.rehearse(p.pod("next", image("private:1"), func(s *corev1.PodSpec) {
			s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
		}))).To(Succeed())
	})
})

var _ = DescribeTable("An answer of the API server is about the pod",
	func(err error, yes bool) { Expect(rehearsal.Final(fmt.Errorf("creating pod: %w", err))).To(Equal(yes)) },
	Entry("if the pod is invalid", apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), "x", nil), true),
	Entry("if it is forbidden", apierrors.NewForbidden(corev1.Resource("pods"), "x", errors.New("violates PodSecurity")), true),
	Entry("and not if the operator may create none", apierrors.NewForbidden(corev1.Resource("pods"), "", fmt.Errorf(`%s "dory" cannot create resource "pods" in API group ""`, "User")), false),
	Entry("and not if the operator is not known", apierrors.NewUnauthorized("who are you?"), false),
	Entry("and not if there is another one of the name", apierrors.NewConflict(corev1.Resource("pods"), "x", nil), false),
	Entry("and not if it has trouble", apierrors.NewInternalError(errors.New("no etcd")), false),
	Entry("and not if it is none", errors.New("no route to host"), false),
)

func config(p *place) {
	GinkgoHelper()
	Expect(k8s.Create(context.Background(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: "conf"},
		Data:       map[string]string{"present": "x"}, BinaryData: map[string][]byte{"binary": {1}},
	})).To(Succeed())
}

func conf() corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: "conf"} }

func variable(key string, optional *bool) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		from := &corev1.ConfigMapKeySelector{LocalObjectReference: conf(), Key: key, Optional: optional}
		s.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: from}}}
	}
}

func item(key string, optional *bool) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		from := &corev1.ConfigMapVolumeSource{LocalObjectReference: conf(), Items: []corev1.KeyToPath{{Key: key, Path: "a"}}, Optional: optional}
		s.Volumes = []corev1.Volume{{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: from}}}
	}
}

func projected(name string, keys ...string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		from := &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: name}}
		for _, key := range keys {
			from.Items = append(from.Items, corev1.KeyToPath{Key: key, Path: key})
		}
		s.Volumes = []corev1.Volume{{Name: "conf", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ConfigMap: from}},
		}}}}
	}
}

func nothing(*place) {}

func image(name string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) { s.Containers[0].Image = name }
}

func initContainer(image string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		s.InitContainers = []corev1.Container{*s.Containers[0].DeepCopy()}
		s.InitContainers[0].Name, s.InitContainers[0].Image = "init", image
	}
}

func privileged(s *corev1.PodSpec) { s.SecurityContext.RunAsNonRoot = nil }

func unlimited(s *corev1.PodSpec) { delete(s.Containers[0].Resources.Limits, corev1.ResourceMemory) }

// deny lets a policy say no.
func deny(namespace string) {
	GinkgoHelper()
	ctx := context.Background()
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": namespace}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				}}},
			},
			Validations: []admissionv1.Validation{{Expression: "false", Message: "not while the auditors are here"}},
		},
	}
	Expect(k8s.Create(ctx, policy)).To(Succeed())
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: namespace, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}
	Expect(k8s.Create(ctx, binding)).To(Succeed())
	DeferCleanup(func() {
		Expect(k8s.Delete(ctx, binding)).To(Succeed())
		Expect(k8s.Delete(ctx, policy)).To(Succeed())
	})
}
