//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// checkpointInterval of these tests, and what else may pass on a busy machine between two checkpoints that are stored.
const (
	checkpointInterval = time.Second
	checkpointSlack    = 5 * time.Second
)

var _ = Describe("The state of a processor", func() {
	var namespace string

	BeforeEach(func(ctx context.Context) { namespace = newNamespace(ctx) })

	It("outlives its process, but for what was done since the last checkpoint", func(ctx context.Context) {
		s := settle(ctx, kept(counter(namespace, "killed")))
		safe := checkpointed(ctx, s.key, 20)
		kill(ctx, client.ObjectKey{Namespace: namespace, Name: s.first.Pod})
		Eventually(func(g Gomega) {
			p := get(ctx, g, s.key)
			g.Expect(p.Status.Phase).To(Equal(doryv1alpha1.ProcessorRunning))
			g.Expect(p.Status.Instance).To(HaveValue(And(HaveField("UID", s.first.UID), HaveField("Restarts", int32(1)))))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		s.book.worked(ctx, s.first.Pod)
		s.book.takesTurns()
		s.book.goesOnFrom(safe)
		s.book.lostNoMoreThan(checkpointInterval + checkpointSlack)
	})

	It("outlives a pod that is deleted by force", func(ctx context.Context) {
		s := settle(ctx, kept(counter(namespace, "forced")))
		safe := checkpointed(ctx, s.key, 20)
		kubectl(ctx, "", "-n", namespace, "delete", "pod", s.first.Pod, "--force", "--grace-period=0", "--wait=false")
		second := s.worksOn(ctx, s.first.Epoch)
		s.book.takesTurns()
		s.book.goesOnFrom(safe)
		s.book.lostNoMoreThan(checkpointInterval + checkpointSlack)
		s.seen.hasSeen(s.first.Pod, second.Pod)
	})

	It("is described in the status, and not written again while it is the same", func(ctx context.Context) {
		p := kept(counter(namespace, "still"))
		p.Spec.Env[0].Value = "1h" // One iteration, and then rest.
		s := client.ObjectKeyFromObject(p)
		start(ctx, p)
		safe := checkpointed(ctx, s, 1)
		Expect(*safe.Sequence).To(BeEquivalentTo(1))
		Expect(safe.Storage).To(Equal(doryv1alpha1.CheckpointConfigMap))
		condition := meta.FindStatusCondition(get(ctx, Default, s).Status.Conditions, doryv1alpha1.ConditionCheckpointed)
		Expect(condition).To(HaveValue(And(HaveField("Status", metav1.ConditionTrue), HaveField("Reason", doryv1alpha1.ReasonCheckpointCurrent))))

		before := stateConfigMap(ctx, Default, p)
		var stored struct {
			Checksum string `json:"checksum"`
		}
		Expect(json.Unmarshal([]byte(before.Data["state"]), &stored)).To(Succeed())
		Expect(stored.Checksum).To(Equal(safe.Checksum))
		Consistently(func(g Gomega) {
			g.Expect(stateConfigMap(ctx, g, p).ResourceVersion).To(Equal(before.ResourceVersion))
			g.Expect(get(ctx, g, s).Status.Checkpoint).To(Equal(&safe))
		}).WithContext(ctx).WithTimeout(5 * checkpointInterval).Should(Succeed())
	})

	It("is not copied where the spec says so", func(ctx context.Context) {
		p := counter(namespace, "careless")
		p.Spec.State = &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{}, OnMissing: doryv1alpha1.OnMissingDiscard}
		s := settle(ctx, p)
		Consistently(func(g Gomega) {
			status := get(ctx, g, s.key).Status
			g.Expect(status.Checkpoint).To(BeNil())
			g.Expect(meta.FindStatusCondition(status.Conditions, doryv1alpha1.ConditionCheckpointed)).To(BeNil())
		}).WithContext(ctx).WithTimeout(5 * checkpointInterval).Should(Succeed())
	})

	Context("that was lost", func() {
		var (
			p    *doryv1alpha1.Processor
			s    subject
			lost *corev1.ConfigMap
		)

		BeforeEach(func(ctx context.Context) {
			p = kept(counter(namespace, "lost"))
			p.Spec.State.OnMissing = doryv1alpha1.OnMissingRequire
			s = settle(ctx, p)
			checkpointed(ctx, s.key, 10)
			change(ctx, s.key, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(true) })
			Eventually(func(g Gomega) { g.Expect(pods(ctx, g, s.key)).To(BeEmpty()) }).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
			lost = stateConfigMap(ctx, Default, p)
			Expect(k8s.Delete(ctx, lost)).To(Succeed())
			change(ctx, s.key, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = nil })
			Eventually(func(g Gomega) {
				ready := readyCondition(get(ctx, g, s.key))
				g.Expect(ready.Reason).To(Equal(doryv1alpha1.ReasonStateMissing), ready.Message)
				g.Expect(ready.Message).To(And(ContainSubstring(lost.Name), ContainSubstring("spec.state.onMissing")))
			}).WithContext(ctx).Should(Succeed())
			Consistently(func(g Gomega) { g.Expect(pods(ctx, g, s.key)).To(BeEmpty()) }).WithContext(ctx).WithTimeout(timeToReact / 6).Should(Succeed())
		})

		It("is waited for where the spec requires it, until it is back", func(ctx context.Context) {
			Expect(k8s.Create(ctx, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: lost.Namespace, Name: lost.Name, Labels: lost.Labels, Annotations: lost.Annotations},
				Data:       lost.Data,
			})).To(Succeed())
			second := s.worksOn(ctx, s.first.Epoch)
			s.book.isWhole(ctx)
			s.seen.hasSeen(s.first.Pod, second.Pod)
		})

		It("is given up when a person says so, with an event", func(ctx context.Context) {
			change(ctx, s.key, func(p *doryv1alpha1.Processor) { p.Spec.State.OnMissing = doryv1alpha1.OnMissingPreferLatest })
			s.worksOn(ctx, s.first.Epoch)
			s.book.takesTurns()
			Expect(s.book.chapters()[1].iterations[0].N).To(BeEquivalentTo(1), "it began anew")
			Eventually(func(g Gomega) {
				g.Expect(events(ctx, g, namespace, "Processor", s.key.Name)).To(ContainElement(HavePrefix("StateOutdated: ")))
			}).WithContext(ctx).Should(Succeed())
		})
	})
})

var _ = Describe("A state of 2 MiB", Serial, func() {
	var (
		namespace string
		s         subject
	)

	BeforeEach(func(ctx context.Context) {
		operatorsAreWell(ctx)
		DeferCleanup(healOperators)
		namespace = newNamespace(ctx)
		p := kept(counter(namespace, "large"))
		p.Spec.Env = []corev1.EnvVar{{Name: "COUNTER_INTERVAL", Value: "200ms"}, {Name: "COUNTER_PAYLOAD_BYTES", Value: strconv.Itoa(2 << 20)}}
		p.Spec.Resources.Limits["memory"] = resource.MustParse("256Mi")
		cordon(ctx, cloudNode)
		s = settle(ctx, p)
		uncordon(ctx, cloudNode)
		Expect(s.first.Node).To(Equal(otherCloudNode))
	})

	It("is kept in the database, and outlives its node", func(ctx context.Context) {
		safe := checkpointed(ctx, s.key, 10)
		Expect(safe.Storage).To(Equal(doryv1alpha1.CheckpointDatabase))
		Expect(safe.SizeBytes).To(BeNumerically(">", 2<<20))
		breakNode(ctx, "kill", otherCloudNode)
		safe = *get(ctx, Default, s.key).Status.Checkpoint
		Expect(k8s.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: otherCloudNode}})).To(Succeed())

		// Kubernetes collects the pods of a node that is gone for 40 s.
		moved := s.worksOn(ctx, s.first.Epoch)
		Expect(moved.Node).To(Equal(cloudNode))
		s.book.takesTurns()
		s.book.goesOnFrom(safe)
		checkpointed(ctx, s.key, *safe.Sequence+1)
	})

	It("moves without losing or repeating anything", func(ctx context.Context) {
		m := endsAs(ctx, requested(ctx, s.key), doryv1alpha1.MigrationSucceeded)
		Expect(m.Status.StateBytes).To(BeNumerically(">", 2<<20))
		second := s.worksOn(ctx, s.first.Epoch)
		s.book.isWhole(ctx)
		s.seen.hasSeen(s.first.Pod, second.Pod)
		AddReportEntry("pause", fmt.Sprintf("operator: %v, journal: %s", m.Status.Pause, s.book.pauses()))
	})

	It("is kept in several ConfigMaps while the database is away, and comes back from there", func(ctx context.Context) {
		checkpointed(ctx, s.key, 5)
		stopPostgres(ctx)
		var safe doryv1alpha1.ProcessorCheckpoint
		Eventually(func(g Gomega) {
			p := get(ctx, g, s.key)
			g.Expect(p.Status.Checkpoint).To(HaveValue(HaveField("Storage", doryv1alpha1.CheckpointChunks)), "%+v", p.Status.Conditions)
			safe = *p.Status.Checkpoint
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		Expect(list[corev1.ConfigMapList](ctx, Default, namespace).Items).To(ContainElement(HaveField("Labels", HaveKeyWithValue("dory.io/checkpoint", s.key.Name))))

		kill(ctx, client.ObjectKey{Namespace: namespace, Name: s.first.Pod})
		Eventually(func(g Gomega) {
			g.Expect(get(ctx, g, s.key).Status.Instance).To(HaveValue(HaveField("Restarts", int32(1))))
			chapters := s.book.chapters()
			g.Expect(lastOf(chapters[len(chapters)-1]).N).To(BeNumerically(">", *safe.Sequence))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())

		startPostgres(ctx)
		Eventually(func(g Gomega) {
			g.Expect(get(ctx, g, s.key).Status.Checkpoint).To(HaveValue(HaveField("Storage", doryv1alpha1.CheckpointDatabase)))
			g.Expect(list[corev1.ConfigMapList](ctx, g, namespace).Items).NotTo(ContainElement(HaveField("Labels", HaveKey("dory.io/checkpoint"))))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	})
})

// kept has the processor's state copied every second.
func kept(p *doryv1alpha1.Processor) *doryv1alpha1.Processor {
	p.Spec.State = &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{Duration: checkpointInterval}}
	return p
}

// checkpointed waits until at least so many iterations are in a checkpoint.
func checkpointed(ctx context.Context, key client.ObjectKey, iterations int64) doryv1alpha1.ProcessorCheckpoint {
	GinkgoHelper()
	var found doryv1alpha1.ProcessorCheckpoint
	Eventually(func(g Gomega) {
		p := get(ctx, g, key)
		g.Expect(p.Status.Checkpoint).To(HaveValue(HaveField("Sequence", HaveValue(BeNumerically(">=", iterations)))), "%+v", p.Status.Conditions)
		found = *p.Status.Checkpoint
	}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	return found
}

// stateConfigMap is where the SDK keeps the state.
func stateConfigMap(ctx context.Context, g Gomega, p *doryv1alpha1.Processor) *corev1.ConfigMap {
	found := &corev1.ConfigMap{}
	g.Expect(k8s.Get(ctx, client.ObjectKey{Namespace: p.Namespace, Name: "dory-state-" + p.ID()}, found)).To(Succeed())
	return found
}
