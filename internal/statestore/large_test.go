package statestore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func TestALargeStateGoesToTheDatabaseAndComesBack(t *testing.T) {
	database, _ := openDatabase(t)
	w := newWorld(t, database)
	w.save(w.state(1, 1))
	saved := w.save(w.state(1, 2, large(3)), after(doryv1alpha1.CheckpointConfigMap))
	if saved.Storage != doryv1alpha1.CheckpointDatabase || !saved.Written || saved.Size < 3<<20 || len(w.chunks()) > 0 {
		t.Errorf("saved %+v, chunks %v", saved, w.chunks())
	}
	if found := w.wantNewest("1/2"); len(found.Copies) != 2 {
		t.Errorf("copies %v, want the older one in the ConfigMap, too", found.Copies)
	}
	// It shrinks: the large copy is older now, and goes.
	w.save(w.state(1, 3), after(doryv1alpha1.CheckpointDatabase))
	if found := w.wantNewest("1/3"); len(found.Copies) != 1 {
		t.Errorf("copies %v", found.Copies)
	}
}

func TestALargeStateOfTheSameVersionIsNotWrittenTwice(t *testing.T) {
	database, _ := openDatabase(t)
	for name, db := range map[string]Database{"Database": database, "Chunks": nil} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, db)
			w.save(w.state(1, 2, large(2)))
			if again := w.save(w.state(1, 2, large(2))); again.Written || string(again.Storage) != name || again.Checksum == "" {
				t.Errorf("%+v", again)
			}
		})
	}
}

// TestAStateOfCJKText is twice as long as a document as it is on its way.
func TestAStateOfCJKText(t *testing.T) {
	database, _ := openDatabase(t)
	for name, db := range map[string]Database{"Database": database, "Chunks": nil} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, db)
			noise := rand.New(rand.NewChaCha8([32]byte{}))
			var text strings.Builder
			for text.Len() < 6<<20 {
				text.WriteRune(0x4e00 + rune(noise.IntN(0x5000)))
			}
			payload := `{"at":"1/1","text":"` + text.String() + `"}`
			saved := w.save(w.state(1, 1, func(d *statexfer.Document) { d.Payload = []byte(payload) }))
			if string(saved.Storage) != name || saved.Size < 12<<20 {
				t.Errorf("saved %+v", saved)
			}
			_, document, err := w.Newest(t.Context(), w.key, Lineage{})
			if err != nil {
				t.Fatal(err)
			}
			if document == nil || string(document.State().Data) != payload {
				t.Error("it does not come back as it was")
			}
		})
	}
}

func TestTooLargeForAnything(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.trySave(w.state(1, 1, large(11)))
	if !errors.Is(err, statexfer.ErrTooLarge) {
		t.Errorf("error %v", err)
	}
}

// TestWhileTheDatabaseIsAway: large states go into chunks, and back when the database is.
func TestWhileTheDatabaseIsAway(t *testing.T) {
	opened, _ := openDatabase(t)
	database := &tripping{Database: opened}
	w := newWorld(t, database)
	w.save(w.state(1, 1, large(2)))
	database.away.Store(true)
	if saved := w.save(w.state(1, 2, large(2)), after(doryv1alpha1.CheckpointDatabase)); saved.Storage != doryv1alpha1.CheckpointChunks {
		t.Errorf("saved %+v", saved)
	}
	if found := w.wantNewest("1/2"); len(found.Problems) != 1 || !found.Problems[0].Away {
		t.Errorf("problems %+v", found.Problems)
	}
	database.away.Store(false)
	w.wantNewest("1/2")
	if saved := w.save(w.state(1, 3, large(2)), after(doryv1alpha1.CheckpointChunks)); saved.Storage != doryv1alpha1.CheckpointDatabase {
		t.Errorf("saved %+v", saved)
	}
	w.wantNewest("1/3")
	if left := w.chunks(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestChunks(t *testing.T) {
	w := newWorld(t, nil)
	saved := w.save(w.state(1, 1, large(3)))
	if saved.Storage != doryv1alpha1.CheckpointChunks || saved.Size < 3<<20 {
		t.Errorf("saved %+v", saved)
	}
	want := []string{"dory-checkpoint-cam", "dory-checkpoint-cam.1.0", "dory-checkpoint-cam.1.1", "dory-checkpoint-cam.1.2", "dory-checkpoint-cam.1.3"}
	if got := w.chunks(); !slices.Equal(got, want) {
		t.Errorf("chunks %v, want %v", got, want)
	}
	for _, name := range want {
		if cm := w.configMap(name); len(cm.OwnerReferences) > 0 {
			t.Errorf("%s has an owner", name)
		}
	}
	w.wantNewest("1/1")
	w.save(w.state(1, 2, large(2)))
	want = []string{"dory-checkpoint-cam", "dory-checkpoint-cam.2.0", "dory-checkpoint-cam.2.1", "dory-checkpoint-cam.2.2"}
	if got := w.chunks(); !slices.Equal(got, want) {
		t.Errorf("chunks %v, want %v", got, want)
	}
	w.wantNewest("1/2")
	w.save(w.state(1, 3), after(doryv1alpha1.CheckpointChunks))
	if left := w.chunks(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	w.wantNewest("1/3")
}

// wantNothingElse than what the index calls current.
func (w *world) wantNothingElse(when string) {
	w.t.Helper()
	opened, err := w.openIndex(w.t.Context(), w.key)
	if err != nil || opened.index.Current == nil {
		w.t.Fatalf("%s: index %+v, %v", when, opened.index, err)
	}
	want := []string{indexName(w.key)}
	for n := range opened.index.Current.Chunks {
		want = append(want, chunkName(w.key, opened.index.Current.Number, n))
	}
	if got := w.chunks(); !slices.Equal(got, want) {
		w.t.Errorf("%s: there are %v, want %v", when, got, want)
	}
}

func TestNamesOfChunksBelongToOneProcessor(t *testing.T) {
	if a, b := chunkName(Key{Processor: "a"}, 1, 0), indexName(Key{Processor: "a-1-0"}); a == b {
		t.Errorf("%s is a chunk of one and the index of another", a)
	}
}

// TestAnOperatorThatDiesLeavesOneReadableCheckpoint, at whichever write, and the next one cleans up.
func TestAnOperatorThatDiesLeavesOneReadableCheckpoint(t *testing.T) {
	for death := 1; ; death++ {
		w := newWorld(t, nil)
		w.save(w.state(1, 1, large(2)))
		dying := newWorldIn(t, w.key, nil)
		dying.diesAt = death
		_, err := dying.trySave(w.state(1, 2, large(2)))
		got, found := w.newest(Lineage{})
		if got != "1/1" && got != "1/2" || len(found.Problems) > 0 {
			t.Errorf("died at write %d: the newest is %q, problems %v", death, got, found.Problems)
		}
		if err == nil && got != "1/2" {
			t.Errorf("died at write %d: said that 1/2 is saved, the newest is %q", death, got)
		}
		w.save(w.state(1, 3, large(2)))
		w.wantNewest("1/3")
		w.wantNothingElse(fmt.Sprintf("died at write %d", death))
		if err == nil && death > dying.writes {
			return
		}
	}
}

// TestAnOperatorThatDiesRemovingChunks leaves nothing behind that the next one does not find.
func TestAnOperatorThatDiesRemovingChunks(t *testing.T) {
	for death := 2; ; death++ { // The first write is that of the ConfigMap.
		w := newWorld(t, nil)
		w.save(w.state(1, 1, large(2)))
		dying := newWorldIn(t, w.key, nil)
		dying.diesAt = death
		_, err := dying.trySave(w.state(1, 2), after(doryv1alpha1.CheckpointChunks))
		w.wantNewest("1/2")
		w.save(w.state(1, 3), after(doryv1alpha1.CheckpointChunks))
		if left := w.chunks(); len(left) != 0 {
			t.Errorf("died at write %d: left %v", death, left)
		}
		if err == nil {
			return
		}
	}
}

// TestTwoOperatorsSaveAtOnce: at every write of the one, the other saves from beginning to end.
func TestTwoOperatorsSaveAtOnce(t *testing.T) {
	for meeting := 1; ; meeting++ {
		w := newWorld(t, nil)
		w.save(w.state(1, 1, large(2)))
		slow, fast := newWorldIn(t, w.key, nil), newWorldIn(t, w.key, nil)
		met := false
		slow.onWrite = func(n int) {
			if n == meeting {
				met = true
				fast.save(w.state(1, 3, large(2)))
			}
		}
		_, err := slow.trySave(w.state(1, 2, large(2)))
		if err != nil && !lost(err) {
			t.Errorf("meeting at write %d: %v", meeting, err)
		}
		if !met {
			return
		}
		w.wantNewest("1/3")
		w.save(w.state(1, 4, large(2)))
		w.wantNewest("1/4")
		w.wantNothingElse(fmt.Sprintf("meeting at write %d", meeting))
	}
}

func TestReadingWhileANewerOneComes(t *testing.T) {
	w := newWorld(t, nil)
	w.save(w.state(1, 1, large(2)))
	found, err := w.Look(t.Context(), w.key, Lineage{})
	if err != nil {
		t.Fatal(err)
	}
	w.save(w.state(1, 2, large(2)))
	document, err := w.read(t.Context(), w.key, found.Newest())
	if err != nil || document.Metadata.Sequence != 2 {
		t.Errorf("%v", err)
	}
}

func TestChunksOfAnIndexThatWasDeletedByHand(t *testing.T) {
	w := newWorld(t, nil)
	w.save(w.state(1, 1, large(2)))
	if err := apiServer.Delete(t.Context(), w.configMap("dory-checkpoint-cam")); err != nil {
		t.Fatal(err)
	}
	w.wantNewest("")
	w.save(w.state(1, 2, large(2)))
	w.wantNewest("1/2")
}

// TestTheNewestThatCanBeRead: whatever is wrong with the newest copy, the next one is found, and what is wrong is said.
func TestTheNewestThatCanBeRead(t *testing.T) {
	for name, test := range map[string]struct {
		chunks bool
		damage func(w *world, url string)
		says   string
	}{
		"truncated row": {false, func(w *world, url string) {
			execute(w.t, url, `UPDATE processor_checkpoints SET document = substring(document for 1000)`)
		}, "decompressing"},
		"other row": {false, func(w *world, url string) {
			execute(w.t, url, `UPDATE processor_checkpoints SET document = '\x00'`)
		}, "decompressing"},
		"chunk missing": {true, func(w *world, _ string) {
			if err := apiServer.Delete(w.t.Context(), w.configMap("dory-checkpoint-cam.1.1")); err != nil {
				w.t.Fatal(err)
			}
		}, "dory-checkpoint-cam.1.1 is missing"},
		"chunk changed": {true, func(w *world, _ string) {
			w.change("dory-checkpoint-cam.1.0", func(cm *corev1.ConfigMap) { cm.BinaryData["chunk"][77] ^= 1 })
		}, "SHA-256"},
		"index broken": {true, func(w *world, _ string) {
			w.change("dory-checkpoint-cam", func(cm *corev1.ConfigMap) { cm.Data["index"] = "{" })
		}, "index cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			opened, url := openDatabase(t)
			var database Database
			if !test.chunks {
				database = opened
			}
			w := newWorld(t, database)
			w.save(w.state(1, 1))
			w.save(w.state(1, 2, large(2)))
			w.wantNewest("1/2")
			test.damage(w, url)
			found := w.wantNewest("1/1")
			if len(found.Problems) != 1 || found.Problems[0].Away || !strings.Contains(found.Problems[0].Err.Error(), test.says) {
				t.Errorf("problems %+v, want one that says %q", found.Problems, test.says)
			}
			w.save(w.state(1, 3, large(2)))
			w.wantNewest("1/3")
		})
	}
}

// TestAnIndexThatIsDamagedKeepsNothingFromBeingSaved elsewhere.
func TestAnIndexThatIsDamagedKeepsNothingFromBeingSaved(t *testing.T) {
	w := newWorld(t, nil)
	w.save(w.state(1, 1, large(2)))
	w.change("dory-checkpoint-cam", func(cm *corev1.ConfigMap) { cm.Data["index"] = "{" })
	if saved := w.save(w.state(1, 2), after(doryv1alpha1.CheckpointChunks)); !saved.Written || saved.Storage != doryv1alpha1.CheckpointConfigMap {
		t.Errorf("saved %+v", saved)
	}
	if found := w.wantNewest("1/2"); len(found.Problems) > 0 {
		t.Errorf("problems %+v: the next start may be refused for them", found.Problems)
	}
	w.save(w.state(1, 3, large(2)), after(doryv1alpha1.CheckpointConfigMap))
	w.wantNewest("1/3")
}

func TestALargeStateOfAnotherProcessor(t *testing.T) {
	w := newWorld(t, nil)
	w.save(w.state(1, 1, large(2), func(d *statexfer.Document) { d.Metadata.ProcessorID = "other" }))
	found := w.wantNewest("")
	if len(found.Problems) != 1 || !errors.Is(found.Problems[0].Err, ErrForeign) {
		t.Errorf("%+v", found.Problems)
	}
}

// TestWithoutAnAPIServer: what cannot be asked is an error, and not an answer.
func TestWithoutAnAPIServer(t *testing.T) {
	w := newWorld(t, nil)
	w.save(w.state(1, 1))
	w.diesAt, w.writes = 1, 1
	if _, err := w.Look(t.Context(), w.key, Lineage{}); !errors.Is(err, errDead) {
		t.Errorf("Look: %v", err)
	}
	if _, err := w.trySave(w.state(1, 2)); !errors.Is(err, errDead) {
		t.Errorf("Save: %v", err)
	}
}

func TestAChunkInTheWay(t *testing.T) {
	w := newWorld(t, nil)
	squatter := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.key.Namespace, Name: chunkName(w.key, 1, 1)}}
	if err := apiServer.Create(t.Context(), squatter); err != nil {
		t.Fatal(err)
	}
	w.save(w.state(1, 1, large(2)))
	w.wantNewest("1/1")
}

// TestAnOperatorThatActsOnAnOldIndex: between its look and its first write, the save that it saw half done is completed.
func TestAnOperatorThatActsOnAnOldIndex(t *testing.T) {
	for halfway := 2; halfway <= 4; halfway++ {
		w := newWorld(t, nil)
		w.save(w.state(1, 1, large(2)))
		first, second := newWorldIn(t, w.key, nil), newWorldIn(t, w.key, nil)
		reached, proceed, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		first.onWrite = func(n int) {
			if n == halfway {
				close(reached)
				<-proceed
			}
		}
		go func() {
			_, err := first.trySave(w.state(1, 2, large(2)))
			done <- err
		}()
		<-reached
		second.onWrite = func(n int) {
			if n == 1 {
				close(proceed)
				if err := <-done; err != nil {
					t.Errorf("halfway at %d: the first: %v", halfway, err)
				}
			}
		}
		if _, err := second.trySave(w.state(1, 3, large(2))); !lost(err) {
			t.Errorf("halfway at %d: the second: %v, want a conflict", halfway, err)
		}
		w.wantNewest("1/2")
		w.wantNothingElse(fmt.Sprintf("halfway at %d", halfway))
	}
}
