package statestore

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

// restored is a Processor in a cluster that knows nothing of it but what a backup of ConfigMaps, or a database, brought back.
type restored struct {
	*world

	processor *doryv1alpha1.Processor
}

func newRestored(t *testing.T, policy doryv1alpha1.OnMissing, database Database) *restored {
	t.Helper()
	r := &restored{world: newWorld(t, database)}
	r.processor = &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.key.Namespace, Name: "cam"},
		Spec:       doryv1alpha1.ProcessorSpec{ProcessorID: "Cam_1", State: &doryv1alpha1.ProcessorState{OnMissing: policy}},
	}
	return r
}

func (r *restored) prepare() Result {
	r.t.Helper()
	result, err := NewPreparer(r.Store, apiServer, events.NewFakeRecorder(10)).Prepare(r.t.Context(), r.processor)
	if err != nil {
		r.t.Fatal(err)
	}
	return result
}

func TestTheNextEpochIsAboveThoseOfStoredCopies(t *testing.T) {
	every := []doryv1alpha1.OnMissing{doryv1alpha1.OnMissingPreferLatest, doryv1alpha1.OnMissingRequire, doryv1alpha1.OnMissingDiscard}
	latest := every[:1]
	for name, test := range map[string]struct {
		given    func(*restored)
		policies []doryv1alpha1.OnMissing
		want     int64
		refused  string
	}{
		"nothing is stored":      {given: func(*restored) {}, policies: every, want: 0},
		"in the ConfigMap":       {given: func(r *restored) { r.save(r.state(108, 5)) }, policies: every, want: 108},
		"in several ConfigMaps":  {given: func(r *restored) { r.save(r.state(108, 5, large(2))) }, policies: every, want: 108},
		"in two places":          {given: func(r *restored) { r.save(r.state(109, 5, large(2))); r.save(r.state(7, 5)) }, policies: every, want: 109},
		"from an SDK without":    {given: func(r *restored) { r.blindSave(r.state(0, 0, blind("pod-9", noon))) }, policies: every, want: 0},
		"of a damaged copy, too": {given: func(r *restored) { r.save(r.state(108, 5)); r.damage() }, policies: latest, want: 108},
		"not of another processor": {
			given: func(r *restored) {
				r.blindSave(r.state(108, 1, func(d *statexfer.Document) { d.Metadata.ProcessorID = "other" }))
			}, policies: latest, want: 0,
		},
		"as high as is believed": {given: func(r *restored) { r.save(r.state(MaxCredibleEpoch, 5)) }, policies: every, want: MaxCredibleEpoch},
		"higher than is believed": {
			given: func(r *restored) { r.save(r.state(1<<62, 5)) }, policies: every, want: 0, refused: "epoch 4611686018427387904, which is not believed",
		},
		"higher than is believed, and issued": {
			given: func(r *restored) { r.save(r.state(1<<33, 5)); r.processor.Status.LastEpoch = 1 << 33 }, policies: every, want: 1 << 33,
		},
		"of a damaged copy, higher than is believed": {given: func(r *restored) { r.save(r.state(1<<62, 5)); r.damage() }, policies: latest, want: 0},
	} {
		for _, policy := range test.policies {
			t.Run(name+" "+string(policy), func(t *testing.T) {
				r := newRestored(t, policy, nil)
				test.given(r)
				result := r.prepare()
				if result.Epoch != test.want || result.Refused() != (test.refused != "") || !strings.Contains(result.Message, test.refused) {
					t.Errorf("%+v, want epoch %d and refused %q", result, test.want, test.refused)
				}
				if result.Refused() && result.Reason != doryv1alpha1.ReasonEpochBehindState {
					t.Errorf("reason %s", result.Reason)
				}
			})
		}
	}
}

func (r *restored) damage() {
	r.change(r.key.ConfigMap, func(cm *corev1.ConfigMap) { cm.Data["state"] = strings.Replace(cm.Data["state"], "/5", "/6", 1) })
}

func TestTheNextEpochIsAboveTheDatabasesCheckpoint(t *testing.T) {
	database, _ := openDatabase(t)
	r := newRestored(t, doryv1alpha1.OnMissingDiscard, database)
	r.save(r.state(108, 5, large(2)))
	if result := r.prepare(); result.Epoch != 108 {
		t.Errorf("%+v", result)
	}
}
