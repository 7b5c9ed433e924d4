//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("A row", func() {
	var namespace, template string

	BeforeEach(func(ctx context.Context) {
		namespace, template = newNamespace(ctx), unique("counter")
		newTemplate(ctx, template)
	})

	It("becomes a running processor, also under an id that is no object name, and hears of it", func(ctx context.Context) {
		for _, id := range []string{unique("orders"), unique("Proc_6"), unique(strings.Repeat("long", 16)), unique("it's")} {
			newRow(ctx, namespace, template, id)
			p := processorOfRow(ctx, namespace, id)
			Expect(p.Spec.ProcessorID).To(Equal(id))
			Expect(p.DatabaseOwned()).To(BeTrue())
			instance := runsAfter(ctx, client.ObjectKeyFromObject(p), 0)
			Eventually(func(g Gomega) {
				g.Expect(ask[string](ctx, g, `SELECT concat_ws(' ', k8s_name, pod_name, pod_ip, node_name, phase, epoch) FROM processors WHERE id = $1`, id)).
					To(Equal(fmt.Sprint(p.Name, " ", instance.Pod, " ", instance.IP, " ", instance.Node, " Running ", instance.Epoch)))
			}).WithContext(ctx).Should(Succeed())
		}
	})

	It("hands a switch of its template's version to the pod, and loses nothing", func(ctx context.Context) {
		id := unique("switch")
		newRow(ctx, namespace, template, id)
		key := client.ObjectKeyFromObject(processorOfRow(ctx, namespace, id))
		book, witness := keepJournal(key), watchPods(ctx, key)
		first := runsAfter(ctx, key, 0)
		book.worked(ctx, first.Pod)

		newVersion(ctx, template, "2", counterConfig("50ms"))
		execute(ctx, `UPDATE processor_template_versions SET is_active = (version = '2') WHERE processor_template_id = $1`, template)
		second := runsAfter(ctx, key, first.Epoch)
		Expect(get(ctx, Default, key).Spec.Env).To(ContainElement(HaveField("Value", "50ms")))
		book.worked(ctx, second.Pod)
		book.isWhole(ctx)
		witness.hasSeen(first.Pod, second.Pod)
	})

	It("that cannot be rendered says so and harms no other", func(ctx context.Context) {
		good, bad, badTemplate, lost := unique("good"), unique("bad"), unique("broken"), unique("lost")
		newTemplate(ctx, badTemplate)
		execute(ctx, `UPDATE processor_template_versions SET runtime_config_template = '{"resources": {"cpu_request": "plenty"}}'
			WHERE processor_template_id = $1`, badTemplate)
		newRow(ctx, namespace, badTemplate, bad)
		newRow(ctx, "no-such-namespace", template, lost)
		newRow(ctx, namespace, template, good)

		runsAfter(ctx, client.ObjectKeyFromObject(processorOfRow(ctx, namespace, good)), 0)
		syncError := func(g Gomega, id string) string {
			return ask[string](ctx, g, `SELECT coalesce(sync_error, '') FROM processors WHERE id = $1`, id)
		}
		Eventually(func(g Gomega) {
			g.Expect(syncError(g, bad)).To(And(ContainSubstring("cpu_request"), ContainSubstring("plenty")))
			g.Expect(syncError(g, lost)).To(ContainSubstring("no-such-namespace"))
		}).WithContext(ctx).Should(Succeed())

		By("repaired")
		execute(ctx, `UPDATE processor_template_versions SET runtime_config_template = $2::jsonb WHERE processor_template_id = $1`,
			badTemplate, counterConfig("100ms"))
		execute(ctx, `UPDATE processors SET k8s_namespace = $2 WHERE id = $1`, lost, namespace)
		for _, id := range []string{bad, lost} {
			runsAfter(ctx, client.ObjectKeyFromObject(processorOfRow(ctx, namespace, id)), 0)
			Eventually(func(g Gomega) { g.Expect(syncError(g, id)).To(BeEmpty()) }).WithContext(ctx).Should(Succeed())
		}
	})

	DescribeTable("that makes no sense is refused by the database, in words",
		func(ctx context.Context, words, sql string, args ...any) {
			for i, arg := range args {
				if arg == "template" {
					args[i] = template
				}
			}
			_, err := database.Exec(ctx, sql, args...)
			Expect(err).To(MatchError(ContainSubstring(words)))
		},
		Entry("with a template that does not exist", "processors_template_must_exist",
			`INSERT INTO processors (id, processor_template_id) VALUES ('e2e-refused', 'no-such-template')`),
		Entry("with broken JSON", "invalid input syntax for type json",
			`UPDATE processor_template_versions SET runtime_config_template = '{"container": ' WHERE processor_template_id = $1`, "template"),
		Entry("without a template", "processors_from_database_have_a_template", `INSERT INTO processors (id) VALUES ('e2e-refused')`),
	)

	It("is not undone by kubectl", func(ctx context.Context) {
		id := unique("owned")
		newRow(ctx, namespace, template, id)
		p := processorOfRow(ctx, namespace, id)
		Eventually(func(g Gomega) {
			p := get(ctx, g, client.ObjectKeyFromObject(p))
			p.Spec.Port = 9090
			g.Expect(k8s.Update(ctx, p)).To(MatchError(ContainSubstring("edit the row of table processors where id = '" + id + "'")))
		}).WithContext(ctx).Should(Succeed())

		By("a deletion is undone, and nothing is lost by it")
		key := client.ObjectKeyFromObject(p)
		book := keepJournal(key)
		first := runsAfter(ctx, key, 0)
		book.worked(ctx, first.Pod)
		Expect(k8s.Delete(ctx, p)).To(Succeed())
		Eventually(func(g Gomega) {
			again := get(ctx, g, key)
			g.Expect(again.UID).NotTo(Equal(p.UID))
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		second := runsAfter(ctx, key, first.Epoch)
		book.worked(ctx, second.Pod)
		book.isWhole(ctx)
	})

	It("that is terminated ends its processor", func(ctx context.Context) {
		id := unique("ends")
		newRow(ctx, namespace, template, id)
		key := client.ObjectKeyFromObject(processorOfRow(ctx, namespace, id))
		runsAfter(ctx, key, 0)
		p := get(ctx, Default, key)
		execute(ctx, `UPDATE processors SET status = 'terminated' WHERE id = $1`, id)
		isGone(ctx, p)
		Eventually(func(g Gomega) { g.Expect(pods(ctx, g, key)).To(BeEmpty()) }).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	})

	It("is not believed to be gone together with half of the others", func(ctx context.Context) {
		keys := make([]client.ObjectKey, 0, 4)
		instances := map[client.ObjectKey]doryv1alpha1.ProcessorInstance{}
		for range cap(keys) {
			id := unique("held")
			newRow(ctx, namespace, template, id)
			keys = append(keys, client.ObjectKeyFromObject(processorOfRow(ctx, namespace, id)))
		}
		for _, key := range keys {
			instances[key] = runsAfter(ctx, key, 0)
		}

		execute(ctx, `DELETE FROM processors WHERE source = 'database' AND k8s_namespace = $1`, namespace)
		Eventually(func(g Gomega) {
			for _, key := range keys {
				condition := meta.FindStatusCondition(get(ctx, g, key).Status.Conditions, doryv1alpha1.ConditionDatabaseSynced)
				g.Expect(condition).NotTo(BeNil())
				g.Expect(condition.Reason).To(Equal(doryv1alpha1.ReasonDeletionHeld))
			}
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		Consistently(func(g Gomega) {
			for _, key := range keys {
				p := get(ctx, g, key)
				g.Expect(p.Status.Phase).To(Equal(doryv1alpha1.ProcessorRunning))
				g.Expect(p.Status.Instance.Pod).To(Equal(instances[key].Pod))
			}
		}).WithContext(ctx).WithTimeout(timeToReact / 6).Should(Succeed())

		By("a person agrees")
		approveDeletions(ctx, namespace)
		for _, key := range keys {
			isGone(ctx, &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}})
		}
	})

	It("is made for a Processor that a person applies, and terminated with it", func(ctx context.Context) {
		p := counter(namespace, "by-hand")
		start(ctx, p)
		row := func(g Gomega) string {
			return ask[string](ctx, g, `SELECT concat_ws(' ', source, status, phase) FROM processors WHERE id = $1`, p.Name)
		}
		Eventually(func(g Gomega) { g.Expect(row(g)).To(Equal("kubernetes active Running")) }).WithContext(ctx).Should(Succeed())
		Expect(k8s.Delete(ctx, p)).To(Succeed())
		Eventually(func(g Gomega) { g.Expect(row(g)).To(HavePrefix("kubernetes terminated")) }).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	})
})

// processorOfRow waits for the Processor of a row, whatever its name is.
func processorOfRow(ctx context.Context, namespace, id string) *doryv1alpha1.Processor {
	GinkgoHelper()
	found := &doryv1alpha1.ProcessorList{}
	Eventually(func(g Gomega) {
		g.Expect(k8s.List(ctx, found, client.InNamespace(namespace), client.MatchingFields{"spec.processorID": id})).To(Succeed())
		g.Expect(found.Items).To(HaveLen(1))
	}).WithContext(ctx).Should(Succeed())
	return &found.Items[0]
}
