package dbsync

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("edge nodes", func() {
	const (
		org1 = "aaaaaaaa-0000-0000-0000-000000000001"
		org2 = "aaaaaaaa-0000-0000-0000-000000000002"
		gw1  = "bbbbbbbb-0000-0000-0000-000000000001"
		gw2  = "bbbbbbbb-0000-0000-0000-000000000002"
		gw3  = "bbbbbbbb-0000-0000-0000-000000000003"
	)

	node := func(name string) (*doryv1alpha1.EdgeNode, error) {
		n := &doryv1alpha1.EdgeNode{}
		return n, direct.Get(context.Background(), client.ObjectKey{Name: doryv1alpha1.ObjectName(name)}, n)
	}
	spec := func(name string) func() doryv1alpha1.EdgeNodeSpec {
		return func() doryv1alpha1.EdgeNodeSpec { n, _ := node(name); return n.Spec }
	}
	gone := func(name string) func() bool {
		return func() bool { _, err := node(name); return apierrors.IsNotFound(err) }
	}

	It("become EdgeNodes, follow their rows, and carry processors", func() {
		w := newWorld(postgres)
		w.run(patient)
		w.exec(`INSERT INTO edge_nodes (id, organization_id, name) VALUES ($1, $2, 'gw-1')`, gw1, org1)
		Eventually(spec("gw-1")).Should(Equal(doryv1alpha1.EdgeNodeSpec{EdgeNodeID: gw1, OrganizationID: org1, NodeName: "gw-1", FailoverPolicy: doryv1alpha1.FailoverDisabled}))
		w.exec(`INSERT INTO edge_nodes (id, organization_id, name, k8s_node_name, failover_enabled, failover_target_node_id) VALUES ($1, $2, 'GW 2', 'node-2', true, $3)`, gw2, org1, gw1)
		Eventually(spec("GW 2")).Should(Equal(doryv1alpha1.EdgeNodeSpec{EdgeNodeID: gw2, OrganizationID: org1, NodeName: "node-2", FailoverPolicy: doryv1alpha1.FailoverEnabled, FailoverTarget: "gw-1"}))
		w.exec(`INSERT INTO processors (id, processor_template_id, k8s_namespace, node_type, edge_node_id, node_selector) VALUES ('a', 't', $1, 'edge', $2, '{"zone": "east"}')`, w.namespace, gw2)
		w.settled(1)
		p := w.mustProcessor("a")
		Expect(p.Spec.Location).To(Equal(doryv1alpha1.LocationEdge))
		Expect(p.Spec.Placement).To(Equal(&doryv1alpha1.ProcessorPlacement{EdgeNode: doryv1alpha1.ObjectName("GW 2"), NodeSelector: map[string]string{"zone": "east"}}))
		w.exec(`UPDATE edge_nodes SET failover_enabled = false, failover_target_node_id = NULL WHERE id = $1`, gw2)
		Eventually(func() doryv1alpha1.FailoverPolicy { return spec("GW 2")().FailoverPolicy }).Should(Equal(doryv1alpha1.FailoverDisabled))
		Expect(spec("GW 2")().FailoverTarget).To(BeEmpty())

		n, err := node("gw-1")
		Expect(err).NotTo(HaveOccurred())
		Expect(direct.Delete(context.Background(), n)).To(Succeed())
		Eventually(spec("gw-1")).Should(HaveField("EdgeNodeID", gw1))
		w.exec(`UPDATE edge_nodes SET status = 'decommissioned' WHERE id = $1`, gw1)
		Eventually(gone("gw-1")).Should(BeTrue())
	})

	It("of two organisations with one name do not share an EdgeNode, nor their processors", func() {
		w := newWorld(postgres)
		w.exec(`INSERT INTO edge_nodes (id, organization_id, name) VALUES ($1, $2, 'gw')`, gw1, org1)
		w.run(brisk)
		Eventually(spec("gw")).Should(HaveField("EdgeNodeID", gw1))
		w.exec(`INSERT INTO edge_nodes (id, organization_id, name) VALUES ($1, $2, 'gw')`, gw2, org2)
		w.exec(`INSERT INTO processors (id, processor_template_id, k8s_namespace, node_type, edge_node_id) VALUES ('one', 't', $1, 'edge', $2), ('two', 't', $1, 'edge', $3)`, w.namespace, gw1, gw2)
		Eventually(func() string { return w.value(`SELECT sync_error FROM edge_nodes WHERE id = $1`, gw2) }).Should(ContainSubstring("taken by the row with id"))
		Eventually(func() string { return w.syncError("two") }).Should(ContainSubstring("rename one of them"))
		Expect(w.syncError("one")).To(BeEmpty())
		w.settled(1)
		w.exec(`UPDATE edge_nodes SET name = 'gw-b' WHERE id = $1`, gw2)
		w.settled(2)
		Expect(w.mustProcessor("two").Spec.Placement.EdgeNode).To(Equal("gw-b"))
		Eventually(func() string { return w.value(`SELECT sync_error FROM edge_nodes WHERE id = $1`, gw2) }).Should(BeEmpty())
	})

	It("whose last heartbeat is no time keep no other from following its row", func() {
		w := newWorld(postgres)
		w.exec(`INSERT INTO edge_nodes (id, organization_id, name) VALUES ($1, $3, 'gw-1'), ($2, $3, 'gw-2')`, gw1, gw2, org1)
		w.run(brisk)
		Eventually(spec("gw-1")).Should(HaveField("EdgeNodeID", gw1))
		Eventually(spec("gw-2")).Should(HaveField("EdgeNodeID", gw2))
		w.exec(`UPDATE edge_nodes SET last_heartbeat_at = '-infinity' WHERE id = $1`, gw2)
		w.exec(`DELETE FROM edge_nodes WHERE id = $1`, gw1)
		Eventually(gone("gw-1")).Should(BeTrue())
		Expect(w.value(`SELECT coalesce(sync_error, '') FROM edge_nodes WHERE id = $1`, gw2)).To(BeEmpty())
		Expect(gone("gw-2")()).To(BeFalse())
	})

	It("with a value that cannot be read say which, keep their EdgeNode, and are mended", func() {
		w := newWorld(postgres)
		w.exec(`INSERT INTO edge_nodes (id, organization_id, name) VALUES ($1, $3, 'gw-1'), ($2, $3, 'gw-2')`, gw1, gw2, org1)
		w.run(brisk)
		Eventually(spec("gw-2")).Should(HaveField("EdgeNodeID", gw2))
		w.exec(`ALTER TABLE edge_nodes ALTER failover_enabled DROP NOT NULL`)
		w.exec(`UPDATE edge_nodes SET failover_enabled = NULL WHERE id = $1`, gw2)
		Eventually(func() string { return w.value(`SELECT coalesce(sync_error, '') FROM edge_nodes WHERE id = $1`, gw2) }).Should(ContainSubstring("column failover_enabled cannot be read"))
		w.exec(`DELETE FROM edge_nodes WHERE id = $1`, gw1)
		Eventually(gone("gw-1")).Should(BeTrue())
		Expect(gone("gw-2")()).To(BeFalse(), "a row that cannot be read still exists")
		w.exec(`UPDATE edge_nodes SET failover_enabled = true WHERE id = $1`, gw2)
		Eventually(spec("gw-2")).Should(HaveField("FailoverPolicy", doryv1alpha1.FailoverEnabled))
		Eventually(func() string { return w.value(`SELECT coalesce(sync_error, '') FROM edge_nodes WHERE id = $1`, gw2) }).Should(BeEmpty())
	})

	It("that vanish at once are held", func() {
		w := newWorld(postgres)
		w.exec(`INSERT INTO edge_nodes (id, organization_id, name) VALUES ($1, $4, 'gw-1'), ($2, $4, 'gw-2'), ($3, $4, 'gw-3')`, gw1, gw2, gw3, org1)
		w.rows("a")
		w.run(brisk)
		Eventually(spec("gw-3")).Should(HaveField("EdgeNodeID", gw3))
		w.settled(1)
		w.exec(`DELETE FROM edge_nodes WHERE id <> $1`, gw1)
		Eventually(func() float64 { return w.metric("dory_sync_deletions_held") }).Should(Equal(2.0))
		w.exec(`DELETE FROM edge_nodes`)
		Eventually(func() float64 { return w.metric("dory_sync_deletions_held") }).Should(Equal(3.0))
		Consistently(gone("gw-2"), time.Second).Should(BeFalse())
		Expect(w.processors()).To(Equal(1))
	})
})
