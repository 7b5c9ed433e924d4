package lifecycle_test

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("A refusal that is longer than an event may be", func() {
	It("is told in one that is shortened, and whole in the condition", func(ctx SpecContext) {
		namespace := newNamespace()
		startOperator(operatorOptions{})
		var mounts []string
		for i := range 40 {
			mounts = append(mounts, fmt.Sprintf(`{"name":"vôlüme-%d","mountPath":""}`, i))
		}
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) {
			p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(
				`{"containers":[{"name":"processor","volumeMounts":[` + strings.Join(mounts, ",") + `]}]}`)}}
		})
		Eventually(func(g Gomega) {
			conditions := statusOf(p)().Conditions
			g.Expect(conditions).NotTo(BeEmpty())
			g.Expect(conditions[0].Reason).To(Equal(doryv1alpha1.ReasonPodRejected))
			g.Expect(conditions[0].Message).To(ContainSubstring("vôlüme-39"))
		}).Should(Succeed())
		Eventually(func(g Gomega) {
			var events eventsv1.EventList
			g.Expect(k8s.List(context.WithoutCancel(ctx), &events, client.InNamespace(namespace))).To(Succeed())
			var notes []string
			for _, e := range events.Items {
				if e.Reason == doryv1alpha1.ReasonPodRejected {
					notes = append(notes, e.Note)
				}
			}
			g.Expect(notes).NotTo(BeEmpty())
			g.Expect(utf8.ValidString(notes[0])).To(BeTrue())
			g.Expect(notes[0]).To(And(ContainSubstring("vôlüme-1"), HaveSuffix("…")))
		}).Should(Succeed())
	})
})

var _ = Describe("A container beside the processor's", func() {
	It("is named, once, because it may have been meant to be the processor", func(ctx SpecContext) {
		namespace := newNamespace()
		startOperator(operatorOptions{})
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) {
			p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(`{"containers":[{"name":"main","image":"mine:1"}]}`)}}
		})
		node("n1", corev1.ConditionTrue)
		instance := thePod(p, "1")
		bind(instance, "n1")
		named := `spec.podTemplate adds container "main" to the processor's own, which is called "processor"`
		Eventually(updated(p)).Should(And(HaveField("Status", metav1.ConditionTrue), HaveField("Message", ContainSubstring(named))))
		kubeletSays(instance, running("10.0.0.9"))
		Eventually(func() string { return string(statusOf(p)().Phase) }).Should(Equal("Running"))
		notes := func() (notes []string) {
			var events eventsv1.EventList
			Expect(k8s.List(context.WithoutCancel(ctx), &events, client.InNamespace(namespace))).To(Succeed())
			for _, e := range events.Items {
				if e.Reason == "ExtraContainers" {
					notes = append(notes, e.Note)
				}
			}
			return notes
		}
		Eventually(notes).Should(ConsistOf(named))
		Consistently(notes).Should(HaveLen(1))
	})
})
