package statestore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

func TestSaveWhereTheSDKLooks(t *testing.T) {
	w := newWorld(t, nil)
	saved := w.save(w.state(1, 5))
	cm := w.configMap(stateName)
	d, err := statexfer.FromConfigMap(cm)
	if err != nil || string(d.Payload) != `{"at": "1/5"}` || d.Metadata.ProcessorID != "Cam_1" {
		t.Errorf("stored %+v, %v", d, err)
	}
	if saved.Storage != doryv1alpha1.CheckpointConfigMap || !saved.Written || saved.Checksum != statexfer.Checksum(d.Payload) || saved.Size != 13 {
		t.Errorf("saved %+v", saved)
	}
	if len(cm.OwnerReferences) > 0 {
		t.Error("the state has an owner, with which it would be deleted")
	}
	if cm.Labels[statexfer.LabelStateOwner] != "true" || cm.Annotations[statexfer.AnnotationCreated] == "" {
		t.Errorf("labels %v, annotations %v", cm.Labels, cm.Annotations)
	}
}

// TestAnOlderStateNeverReplacesANewerOne is invariant 3, in each of the places, with several operators at once.
func TestAnOlderStateNeverReplacesANewerOne(t *testing.T) {
	database, _ := openDatabase(t)
	for name, test := range map[string]struct {
		database Database
		change   func(*statexfer.Document)
		tries    int
	}{
		"ConfigMap": {nil, func(*statexfer.Document) {}, 24},
		"Database":  {database, large(2), 12},
		"Chunks":    {nil, large(2), 8},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.database)
			const operators = 3
			var mu sync.Mutex
			var highest Version
			var wg sync.WaitGroup
			for range operators {
				wg.Go(func() {
					operator := newWorldIn(t, w.key, test.database)
					slot := &Slot{}
					for _, i := range rand.Perm(test.tries) {
						saved, err := operator.trySave(w.state(int64(1+i%3), int64(i), test.change), with(slot))
						if err != nil && !lost(err) && !errors.Is(err, ErrContended) {
							t.Error(err)
						}
						mu.Lock()
						if saved.Written && saved.Version.Compare(highest) > 0 {
							highest = saved.Version
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			got, found := w.newest(Lineage{Epoch: 9, Holder: "pod-9"})
			if newest := found.Newest(); newest == nil || newest.Version.Compare(highest) != 0 || got != at(highest) {
				t.Errorf("the newest is %q, want %q; problems %v", got, at(highest), found.Problems)
			}
			if again := w.save(w.state(1, 0, test.change)); again.Written {
				t.Errorf("1/0 was written over %s", at(highest))
			}
		})
	}
}

func at(v Version) string { return fmt.Sprintf("%d/%d", v.Epoch, v.Sequence) }

func TestAStateThatIsRememberedIsNotRead(t *testing.T) {
	w := newWorld(t, nil)
	slot := &Slot{}
	w.save(w.state(1, 1), with(slot))
	w.reads, w.writes = 0, 0
	for sequence := range int64(5) {
		w.save(w.state(1, 2+sequence), with(slot))
	}
	if w.reads != 0 || w.writes != 5 {
		t.Errorf("%d reads and %d writes for 5 checkpoints, want 0 and 5", w.reads, w.writes)
	}
	w.wantNewest("1/6")
}

func TestWhatElseIsInTheConfigMapStays(t *testing.T) {
	w := newWorld(t, nil)
	slot := &Slot{}
	w.save(w.state(1, 1), with(slot), func(r *SaveRequest) { r.Fresh = "f" })
	w.change(stateName, func(cm *corev1.ConfigMap) {
		cm.Labels["team"], cm.Data["note"] = "blue", "mine"
		cm.BinaryData = map[string][]byte{"b": {1}}
	})
	w.save(w.state(1, 2), with(slot)) // Meets the change.
	w.save(w.state(1, 3), with(slot)) // Remembers it.
	cm := w.configMap(stateName)
	if cm.Labels["team"] != "blue" || cm.Data["note"] != "mine" || len(cm.BinaryData["b"]) != 1 || cm.Annotations[AnnotationFresh] != "f" {
		t.Errorf("labels %v, data %v, binary %v, annotations %v", cm.Labels, cm.Data["note"], cm.BinaryData, cm.Annotations)
	}
	if slot.Fresh() != "f" {
		t.Errorf("remembers %q", slot.Fresh())
	}
}

// TestALateSaveIsUndone is trap 7.
func TestALateSaveIsUndone(t *testing.T) {
	w := newWorld(t, nil)
	slot := &Slot{}
	w.save(w.state(2, 0), with(slot))
	w.blindSave(w.state(0, 0, blind("pod-1", noon.Add(time.Hour)))) // By its own clock, long after.
	saved := w.save(w.state(2, 0, func(d *statexfer.Document) { d.Metadata.Time = d.Metadata.Time.Add(time.Second) }), with(slot))
	if !saved.Written || saved.Undone != "pod-1" {
		t.Errorf("saved %+v", saved)
	}
	w.wantNewest("2/0")
}

func TestTheLastSaveOfTheHolderStays(t *testing.T) {
	w := newWorld(t, nil)
	slot := &Slot{}
	w.save(w.state(2, 0), with(slot))
	w.blindSave(w.state(2, 77, blind("pod-2", noon.Add(time.Hour))))
	saved := w.save(w.state(2, 0, func(d *statexfer.Document) { d.Metadata.Time = noon.Add(30 * time.Minute) }), with(slot))
	if saved.Written || saved.Version.Epoch != 2 || !saved.Version.Time.Equal(noon.Add(time.Hour)) {
		t.Errorf("saved %+v", saved)
	}
	w.wantNewest("2/77")
}

func TestASaveOfTheSDKThatIsNewerStays(t *testing.T) {
	w := newWorld(t, nil)
	slot := &Slot{}
	w.save(w.state(2, 10), with(slot))
	w.blindSave(w.state(2, 12)) // The Go SDK writes its position.
	if saved := w.save(w.state(2, 11), with(slot)); saved.Written || saved.Version.Sequence != 12 || saved.Checksum == "" {
		t.Errorf("saved %+v", saved)
	}
	if saved := w.save(w.state(2, 13), with(slot)); !saved.Written || saved.Undone != "" {
		t.Errorf("saved %+v", saved)
	}
}

func TestADeletedConfigMapIsMadeAgain(t *testing.T) {
	w := newWorld(t, nil)
	slot := &Slot{}
	w.save(w.state(2, 10), with(slot))
	if err := apiServer.Delete(t.Context(), w.configMap(stateName)); err != nil {
		t.Fatal(err)
	}
	if saved := w.save(w.state(2, 11), with(slot)); !saved.Written {
		t.Errorf("saved %+v", saved)
	}
	w.wantNewest("2/11")
}

func TestADamagedStateIsReplacedByAGoodOne(t *testing.T) {
	for name, damage := range map[string]func(string) string{
		"checksum":  func(s string) string { return strings.Replace(s, "9/9", "8/8", 1) },
		"truncated": func(s string) string { return s[:len(s)/2] },
		"empty":     func(string) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.save(w.state(9, 9))
			w.change(stateName, func(cm *corev1.ConfigMap) { cm.Data["state"] = damage(cm.Data["state"]) })
			if got, found := w.newest(Lineage{}); got != "" || len(found.Problems) != 1 || found.Problems[0].Away {
				t.Errorf("newest %q, problems %+v", got, found.Problems)
			}
			if saved := w.save(w.state(2, 1)); !saved.Written {
				t.Errorf("saved %+v", saved)
			}
			w.wantNewest("2/1")
		})
	}
}

func TestTheStateOfAnotherProcessorIsLeftAlone(t *testing.T) {
	w := newWorld(t, nil)
	w.blindSave(w.state(1, 1, func(d *statexfer.Document) { d.Metadata.ProcessorID = "other" }))
	found, err := w.Look(t.Context(), w.key, Lineage{})
	if err != nil || len(found.Copies) != 0 || len(found.Problems) != 1 {
		t.Fatalf("found %+v, %v", found, err)
	}
	for name, slot := range map[string]*Slot{"unseen": {}, "seen": &found.Slot} {
		_, err := w.trySave(w.state(2, 2), with(slot))
		if !errors.Is(err, ErrForeign) {
			t.Fatalf("%s: %v", name, err)
		}
		wantSays(t, err, stateName, `"other"`, `"Cam_1"`)
	}
	if d, err := statexfer.FromConfigMap(w.configMap(stateName)); err != nil || d.Metadata.ProcessorID != "other" {
		t.Errorf("%+v, %v", d.Metadata, err)
	}
}

func TestAConfigMapWithoutAState(t *testing.T) {
	w := newWorld(t, nil)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.key.Namespace, Name: w.key.ConfigMap}, Data: map[string]string{"note": "x"}}
	if err := apiServer.Create(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	if got, found := w.newest(Lineage{}); got != "" || len(found.Problems) > 0 {
		t.Errorf("%q, %+v", got, found.Problems)
	}
	w.save(w.state(1, 1))
	if found := w.wantNewest("1/1"); len(found.Copies) != 1 || w.configMap(w.key.ConfigMap).Data["note"] != "x" {
		t.Errorf("%+v", found)
	}
}

// TestWhoWritesOftenIsReadFirst: an SDK that saves by itself all the time would make every first write fail.
func TestWhoWritesOftenIsReadFirst(t *testing.T) {
	w := newWorld(t, nil)
	slot := &Slot{}
	w.save(w.state(1, 1), with(slot))
	for sequence := int64(2); sequence < 10; sequence += 2 {
		w.blindSave(w.state(1, sequence))
		w.reads, w.writes = 0, 0
		w.save(w.state(1, sequence+1), with(slot))
		if sequence > 2 && (w.reads != 1 || w.writes != 1) {
			t.Errorf("at %d: %d reads, %d writes, want 1 and 1", sequence, w.reads, w.writes)
		}
	}
	w.save(w.state(1, 20), with(slot)) // Finds that nobody wrote.
	w.reads, w.writes = 0, 0
	w.save(w.state(1, 21), with(slot))
	if w.reads != 0 || w.writes != 1 {
		t.Errorf("alone again: %d reads, %d writes, want 0 and 1", w.reads, w.writes)
	}
}
