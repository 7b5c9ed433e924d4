package dbsync

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const (
	isHeld    = "False/" + doryv1alpha1.ReasonDeletionHeld
	isInvalid = "False/" + doryv1alpha1.ReasonRowInvalid
)

var _ = Describe("deletions", func() {
	var w *world

	ten := func() []string {
		ids := make([]string, 10)
		for i := range ids {
			ids[i] = fmt.Sprintf("p%d", i)
		}
		return ids
	}

	gone := func(id string) func() bool {
		return func() bool { _, err := w.processor(id); return apierrors.IsNotFound(err) }
	}

	BeforeEach(func() {
		w = newWorld(postgres)
		w.rows(ten()...)
	})

	It("follow rows that are deleted, terminated or failed", func() {
		w.run(patient, trusting)
		w.settled(10)
		w.exec(`DELETE FROM processors WHERE id = 'p0'`)
		Eventually(gone("p0")).Should(BeTrue())
		w.exec(`UPDATE processors SET status = 'terminated' WHERE id = 'p1'`)
		Eventually(gone("p1")).Should(BeTrue())
		w.exec(`UPDATE processors SET status = 'failed' WHERE id = 'p2'`)
		Eventually(gone("p2")).Should(BeTrue())
		w.settled(7)
		Eventually(func() (any, error) { return w.events("p1") }).Should(HaveKey(reasonRowGone))
		w.exec(`UPDATE processors SET status = 'active' WHERE id = 'p1'`)
		w.settled(8)
	})

	It("are held where half of the rows go at once, and forgotten when the rows return", func() {
		w.run(brisk)
		w.settled(10)
		w.exec(`CREATE TABLE saved AS SELECT * FROM processors`)
		w.exec(`DELETE FROM processors WHERE id < 'p5'`)
		for i := range 5 {
			Eventually(func() string { return w.condition(fmt.Sprintf("p%d", i)) }).Should(Equal(isHeld))
		}
		Expect(w.metric("dory_sync_deletions_held")).To(Equal(5.0))
		Expect(w.condition("p7")).To(BeEmpty())
		_, message := foundCondition(w.mustProcessor("p0"))
		Expect(message).To(And(ContainSubstring("5 of 10"), ContainSubstring("restore"), ContainSubstring(doryv1alpha1.AnnotationDeletionApproved)))
		Eventually(func() (any, error) { return w.events("p0") }).Should(HaveKeyWithValue(doryv1alpha1.ReasonDeletionHeld, HaveLen(1)))
		Consistently(w.processors, time.Second).Should(Equal(10))
		Expect(w.events("p0")).To(HaveKeyWithValue(doryv1alpha1.ReasonDeletionHeld, HaveLen(1)))

		w.exec(`INSERT INTO processors SELECT * FROM saved WHERE id < 'p5'`)
		for i := range 5 {
			Eventually(func() string { return w.condition(fmt.Sprintf("p%d", i)) }).Should(BeEmpty())
		}
		Eventually(func() float64 { return w.metric("dory_sync_deletions_held") }).Should(BeZero())
	})

	It("that are held go on with a person's word, one by one, and with kubectl", func() {
		w.run(patient)
		w.settled(10)
		w.exec(`DELETE FROM processors WHERE id < 'p4'`)
		Eventually(func() string { return w.condition("p3") }).Should(Equal(isHeld))
		for _, id := range []string{"p0", "p1"} {
			p := w.mustProcessor(id)
			p.Annotations[doryv1alpha1.AnnotationDeletionApproved] = "true"
			Expect(direct.Patch(context.Background(), p, client.MergeFrom(w.mustProcessor(id)))).To(Succeed())
		}
		Eventually(gone("p0")).Should(BeTrue())
		Eventually(gone("p1")).Should(BeTrue())
		Consistently(w.processors, time.Second).Should(Equal(8), "a word for two is none for the others")
		Expect(direct.Delete(context.Background(), w.mustProcessor("p2"))).To(Succeed())
		By("one of seven is no mass any more")
		Eventually(gone("p3")).Should(BeTrue())
		Expect(w.processors()).To(Equal(6))
	})

	It("are held where the table is empty, also after a restart", func() {
		w.run(patient)
		w.settled(10)
		w.exec(`TRUNCATE processors`)
		Eventually(func() string { return w.condition("p9") }).Should(Equal(isHeld))
		w.stop()
		w.run(brisk)
		Eventually(func() float64 { return w.metric("dory_sync_deletions_held") }).Should(Equal(10.0))
		Consistently(w.processors, time.Second).Should(Equal(10))
		Expect(w.client.writes.Load()).To(BeZero(), "they are held already and say so")
	})

	It("of the last object are held where its row vanished, and done where it was terminated", func() {
		w.exec(`DELETE FROM processors WHERE id <> 'p0'`)
		w.run(patient)
		w.settled(1)
		w.exec(`DELETE FROM processors`)
		Eventually(func() string { return w.condition("p0") }).Should(Equal(isHeld))
		w.rows("p0")
		Eventually(func() string { return w.condition("p0") }).Should(BeEmpty())
		w.exec(`UPDATE processors SET status = 'terminated'`)
		w.settled(0)
	})

	It("of rows that vanish one by one pile up until they are held", func() {
		w.run(brisk)
		w.settled(10)
		for i := range 8 {
			w.exec(`DELETE FROM processors WHERE id = $1`, fmt.Sprintf("p%d", i))
			before := w.metric("dory_sync_deletions_held")
			Eventually(func() bool {
				n, err := w.processors()
				return err == nil && (n < 10-i || w.metric("dory_sync_deletions_held") > before || i > 1)
			}).Should(BeTrue())
		}
		Eventually(func() float64 { return w.metric("dory_sync_deletions_held") }).Should(BeNumerically(">=", 5.0))
		Consistently(w.processors, time.Second).Should(BeNumerically(">=", 8))
	})

	It("leave the object of a row that moved, which is refused until the object is gone", func() {
		w.run(brisk, trusting)
		w.settled(10)
		before, target := w.mustProcessor("p0"), newNamespaceObject()
		elsewhere := func() error {
			return direct.Get(context.Background(), client.ObjectKey{Namespace: target, Name: "p0"}, &doryv1alpha1.Processor{})
		}
		w.exec(`UPDATE processors SET k8s_namespace = $1 WHERE id = 'p0'`, target)
		Eventually(func() string { return w.syncError("p0") }).Should(And(
			ContainSubstring("changed from %q to %q", w.namespace, target), ContainSubstring("wait until Processor %s/p0 is gone", w.namespace)))
		Eventually(func() string { return w.condition("p0") }).Should(Equal(isInvalid))
		Consistently(elsewhere, time.Second).Should(Satisfy(apierrors.IsNotFound))
		Expect(w.mustProcessor("p0").UID).To(Equal(before.UID))
		Expect(w.mustProcessor("p0").Spec).To(Equal(before.Spec))
		quietFor(w, time.Second)

		By("changing it back")
		w.exec(`UPDATE processors SET k8s_namespace = $1 WHERE id = 'p0'`, w.namespace)
		Eventually(func() string { return w.syncError("p0") }).Should(BeEmpty())
		Eventually(func() string { return w.condition("p0") }).Should(BeEmpty())
		Expect(w.mustProcessor("p0").UID).To(Equal(before.UID))

		By("letting it end first")
		held := w.mustProcessor("p0")
		held.Finalizers = []string{"example.com/slow"}
		Expect(direct.Update(context.Background(), held)).To(Succeed())
		w.exec(`UPDATE processors SET status = 'terminated' WHERE id = 'p0'`)
		Eventually(func() bool { return w.mustProcessor("p0").DeletionTimestamp != nil }).Should(BeTrue())
		w.exec(`UPDATE processors SET k8s_namespace = $1, status = 'active' WHERE id = 'p0'`, target)
		Eventually(func() string { return w.syncError("p0") }).Should(ContainSubstring("wait until"))
		Consistently(elsewhere, 500*time.Millisecond).Should(Satisfy(apierrors.IsNotFound))
		held = w.mustProcessor("p0")
		held.Finalizers = nil
		Expect(direct.Update(context.Background(), held)).To(Succeed())
		Eventually(elsewhere).Should(Succeed())
		Eventually(func() string { return w.syncError("p0") }).Should(BeEmpty())
	})

	It("that were approved need a new word once the row was back", func() {
		w.run(patient)
		w.settled(10)
		p := w.mustProcessor("p0")
		p.Annotations[doryv1alpha1.AnnotationDeletionApproved] = "true"
		Expect(direct.Update(context.Background(), p)).To(Succeed())
		Eventually(func() map[string]string { return w.mustProcessor("p0").Annotations }).ShouldNot(HaveKey(doryv1alpha1.AnnotationDeletionApproved))
		Eventually(func() (any, error) { return w.events("p0") }).Should(HaveKey(reasonExpired))
		Expect(w.mustProcessor("p0").UID).To(Equal(p.UID))
		quiet(w)
		Expect(w.client.writes.Load()).To(BeEquivalentTo(11), "ten objects, and one annotation")
		w.exec(`DELETE FROM processors WHERE id < 'p5'`)
		Eventually(func() string { return w.condition("p0") }).Should(Equal(isHeld))
	})
})
