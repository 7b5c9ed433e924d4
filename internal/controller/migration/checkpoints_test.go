package migration_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/migration"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

var _ = Describe("A state that must be durable before its source is ended", func() {
	It("is not, where a copy of a higher epoch than the processor's is in its place", func() {
		ctx := context.Background()
		p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(), Name: "cam"}}
		store := statestore.New(statestore.Config{Client: k8s, Reader: k8s})
		stored := func(epoch, sequence int64) *statexfer.State {
			return &statexfer.State{
				Data: []byte(`{"n": 5}`), PodName: "dory-cam-1", CapturedAt: time.Now(), HasPosition: true,
				Position: statexfer.Position{Epoch: epoch, Sequence: sequence},
			}
		}
		epoch := &doryv1alpha1.ProcessorEpoch{Spec: doryv1alpha1.ProcessorEpochSpec{Epoch: 2, Holder: "dory-cam-1"}}
		checkpoints := migration.StateStore{Store: store}
		Expect(checkpoints.Save(ctx, p, epoch, stored(2, 9))).To(Succeed())
		Expect(checkpoints.Save(ctx, p, epoch, stored(2, 8))).To(Succeed(), "a newer one of its own is as good")

		_, err := store.Save(ctx, statestore.SaveRequest{Key: statestore.KeyOf(p), Document: stored(108, 1).Document(p.ID())})
		Expect(err).NotTo(HaveOccurred())
		Expect(checkpoints.Save(ctx, p, epoch, stored(2, 10))).To(And(MatchError(statestore.ErrBehind), MatchError(ContainSubstring("epoch 108"))))
	})
})
