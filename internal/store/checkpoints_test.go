package store

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 123456000, time.UTC)

func checkpointAt(id string, epoch, sequence int64, at time.Time) Checkpoint {
	return Checkpoint{
		CheckpointInfo: CheckpointInfo{
			ProcessorID: id, Namespace: "vision", Epoch: epoch, Sequence: sequence, CapturedAt: at,
			PodName: "dory-p-1", Checksum: "c", SizeBytes: 7,
		},
		Document: []byte{0x28, 0xb5, 0, byte(sequence)},
	}
}

func TestCheckpointOnlyGoesForward(t *testing.T) {
	s, _ := open(t)
	for _, step := range []struct {
		epoch, sequence int64
		at              time.Time
		written         bool
		why             string
	}{
		{2, 10, noon, true, "the first"},
		{2, 10, noon, false, "the same again"},
		{2, 9, noon.Add(time.Hour), false, "an older sequence, written later"},
		{1, 99, noon.Add(time.Hour), false, "an older epoch"},
		{2, 10, noon.Add(time.Millisecond), true, "the same position, captured later"},
		{2, 11, noon.Add(-time.Hour), true, "a newer sequence, by a clock that was set back"},
		{3, 0, noon.Add(-time.Hour), true, "a newer epoch"},
		{2, 12, noon, false, "the older instance, once more"},
	} {
		written, err := s.SaveCheckpoint(t.Context(), checkpointAt("p", step.epoch, step.sequence, step.at))
		if err != nil || written != step.written {
			t.Errorf("%s: written %v, %v, want %v", step.why, written, err, step.written)
		}
	}
	got, err := s.Checkpoint(t.Context(), "p")
	want := checkpointAt("p", 3, 0, noon.Add(-time.Hour))
	if err != nil || got == nil || !bytes.Equal(got.Document, want.Document) || !got.CapturedAt.Equal(want.CapturedAt) {
		t.Fatalf("stored %+v, %v", got, err)
	}
	got.CapturedAt = want.CapturedAt // The same time in another zone.
	if got.CheckpointInfo != want.CheckpointInfo {
		t.Errorf("stored %+v, want %+v", got.CheckpointInfo, want.CheckpointInfo)
	}
	if info, err := s.CheckpointInfo(t.Context(), "p"); err != nil || info.Epoch != 3 || info.SizeBytes != 7 {
		t.Errorf("info %+v, %v", info, err)
	}
	if info, err := s.CheckpointInfo(t.Context(), "other"); err != nil || info != nil {
		t.Errorf("of another: %+v, %v", info, err)
	}
}

func TestCheckpointIsDeletedOnlyIfANewerOneIsElsewhere(t *testing.T) {
	s, _ := open(t)
	if _, err := s.SaveCheckpoint(t.Context(), checkpointAt("p", 2, 10, noon)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		epoch, sequence int64
		left            bool
	}{{2, 9, true}, {1, 99, true}, {2, 11, false}, {3, 0, false}} {
		if err := s.DeleteCheckpoint(t.Context(), checkpointAt("p", step.epoch, step.sequence, noon).CheckpointInfo); err != nil {
			t.Fatal(err)
		}
		if info, err := s.CheckpointInfo(t.Context(), "p"); err != nil || (info != nil) != step.left {
			t.Errorf("kept %d/%d elsewhere: stored %+v, %v", step.epoch, step.sequence, info, err)
		}
	}
}

// TestCheckpointsOfManyWriters: whatever the order, the newest wins.
func TestCheckpointsOfManyWriters(t *testing.T) {
	s, _ := open(t)
	const n = 60
	var wg sync.WaitGroup
	for _, sequence := range rand.Perm(n) {
		wg.Go(func() {
			if _, err := s.SaveCheckpoint(t.Context(), checkpointAt("p", 1, int64(sequence), noon)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := s.Checkpoint(t.Context(), "p"); err != nil || got.Sequence != n-1 || got.Document[3] != n-1 {
		t.Errorf("stored %+v, %v", got, err)
	}
}

func TestCheckpointWithoutADatabase(t *testing.T) {
	s := openURL(t, "postgres://nobody@127.0.0.1:1/nothing")
	_, saveErr := s.SaveCheckpoint(t.Context(), checkpointAt("p", 1, 1, noon))
	_, readErr := s.Checkpoint(t.Context(), "p")
	for _, err := range []error{saveErr, readErr} {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("error %v, want ErrUnavailable", err)
		}
		wantContains(t, err, `"p"`)
	}
}

// TestCheckpointOutlivesItsRow: state is not lost with a row that was deleted by mistake.
func TestCheckpointOutlivesItsRow(t *testing.T) {
	s, conn := open(t)
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "p")
	if _, err := s.SaveCheckpoint(t.Context(), checkpointAt("p", 1, 1, noon)); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, `DELETE FROM processors`)
	if info, err := s.CheckpointInfo(t.Context(), "p"); err != nil || info == nil {
		t.Errorf("%+v, %v", info, err)
	}
}
