package configchange_test

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("A Processor that restarts when its configuration changes", func() {
	var (
		namespace string
		ctx       = context.Background()
	)

	BeforeEach(func() { namespace = newNamespace() })

	configMap := func(name, value string) {
		GinkgoHelper()
		c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{"key": value}}
		if err := k8s.Create(ctx, c); err != nil {
			Expect(k8s.Update(ctx, c)).To(Succeed())
		}
	}
	secret := func(name, value string) {
		GinkgoHelper()
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, StringData: map[string]string{"key": value}}
		if err := k8s.Create(ctx, s); err != nil {
			Expect(k8s.Update(ctx, s)).To(Succeed())
		}
	}
	env := func(optional bool) []corev1.EnvVar {
		return []corev1.EnvVar{
			{Name: "CONFIG", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "key", Optional: &optional,
			}}},
			{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "password"}, Key: "key", Optional: &optional,
			}}},
		}
	}
	apply := func(policy doryv1alpha1.ConfigChangePolicy, optional bool) *doryv1alpha1.Processor {
		GinkgoHelper()
		p := &doryv1alpha1.Processor{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cam"},
			Spec: doryv1alpha1.ProcessorSpec{
				Image: "counter:1", Env: env(optional), Update: &doryv1alpha1.ProcessorUpdate{OnConfigChange: policy},
			},
		}
		Expect(k8s.Create(ctx, p)).To(Succeed())
		return p
	}
	causes := func() []string {
		GinkgoHelper()
		var all doryv1alpha1.ProcessorMigrationList
		Expect(k8s.List(ctx, &all, client.InNamespace(namespace))).To(Succeed())
		found := []string{}
		for _, m := range all.Items {
			found = append(found, fmt.Sprintf("%s: %s", m.Spec.Reason, m.Annotations[doryv1alpha1.AnnotationCause]))
		}
		return found
	}
	// recorded waits until the instance counts as made with what there is.
	recorded := func(instance *corev1.Pod) {
		GinkgoHelper()
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(instance), instance)).To(Succeed())
			g.Expect(instance.Annotations).To(HaveKey(doryv1alpha1.AnnotationConfig))
		}).Should(Succeed())
	}

	It("moves once for a change, and for nothing else", func() {
		configMap("settings", "1")
		secret("password", "1")
		startOperator(apiServer)
		p := apply(doryv1alpha1.ConfigChangeRestart, false)
		recorded(runs(p))

		By("nothing that counts changes")
		before := fresh(p).ResourceVersion
		configMap("unrelated", "1")
		configMap("unrelated", "2")
		configMap("dory-state-cam", "1")
		configMap("dory-state-cam", "2")
		labeled := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "settings"}}
		Expect(k8s.Patch(ctx, labeled, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`)))).To(Succeed())
		Consistently(func() string { return fresh(p).ResourceVersion }).Should(Equal(before), "nothing is written at rest")
		Expect(causes()).To(BeEmpty())

		By("both objects change at once")
		configMap("settings", "2")
		secret("password", "2")
		Eventually(causes).Should(ConsistOf("Update: ConfigMap settings, Secret password changed"))
		Consistently(causes).Should(HaveLen(1))
		Expect(fresh(p).Status.Config.Objects).To(HaveLen(2))
		Eventually(func() []metav1.Condition { return fresh(p).Status.Conditions }).Should(ContainElement(And(
			HaveField("Type", doryv1alpha1.ConditionUpdated), HaveField("Message", ContainSubstring("ConfigMap settings, Secret password changed")))))
	})

	It("does not move for another operator, and does for what changed while there was none", func() {
		configMap("settings", "1")
		secret("password", "1")
		stop := startOperator(apiServer)
		p := apply(doryv1alpha1.ConfigChangeRestart, false)
		recorded(runs(p))
		stop()
		stop = startOperator(apiServer)
		Consistently(causes).Should(BeEmpty())
		stop()
		configMap("settings", "2")
		startOperator(apiServer)
		Eventually(causes).Should(ConsistOf("Update: ConfigMap settings changed"))
		Consistently(causes).Should(HaveLen(1))
	})

	It("counts an instance from before the setting as made with what was there when it was set", func() {
		configMap("settings", "1")
		secret("password", "1")
		startOperator(apiServer)
		p := apply(doryv1alpha1.ConfigChangeIgnore, false)
		instance := runs(p)
		configMap("settings", "2")
		Consistently(causes).Should(BeEmpty())
		Eventually(func() error {
			changed := fresh(p)
			changed.Spec.Update.OnConfigChange = doryv1alpha1.ConfigChangeRestart
			return k8s.Update(ctx, changed)
		}).Should(Succeed())
		recorded(instance)
		Consistently(causes).Should(BeEmpty())
		configMap("settings", "3")
		Eventually(causes).Should(ConsistOf("Update: ConfigMap settings changed"))

		By("it is taken back")
		Eventually(func() error {
			changed := fresh(p)
			changed.Spec.Update.OnConfigChange = doryv1alpha1.ConfigChangeIgnore
			return k8s.Update(ctx, changed)
		}).Should(Succeed())
		Eventually(func() *doryv1alpha1.ProcessorConfig { return fresh(p).Status.Config }).Should(BeNil())
	})

	It("does not move while an object is missing that the next instance needs", func() {
		configMap("settings", "1")
		secret("password", "1")
		startOperator(apiServer)
		p := apply(doryv1alpha1.ConfigChangeRestart, false)
		recorded(runs(p))
		Expect(k8s.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "password"}})).To(Succeed())
		configMap("settings", "2")
		Eventually(func() string { return fresh(p).Status.Config.Message }).Should(ContainSubstring("Secret password is missing"))
		Consistently(causes).Should(BeEmpty())
		secret("password", "1")
		Eventually(causes).Should(ConsistOf("Update: ConfigMap settings changed"))
	})

	It("moves when an optional object appears", func() {
		secret("password", "1")
		startOperator(apiServer)
		p := apply(doryv1alpha1.ConfigChangeRestart, true)
		recorded(runs(p))
		configMap("settings", "1")
		Eventually(causes).Should(ConsistOf("Update: ConfigMap settings changed"))
	})

	It("says so where the operator may not watch Secrets, and goes by ConfigMaps, which it lets itself watch", func() {
		configMap("settings", "1")
		secret("password", "1")
		startOperator(limited())
		p := apply(doryv1alpha1.ConfigChangeRestart, false)
		recorded(runs(p))
		Expect(fresh(p).Status.Config.Message).To(ContainSubstring("the operator may not watch Secret password: bind ClusterRole dory-secret-watcher"))
		secret("password", "2")
		Consistently(causes).Should(BeEmpty())
		configMap("settings", "2")
		Eventually(causes).Should(ConsistOf("Update: ConfigMap settings changed"))
	})
})

// limited is an account that may watch nothing, but let itself watch ConfigMaps, as the operator's is.
func limited() *rest.Config {
	GinkgoHelper()
	ctx := context.Background()
	const watcher, user = "dory-config-watcher", "limited"
	for _, o := range []client.Object{
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: watcher},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list", "watch"}}},
		},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"rolebindings"}, Verbs: []string{"create"}},
			{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, ResourceNames: []string{watcher}, Verbs: []string{"bind"}},
		}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: user}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		},
	} {
		Expect(k8s.Create(ctx, o)).To(Succeed())
		DeferCleanup(func() { Expect(k8s.Delete(ctx, o)).To(Succeed()) })
	}
	account, err := environment.AddUser(envtest.User{Name: user}, nil)
	Expect(err).NotTo(HaveOccurred())
	return account.Config()
}
