//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// timeToMove is for a move that has to give somebody up first: 30 s of patience with a container that does not start, or the
// pod's grace period and a minute for its kubelet to confirm the end.
const timeToMove = timeToRun + 2*time.Minute

var _ = Describe("A move", func() {
	var namespace string

	BeforeEach(func(ctx context.Context) { namespace = newNamespace(ctx) })

	It("that a person asks for hands the work over between two iterations", func(ctx context.Context) {
		s := settle(ctx, counter(namespace, "by-hand"))
		name := strings.TrimPrefix(kubectl(ctx, fmt.Sprintf(`{
			"apiVersion": "dory.io/v1alpha1", "kind": "ProcessorMigration",
			"metadata": {"generateName": "by-hand-", "namespace": %q}, "spec": {"processor": %q}}`, namespace, s.key.Name),
			"create", "-f", "-", "-o", "name"), "processormigration.dory.io/")
		move := client.ObjectKey{Namespace: namespace, Name: name}
		m := endsAs(ctx, move, doryv1alpha1.MigrationSucceeded)
		second := s.worksOn(ctx, s.first.Epoch)
		Expect(second.Node).NotTo(Equal(s.first.Node), "another node has room")
		s.book.isWhole(ctx)
		s.seen.hasSeen(s.first.Pod, second.Pod)

		By("its record says how it went")
		Expect(m.Status).To(And(
			HaveField("Strategy", doryv1alpha1.MigrationLive),
			HaveField("SourcePod", s.first.Pod), HaveField("TargetPod", second.Pod),
			HaveField("SourceNode", s.first.Node), HaveField("TargetNode", second.Node),
			HaveField("SourceEpoch", s.first.Epoch), HaveField("TargetEpoch", second.Epoch),
			HaveField("Pause", HaveValue(HaveField("Duration", And(BeNumerically(">", 0), BeNumerically("<", 5*time.Second))))),
			HaveField("Sequence", HaveValue(Equal(lastOf(s.book.chapters()[0]).N))),
		), "%+v", m.Status)
		Expect(kubectl(ctx, "", "-n", namespace, "get", "procmig", name, "-o", "wide")).To(And(ContainSubstring("Live"), ContainSubstring("Succeeded"), ContainSubstring(second.Node)))
		Eventually(func(g Gomega) {
			g.Expect(pods(ctx, g, s.key)).To(ConsistOf(second.Pod))
			g.Expect(events(ctx, g, namespace, "Processor", s.key.Name)).To(ContainElement(HavePrefix("MigrationSucceeded: ")))
		}).WithContext(ctx).Should(Succeed())
		Expect(kubectl(ctx, "", "-n", namespace, "logs", second.Pod)).To(ContainSubstring(fmt.Sprintf(`{"n":%d,`, *m.Status.Sequence+1)))
		AddReportEntry("pause", fmt.Sprintf("operator: %s, journal: %s", m.Status.Pause.Duration, s.book.pauses()))
	})

	It("goes to the node that it names, and back, and leaves as much history as the spec says", func(ctx context.Context) {
		p := counter(namespace, "there-and-back")
		p.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{HistoryLimit: new(int32(1))}
		s := settle(ctx, p)
		before, made := s.first, []string{s.first.Pod}
		for range 3 {
			target := otherNode(before.Node)
			endsAs(ctx, requested(ctx, s.key, to(target)), doryv1alpha1.MigrationSucceeded)
			after := s.worksOn(ctx, before.Epoch)
			Expect(after.Node).To(Equal(target))
			before, made = after, append(made, after.Pod)
		}
		s.book.isWhole(ctx)
		s.seen.hasSeen(made...)
		Eventually(func(g Gomega) {
			g.Expect(list[doryv1alpha1.ProcessorMigrationList](ctx, g, namespace).Items).To(HaveLen(1))
		}).WithContext(ctx).Should(Succeed())
	})

	It("by StopAndCopy stops first, and loses and repeats nothing", func(ctx context.Context) {
		s := settle(ctx, counter(namespace, "stop-and-copy"))
		m := endsAs(ctx, requested(ctx, s.key, by(doryv1alpha1.MigrationStopAndCopy)), doryv1alpha1.MigrationSucceeded)
		Expect(m.Status.Strategy).To(Equal(doryv1alpha1.MigrationStopAndCopy))
		second := s.worksOn(ctx, s.first.Epoch)
		s.book.isWhole(ctx)
		s.seen.hasSeen(s.first.Pod, second.Pod)
		Expect(pods(ctx, Default, s.key)).To(ConsistOf(second.Pod))
		AddReportEntry("pause", fmt.Sprintf("operator: %v, journal: %s", m.Status.Pause, s.book.pauses()))
	})

	It("by Overlap starts first, and ends with one instance that has the state", func(ctx context.Context) {
		p := counter(namespace, "overlap")
		key := client.ObjectKeyFromObject(p)
		book := keepJournal(key)
		first := start(ctx, p)
		book.worked(ctx, first.Pod)
		reached := lastOf(book.chapters()[0]).N

		m := endsAs(ctx, requested(ctx, key, by(doryv1alpha1.MigrationOverlap)), doryv1alpha1.MigrationSucceeded)
		Expect(m.Status.Strategy).To(Equal(doryv1alpha1.MigrationOverlap))
		second := runsAfter(ctx, key, first.Epoch)
		Eventually(func(g Gomega) { g.Expect(pods(ctx, g, key)).To(ConsistOf(second.Pod)) }).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		Expect(epochOf(ctx, Default, key)).To(And(HaveField("Holder", second.Pod), HaveField("Epoch", second.Epoch)))

		By("what the target does now follows from what the source did")
		Eventually(func(g Gomega) {
			chapters := book.chapters()
			g.Expect(chapters).To(HaveLen(2))
			g.Expect(chapters[1].pod).To(Equal(second.Pod))
			g.Expect(lastOf(chapters[1]).N).To(BeNumerically(">", max(reached, *m.Status.Sequence)))
			g.Expect(lastOf(chapters[1]).Epoch).To(Equal(second.Epoch))
		}).WithContext(ctx).Should(Succeed())
	})

	It("of a changed variable and of a changed image is made by the operator itself", func(ctx context.Context) {
		s := settle(ctx, counter(namespace, "changed"))
		change(ctx, s.key, func(p *doryv1alpha1.Processor) { p.Spec.Env[0].Value = "50ms" })
		second := s.worksOn(ctx, s.first.Epoch)
		Expect(podIn(ctx, second.Pod, namespace).Spec.Containers[0].Env).To(ContainElement(corev1.EnvVar{Name: "COUNTER_INTERVAL", Value: "50ms"}))

		// Another name of the same image, as there is no registry to push another one to.
		const image = "docker.io/library/" + counterImage
		change(ctx, s.key, func(p *doryv1alpha1.Processor) { p.Spec.Image = image })
		third := s.worksOn(ctx, second.Epoch)
		Expect(podIn(ctx, third.Pod, namespace).Spec.Containers[0].Image).To(Equal(image))

		s.book.isWhole(ctx)
		s.seen.hasSeen(s.first.Pod, second.Pod, third.Pod)
		Eventually(func(g Gomega) {
			for _, m := range list[doryv1alpha1.ProcessorMigrationList](ctx, g, namespace).Items {
				g.Expect(m.Spec.Reason).To(Equal(doryv1alpha1.MigrationUpdate))
				g.Expect(m.Status.Phase).To(Equal(doryv1alpha1.MigrationSucceeded), "%+v", m.Status)
				g.Expect(m.Status.Strategy).To(Equal(doryv1alpha1.MigrationLive))
				g.Expect(metav1.IsControlledBy(&m, get(ctx, g, s.key))).To(BeTrue(), "it goes with its Processor")
			}
			g.Expect(updated(get(ctx, g, s.key))).To(HaveField("Reason", doryv1alpha1.ReasonCurrent))
		}).WithContext(ctx).Should(Succeed())
	})

	It("of a spec that goes back and forth follows it every time", func(ctx context.Context) {
		s := settle(ctx, counter(namespace, "to-and-fro"))
		before, made := s.first, []string{s.first.Pod}
		for _, interval := range []string{"50ms", "100ms", "50ms", "100ms"} {
			change(ctx, s.key, func(p *doryv1alpha1.Processor) { p.Spec.Env[0].Value = interval })
			after := s.worksOn(ctx, before.Epoch)
			Expect(podIn(ctx, after.Pod, namespace).Spec.Containers[0].Env).To(ContainElement(corev1.EnvVar{Name: "COUNTER_INTERVAL", Value: interval}))
			before, made = after, append(made, after.Pod)
		}
		s.book.isWhole(ctx)
		s.seen.hasSeen(made...)
	})

	DescribeTable("to a version that does not work is rolled back, and the old one works on",
		func(ctx context.Context, reason string, spoil func(*doryv1alpha1.Processor)) {
			p := counter(namespace, "spoilt")
			p.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{StartTimeoutSeconds: 20}
			s := settle(ctx, p)
			change(ctx, s.key, spoil)
			var update client.ObjectKey
			Eventually(func(g Gomega) {
				condition := updated(get(ctx, g, s.key))
				g.Expect(condition).To(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", doryv1alpha1.ReasonUpdateRolledBack)), condition.Message)
				moves := list[doryv1alpha1.ProcessorMigrationList](ctx, g, namespace).Items
				g.Expect(moves).To(HaveLen(1))
				g.Expect(condition.Message).To(And(ContainSubstring(moves[0].Name), ContainSubstring(reason)))
				update = client.ObjectKeyFromObject(&moves[0])
			}).WithContext(ctx).WithTimeout(timeToMove).Should(Succeed())
			m := endsAs(ctx, update, doryv1alpha1.MigrationRolledBack)
			Expect(m.Status.Reason).To(Equal(reason), m.Status.Message)

			By("nobody noticed, and nobody tries again")
			s.staysPut(ctx)
			Consistently(func(g Gomega) {
				g.Expect(list[doryv1alpha1.ProcessorMigrationList](ctx, g, namespace).Items).To(HaveLen(1))
				g.Expect(pods(ctx, g, s.key)).To(ConsistOf(s.first.Pod))
				g.Expect(get(ctx, g, s.key).Status.Phase).To(Equal(doryv1alpha1.ProcessorRunning))
			}).WithContext(ctx).WithTimeout(timeToReact / 4).Should(Succeed())

			By("mended")
			change(ctx, s.key, func(p *doryv1alpha1.Processor) {
				p.Spec.Image, p.Spec.ImagePullPolicy = counterImage, ""
				p.Spec.Env = []corev1.EnvVar{{Name: "COUNTER_INTERVAL", Value: "60ms"}}
			})
			second := s.worksOn(ctx, s.first.Epoch)
			s.book.isWhole(ctx)
			s.seen.isContent()
			Eventually(func(g Gomega) { g.Expect(pods(ctx, g, s.key)).To(ConsistOf(second.Pod)) }).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		},
		Entry("because it crashes", doryv1alpha1.MigrationReasonTargetNotReady, func(p *doryv1alpha1.Processor) { p.Spec.Env[0].Value = "never" }),
		Entry("because its image is nowhere", doryv1alpha1.MigrationReasonTargetNotReady, func(p *doryv1alpha1.Processor) {
			p.Spec.Image, p.Spec.ImagePullPolicy = "dory-nowhere:1", corev1.PullNever
		}),
		Entry("because it refuses the state", doryv1alpha1.MigrationReasonStateRefused, func(p *doryv1alpha1.Processor) {
			p.Spec.Env = append(p.Spec.Env, corev1.EnvVar{Name: "COUNTER_STATE_VERSION", Value: "2"})
		}),
	)

	It("is not made where the spec says that updates restart the instance", func(ctx context.Context) {
		p := counter(namespace, "recreated")
		p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateRecreate}
		s := settle(ctx, p)
		change(ctx, s.key, func(p *doryv1alpha1.Processor) { p.Spec.Env[0].Value = "50ms" })
		second := s.worksOn(ctx, s.first.Epoch)
		s.book.isWhole(ctx)
		s.seen.hasSeen(s.first.Pod, second.Pod)
		Expect(list[doryv1alpha1.ProcessorMigrationList](ctx, Default, namespace).Items).To(BeEmpty())
	})

	It("is not needed for what cannot start: the old one works on, or comes back", func(ctx context.Context) {
		p := counter(namespace, "kept")
		p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateRecreate}
		s := settle(ctx, p)

		By("admission refuses the new one")
		change(ctx, s.key, func(p *doryv1alpha1.Processor) { p.Spec.ServiceAccountName = "missing" })
		Eventually(func(g Gomega) {
			g.Expect(updated(get(ctx, g, s.key))).To(And(HaveField("Reason", doryv1alpha1.ReasonPodRejected), HaveField("Message", ContainSubstring("missing"))))
		}).WithContext(ctx).Should(Succeed())
		s.staysPut(ctx)

		By("admission takes it, and it crashes")
		change(ctx, s.key, func(p *doryv1alpha1.Processor) {
			p.Spec.ServiceAccountName, p.Spec.Env[0].Value = "dory-processor", "never"
		})
		Eventually(func(g Gomega) {
			g.Expect(updated(get(ctx, g, s.key))).To(And(HaveField("Reason", doryv1alpha1.ReasonRevertedToLastGood), HaveField("Message", ContainSubstring("exit code"))))
			g.Expect(events(ctx, g, namespace, "Processor", s.key.Name)).To(ContainElement(HavePrefix("RevertedToLastGood: ")))
		}).WithContext(ctx).WithTimeout(timeToMove).Should(Succeed())
		second := s.worksOn(ctx, s.first.Epoch+1)
		Expect(podIn(ctx, second.Pod, namespace).Spec.Containers[0].Env).To(ContainElement(corev1.EnvVar{Name: "COUNTER_INTERVAL", Value: "100ms"}))
		s.book.isWhole(ctx)
	})

	It("waits for a person where the spec says that updates do", func(ctx context.Context) {
		p := counter(namespace, "on-delete")
		p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateOnDelete}
		s := settle(ctx, p)
		change(ctx, s.key, func(p *doryv1alpha1.Processor) { p.Spec.Env[0].Value = "50ms" })
		Eventually(func(g Gomega) {
			g.Expect(updated(get(ctx, g, s.key))).To(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", doryv1alpha1.ReasonOnDelete)))
		}).WithContext(ctx).Should(Succeed())
		s.staysPut(ctx)

		By("a person asks for an Update, which brings the spec")
		endsAs(ctx, requested(ctx, s.key, func(m *doryv1alpha1.ProcessorMigration) { m.Spec.Reason = doryv1alpha1.MigrationUpdate }), doryv1alpha1.MigrationSucceeded)
		second := s.worksOn(ctx, s.first.Epoch)
		Expect(podIn(ctx, second.Pod, namespace).Spec.Containers[0].Env).To(ContainElement(corev1.EnvVar{Name: "COUNTER_INTERVAL", Value: "50ms"}))
		s.book.isWhole(ctx)
		s.seen.hasSeen(s.first.Pod, second.Pod)
	})

	It("that makes no sense is refused in words, and harms nothing", func(ctx context.Context) {
		s := settle(ctx, counter(namespace, "refused"))
		nowhere := endsAs(ctx, requested(ctx, s.key, to("no-such-node")), doryv1alpha1.MigrationRolledBack)
		Expect(nowhere.Status).To(And(HaveField("Reason", "TargetNodeNotFound"), HaveField("Message", ContainSubstring(`"no-such-node"`))))
		nobody := endsAs(ctx, requested(ctx, client.ObjectKey{Namespace: namespace, Name: "no-such-processor"}), doryv1alpha1.MigrationFailed)
		Expect(nobody.Status).To(And(HaveField("Reason", "ProcessorNotFound"), HaveField("Message", ContainSubstring(`"no-such-processor"`))))
		s.staysPut(ctx)
		s.seen.hasSeen(s.first.Pod)
	})
})

var _ = Describe("A move that waits for a node", Serial, func() {
	var (
		namespace string
		s         subject
		waiting   client.ObjectKey
	)

	BeforeEach(func(ctx context.Context) {
		namespace = newNamespace(ctx)
		p := counter(namespace, "waits")
		s = settle(ctx, p)
		target := otherNode(s.first.Node)
		cordon(ctx, target)
		waiting = requested(ctx, s.key, to(target))
		Eventually(func(g Gomega) {
			g.Expect(migration(ctx, g, waiting).Status.Phase).To(Equal(doryv1alpha1.MigrationPlacing))
			g.Expect(pods(ctx, g, s.key)).To(HaveLen(2))
		}).WithContext(ctx).Should(Succeed())
	})

	It("is called off by deleting it", func(ctx context.Context) {
		Expect(k8s.Delete(ctx, migration(ctx, Default, waiting))).To(Succeed())
		isGone(ctx, &doryv1alpha1.ProcessorMigration{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: waiting.Name}})
		s.staysPut(ctx)
		s.seen.isContent()
	})

	It("gives way to a changed spec", func(ctx context.Context) {
		change(ctx, s.key, func(p *doryv1alpha1.Processor) { p.Spec.Env[0].Value = "50ms" })
		m := endsAs(ctx, waiting, doryv1alpha1.MigrationRolledBack)
		Expect(m.Status.Reason).To(Equal(doryv1alpha1.MigrationReasonSuperseded))
		second := s.worksOn(ctx, s.first.Epoch)
		Expect(podIn(ctx, second.Pod, namespace).Spec.Containers[0].Env).To(ContainElement(corev1.EnvVar{Name: "COUNTER_INTERVAL", Value: "50ms"}))
		s.book.isWhole(ctx)
		s.seen.isContent()
	})

	It("keeps others waiting visibly, of which the newest goes next", func(ctx context.Context) {
		older := requested(ctx, s.key)
		Eventually(func(g Gomega) {
			g.Expect(migration(ctx, g, older).Status).To(And(
				HaveField("Phase", doryv1alpha1.MigrationPending), HaveField("Reason", "Queued"), HaveField("Message", ContainSubstring(waiting.Name))))
		}).WithContext(ctx).Should(Succeed())
		// Creation times have whole seconds: they tell which is newer only once the second is over.
		created := migration(ctx, Default, older).CreationTimestamp.Time
		Eventually(func() time.Time { return time.Now() }).WithContext(ctx).Should(BeTemporally(">", created.Add(2*time.Second)))
		newer := requested(ctx, s.key)
		superseded := endsAs(ctx, older, doryv1alpha1.MigrationRolledBack)
		Expect(superseded.Status).To(And(HaveField("Reason", doryv1alpha1.MigrationReasonSuperseded), HaveField("Message", ContainSubstring(newer.Name))))

		Expect(k8s.Delete(ctx, migration(ctx, Default, waiting))).To(Succeed())
		uncordon(ctx, otherNode(s.first.Node))
		endsAs(ctx, newer, doryv1alpha1.MigrationSucceeded)
		s.worksOn(ctx, s.first.Epoch)
		s.book.isWhole(ctx)
		s.seen.isContent()
	})
})

var _ = Describe("A move, when the operator that leads is killed", Serial, func() {
	var namespace string

	BeforeEach(func(ctx context.Context) {
		operatorsAreWell(ctx)
		DeferCleanup(operatorsAreWell)
		namespace = newNamespace(ctx)
	})

	DescribeTable("is ended by the next one, and loses and repeats nothing",
		func(ctx context.Context, strategy doryv1alpha1.MigrationStrategy, moment func(ctx context.Context, s subject, move client.ObjectKey) bool) {
			p := counter(namespace, "bereaved")
			// So much state that the handoff takes a moment.
			p.Spec.Env = append(p.Spec.Env, corev1.EnvVar{Name: "COUNTER_PAYLOAD_BYTES", Value: "500000"})
			s := settle(ctx, p)
			name := leader(ctx, Default)
			processes := containerProcesses(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: name})

			move := requested(ctx, s.key, by(strategy))
			Eventually(func() bool { return moment(ctx, s, move) }).WithContext(ctx).WithTimeout(timeToRun).WithPolling(2 * time.Millisecond).Should(BeTrue())
			killProcesses(processes)
			AddReportEntry("killed in", string(migration(ctx, Default, move).Status.Phase))

			ended := ends(ctx, move)
			Expect(ended.Status.Phase).To(BeElementOf(doryv1alpha1.MigrationSucceeded, doryv1alpha1.MigrationRolledBack), "%+v", ended.Status)
			if ended.Status.Phase == doryv1alpha1.MigrationSucceeded {
				s.worksOn(ctx, s.first.Epoch)
			} else {
				s.staysPut(ctx)
			}
			s.book.isWhole(ctx)
			s.seen.isContent()
			Eventually(func(g Gomega) { g.Expect(pods(ctx, g, s.key)).To(HaveLen(1)) }).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		},
		Entry("while the target starts", doryv1alpha1.MigrationLive, hasReached(doryv1alpha1.MigrationStarting)),
		Entry("while the work is handed over", doryv1alpha1.MigrationLive, sourceStandsAside),
		Entry("once it is handed over", doryv1alpha1.MigrationLive, targetHoldsTheEpoch),
		Entry("while the source of StopAndCopy ends", doryv1alpha1.MigrationStopAndCopy, hasReached(doryv1alpha1.MigrationHandingOff)),
		Entry("while the target of StopAndCopy starts", doryv1alpha1.MigrationStopAndCopy, targetHoldsTheEpoch),
	)
})

var _ = Describe("A move, when it loses the node", Serial, func() {
	var (
		namespace string
		s         subject
	)

	BeforeEach(func(ctx context.Context) {
		operatorsAreWell(ctx)
		DeferCleanup(healOperators)
		namespace = newNamespace(ctx)
		p := counter(namespace, "on-the-node")
		p.Spec.TerminationGracePeriodSeconds = 5
		p.Spec.State = &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{Duration: time.Second}}
		p.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{StartTimeoutSeconds: 20, HandoffTimeoutSeconds: 10}
		cordon(ctx, cloudNode)
		s = settle(ctx, p)
		uncordon(ctx, cloudNode)
		Expect(s.first.Node).To(Equal(otherCloudNode))
	})

	It("of the source's kubelet takes the work along all the same", func(ctx context.Context) {
		breakNode(ctx, "stop", otherCloudNode)
		move := requested(ctx, s.key, to(cloudNode))
		second := s.worksOn(ctx, s.first.Epoch)
		Expect(second.Node).To(Equal(cloudNode))
		s.book.isWhole(ctx)
		s.seen.hasSeen(s.first.Pod, second.Pod)
		Expect(pods(ctx, Default, s.key)).To(ContainElement(s.first.Pod), "its end is not confirmed")

		cluster(ctx, "node", "start", otherCloudNode)
		endsAs(ctx, move, doryv1alpha1.MigrationSucceeded)
		Eventually(func(g Gomega) { g.Expect(pods(ctx, g, s.key)).To(ConsistOf(second.Pod)) }).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		s.book.isWhole(ctx)
	})

	It("of the source with its power starts nothing in its place, and goes on from the checkpoint when it is back", func(ctx context.Context) {
		safe := checkpointed(ctx, s.key, 10)
		cordon(ctx, cloudNode)
		move := requested(ctx, s.key, to(cloudNode))
		Eventually(func(g Gomega) {
			g.Expect(migration(ctx, g, move).Status.Phase).To(Equal(doryv1alpha1.MigrationPlacing))
		}).WithContext(ctx).Should(Succeed())
		breakNode(ctx, "kill", otherCloudNode)
		uncordon(ctx, cloudNode)
		Expect(ends(ctx, move).Status.Phase).To(BeElementOf(doryv1alpha1.MigrationRolledBack, doryv1alpha1.MigrationFailed))
		Consistently(func(g Gomega) {
			g.Expect(epochOf(ctx, g, s.key)).To(And(HaveField("Epoch", s.first.Epoch), HaveField("Holder", s.first.Pod)))
			g.Expect(s.book.chapters()).To(HaveLen(1), "nobody else acts")
		}).WithContext(ctx).WithTimeout(timeToReact / 3).Should(Succeed())

		cluster(ctx, "node", "start", otherCloudNode)
		back := runsAfter(ctx, s.key, s.first.Epoch-1)
		s.book.worked(ctx, back.Pod)
		s.book.takesTurns()
		s.book.goesOnFrom(safe)
		s.seen.isContent()
	})

	It("of the target leaves the source at its work", func(ctx context.Context) {
		breakNode(ctx, "stop", cloudNode)
		move := requested(ctx, s.key, to(cloudNode))
		m := endsAs(ctx, move, doryv1alpha1.MigrationRolledBack)
		Expect(m.Status.Reason).To(Equal(doryv1alpha1.MigrationReasonTargetNotReady), m.Status.Message)
		Expect(m.Status.Message).To(ContainSubstring(cloudNode), "nobody has confirmed the target's end")
		s.staysPut(ctx)

		cluster(ctx, "node", "start", cloudNode)
		Eventually(func(g Gomega) { g.Expect(pods(ctx, g, s.key)).To(ConsistOf(s.first.Pod)) }).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		s.staysPut(ctx)
		s.seen.isContent()

		By("the next move succeeds")
		endsAs(ctx, requested(ctx, s.key, to(cloudNode)), doryv1alpha1.MigrationSucceeded)
		s.worksOn(ctx, s.first.Epoch)
		s.book.isWhole(ctx)
	})
})

// subject is a processor that works, and all who watch it.
type subject struct {
	key   client.ObjectKey
	book  journal
	seen  *witness
	first doryv1alpha1.ProcessorInstance
}

// settle starts the processor and waits until it has worked for a while.
func settle(ctx context.Context, p *doryv1alpha1.Processor) subject {
	GinkgoHelper()
	s := subject{key: client.ObjectKeyFromObject(p)}
	s.book, s.seen = keepJournal(s.key), watchPods(ctx, s.key)
	s.first = start(ctx, p)
	s.book.worked(ctx, s.first.Pod)
	return s
}

// worksOn waits until another instance works, under a higher epoch than that.
func (s subject) worksOn(ctx context.Context, after int64) doryv1alpha1.ProcessorInstance {
	GinkgoHelper()
	next := runsAfter(ctx, s.key, after)
	s.book.worked(ctx, next.Pod)
	return next
}

// staysPut checks that the first instance goes on as if nothing had happened.
func (s subject) staysPut(ctx context.Context) {
	GinkgoHelper()
	before := lastOf(s.book.chapters()[0]).N
	Eventually(func(g Gomega) { g.Expect(lastOf(s.book.chapters()[0]).N).To(BeNumerically(">=", before+10)) }).WithContext(ctx).Should(Succeed())
	Expect(s.book.chapters()).To(HaveLen(1))
	s.book.isWhole(ctx)
	Expect(get(ctx, Default, s.key).Status.Instance).To(HaveValue(And(
		HaveField("Pod", s.first.Pod), HaveField("Epoch", s.first.Epoch), HaveField("Restarts", int32(0)))))
}

// otherNode is the node in the cloud that is not this one.
func otherNode(node string) string {
	if node == cloudNode {
		return otherCloudNode
	}
	return cloudNode
}

type request func(*doryv1alpha1.ProcessorMigration)

func to(node string) request {
	return func(m *doryv1alpha1.ProcessorMigration) { m.Spec.TargetNode = node }
}

func by(strategy doryv1alpha1.MigrationStrategy) request {
	return func(m *doryv1alpha1.ProcessorMigration) { m.Spec.Strategy = strategy }
}

// requested asks for a move of the processor.
func requested(ctx context.Context, processor client.ObjectKey, requests ...request) client.ObjectKey {
	GinkgoHelper()
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: processor.Namespace, Name: unique("move")},
		Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: processor.Name},
	}
	for _, request := range requests {
		request(m)
	}
	Expect(k8s.Create(ctx, m)).To(Succeed())
	return client.ObjectKeyFromObject(m)
}

func migration(ctx context.Context, g Gomega, key client.ObjectKey) *doryv1alpha1.ProcessorMigration {
	m := &doryv1alpha1.ProcessorMigration{}
	g.Expect(k8s.Get(ctx, key, m)).To(Succeed())
	return m
}

// ends waits until the move is over, well or not.
func ends(ctx context.Context, key client.ObjectKey) *doryv1alpha1.ProcessorMigration {
	GinkgoHelper()
	var m *doryv1alpha1.ProcessorMigration
	Eventually(func(g Gomega) {
		m = migration(ctx, g, key)
		g.Expect(m.Ended()).To(BeTrue(), "%+v", m.Status)
	}).WithContext(ctx).WithTimeout(timeToMove).Should(Succeed())
	return m
}

// endsAs waits until the move is over, and checks how.
func endsAs(ctx context.Context, key client.ObjectKey, phase doryv1alpha1.MigrationPhase) *doryv1alpha1.ProcessorMigration {
	GinkgoHelper()
	m := ends(ctx, key)
	Expect(m.Status.Phase).To(Equal(phase), "%+v", m.Status)
	return m
}

// updated is the condition that says whether the instance is of the current spec, or an empty one.
func updated(p *doryv1alpha1.Processor) metav1.Condition {
	if condition := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionUpdated); condition != nil {
		return *condition
	}
	return metav1.Condition{}
}

func podIn(ctx context.Context, name, namespace string) *corev1.Pod {
	GinkgoHelper()
	pod := podOf(namespace, name)
	Expect(k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
	return pod
}

// The moments at which a move is interrupted.

func hasReached(phase doryv1alpha1.MigrationPhase) func(context.Context, subject, client.ObjectKey) bool {
	return func(ctx context.Context, _ subject, move client.ObjectKey) bool {
		return migration(ctx, Default, move).Status.Phase == phase
	}
}

// sourceStandsAside begins a moment before the source quiesces.
func sourceStandsAside(ctx context.Context, s subject, _ client.ObjectKey) bool {
	pod := podOf(s.key.Namespace, s.first.Pod)
	return k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod) == nil && pod.Annotations[doryv1alpha1.AnnotationRole] == doryv1alpha1.RoleStandby
}

func targetHoldsTheEpoch(ctx context.Context, s subject, _ client.ObjectKey) bool {
	return epochOf(ctx, Default, s.key).Epoch > s.first.Epoch
}

// kubectl runs it as a person would, and answers what it prints.
func kubectl(ctx context.Context, stdin string, args ...string) string {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, filepath.Join("..", "..", "bin", "k8s", "kubectl"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	return strings.TrimSpace(string(out))
}
