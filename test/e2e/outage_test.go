//go:build e2e

package e2e

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("The database, while it is away,", Serial, func() {
	It("stops nobody: what runs goes on, what is lost comes back, and only what was never there waits", func(ctx context.Context) {
		operatorsAreWell(ctx)
		namespace, template, id := newNamespace(ctx), unique("counter"), unique("row")
		newTemplate(ctx, template)
		newRow(ctx, namespace, template, id)
		applied, returning, fresh := counter(namespace, "applied"), counter(namespace, "returns"), counter(namespace, "fresh")
		stays := map[client.ObjectKey]doryv1alpha1.ProcessorInstance{
			client.ObjectKeyFromObject(applied): start(ctx, applied),
		}
		row := client.ObjectKeyFromObject(processorOfRow(ctx, namespace, id))
		stays[row] = runsAfter(ctx, row, 0)
		returns := client.ObjectKeyFromObject(returning)
		book := keepJournal(returns)
		first := start(ctx, returning)
		book.worked(ctx, first.Pod)

		stopPostgres(ctx)

		By("an instance is lost whose last epoch can be read in Kubernetes")
		Expect(k8s.Delete(ctx, podOf(namespace, first.Pod))).To(Succeed())
		second := runsAfter(ctx, returns, first.Epoch)
		book.worked(ctx, second.Pod)

		By("a Processor comes whose last epoch, if it ever had one, nobody can read")
		Expect(k8s.Create(ctx, fresh)).To(Succeed())
		Eventually(func(g Gomega) {
			ready := readyCondition(get(ctx, g, client.ObjectKeyFromObject(fresh)))
			g.Expect(ready.Reason).To(Equal(doryv1alpha1.ReasonEpochUnavailable), ready.Message)
			g.Expect(ready.Message).To(ContainSubstring("database"))
		}).WithContext(ctx).Should(Succeed())
		Consistently(func(g Gomega) {
			g.Expect(pods(ctx, g, client.ObjectKeyFromObject(fresh))).To(BeEmpty())
			for key, instance := range stays {
				p := get(ctx, g, key)
				g.Expect(p.Status.Phase).To(Equal(doryv1alpha1.ProcessorRunning))
				g.Expect(p.Status.Instance).To(HaveValue(And(HaveField("UID", instance.UID), HaveField("Restarts", int32(0)))))
			}
		}).WithContext(ctx).WithTimeout(timeToReact / 3).Should(Succeed())

		startPostgres(ctx)
		started := runsAfter(ctx, client.ObjectKeyFromObject(fresh), 0)
		for name, instance := range map[string]doryv1alpha1.ProcessorInstance{fresh.Name: started, returning.Name: second} {
			Eventually(func(g Gomega) {
				g.Expect(ask[string](ctx, g, `SELECT concat_ws(' ', pod_name, phase, epoch) FROM processors WHERE id = $1`, name)).
					To(Equal(fmt.Sprint(instance.Pod, " Running ", instance.Epoch)))
			}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		}

		By("the database's own record of epochs lags behind, and issues none a second time")
		Expect(k8s.Delete(ctx, podOf(namespace, second.Pod))).To(Succeed())
		third := runsAfter(ctx, returns, second.Epoch)
		book.worked(ctx, third.Pod)
		book.isWhole(ctx)
		Expect(ask[int64](ctx, Default, `SELECT epoch FROM processor_epochs WHERE processor_id = $1`, returning.Name)).To(Equal(third.Epoch))
	})
})
