package dbsync

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("a Processor of people", func() {
	source := func(w *world, id string) string {
		return w.value(`SELECT source || '/' || status || '/' || k8s_name || '/' || coalesce(image_uri, '') FROM processors WHERE id = $1`, id)
	}

	It("gets a row, keeps it right, and ends it", func() {
		w := newWorld(postgres)
		before := apply(w, "early", "")
		w.run(patient)
		Eventually(func() string { return source(w, "early") }).Should(Equal("kubernetes/active/early/mine:1"))
		apply(w, "late", "Late_1")
		Eventually(func() string { return source(w, "Late_1") }).Should(Equal("kubernetes/active/late/mine:1"))
		before.Spec.Image = "mine:2"
		Expect(direct.Update(context.Background(), before)).To(Succeed())
		Eventually(func() string { return source(w, "early") }).Should(Equal("kubernetes/active/early/mine:2"))
		Expect(direct.Delete(context.Background(), before)).To(Succeed())
		Eventually(func() string { return source(w, "early") }).Should(Equal("kubernetes/terminated/early/mine:2"))
		apply(w, "early", "")
		Eventually(func() string { return source(w, "early") }).Should(Equal("kubernetes/active/early/mine:1"))
		Expect(w.processors()).To(Equal(2))
	})

	It("that was deleted while nobody looked has its row ended at the next start", func() {
		w := newWorld(postgres)
		p := apply(w, "a", "")
		w.run(patient)
		Eventually(func() string { return source(w, "a") }).Should(HavePrefix("kubernetes/active"))
		w.stop()
		Expect(direct.Delete(context.Background(), p)).To(Succeed())
		w.run(patient)
		Eventually(func() string { return source(w, "a") }).Should(HavePrefix("kubernetes/terminated"))
	})

	It("is edited itself, and not by way of its row", func() {
		w := newWorld(postgres)
		apply(w, "a", "")
		w.run(patient)
		Eventually(func() string { return source(w, "a") }).Should(HavePrefix("kubernetes/active"))
		_, err := w.db.Exec(context.Background(), `UPDATE processors SET status = 'suspended' WHERE id = 'a'`)
		Expect(err).To(MatchError(ContainSubstring("mirrors the Processor " + w.namespace + "/a")))
	})

	It("under a name that its row would not give it is not started a second time", func() {
		w := newWorld(postgres)
		w.run(brisk)
		p := apply(w, "late", "Late_1")
		Eventually(func() string { return source(w, "Late_1") }).Should(HavePrefix("kubernetes/active/late"))
		w.exec(`UPDATE processors SET source = 'database', processor_template_id = 't', image_uri = NULL WHERE id = 'Late_1'`)
		Eventually(func() string { return w.syncError("Late_1") }).Should(ContainSubstring("runs already as Processor " + w.namespace + "/late"))
		Consistently(w.processors, time.Second).Should(Equal(1))
		Expect(direct.Delete(context.Background(), p)).To(Succeed())
		Eventually(func() error { _, err := w.processor("Late_1"); return err }).Should(Succeed())
		Eventually(func() string { return w.syncError("Late_1") }).Should(BeEmpty())
	})

	It("whose id was another's is listed as soon as the other is gone", func() {
		w := newWorld(postgres)
		w.run(patient)
		first := apply(w, "first", "Same_1")
		Eventually(func() string { return source(w, "Same_1") }).Should(HavePrefix("kubernetes/active/first"))
		apply(w, "second", "Same_1")
		Eventually(func() string { return w.condition("second") }).Should(Equal("False/" + doryv1alpha1.ReasonRowConflict))
		Expect(direct.Delete(context.Background(), first)).To(Succeed())
		Eventually(func() string { return source(w, "Same_1") }).Should(HavePrefix("kubernetes/active/second"))
		Eventually(func() string { return w.condition("second") }).Should(BeEmpty())
	})

	It("whose id is a row's says so, and writes nothing into that row", func() {
		w := newWorld(postgres)
		w.rows("a")
		w.run(brisk)
		w.settled(1)
		p := apply(w, "b", "a")
		Eventually(func() string { return w.condition("b") }).Should(Equal("False/" + doryv1alpha1.ReasonRowConflict))
		Eventually(func() (any, error) { return w.events("b") }).Should(HaveKeyWithValue(doryv1alpha1.ReasonRowConflict, HaveLen(1)))
		setReady(w, "b", metav1.ConditionTrue, doryv1alpha1.ReasonRunning, "pod-b")
		quiet(w)
		Expect(w.value(`SELECT coalesce(pod_name, 'none') || '/' || k8s_name FROM processors WHERE id = 'a'`)).To(Equal("none/a"))
		Expect(w.metric("dory_sync_row_conflicts")).To(Equal(1.0))
		Expect(direct.Delete(context.Background(), p)).To(Succeed())
		Eventually(func() float64 { return w.metric("dory_sync_row_conflicts") }).Should(BeZero())
		Expect(source(w, "a")).To(HavePrefix("database/active"))
	})

	DescribeTable("can be handed over to the database and back, and keeps living", func(id string) {
		w := newWorld(postgres)
		w.run(brisk)
		q := apply(w, "b", id)
		Eventually(func() string { return source(w, "b") }).Should(HavePrefix("kubernetes/active"))
		w.exec(`UPDATE processors SET source = 'database', processor_template_id = 't', image_uri = NULL WHERE id = 'b'`)
		Eventually(func() string { return w.mustProcessor("b").Spec.Image }).Should(Equal("registry.example/camera:1"))
		Expect(w.mustProcessor("b").UID).To(Equal(q.UID))
		Expect(w.mustProcessor("b").DatabaseOwned()).To(BeTrue())
		Eventually(func() (any, error) { return w.events("b") }).Should(HaveKey(reasonAdopted))

		w.exec(`UPDATE processors SET source = 'kubernetes', processor_template_id = NULL WHERE id = 'b'`)
		Eventually(func() bool { return w.mustProcessor("b").DatabaseOwned() }).Should(BeFalse())
		Expect(w.mustProcessor("b").UID).To(Equal(q.UID))
		Expect(w.mustProcessor("b").Spec.Image).To(Equal("registry.example/camera:1"))
		Eventually(func() string { return source(w, "b") }).Should(Equal("kubernetes/active/b/registry.example/camera:1"))
		Expect(w.syncError("b")).To(BeEmpty())
	}, Entry("with an id of its own", "b"), Entry("with the id that its name is", ""))
})
