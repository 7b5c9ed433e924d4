package checkpoint

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

// restoreOver puts a copy of another life of the processor where its state is, as a restore from a backup does.
func (w *world) restoreOver(epoch int64, state string) {
	w.t.Helper()
	s := statestore.New(statestore.Config{Client: api.client, Reader: api.client})
	saved, err := s.Save(w.t.Context(), statestore.SaveRequest{Key: w.key(), Document: statexfer.Document{
		Payload: []byte(state), Metadata: statexfer.Metadata{
			Position: statexfer.Position{Epoch: epoch}, ProcessorID: "Cam_1", PodName: "dory-cam-before", Time: w.clock.Now().Add(-24 * time.Hour),
		},
	}})
	if err != nil || !saved.Written {
		w.t.Fatalf("%+v, %v", saved, err)
	}
}

func TestAStoredEpochAboveTheProcessorsIsNotSafe(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	w.restoreOver(108, `{"n": 900}`)
	d.set(`{"n":2}`)
	w.turns("the condition says so", func() bool { return w.condition().Status == metav1.ConditionFalse })
	w.wantCondition(metav1.ConditionFalse, doryv1alpha1.ReasonEpochBehindState, "epoch 108", "dory-cam-1 has epoch 1", "Delete the pod")
	w.wantEvents(doryv1alpha1.ReasonEpochBehindState)
	w.wantStored(`{"n":900}`)
	if w.result(resultBehind) == 0 || w.result(resultSuperseded) != 0 {
		t.Error("it counts as superseded")
	}

	// Nothing more is written while nothing changes.
	w.spent()
	d.set(`{"n":3}`)
	w.turn()
	if calls := w.spent(); calls["patch status Processor"] > 0 || calls["update ConfigMap"] > 0 {
		t.Errorf("spent %v", calls)
	}

	// The pod is deleted, and the next one has an epoch above that.
	w.end()
	next := newDouble(t, w.clock, d.port)
	next.set(`{"n":901}`)
	w.start(109, next)
	w.turns("it is well again", func() bool { return w.condition().Status == metav1.ConditionTrue })
	w.wantStored(`{"n":901}`)
}

func TestAStoredEpochAboveThatOfAnIdleProcessorIsNoticed(t *testing.T) {
	w, _ := started(t, `{"n":1}`)
	w.restoreOver(108, `{"n": 900}`)
	w.turns("the condition says so", func() bool { return w.condition().Status == metav1.ConditionFalse })
	w.wantCondition(metav1.ConditionFalse, doryv1alpha1.ReasonEpochBehindState)
}
