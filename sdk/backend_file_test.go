package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dory-io/dory/internal/statexfer"
)

func TestFileBackend(t *testing.T) {
	for name, backend := range map[string]func(string) Backend{"pvc": PVCBackend, "local": LocalBackend} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.json")
			b := backend(path)
			if _, err := b.Load(t.Context()); !errors.Is(err, ErrNoState) {
				t.Fatalf("before the first save: %v", err)
			}
			for i := range int64(3) {
				doc := document(`{"n": 5}`, 7, i)
				if err := b.Save(t.Context(), *doc); err != nil {
					t.Fatal(err)
				}
				got, err := b.Load(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if got.Metadata.Position != doc.Metadata.Position || string(got.Payload) != `{"n": 5}` {
					t.Errorf("got %v", got)
				}
			}
			if _, err := os.Stat(path + ".new"); !os.IsNotExist(err) {
				t.Errorf("the new file was left behind: %v", err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode() != stateFileMode {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}

func TestFileDocumentIsTheContracts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	if err := LocalBackend(path).Save(t.Context(), *document(`{"counter":0,"sessions":{}}`, 7, 42)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	if got := string(keys["checksum"]); len(keys) != 3 || got != `"f740aa9ef355bf44c9ab940f9f172f63eec697b37ff8f38a582387fcdc26e40c"` {
		t.Errorf("checksum %s in %s", got, text)
	}
}

func TestPVCBackendWithoutItsVolume(t *testing.T) {
	b := PVCBackend(filepath.Join(t.TempDir(), "not-mounted", "state.json"))
	if _, err := b.Load(t.Context()); err == nil || errors.Is(err, ErrNoState) || !strings.Contains(err.Error(), "is the volume mounted?") {
		t.Errorf("Load: %v", err)
	}
	if err := b.Save(t.Context(), *document(`{}`, 1, 1)); err == nil {
		t.Error("Save made the directory")
	}
}

func TestLocalBackendMakesItsDirectory(t *testing.T) {
	b := LocalBackend(filepath.Join(t.TempDir(), "a", "b", "state.json"))
	if _, err := b.Load(t.Context()); !errors.Is(err, ErrNoState) {
		t.Errorf("Load: %v", err)
	}
	if err := b.Save(t.Context(), *document(`{}`, 1, 1)); err != nil {
		t.Error(err)
	}
}

func TestDamagedFileIsNoEmptyStart(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(text []byte) []byte
		want   error
	}{
		"empty":     {func([]byte) []byte { return nil }, statexfer.ErrMalformed},
		"truncated": {func(text []byte) []byte { return text[:len(text)/2] }, statexfer.ErrMalformed},
		"one bit": {func(text []byte) []byte {
			return []byte(strings.Replace(string(text), `"n": 5`, `"n": 4`, 1))
		}, statexfer.ErrChecksum},
		"zeros": {func(text []byte) []byte { return make([]byte, len(text)) }, statexfer.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.json")
			b := LocalBackend(path)
			if err := b.Save(t.Context(), *document(`{"n":5}`, 7, 1)); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, test.damage(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Load(t.Context()); !errors.Is(err, test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Load: %v", err)
			}
			if err := b.Save(t.Context(), *document(`{"n":6}`, 7, 2)); err != nil {
				t.Errorf("a good state over a damaged one: %v", err)
			}
		})
	}
}

func TestFileOfANewerInstanceStays(t *testing.T) {
	b := LocalBackend(filepath.Join(t.TempDir(), "state.json"))
	newest := document(`{"n":5}`, 7, 100)
	if err := b.Save(t.Context(), *newest); err != nil {
		t.Fatal(err)
	}
	for _, older := range []*Document{document(`{}`, 6, 1000), document(`{}`, 7, 99), document(`{}`, 0, 0)} {
		if err := b.Save(t.Context(), *older); !errors.Is(err, ErrSuperseded) {
			t.Errorf("%v over %v: %v", older.Metadata.Position, newest.Metadata.Position, err)
		}
	}
	for _, newer := range []*Document{document(`{}`, 7, 100), document(`{}`, 7, 101), document(`{}`, 8, 0)} {
		if err := b.Save(t.Context(), *newer); err != nil {
			t.Errorf("%v: %v", newer.Metadata.Position, err)
		}
	}
}

func TestTwoProcessesShareAVolume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	var wg sync.WaitGroup
	for epoch := int64(1); epoch <= 4; epoch++ {
		wg.Go(func() {
			b := PVCBackend(path)
			for sequence := range int64(25) {
				if err := b.Save(t.Context(), *document(`{"n":1}`, epoch, sequence)); err != nil && !errors.Is(err, ErrSuperseded) {
					t.Errorf("epoch %d sequence %d: %v", epoch, sequence, err)
				}
			}
		})
	}
	wg.Wait()
	doc, err := PVCBackend(path).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Position{Epoch: 4, Sequence: 24}, doc.Metadata.Position); diff != "" {
		t.Error(diff)
	}
}

func TestNoBackend(t *testing.T) {
	b := NoBackend()
	if err := b.Save(t.Context(), *document(`{}`, 1, 1)); err != nil {
		t.Error(err)
	}
	if _, err := b.Load(t.Context()); !errors.Is(err, ErrNoState) {
		t.Errorf("Load: %v", err)
	}
}

func BenchmarkFileSave(b *testing.B) {
	backend := LocalBackend(filepath.Join(b.TempDir(), "state.json"))
	doc := document(`{"payload":"`+strings.Repeat("x", 64<<10)+`"}`, 1, 0)
	for b.Loop() {
		doc.Metadata.Sequence++
		if err := backend.Save(context.Background(), *doc); err != nil {
			b.Fatal(err)
		}
	}
}
