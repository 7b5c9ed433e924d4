package dbsync

import (
	"context"
	"fmt"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// setReady plays the lifecycle controller.
func setReady(w *world, id string, status metav1.ConditionStatus, reason, pod string) {
	GinkgoHelper()
	p := w.mustProcessor(id)
	base := p.DeepCopy()
	meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: doryv1alpha1.ConditionReady, Status: status, Reason: reason})
	p.Status.Phase = doryv1alpha1.ProcessorRunning
	p.Status.Instance = &doryv1alpha1.ProcessorInstance{Pod: pod, Node: "node-1", IP: "10.0.0.1", Epoch: 3}
	Expect(direct.Status().Patch(context.Background(), p, client.MergeFrom(base))).To(Succeed())
}

var _ = Describe("the status", func() {
	status := func(w *world, id string) string {
		return w.value(`SELECT concat_ws('/', health_status, pod_name, pod_ip, node_name, phase, epoch, k8s_name, (last_health_check_at IS NOT NULL)::text) FROM processors WHERE id = $1`, id)
	}

	It("of each Processor goes into its row", func() {
		w := newWorld(postgres)
		w.rows("a", "Proc_6")
		apply(w, "mine", "")
		w.run(patient)
		w.settled(3)
		setReady(w, "a", metav1.ConditionTrue, doryv1alpha1.ReasonRunning, "pod-a")
		setReady(w, "Proc_6", metav1.ConditionFalse, doryv1alpha1.ReasonNotReady, "pod-6")
		setReady(w, "mine", metav1.ConditionTrue, doryv1alpha1.ReasonRunning, "pod-m")
		Eventually(func() string { return status(w, "a") }).Should(Equal("healthy/pod-a/10.0.0.1/node-1/Running/3/a/true"))
		Eventually(func() string { return status(w, "Proc_6") }).Should(Equal("unhealthy/pod-6/10.0.0.1/node-1/Running/3/" + doryv1alpha1.ObjectName("Proc_6") + "/true"))
		Eventually(func() string { return status(w, "mine") }).Should(Equal("healthy/pod-m/10.0.0.1/node-1/Running/3/mine/true"))

		By("a row that was lost and restored learns it again")
		w.exec(`UPDATE processors SET status = 'active', k8s_name = NULL, pod_name = NULL, health_status = NULL, node_selector = '{"a": "b"}' WHERE id = 'a'`)
		Eventually(func() string { return status(w, "a") }).Should(HavePrefix("healthy/pod-a"))

		By("a Processor that is gone has no pod")
		w.exec(`UPDATE processors SET status = 'terminated' WHERE id = 'a'`)
		Eventually(func() string { return status(w, "a") }).Should(Equal("unknown/3/a/true"))
	})

	It("of many goes in batches, and writes nothing twice", func() {
		w := newWorld(postgres)
		const n = 40
		for i := range n {
			w.rows(fmt.Sprintf("p%d", i))
		}
		w.run(patient)
		w.settled(n)
		quiet(w)
		statements := w.statements()
		for i := range n {
			setReady(w, fmt.Sprintf("p%d", i), metav1.ConditionTrue, doryv1alpha1.ReasonRunning, "pod")
		}
		Eventually(func() string { return w.value(`SELECT count(*) FROM processors WHERE health_status = 'healthy'`) }).Should(Equal(strconv.Itoa(n)))
		Expect(w.statements()-statements).To(BeNumerically("<", n), "statements for %d changes", n)
		setReady(w, "p0", metav1.ConditionTrue, doryv1alpha1.ReasonRunning, "pod")
		quietFor(w, 500*time.Millisecond)
	})
})

// statements counts the statements that wrote statuses.
func (w *world) statements() int {
	families, err := w.registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		if family.GetName() != "dory_database_query_duration_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == "update_statuses" {
				return int(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}
