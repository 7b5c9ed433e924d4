package dbsync

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("rows", func() {
	It("become Processors within a second, as rendered, and the API server's defaults agree", func() {
		w := newWorld(postgres)
		w.run(patient)
		w.rows("first")
		w.settled(1)
		w.rows("cam-1")
		Eventually(func() error { _, err := w.processor("cam-1"); return err }, time.Second).Should(Succeed())

		rows, err := w.store.GetProcessors(context.Background(), []string{"cam-1"})
		Expect(err).NotTo(HaveOccurred())
		want, _, err := Render(rows[0])
		Expect(err).NotTo(HaveOccurred())
		have := w.mustProcessor("cam-1")
		Expect(have.Spec).To(BeComparableTo(want.Spec))
		Expect(have.Labels).To(Equal(want.Labels))
		Expect(have.Annotations).To(Equal(want.Annotations))
		Expect(sameProcessor(want, have)).To(BeTrue())
		Expect(have.ManagedFields).To(HaveLen(1))
		Expect(have.ManagedFields[0].Manager).To(Equal(FieldManager))
		Expect(w.syncError("cam-1")).To(BeEmpty())
		Eventually(func() string { return w.value(`SELECT k8s_name FROM processors WHERE id = 'cam-1'`) }).Should(Equal("cam-1"))
	})

	It("with an id that is no name keep the id in the spec", func() {
		w := newWorld(postgres)
		w.run(patient)
		ids := []string{"Proc_6", "line 4 east", "目标", strings.Repeat("x", 300), strings.Repeat("é", 512)}
		w.rows(ids...)
		w.settled(len(ids))
		for _, id := range ids {
			p := w.mustProcessor(id)
			Expect(p.Spec.ProcessorID).To(Equal(id))
			Expect(p.Annotations).To(HaveKeyWithValue(doryv1alpha1.AnnotationProcessorID, id))
			Expect(w.syncError(id)).To(BeEmpty())
		}
	})

	It("follow their template's active version, their sensor and their status", func() {
		w := newWorld(postgres)
		w.exec(`INSERT INTO sensors (id, name) VALUES ('s', 'old')`)
		w.rows("a", "b", "c")
		w.exec(`UPDATE processors SET sensor_id = 's' WHERE id = 'a'`)
		w.run(patient)
		w.settled(3)

		w.exec(`UPDATE processor_template_versions SET is_active = (version = '2')`)
		for _, id := range []string{"a", "b", "c"} {
			Eventually(func() string { return w.mustProcessor(id).Spec.Image }).Should(Equal("registry.example/camera:2"))
		}
		w.exec(`UPDATE sensors SET name = 'new' WHERE id = 's'`)
		Eventually(func() []corev1.EnvVar { return w.mustProcessor("a").Spec.Env }).Should(ContainElement(corev1.EnvVar{Name: "SENSOR_NAME", Value: "new"}))
		w.exec(`UPDATE processors SET status = 'suspended' WHERE id = 'b'`)
		Eventually(func() bool { return w.mustProcessor("b").Suspended() }).Should(BeTrue())
		w.exec(`UPDATE processors SET status = 'active', sensor_id = NULL`)
		Eventually(func() bool { return w.mustProcessor("b").Suspended() }).Should(BeFalse())
		Eventually(func() []corev1.EnvVar { return w.mustProcessor("a").Spec.Env }).ShouldNot(ContainElement(HaveField("Name", "SENSOR_NAME")))
	})

	It("leave the request to restart their Processor alone, and take it out of no spec", func() {
		w := newWorld(postgres)
		w.rows("a")
		w.run(patient)
		w.settled(1)
		p := w.mustProcessor("a")
		restarted := p.DeepCopy()
		restarted.Annotations[doryv1alpha1.AnnotationRestartedAt] = "2026-01-31T12:00:00Z"
		Expect(direct.Patch(context.Background(), restarted, client.MergeFrom(p))).To(Succeed())
		w.exec(`UPDATE processor_template_versions SET is_active = (version = '2')`)
		Eventually(func() string { return w.mustProcessor("a").Spec.Image }).Should(Equal("registry.example/camera:2"))
		Expect(w.mustProcessor("a").Annotations).To(HaveKeyWithValue(doryv1alpha1.AnnotationRestartedAt, "2026-01-31T12:00:00Z"))
	})

	It("that change without changing their object write nothing", func() {
		w := newWorld(postgres)
		w.rows("a")
		w.run(brisk)
		w.settled(1)
		Eventually(func() string { return w.value(`SELECT k8s_name FROM processors WHERE id = 'a'`) }).Should(Equal("a"))
		before, writes := w.mustProcessor("a"), w.client.writes.Load()
		w.exec(`UPDATE processors SET status = 'running' WHERE id = 'a'`)
		Consistently(func() string { return w.mustProcessor("a").ResourceVersion }, 1500*time.Millisecond).Should(Equal(before.ResourceVersion))
		Expect(w.client.writes.Load()).To(Equal(writes))
	})

	It("win over every change of their object by others", func() {
		w := newWorld(postgres)
		w.rows("a")
		w.run(patient)
		w.settled(1)
		want := w.mustProcessor("a").Spec
		changes := map[string]func(*doryv1alpha1.Processor){
			"a field": func(p *doryv1alpha1.Processor) { p.Spec.Image = "evil" },
			"a variable more": func(p *doryv1alpha1.Processor) {
				p.Spec.Env = append(p.Spec.Env, corev1.EnvVar{Name: "ZZ", Value: "1"})
			},
			"a field never named": func(p *doryv1alpha1.Processor) {
				p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Metadata: doryv1alpha1.PodTemplateMetadata{Labels: map[string]string{"a": "b"}}}
			},
			"suspend":       func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(true) },
			"the label":     func(p *doryv1alpha1.Processor) { delete(p.Labels, doryv1alpha1.LabelSource) },
			"an annotation": func(p *doryv1alpha1.Processor) { p.Annotations[doryv1alpha1.AnnotationProcessorID] = "b" },
		}
		for what, change := range changes {
			By(what)
			p := w.mustProcessor("a")
			change(p)
			Expect(direct.Update(context.Background(), p, client.FieldOwner("somebody"))).To(Succeed())
			Eventually(func(g Gomega) {
				now := w.mustProcessor("a")
				g.Expect(now.Spec).To(BeComparableTo(want))
				g.Expect(now.Labels).To(HaveKeyWithValue(doryv1alpha1.LabelSource, doryv1alpha1.SourceDatabase))
				g.Expect(now.Annotations).To(HaveKeyWithValue(doryv1alpha1.AnnotationProcessorID, "a"))
			}).Should(Succeed())
		}
		Eventually(func() string { return w.condition("a") }).Should(BeEmpty())
		Expect(w.value(`SELECT source FROM processors WHERE id = 'a'`)).To(Equal("database"))
	})

	It("bring back an object that was deleted by hand", func() {
		w := newWorld(postgres)
		w.rows("a")
		w.run(patient)
		w.settled(1)
		p := w.mustProcessor("a")
		Expect(direct.Delete(context.Background(), p)).To(Succeed())
		Eventually(func() (any, error) { now, err := w.processor("a"); return now.UID, err }).ShouldNot(Or(BeEmpty(), Equal(p.UID)))
	})

	It("arrive by the resync alone where nothing can be listened to", func() {
		w := newWorld(postgres)
		w.run(brisk, deaf)
		w.rows("a")
		w.settled(1)
		w.exec(`UPDATE processor_template_versions SET is_active = (version = '2')`)
		Eventually(func() string { return w.mustProcessor("a").Spec.Image }).Should(HaveSuffix(":2"))
		w.exec(`DELETE FROM processors WHERE id = 'a'`)
		w.rows("b")
		Eventually(func() bool { _, err := w.processor("a"); return apierrors.IsNotFound(err) }).Should(BeTrue())
	})

	It("arrive after the listening connection was cut", func() {
		w := newWorld(postgres)
		w.run(patient)
		w.rows("a")
		w.settled(1)
		Eventually(func() int64 {
			return w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN dory_changes' AND datname = current_database()`)
		}).Should(Equal(int64(1)))
		w.rows("b")
		w.settled(2)
	})

	It("come in thousands, and settle", func() {
		w := newWorld(postgres)
		const n = 1000
		w.exec(`INSERT INTO processors (id, processor_template_id, k8s_namespace) SELECT 'p-' || i, 't', $1 FROM generate_series(1, $2) i`, w.namespace, n)
		w.run(patient)
		// Each look lists them all, which keeps the API server from making them where it is done all the time.
		Eventually(w.processors, 2*time.Minute, time.Second).Should(Equal(n))
		Expect(w.client.writes.Load()).To(BeEquivalentTo(n))
		Eventually(func() string { return w.value(`SELECT count(*) FROM processors WHERE k8s_name IS NOT NULL`) }).Should(Equal(strconv.Itoa(n)))
		w.exec(`UPDATE processor_template_versions SET is_active = (version = '2')`)
		Eventually(func() int64 { return w.client.writes.Load() }, time.Minute).Should(BeEquivalentTo(2 * n))
		Consistently(func() int64 { return w.client.writes.Load() }, time.Second).Should(BeEquivalentTo(2 * n))
	})
})

var _ = Describe("at rest", func() {
	It("nothing is written, neither to the API server nor to the database, also right after a start", func() {
		w := newWorld(postgres)
		w.exec(`INSERT INTO edge_nodes (organization_id, name) VALUES (gen_random_uuid(), 'gw-1')`)
		w.exec(`UPDATE processor_template_versions SET runtime_config_template = runtime_config_template::jsonb || '{"new_key": 1,
			"state": {"checkpoint_interval_sec": 90}, "update": {"strategy": "Recreate"}, "migration": {"drain_fallback": "Never"}}'`)
		w.rows("a", "b", "Proc_6")
		w.exec(`INSERT INTO processors (id, processor_template_id, k8s_namespace) VALUES ('lost', 't', 'no-such-namespace')`)
		apply(w, "mine", "")
		w.run(brisk)
		w.settled(4)
		quiet(w)
		w.stop()

		w.run(brisk)
		Eventually(func() float64 { return w.metric("dory_sync_row_errors") }).Should(Equal(1.0))
		quietFor(w, 2*time.Second)
		Expect(w.client.writes.Load()).To(BeZero(), "writes after a restart that found everything as it should be")
	})
})

// quiet waits until everything has settled.
func quiet(w *world) {
	GinkgoHelper()
	var last string
	Eventually(func() bool {
		now := fmt.Sprint(w.client.writes.Load(), w.rowWrites())
		same := now == last
		last = now
		return same
	}).WithPolling(600 * time.Millisecond).Should(BeTrue())
}

// quietFor sees that nothing is written for a while.
func quietFor(w *world, d time.Duration) {
	GinkgoHelper()
	writes, rows := w.client.writes.Load(), w.rowWrites()
	Consistently(func() string { return w.rowWrites() }, d).Should(Equal(rows))
	Expect(w.client.writes.Load()).To(Equal(writes))
}

// rowWrites is a mark that moves with every write to a row: the versions of all rows.
func (w *world) rowWrites() string {
	GinkgoHelper()
	return w.value(`SELECT string_agg(v, ',' ORDER BY v) FROM (
		SELECT id || ':' || xmin AS v FROM processors UNION ALL SELECT id || ':' || xmin FROM edge_nodes) rows`)
}

// apply makes a Processor as a person would.
func apply(w *world, name, id string) *doryv1alpha1.Processor {
	GinkgoHelper()
	p := &doryv1alpha1.Processor{}
	p.Name, p.Namespace = name, w.namespace
	p.Spec.Image, p.Spec.ProcessorID = "mine:1", id
	Expect(direct.Create(context.Background(), p)).To(Succeed())
	return p
}
