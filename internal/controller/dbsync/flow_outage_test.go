package dbsync

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/store/pgtest"
)

var _ = Describe("a database that cannot be read", func() {
	for what, stop := range map[string]func(*pgtest.Server) error{"is stopped": (*pgtest.Server).Stop, "is killed": (*pgtest.Server).Kill} {
		It("freezes everything while it "+what+", and all goes on when it is back", func() {
			server := pgtest.Start(GinkgoTB())
			w := newWorld(server)
			w.rows("a", "b", "c")
			w.run(brisk)
			w.settled(3)
			quiet(w)
			Expect(stop(server)).To(Succeed())

			Eventually(func() float64 { return w.health() }).Should(BeZero())
			p := w.mustProcessor("a")
			p.Spec.Image = "edited:1"
			Expect(direct.Update(context.Background(), p, client.FieldOwner("somebody"))).To(Succeed())
			writes := w.client.writes.Load()
			Consistently(func() string { return w.mustProcessor("a").Spec.Image }, 1500*time.Millisecond).Should(Equal("edited:1"))
			Expect(w.processors()).To(Equal(3))
			Expect(w.client.writes.Load()).To(Equal(writes))

			Expect(server.Start()).To(Succeed())
			w.connect()
			Eventually(func() string { return w.mustProcessor("a").Spec.Image }).Should(Equal("registry.example/camera:1"))
			w.rows("d")
			w.settled(4)
			Eventually(w.health).Should(Equal(1.0))
		})
	}
})

var _ = Describe("a fresh database", func() {
	It("is not read before it is migrated, and then all goes on", func() {
		w := newEmptyWorld(postgres, postgres.NewEmptyDatabase(GinkgoTB()))
		var ready atomic.Bool
		w.run(brisk, w.preparing(func(ctx context.Context) error {
			if !ready.Load() {
				return fmt.Errorf("%w: not yet", store.ErrUnavailable)
			}
			return w.store.Migrate(ctx)
		}))
		apply(w, "mine", "")
		Eventually(w.health).Should(BeZero())
		failures := w.metric("dory_reconciliation_errors_total")
		Consistently(func() float64 { return w.metric("dory_database_errors_total") }, time.Second).Should(BeZero())
		Expect(w.metric("dory_config_watcher_healthy")).To(BeZero())

		ready.Store(true)
		Eventually(w.health).Should(Equal(1.0))
		Eventually(func() string { return w.value(`SELECT source FROM processors WHERE id = 'mine'`) }).Should(Equal("kubernetes"))
		w.template()
		w.rows("a")
		w.settled(2)
		Expect(w.metric("dory_database_errors_total")).To(BeZero(), "statements that met no tables")
		Expect(w.metric("dory_reconciliation_errors_total")-failures).To(BeNumerically("<=", 1), "a last try may have failed after the count")
	})
})

// health is dory_component_healthy of this package.
func (w *world) health() float64 {
	families, err := w.registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		if family.GetName() != "dory_component_healthy" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == component {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
}
