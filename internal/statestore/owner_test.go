package statestore

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statexfer"
)

// inFormer puts a document where operators of before kept it.
func (w *world) inFormer(d statexfer.Document) {
	w.t.Helper()
	old := newWorldIn(w.t, w.key, nil)
	old.key.ConfigMap, old.key.Former, old.key.ProcessorID = formerName, "", d.Metadata.ProcessorID
	old.save(d)
}

// TestTheStateOfBeforeIsFound after an upgrade, and is copied to where the next instance looks.
func TestTheStateOfBeforeIsFound(t *testing.T) {
	s := newStart(t, doryv1alpha1.OnMissingRequire)
	s.inFormer(s.state(3, 5))
	s.wantNewest("3/5")
	result, told, err := s.prepare()
	if err != nil || result.Refused() || result.Elsewhere || !strings.Contains(told, "StatePlaced") {
		t.Errorf("%+v, %q, %v", result, told, err)
	}
	s.wantInConfigMap("3/5")
	s.save(s.state(3, 6))
	s.wantNewest("3/6")
	if _, told, err := s.prepare(); err != nil || told != "" {
		t.Errorf("the newer one is in its place already: %q, %v", told, err)
	}
	// What the last instance of before saves at its end is newer than what was placed.
	s.inFormer(s.state(3, 7))
	if _, _, err := s.prepare(); err != nil {
		t.Error(err)
	}
	s.wantInConfigMap("3/7")
}

// TestTheStateOfBeforeIsFoundWhereNothingElseIsKnown: no epoch, no status, as in a cluster that was restored.
func TestTheStateOfBeforeIsFoundWhereNothingElseIsKnown(t *testing.T) {
	w := newWorld(t, nil)
	w.inFormer(w.state(3, 5))
	p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: w.key.Namespace, Name: "cam"}, Spec: doryv1alpha1.ProcessorSpec{ProcessorID: "Cam_1"}}
	if _, err := NewPreparer(w.Store, apiServer, events.NewFakeRecorder(1)).Prepare(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if d, err := statexfer.FromConfigMap(w.configMap(stateName)); err != nil || d.Metadata.Sequence != 5 {
		t.Errorf("%+v, %v", d.Metadata, err)
	}
}

// TestTwoProcessorsOfOneFormerName: the object of Cam_1 has the name that is the id of another.
func TestTwoProcessorsOfOneFormerName(t *testing.T) {
	for name, theirs := range map[string]func(*statexfer.Document){
		"another's":            func(d *statexfer.Document) { d.Metadata.ProcessorID = "cam" },
		"one that says no id":  func(d *statexfer.Document) { d.Metadata.ProcessorID = "" },
		"a newer one of other": func(d *statexfer.Document) { d.Metadata.ProcessorID, d.Metadata.Epoch = "cam", 99 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			other := newWorldIn(t, w.key, nil)
			other.key = KeyOf(&doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: w.key.Namespace, Name: "other"}, Spec: doryv1alpha1.ProcessorSpec{ProcessorID: "cam"}})
			if other.key.ConfigMap != formerName {
				t.Fatalf("%+v", other.key)
			}
			other.save(other.state(2, 2, theirs))
			if found := w.wantNewest(""); len(found.Problems) > 0 {
				t.Errorf("problems %+v", found.Problems)
			}
			w.save(w.state(1, 1))
			w.wantNewest("1/1")
			if d, err := statexfer.FromConfigMap(w.configMap(formerName)); err != nil || d.Metadata.Sequence != 2 {
				t.Errorf("the other's state is %+v, %v", d.Metadata, err)
			}
		})
	}
}

// TestADamagedStateOfBefore is not taken for ours: what cannot be read does not say whose it is.
func TestADamagedStateOfBefore(t *testing.T) {
	w := newWorld(t, nil)
	w.inFormer(w.state(3, 5))
	w.change(formerName, func(cm *corev1.ConfigMap) { cm.Data["state"] = strings.Replace(cm.Data["state"], "3/5", "3/6", 1) })
	if found := w.wantNewest(""); len(found.Problems) != 1 || !errors.Is(found.Problems[0].Err, statexfer.ErrChecksum) {
		t.Errorf("problems %+v: it is ours, and damaged", found.Problems)
	}
	w.change(formerName, func(cm *corev1.ConfigMap) { cm.Data["state"] = "{" })
	if found := w.wantNewest(""); len(found.Problems) != 0 {
		t.Errorf("problems %+v", found.Problems)
	}
}

// TestAnInstanceOfBeforeIsSavedWhereItLooks, because its container may start again and load that.
func TestAnInstanceOfBeforeIsSavedWhereItLooks(t *testing.T) {
	p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "cam"}, Spec: doryv1alpha1.ProcessorSpec{ProcessorID: "Cam_1"}}
	told := func(name string) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: pod.ContainerName, Env: []corev1.EnvVar{{Name: "DORY_STATE_CONFIGMAP", Value: name}}}}}}
	}
	for name, test := range map[string]struct {
		instance     *corev1.Pod
		look, former string
	}{
		"of before":    {told(formerName), formerName, stateName},
		"of today":     {told(stateName), stateName, ""},
		"adopted":      {&corev1.Pod{}, stateName, formerName},
		"of something": {told("mine"), stateName, formerName},
		"none":         {nil, stateName, formerName},
	} {
		if got := KeyOfInstance(p, test.instance); got.ConfigMap != test.look || got.Former != test.former {
			t.Errorf("%s: %+v", name, got)
		}
	}
	p.Spec.ProcessorID = "cam"
	if got := KeyOfInstance(p, told("dory-state-cam")); got.ConfigMap != "dory-state-cam" || got.Former != "" {
		t.Errorf("%+v", got)
	}
}

// TestALargeStateOfAnIDThatHadTheName is neither read as this one's nor replaced.
func TestALargeStateOfAnIDThatHadTheName(t *testing.T) {
	for name, forget := range map[string]bool{"by an index that says whose it is": false, "by an index of before": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.save(w.state(1, 1, large(2)))
			if forget {
				w.change(indexName(w.key), func(cm *corev1.ConfigMap) {
					var fields map[string]any
					if err := json.Unmarshal([]byte(cm.Data[indexKey]), &fields); err != nil {
						t.Fatal(err)
					}
					delete(fields, "processorID")
					text, err := json.Marshal(fields)
					if err != nil {
						t.Fatal(err)
					}
					cm.Data[indexKey] = string(text)
				})
			}
			next := newWorldIn(t, w.key, nil)
			next.key.ProcessorID, next.key.ConfigMap, next.key.Former = "cam-2", "dory-state-cam-2", ""
			if !forget {
				if found := next.wantNewest(""); len(found.Problems) > 0 {
					t.Errorf("problems %+v", found.Problems)
				}
			}
			for _, epoch := range []int64{0, 9} { // Older and newer than what is there.
				_, err := next.trySave(next.state(epoch, 1, large(2), func(d *statexfer.Document) { d.Metadata.ProcessorID = "cam-2" }))
				if !errors.Is(err, ErrForeign) {
					t.Errorf("epoch %d: %v", epoch, err)
				}
			}
			if saved := next.save(next.state(9, 2, func(d *statexfer.Document) { d.Metadata.ProcessorID = "cam-2" }), after(doryv1alpha1.CheckpointChunks)); saved.Storage != doryv1alpha1.CheckpointConfigMap {
				t.Errorf("%+v", saved)
			}
			w.wantNewest("1/1")
		})
	}
}
