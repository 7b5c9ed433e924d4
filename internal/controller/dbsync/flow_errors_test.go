package dbsync

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("a bad row", func() {
	// version makes a template of its own with the configuration, and a processor of it.
	version := func(w *world, id, config string) {
		GinkgoHelper()
		w.exec(`INSERT INTO processor_templates (id, slug) VALUES ($1, $1)`, "t-"+id)
		w.exec(`INSERT INTO processor_template_versions (processor_template_id, image_uri, version, is_active, runtime_config_template)
			VALUES ($1, 'i:1', '1', true, $2)`, "t-"+id, config)
		w.exec(`INSERT INTO processors (id, processor_template_id, k8s_namespace) VALUES ($1, $2, $3)`, id, "t-"+id, w.namespace)
	}

	DescribeTable("says why in sync_error and in an event, harms no other, and is cleared when mended",
		func(config, problem string) {
			w := newWorld(postgres)
			version(w, "bad", config)
			w.rows("good")
			w.run(patient)
			Eventually(func() string { return w.syncError("bad") }).Should(ContainSubstring(problem))
			w.settled(1)
			Expect(w.syncError("good")).To(BeEmpty())
			Expect(w.metric("dory_sync_row_errors")).To(Equal(1.0))
			Eventually(func() (any, error) { return w.events("bad") }).Should(HaveKeyWithValue(doryv1alpha1.ReasonRowInvalid, ContainElement(ContainSubstring(problem))))

			w.exec(`UPDATE processor_template_versions SET runtime_config_template = '{}' WHERE processor_template_id = 't-bad'`)
			w.settled(2)
			Eventually(func() string { return w.syncError("bad") }).Should(BeEmpty())
			Expect(w.metric("dory_sync_row_errors")).To(BeZero())
		},
		Entry("a template that is no object", `[1]`, "expected a JSON object"),
		Entry("a quantity that is none", `{"resources": {"cpu_request": "lots"}}`, `resources.cpu_request is "lots"`),
		Entry("a negative quantity", `{"resources": {"memory_limit": "-1Gi"}}`, `resources.memory_limit is "-1Gi"`),
		Entry("a port of the wrong type", `{"container": {"port": "http"}}`, `container.port is "http"`),
		Entry("a request above the limit", `{"resources": {"cpu_request": "3"}}`, "above resources.cpu_limit"),
		Entry("a variable without a legal name", `{"env_vars": {"A B": "1"}}`, `"A B"`),
		Entry("an environment of more than 1 MiB", `{"env_vars": {"BIG": "`+strings.Repeat("x", 1<<20)+`"}}`, "the largest environment variable is BIG"),
	)

	DescribeTable("with a value that cannot be read keeps its Processor, and no other from going", func(column, breaks, mends string) {
		w := newWorld(postgres)
		w.rows("a", "b", "c")
		w.run(brisk)
		w.settled(3)
		w.exec(`ALTER TABLE processors ALTER ` + column + ` DROP NOT NULL`)
		w.exec(`UPDATE processors SET ` + column + ` = ` + breaks + ` WHERE id = 'a'`)
		Eventually(func() string { return w.syncError("a") }).Should(ContainSubstring("column " + column + " cannot be read"))
		Eventually(func() string { return w.condition("a") }).Should(Equal(isInvalid))
		w.exec(`DELETE FROM processors WHERE id = 'b'`)
		Eventually(w.processors).Should(Equal(2))
		Expect(w.mustProcessor("a").Labels).To(HaveKeyWithValue(doryv1alpha1.LabelSource, doryv1alpha1.SourceDatabase), "its Processor is not given away either")
		if mends == "" {
			mends = "'" + w.namespace + "'"
		}
		w.exec(`UPDATE processors SET ` + column + ` = ` + mends + ` WHERE id = 'a'`)
		Eventually(func() string { return w.syncError("a") }).Should(BeEmpty())
	},
		Entry("of its namespace", "k8s_namespace", "NULL", ""),
		Entry("of its owner", "source", "NULL", "'database'"),
		Entry("of its node type", "node_type", "NULL", "'managed'"),
	)

	It("keeps the last good spec of its Processor, and says so there", func() {
		w := newWorld(postgres)
		w.rows("a", "b")
		w.run(patient)
		w.settled(2)
		w.exec(`UPDATE processor_template_versions SET is_active = false`)
		Eventually(func() string { return w.condition("a") }).Should(Equal(isInvalid))
		Eventually(func() string { return w.condition("b") }).Should(Equal(isInvalid))
		Eventually(func() string { return w.syncError("a") }).Should(ContainSubstring("no active version"))
		Expect(w.mustProcessor("a").Spec.Image).To(HaveSuffix(":1"))
		w.exec(`UPDATE processor_template_versions SET is_active = (version = '2')`)
		Eventually(func() string { return w.mustProcessor("a").Spec.Image }).Should(HaveSuffix(":2"))
		Eventually(func() string { return w.condition("a") }).Should(BeEmpty())
		Eventually(func() (any, error) { return w.events("a") }).Should(And(HaveKey(doryv1alpha1.ReasonRowInvalid), HaveKey(reasonRowMended)))
	})

	It("may have keys that nobody knows; they are warned of and ignored", func() {
		w := newWorld(postgres)
		version(w, "odd", `{"resources": {"tpu": 1}, "future": true, "container": {"port": 9000}}`)
		w.run(patient)
		Eventually(func() string { return w.condition("odd") }).Should(Equal("True/" + doryv1alpha1.ReasonTemplateKeysIgnored))
		p := w.mustProcessor("odd")
		Expect(p.Spec.Port).To(BeEquivalentTo(9000))
		Expect(p.Annotations[doryv1alpha1.AnnotationTemplateWarnings]).To(Equal("unknown key future; unknown key resources.tpu"))
		Expect(w.syncError("odd")).To(BeEmpty())
		w.exec(`UPDATE processor_template_versions SET runtime_config_template = '{"resources": {"tpu": 1}, "future": true, "container": {"port": 9001}}' WHERE processor_template_id = 't-odd'`)
		Eventually(func(g Gomega) {
			p := w.mustProcessor("odd")
			g.Expect(p.Spec.Port).To(BeEquivalentTo(9001))
			g.Expect(p.Status.Conditions).To(ConsistOf(HaveField("ObservedGeneration", p.Generation)), "those who wait for it wait for one about this spec")
		}).Should(Succeed())
		w.exec(`UPDATE processor_template_versions SET runtime_config_template = '{}' WHERE processor_template_id = 't-odd'`)
		Eventually(func() string { return w.condition("odd") }).Should(BeEmpty())
		Expect(w.mustProcessor("odd").Annotations).NotTo(HaveKey(doryv1alpha1.AnnotationTemplateWarnings))
	})

	It("of a missing namespace arrives at once when the namespace appears", func() {
		w := newWorld(postgres)
		w.run(patient)
		w.exec(`INSERT INTO processors (id, processor_template_id, k8s_namespace) VALUES ('a', 't', 'comes-later')`)
		Eventually(func() string { return w.syncError("a") }).Should(ContainSubstring(`namespace "comes-later" does not exist`))
		Expect(w.client.writes.Load()).To(BeZero(), "the cache knows without a try")
		createNamespace("comes-later")
		Eventually(func() error {
			return direct.Get(context.Background(), client.ObjectKey{Namespace: "comes-later", Name: "a"}, &doryv1alpha1.Processor{})
		}).Should(Succeed())
		Eventually(func() string { return w.syncError("a") }).Should(BeEmpty())
	})

	It("whose name is another row's is told so, and gets the name when it is free", func() {
		w := newWorld(postgres)
		w.rows("Proc_6")
		w.run(patient, trusting)
		w.settled(1)
		twin := doryv1alpha1.ObjectName("Proc_6")
		w.rows(twin)
		Eventually(func() string { return w.syncError(twin) }).Should(ContainSubstring(`taken by the row with id "Proc_6"`))
		Expect(w.mustProcessor("Proc_6").Spec.ProcessorID).To(Equal("Proc_6"))
		Expect(w.syncError("Proc_6")).To(BeEmpty())
		Expect(w.condition("Proc_6")).To(BeEmpty())
		w.exec(`UPDATE processors SET status = 'terminated' WHERE id = 'Proc_6'`)
		Eventually(func() string { p, _ := w.processor(twin); return p.Spec.ProcessorID }).Should(Equal(twin))
		Eventually(func() string { return w.syncError(twin) }).Should(BeEmpty())
	})

	It("whose name came together with its twin's leaves one of them well", func() {
		w := newWorld(postgres)
		twin := doryv1alpha1.ObjectName("Proc_6")
		w.rows("Proc_6", twin)
		w.run(patient)
		w.settled(1)
		Eventually(func() []string { return []string{w.syncError("Proc_6"), w.syncError(twin)} }).Should(ConsistOf("", ContainSubstring("taken by the row")))
	})

	It("whose name is a person's Processor is told so, and that one stays as it is", func() {
		w := newWorld(postgres)
		before := apply(w, "a", "somebody-else")
		w.rows("a")
		w.run(patient)
		Eventually(func() string { return w.syncError("a") }).Should(ContainSubstring("was not made from this row"))
		Expect(w.mustProcessor("a").Spec).To(BeComparableTo(before.Spec))
		Expect(direct.Delete(context.Background(), before)).To(Succeed())
		Eventually(func() string { p, _ := w.processor("a"); return p.Spec.ProcessorID }).Should(Equal("a"))
	})

	It("that the API server refuses is told its words", func() {
		w := newWorld(postgres)
		w.exec(`UPDATE processor_template_versions SET image_uri = repeat('x', 900) WHERE id = 'v1'`)
		w.exec(`INSERT INTO edge_nodes (id, organization_id, name) VALUES ('00000000-0000-0000-0000-000000000001', gen_random_uuid(), 'gw')`)
		w.exec(`INSERT INTO processors (id, processor_template_id, k8s_namespace) VALUES ('a', 't', $1)`, w.namespace)
		quota(w)
		w.run(patient)
		Eventually(func() string { return w.syncError("a") }).Should(And(ContainSubstring("the API server refuses it"), ContainSubstring("no processors here")))
		removePolicy()
		w.exec(`UPDATE processors SET status = 'running' WHERE id = 'a'`)
		w.settled(1)
		Eventually(func() string { return w.syncError("a") }).Should(BeEmpty())
	})
})
