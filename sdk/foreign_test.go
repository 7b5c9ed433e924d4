package sdk

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheStateOfAnotherProcessorIsNotReplaced, whatever their positions are, by no backend.
func TestTheStateOfAnotherProcessorIsNotReplaced(t *testing.T) {
	namespace, user := newNamespace(t, processorVerbs...)
	for epoch, backend := range map[int64]Backend{
		1: PVCBackend(filepath.Join(t.TempDir(), "state.json")), 9: PVCBackend(filepath.Join(t.TempDir(), "state.json")),
		7: newConfigMapBackend(t, user, namespace),
	} {
		theirs := *document(`{"n":1}`, 5, 5)
		theirs.Metadata.ProcessorID = "other"
		if err := backend.Save(t.Context(), theirs); err != nil {
			t.Fatal(err)
		}
		err := backend.Save(t.Context(), *document(`{"n":2}`, epoch, 1))
		if !errors.Is(err, ErrForeignState) || !strings.Contains(err.Error(), `"other"`) || !strings.Contains(err.Error(), `"p-1"`) {
			t.Errorf("epoch %d: %v", epoch, err)
		}
		if left, err := backend.Load(t.Context()); err != nil || left.Metadata.ProcessorID != "other" {
			t.Errorf("%+v, %v", left.Metadata, err)
		}
	}
	nobodys := *document(`{"n":1}`, 5, 5)
	nobodys.Metadata.ProcessorID = ""
	if err := refuseToReplace(nobodys.Metadata, *document(`{"n":2}`, 6, 1)); err != nil {
		t.Errorf("a document that does not say whose it is: %v", err)
	}
}
