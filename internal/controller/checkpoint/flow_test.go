package checkpoint

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

func every(d time.Duration) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) {
		p.Spec.State = &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{Duration: d}}
	}
}

func onMissing(policy doryv1alpha1.OnMissing) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) {
		p.Spec.State = &doryv1alpha1.ProcessorState{OnMissing: policy}
	}
}

// started is a processor whose first checkpoint is taken.
func started(t *testing.T, state string, changes ...func(*doryv1alpha1.Processor)) (*world, *double) {
	t.Helper()
	w := newWorld(t, changes...)
	d := newDouble(t, w.clock, 0)
	d.set(state)
	w.start(1, d)
	w.pass()
	w.spent()
	return w, d
}

func TestTheFirstCheckpoint(t *testing.T) {
	w := newWorld(t)
	d := newDouble(t, w.clock, 0)
	d.set(`{"n":1}`)
	w.start(1, d)
	w.pass()
	w.wantSpent(map[string]int{"get ConfigMap": 2, "create ConfigMap": 1, "patch status Processor": 1})
	w.wantStored(`{"n":1}`)
	status := w.fresh().Status.Checkpoint
	checksum := statexfer.Checksum([]byte(`{"n": 1}`))
	if status == nil || status.Epoch != 1 || status.Sequence != nil || status.Checksum != checksum || status.SizeBytes != 8 ||
		status.Storage != doryv1alpha1.CheckpointConfigMap || !status.Time.Time.Equal(w.clock.Now()) {
		t.Errorf("status.checkpoint %+v", status)
	}
	w.wantCondition(metav1.ConditionTrue, doryv1alpha1.ReasonCheckpointCurrent, "every 30s")
	w.wantEvents()
	cm := &corev1.ConfigMap{}
	if err := api.client.Get(t.Context(), client.ObjectKey{Namespace: w.processor.Namespace, Name: w.key().ConfigMap}, cm); err != nil {
		t.Fatal(err)
	}
	if m, err := statexfer.DecodeMetadata([]byte(cm.Data["state"])); err != nil || m.Epoch != 1 || m.PodName != "dory-cam-1" || m.ProcessorID != "Cam_1" {
		t.Errorf("document %+v, %v", m, err)
	}
}

// TestAChangedStateCostsTwoWrites and no read; an unchanged one costs nothing.
func TestAChangedStateCostsTwoWrites(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	for range 3 {
		w.turn()
		w.wantSpent(map[string]int{})
	}
	for _, state := range []string{`{"n":2}`, `{"n":3}`} {
		d.set(state)
		w.turn()
		w.wantSpent(map[string]int{"update ConfigMap": 1, "patch status Processor": 1})
		w.wantStored(state)
	}
	if w.result(resultUnchanged) != 3 || w.result(resultWritten) != 3 {
		t.Errorf("unchanged %d, written %d", w.result(resultUnchanged), w.result(resultWritten))
	}
	gets, posts, requests := d.counted()
	if gets != 6 || posts != 0 || requests != 7 { // One more asked for the role of a new process.
		t.Errorf("%d gets, %d posts, %d requests", gets, posts, requests)
	}
}

func TestTurnsComeAtTheInterval(t *testing.T) {
	w, _ := started(t, `{"n":1}`, every(10*time.Second))
	w.turn()
	for range 3 {
		if w.turn(); w.wait != 10*time.Second {
			t.Errorf("the next turn is in %s", w.wait)
		}
	}
}

func TestNothingIsAskedBetweenTurns(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	_, _, before := d.counted()
	for range 5 {
		w.pass() // An event.
	}
	if _, _, after := d.counted(); after != before {
		t.Errorf("%d requests", after-before)
	}
	w.wantSpent(map[string]int{})
}

// TestAChangedPortIsTheNextPods: with updates OnDelete, or after one that was rolled back, the instance stays for long.
func TestAChangedPortIsTheNextPods(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	w.update(func(p *doryv1alpha1.Processor) { p.Spec.Port++ })
	d.set(`{"n":2}`)
	w.turn()
	w.wantStored(`{"n":2}`)
}

func TestWithoutAnInterval(t *testing.T) {
	w, d := started(t, `{"n":1}`, every(0))
	w.wantStored("")
	if w.wait != 0 || w.condition() != nil {
		t.Errorf("again in %s, condition %+v", w.wait, w.condition())
	}
	_, _, before := d.counted()
	w.pass()
	if _, _, after := d.counted(); after != before {
		t.Errorf("%d requests", after-before)
	}
}

func TestTheConditionGoesWithTheInterval(t *testing.T) {
	w, _ := started(t, `{"n":1}`)
	w.update(every(0))
	w.pass()
	if w.condition() != nil {
		t.Errorf("condition %+v", w.condition())
	}
}

func TestNobodyIsAskedWhoIsNotReady(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	w.kubelet(func(s *corev1.PodStatus) { s.Conditions[0].Status = corev1.ConditionFalse })
	_, _, before := d.counted()
	w.clock.Step(time.Hour)
	w.pass()
	if _, _, after := d.counted(); after != before || w.wait != 0 {
		t.Errorf("%d requests, again in %s", after-before, w.wait)
	}
}

func TestDuringTheHandoffNobodyElseAsks(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	_, _, before := d.counted()
	w.migrate(doryv1alpha1.MigrationHandingOff)
	w.clock.Step(time.Minute)
	w.pass()
	if _, _, after := d.counted(); after != before || w.wait != 0 {
		t.Errorf("%d requests, again in %s", after-before, w.wait)
	}
	d.set(`{"n":2}`)
	w.migrate(doryv1alpha1.MigrationRetiring)
	w.pass()
	w.wantStored(`{"n":2}`)
}

func TestTheNextLeaderWritesNothingThatIsThere(t *testing.T) {
	w, _ := started(t, `{"n":1}`)
	w.clock.Step(time.Hour)
	w.restartOperator()
	w.pass()
	if w.wait <= 0 || w.wait > 30*time.Second {
		t.Errorf("the first turn is in %s: all at once, or never", w.wait)
	}
	w.wantSpent(map[string]int{})
	w.turn()
	w.wantSpent(map[string]int{"get ConfigMap": 2})
	w.turn()
	w.wantSpent(map[string]int{})
	w.wantEvents()
}

// TestTheStateOfBeforeIsReadOnce for an instance that an operator of before told another place: when it is first looked at, and
// not when it is checked that its own saves are still there.
func TestTheStateOfBeforeIsReadOnce(t *testing.T) {
	w := newWorld(t)
	d := newDouble(t, w.clock, 0)
	d.set(`{"n":1}`)
	w.start(1, d, tellFormer)
	w.pass()
	w.wantSpent(map[string]int{"get ConfigMap": 3, "create ConfigMap": 1, "patch status Processor": 1})
	for range verifyAfter {
		w.turn()
		w.wantSpent(map[string]int{})
	}
	w.turn()
	w.wantSpent(map[string]int{"get ConfigMap": 2})
}

// tellFormer is what an operator of before told an instance of Cam_1, whose object is cam.
func tellFormer(p *corev1.Pod) {
	for c := range p.Spec.Containers {
		for e := range p.Spec.Containers[c].Env {
			if env := &p.Spec.Containers[c].Env[e]; env.Name == "DORY_STATE_CONFIGMAP" {
				env.Value = "dory-state-cam"
			}
		}
	}
}

// TestANewInstanceOfTheSameState claims it under its epoch, so that a late save of the old one is known to be older.
func TestANewInstanceOfTheSameState(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	w.end()
	next := newDouble(t, w.clock, d.port)
	next.set(`{"n":1}`)
	w.start(2, next)
	w.pass()
	if c := w.wantStored(`{"n":1}`); c.Version.Epoch != 2 || c.PodName != "dory-cam-2" {
		t.Errorf("stored %+v", c)
	}
	w.wantEvents()
}

// TestALateSaveIsUndoneAlsoWhereNothingChanges is trap 7 at its worst: the state that was saved over does not change any
// more, so that it would never be stored again.
func TestALateSaveIsUndoneAlsoWhereNothingChanges(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	next := newDouble(t, w.clock, d.port)
	next.set(`{"n":2}`)
	w.start(2, next)
	w.pass()
	w.wantStored(`{"n":2}`)
	w.blindSave("dory-cam-1", `{"n":1}`, w.clock.Now().Add(time.Second))
	w.book.doubt(client.ObjectKeyFromObject(w.processor)) // The watch tells that the old pod is gone.
	w.turn()
	w.wantStored(`{"n":2}`)
	w.wantEvents("LateSaveUndone…dory-cam-1…dory-cam-2")
}

func TestWhatIsGoneIsNoticedSometime(t *testing.T) {
	w, _ := started(t, `{"n":1}`)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.processor.Namespace, Name: w.key().ConfigMap}}
	if err := api.client.Delete(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	w.turns("it is stored again", func() bool { got, _ := w.stored(); return got != "" })
	w.wantStored(`{"n":1}`)
}

func TestTheSDKsOwnNewerSaveStays(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	w.blindSave("dory-cam-1", `{"n":9}`, w.clock.Now().Add(time.Hour))
	d.set(`{"n":2}`)
	w.turn()
	w.wantStored(`{"n":9}`)
	if status := w.fresh().Status.Checkpoint; status.Checksum != statexfer.Checksum([]byte(`{"n": 9}`)) {
		t.Errorf("status.checkpoint %+v", status)
	}
	if w.result(resultSuperseded) != 1 {
		t.Error("it does not count as superseded")
	}
}

func TestAStatusThatSomebodyElseWrites(t *testing.T) {
	w := newWorld(t)
	d := newDouble(t, w.clock, 0)
	d.set(`{"n":1}`)
	w.start(1, d)
	w.conflicts = 2
	w.pass()
	if w.condition() != nil || w.wait > reportDelay {
		t.Fatalf("condition %+v, again in %s", w.condition(), w.wait)
	}
	w.turn()
	w.turn()
	w.wantCondition(metav1.ConditionTrue, doryv1alpha1.ReasonCheckpointCurrent)
	if p := w.fresh(); p.Status.LastEpoch != 2 || p.Status.Checkpoint == nil {
		t.Errorf("status %+v", p.Status)
	}
	if gets, _, _ := d.counted(); gets != 1 {
		t.Errorf("%d captures, want 1: a status that could not be written is no reason to ask again", gets)
	}
}

func TestOtherConditionsStay(t *testing.T) {
	w := newWorld(t)
	p := w.fresh()
	p.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "True", Reason: "Running", LastTransitionTime: metav1.Now()}}
	if err := api.client.Status().Update(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	d := newDouble(t, w.clock, 0)
	w.start(1, d)
	w.pass()
	if conditions := w.fresh().Status.Conditions; len(conditions) != 2 || conditions[0].Type != "Ready" {
		t.Errorf("conditions %+v", conditions)
	}
}

func TestStateOutlivesItsProcessor(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	if err := api.client.Delete(t.Context(), w.processor); err != nil {
		t.Fatal(err)
	}
	w.pass()
	w.wantStored(`{"n":1}`)
	if len(w.book.entries) != 0 {
		t.Error("what is remembered of it stays forever")
	}
	d.set(`{"n":2}`)
	w.pass()
	w.wantStored(`{"n":1}`)
}

func TestMetrics(t *testing.T) {
	w, d := started(t, `{"n":1}`)
	d.set(`{"n":2}`)
	w.turn()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, family := range families {
		names = append(names, family.GetName())
	}
	for _, want := range []string{
		"dory_checkpoints_total", "dory_checkpoint_age_seconds", "dory_checkpoint_bytes", "dory_checkpoint_duration_seconds",
		"dory_checkpoint_oldest_age_seconds",
	} {
		if !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("no metric %s in %v", want, names)
		}
	}
}
