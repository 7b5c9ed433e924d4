//go:build e2e

package e2e

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("A restart", func() {
	It("is one live move, for a changed ConfigMap and for a person who asks", func(ctx context.Context) {
		namespace := newNamespace(ctx)
		config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "settings"}, Data: map[string]string{"interval": "100ms"}}
		Expect(k8s.Create(ctx, config)).To(Succeed())
		p := counter(namespace, "restarted")
		p.Spec.Update = &doryv1alpha1.ProcessorUpdate{OnConfigChange: doryv1alpha1.ConfigChangeRestart}
		p.Spec.Env = []corev1.EnvVar{{Name: "COUNTER_INTERVAL", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: config.Name}, Key: "interval",
		}}}}
		s := settle(ctx, p)
		name := "processor/" + s.key.Name

		By("the ConfigMap changes")
		config.Data["interval"] = "50ms"
		Expect(k8s.Update(ctx, config)).To(Succeed())
		second := s.worksOn(ctx, s.first.Epoch)
		Expect(podIn(ctx, second.Pod, namespace).Annotations).To(HaveKey(doryv1alpha1.AnnotationConfig))

		By("a person asks for it")
		kubectl(ctx, "", "-n", namespace, "annotate", name, "kubectl.kubernetes.io/restartedAt=2026-01-31T12:00:00Z", "--overwrite")
		third := s.worksOn(ctx, second.Epoch)
		Expect(podIn(ctx, third.Pod, namespace).Annotations).To(HaveKeyWithValue(doryv1alpha1.AnnotationRestartedAt, "2026-01-31T12:00:00Z"))
		kubectl(ctx, "", "-n", namespace, "wait", "--for=condition=Updated", "--timeout=30s", name)

		By("the verbs that need a kubelet work as README says")
		Expect(kubectl(ctx, "", "-n", namespace, "logs", "-l", "dory.io/processor="+s.key.Name, "--prefix", "--tail=1")).To(ContainSubstring(third.Pod))
		Expect(kubectlRefused(ctx, "-n", namespace, "exec", third.Pod, "--", "/counter", "hum")).To(ContainSubstring(`unknown command "hum"`))

		s.book.isWhole(ctx)
		s.seen.hasSeen(s.first.Pod, second.Pod, third.Pod)
		Eventually(func(g Gomega) {
			var causes []string
			for _, m := range list[doryv1alpha1.ProcessorMigrationList](ctx, g, namespace).Items {
				g.Expect(m.Status).To(And(HaveField("Phase", doryv1alpha1.MigrationSucceeded), HaveField("Strategy", doryv1alpha1.MigrationLive)))
				causes = append(causes, m.Annotations[doryv1alpha1.AnnotationCause])
			}
			g.Expect(causes).To(ConsistOf("ConfigMap settings changed", "a restart was asked for"))
			g.Expect(events(ctx, g, namespace, "Processor", s.key.Name)).To(ContainElement(HavePrefix("ConfigChanged: ConfigMap settings changed")))
		}).WithContext(ctx).Should(Succeed())
	})
})
