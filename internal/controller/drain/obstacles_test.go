package drain_test

import (
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/drain"
	"github.com/dory-io/dory/test/processkubelet"
)

// What Migratable says before a drain is what the drain does then.
var _ = Describe("An obstacle", func() {
	never := func(p *doryv1alpha1.Processor) { p.Spec.Migration.DrainFallback = doryv1alpha1.DrainFallbackNever }
	template := func(spec string) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) {
			p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(spec)}}
		}
	}
	const words = "exceeded quota: tight, requested: pods=1, used: pods=1, limited: pods=1"

	It("of a quota that fits exactly the running pod: the drain restarts the processor", func() {
		c := start(2, settings{patience: 24 * time.Second})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		c.quota("tight", corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}})
		c.news(p)
		c.foretells(p, "True QuotaExceeded", words)
		c.cordon("n1", true)
		answers := c.evict(source)
		Expect(answers).To(ContainElement(And(HaveField("Reason", drain.ReasonFallingBack), HaveField("Message", ContainSubstring(words)))))
		c.worksOn(p, "n2")
		c.whole(p)
		Expect(c.drainOf(p, in(doryv1alpha1.MigrationSucceeded)).Status.Strategy).To(Equal(doryv1alpha1.MigrationStopAndCopy))
		Expect(c.drainOf(p, because(doryv1alpha1.MigrationReasonTargetOverQuota)).Status.Message).To(ContainSubstring(words))
		c.told("Processor", "cam", drain.EventFallback, words)
	})

	It("of a quota, where nothing may be restarted: the drain waits, and says so wherever people look", func() {
		c := start(2, settings{patience: 24 * time.Second})
		p := c.apply("cam", "n1", never)
		source := c.instance(p)
		c.quota("tight", corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}})
		c.news(p)
		c.foretells(p, "False QuotaExceeded", words)
		c.cordon("n1", true)
		c.ask(client.ObjectKeyFromObject(source))
		c.drainOf(p, in(doryv1alpha1.MigrationPlacing), because(doryv1alpha1.MigrationReasonTargetOverQuota))
		Expect(c.ask(client.ObjectKeyFromObject(source)).Message).To(ContainSubstring(words), "while it tries")
		c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonTargetOverQuota))
		Expect(c.ask(client.ObjectKeyFromObject(source))).To(And(HaveField("Allowed", false),
			HaveField("Message", And(ContainSubstring(words), ContainSubstring("drainFallback is Never")))))
		c.told("Processor", "cam", drain.EventUnplaceable, words)
		Expect(c.working(p)).To(Equal(source.Name))
	})

	DescribeTable("that admission puts up is known beforehand", func(obstacle func(*cluster), want, says string) {
		c := start(2, settings{})
		p := c.apply("cam", "n1", template(`{"priorityClassName":"system-node-critical"}`))
		obstacle(c)
		c.news(p)
		c.foretells(p, want, says)
	},
		Entry("a quota on a resource", func(c *cluster) {
			c.quota("tight", corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceRequestsCPU: resource.MustParse("500m")}})
		}, "True QuotaExceeded", "exceeded quota: tight, requested: requests.cpu=500m"),
		Entry("a count of objects", func(c *cluster) {
			c.quota("tight", corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/pods": resource.MustParse("1")}})
		}, "True QuotaExceeded", "exceeded quota: tight, requested: count/pods=1"),
		Entry("a quota for one PriorityClass", func(c *cluster) {
			c.quota("tight", corev1.ResourceQuotaSpec{
				Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")},
				ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{{
					ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"system-node-critical"},
				}}},
			})
		}, "True QuotaExceeded", words),
		Entry("a LimitRange", func(c *cluster) {
			Expect(k8s.Create(ctx, &corev1.LimitRange{
				ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "small"},
				Spec:       corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}},
			})).To(Succeed())
		}, "False PodRejected", "maximum cpu usage per Container is 1"),
		Entry("a Pod Security level", func(c *cluster) {
			patch := []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`)
			Expect(k8s.Patch(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}}, client.RawPatch("application/merge-patch+json", patch))).To(Succeed())
		}, "False PodRejected", "violates PodSecurity"),
	)

	It("of a node that the template names: nothing is made, and the answer says why", func() {
		c := start(2, settings{})
		p := c.apply("cam", "n1", template(`{"nodeName":"n1"}`))
		source := c.instance(p)
		c.foretells(p, "False PinnedToNode", "spec.podTemplate.spec.nodeName n1")
		c.cordon("n1", true)
		for range 3 {
			Expect(c.ask(client.ObjectKeyFromObject(source))).To(And(HaveField("Allowed", false), HaveField("Reason", drain.ReasonWaiting),
				HaveField("Message", ContainSubstring("spec.podTemplate.spec.nodeName n1"))))
		}
		c.told("Processor", "cam", drain.EventUnplaceable, "spec.podTemplate.spec.nodeName n1")
		Expect(c.migrations(p)).To(BeEmpty())
		Expect(c.working(p)).To(Equal(source.Name))
	})

	It("of the version that runs counts, and none of a spec that waits", func() {
		c := start(2, settings{})
		waits := func(p *doryv1alpha1.Processor) {
			p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateOnDelete}
		}
		change := func(p *doryv1alpha1.Processor, change func(*doryv1alpha1.Processor)) {
			Eventually(func() error {
				fresh := &doryv1alpha1.Processor{}
				if err := k8s.Get(ctx, client.ObjectKeyFromObject(p), fresh); err != nil {
					return err
				}
				change(fresh)
				return k8s.Update(ctx, fresh)
			}).Should(Succeed())
		}
		free := c.apply("free", "n1", waits)
		pinned := c.apply("pinned", "n1", waits, template(`{"nodeName":"n1"}`))
		was := map[string]*corev1.Pod{"free": c.instance(free), "pinned": c.instance(pinned)}
		change(free, template(`{"nodeName":"n1"}`))
		change(pinned, func(p *doryv1alpha1.Processor) { p.Spec.PodTemplate = nil })
		c.foretells(free, "True", "")
		c.foretells(pinned, "False PinnedToNode", "this is about the version that runs")
		c.quota("tight", corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("2")}})
		c.news(free)
		c.foretells(free, "True QuotaExceeded", "exceeded quota: tight")
		Expect(k8s.Delete(ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "tight"}})).To(Succeed())

		c.cordon("n1", true)
		Expect(c.ask(client.ObjectKeyFromObject(was["pinned"]))).To(And(HaveField("Allowed", false), HaveField("Reason", drain.ReasonWaiting),
			HaveField("Message", ContainSubstring("this is about the version that runs"))))
		c.evict(was["free"])
		c.worksOn(free, "n2")
		Expect(c.working(pinned)).To(Equal(was["pinned"].Name))
		Expect(c.migrations(pinned)).To(BeEmpty())
	})

	It("of a claim that one pod may use: the drain restarts the processor at once", func() {
		c := start(2, settings{})
		Expect(k8s.Create(ctx, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "disk"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		})).To(Succeed())
		p := c.apply("cam", "n1", template(`{"volumes":[{"name":"disk","persistentVolumeClaim":{"claimName":"disk"}}]}`))
		source := c.instance(p)
		c.foretells(p, "True RestartOnly", "PersistentVolumeClaim disk is ReadWriteOncePod")
		Eventually(func() string {
			tried, err := c.desk.Ask(ctx, drain.Request{Pod: client.ObjectKeyFromObject(source), DryRun: true})
			Expect(err).NotTo(HaveOccurred())
			return tried.Reason + " " + tried.Message
		}).Should(And(HavePrefix(drain.ReasonWouldMove), ContainSubstring("ReadWriteOncePod")))
		c.evict(source)
		c.worksOn(p, "n2")
		Eventually(func() []doryv1alpha1.ProcessorMigration { return c.migrations(p) }).Should(HaveExactElements(And(HaveField("Status.Strategy", doryv1alpha1.MigrationStopAndCopy), HaveField("Status.Phase", doryv1alpha1.MigrationSucceeded))))
		c.whole(p)
	})

	It("of an image that is gone: the last move speaks against the next, until one gets through", func() {
		c := start(2, settings{patience: 24 * time.Second})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		c.kubelet.RemoveProgram("counter:1")
		c.cordon("n1", true)
		c.ask(client.ObjectKeyFromObject(source))
		m := c.drainOf(p, in(doryv1alpha1.MigrationStarting), because(doryv1alpha1.MigrationReasonTargetImage))
		Expect(m.Status.Message).To(ContainSubstring("ImagePullBackOff"), "it says what it waits for")
		c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonTargetImage))
		c.foretells(p, "False LastMoveFailed", "TargetImageUnavailable")
		Expect(c.ask(client.ObjectKeyFromObject(source)).Allowed).To(BeFalse())
		Expect(c.working(p)).To(Equal(source.Name))
		c.kubelet.SetProgram("counter:1", processkubelet.Program{Path: counter})
		c.evict(source)
		c.worksOn(p, "n2")
		c.cordon("n1", false)
		c.foretells(p, "True", "")
		c.whole(p)
	})

	It("of an image that knows no handoff: the drain starts the next instance first", func() {
		c := start(2, settings{})
		plain, err := processkubelet.Build("github.com/dory-io/dory/internal/controller/drain/testdata/plain")
		Expect(err).NotTo(HaveOccurred())
		c.kubelet.SetProgram("counter:1", processkubelet.Program{Path: plain})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		c.foretells(p, "True OverlapMigratable", "")
		c.cordon("n1", true)
		c.evict(source)
		c.worksOn(p, "n2")
		Expect(c.drainOf(p, in(doryv1alpha1.MigrationSucceeded)).Status.Strategy).To(Equal(doryv1alpha1.MigrationOverlap))
	})

	It("of a state that is too large, and of which there is no copy: the drain waits for a person", func() {
		c := start(2, settings{patience: 24 * time.Second})
		impostor, err := processkubelet.Build("github.com/dory-io/dory/test/faults/impostor")
		Expect(err).NotTo(HaveOccurred())
		c.kubelet.SetProgram("counter:1", processkubelet.Program{Path: impostor, Env: []string{"IMPOSTOR_VICE=captures-11-mb", "IMPOSTOR_COUNTER=" + counter}})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		const words = "the state has more than 10 MiB"
		c.says(p, metav1.Condition{Type: doryv1alpha1.ConditionCheckpointed, Status: metav1.ConditionFalse, Reason: doryv1alpha1.ReasonStateTooLarge, Message: words})
		c.foretells(p, "False StateTooLarge", words)
		c.cordon("n1", true)
		Expect(c.ask(client.ObjectKeyFromObject(source))).To(And(HaveField("Allowed", false),
			HaveField("Message", And(ContainSubstring(words), ContainSubstring("there is no checkpoint to restart it from")))))

		By("a move that is made all the same meets it")
		m := &doryv1alpha1.ProcessorMigration{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: "m"}, Spec: doryv1alpha1.ProcessorMigrationSpec{Processor: p.Name}}
		Expect(k8s.Create(ctx, m)).To(Succeed())
		Eventually(func() doryv1alpha1.ProcessorMigrationStatus {
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(m), m)).To(Succeed())
			return m.Status
		}).Should(And(HaveField("Phase", doryv1alpha1.MigrationRolledBack), HaveField("Reason", doryv1alpha1.MigrationReasonStateTooLarge)))
		Expect(c.working(p)).To(Equal(source.Name))
	})

	It("of admission that refuses every second pod: the drain waits, and nothing is ended", func() {
		c := start(2, settings{patience: 24 * time.Second})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		const words = "maximum cpu usage per Container is 1m"
		Expect(k8s.Create(ctx, &corev1.LimitRange{
			ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "tiny"},
			Spec:       corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m")}}}},
		})).To(Succeed())
		c.news(p)
		c.foretells(p, "False PodRejected", words)
		c.cordon("n1", true)
		for range 2 {
			Expect(c.ask(client.ObjectKeyFromObject(source)).Allowed).To(BeFalse())
		}
		Eventually(func() string { return c.ask(client.ObjectKeyFromObject(source)).Message }).Should(ContainSubstring(words))
		Expect(c.working(p)).To(Equal(source.Name))
		c.whole(p)
	})

	It("of a state that the next pod refuses: it is known after the first move", func() {
		c := start(2, settings{patience: 24 * time.Second})
		p := c.apply("cam", "n1", never)
		source := c.instance(p)
		c.kubelet.SetProgram("counter:1", processkubelet.Program{Path: counter, Env: []string{"COUNTER_STATE_VERSION=2"}})
		c.cordon("n1", true)
		c.ask(client.ObjectKeyFromObject(source))
		c.drainOf(p, in(doryv1alpha1.MigrationRolledBack), because(doryv1alpha1.MigrationReasonStateRefused))
		c.foretells(p, "False LastMoveFailed", "StateRefused")
		Expect(c.ask(client.ObjectKeyFromObject(source)).Allowed).To(BeFalse())
		Expect(c.working(p)).To(Equal(source.Name))
	})

	It("in the way of a move by hand is named in its status, and the move gives way to a drain", func() {
		c := start(3, settings{})
		p := c.apply("cam", "n1")
		source := c.instance(p)
		c.cordon("n3", true)
		m := &doryv1alpha1.ProcessorMigration{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: "m3"},
			Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: p.Name, TargetNode: "n3"},
		}
		Expect(k8s.Create(ctx, m)).To(Succeed())
		read := func() doryv1alpha1.ProcessorMigrationStatus {
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(m), m)).To(Succeed())
			return m.Status
		}
		Eventually(read).Should(And(HaveField("Phase", doryv1alpha1.MigrationPlacing), HaveField("Message", ContainSubstring("finds no node: no node fits"))))
		c.cordon("n1", true)
		answers := c.evict(source)
		Expect(answers[0].Message).To(ContainSubstring("m3 (Manual) gives way to it: it leads to node n3, which does not take the processor"))
		Expect(read()).To(And(HaveField("Phase", doryv1alpha1.MigrationRolledBack), HaveField("Reason", doryv1alpha1.MigrationReasonSuperseded),
			HaveField("Message", ContainSubstring("it gave way to the drain of pod "+source.Name+" off node n1"))))
		c.worksOn(p, "n2")
		c.whole(p)
	})

	It("that a node itself is refuses a move to it at once", func() {
		c := start(2, settings{})
		p := c.apply("cam", "n1")
		c.taint("n2", "team")
		c.foretells(p, "False NoOtherNode", "")
		m := &doryv1alpha1.ProcessorMigration{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: "m3"},
			Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: p.Name, TargetNode: "n2"},
		}
		Expect(k8s.Create(ctx, m)).To(Succeed())
		Eventually(func() doryv1alpha1.ProcessorMigrationStatus {
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(m), m)).To(Succeed())
			return m.Status
		}).WithTimeout(5 * time.Second).Should(And(HaveField("Reason", "TargetNodeExcluded"), HaveField("TargetPod", BeEmpty()),
			HaveField("Message", ContainSubstring("node n2 has the taint team:NoSchedule, which the pod does not tolerate"))))
	})
})

// foretells waits until the condition Migratable says so.
func (c *cluster) foretells(p *doryv1alpha1.Processor, want, says string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		fresh := &doryv1alpha1.Processor{}
		g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(p), fresh)).To(Succeed())
		condition := meta.FindStatusCondition(fresh.Status.Conditions, doryv1alpha1.ConditionMigratable)
		g.Expect(condition).NotTo(BeNil())
		g.Expect(string(condition.Status)+" "+condition.Reason).To(HavePrefix(want), condition.Message)
		g.Expect(condition.Message).To(ContainSubstring(says))
	}).Should(Succeed())
}

// says writes a condition as the controller does that is not part of this suite.
func (c *cluster) says(p *doryv1alpha1.Processor, condition metav1.Condition) {
	GinkgoHelper()
	Eventually(func() error {
		fresh := &doryv1alpha1.Processor{}
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(p), fresh); err != nil {
			return err
		}
		condition.ObservedGeneration = fresh.Generation
		meta.SetStatusCondition(&fresh.Status.Conditions, condition)
		return k8s.Status().Update(ctx, fresh)
	}).Should(Succeed())
}

// news has the processor looked at again, as a change of its spec does.
func (c *cluster) news(p *doryv1alpha1.Processor) {
	GinkgoHelper()
	Eventually(func() error {
		fresh := &doryv1alpha1.Processor{}
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(p), fresh); err != nil {
			return err
		}
		fresh.Spec.Migration.HandoffTimeoutSeconds++
		return k8s.Update(ctx, fresh)
	}).Should(Succeed())
}

// quota makes a quota, and plays the controller that counts what it is for: pods that have not ended.
func (c *cluster) quota(name string, spec corev1.ResourceQuotaSpec) {
	GinkgoHelper()
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name}, Spec: spec}
	Expect(k8s.Create(ctx, quota)).To(Succeed())
	count := func() bool {
		var pods corev1.PodList
		if k8s.Get(ctx, client.ObjectKeyFromObject(quota), quota) != nil || k8s.List(ctx, &pods, client.InNamespace(c.namespace)) != nil {
			return false
		}
		used := corev1.ResourceList{}
		for resourceName := range spec.Hard {
			each := resource.MustParse("1")
			if strings.HasSuffix(string(resourceName), "cpu") {
				each = resource.MustParse("500m")
			}
			sum := resource.Quantity{}
			for range pods.Items {
				sum.Add(each)
			}
			used[resourceName] = sum
		}
		quota.Status = corev1.ResourceQuotaStatus{Hard: spec.Hard, Used: used}
		return k8s.Status().Update(ctx, quota) == nil
	}
	Eventually(count).Should(BeTrue())
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				count()
			}
		}
	}()
	DeferCleanup(sync.OnceFunc(func() { close(done); <-stopped }))
}
