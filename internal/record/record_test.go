package record_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/record"
)

// The API server refuses the whole of an event whose note has more than 1,024 bytes.
func TestLongNotesAreCutBetweenCharacters(t *testing.T) {
	written := events.NewFakeRecorder(2)
	r := record.New(written)
	about := &corev1.Pod{}
	r.Eventf(about, nil, corev1.EventTypeWarning, "PodRejected", "Create", "refused at 100%%: %s", strings.Repeat("ü", 1000))
	r.Eventf(about, nil, corev1.EventTypeNormal, "Fine", "Create", "%s", "a % that means nothing")
	const prefix = "Warning PodRejected "
	note := strings.TrimPrefix(<-written.Events, prefix)
	if len(note) > message.EventLimit || !utf8.ValidString(note) || !strings.HasPrefix(note, "refused at 100%: üü") || !strings.HasSuffix(note, "ü…") {
		t.Errorf("%d bytes: %q", len(note), note)
	}
	if note := <-written.Events; note != "Normal Fine a % that means nothing" {
		t.Errorf("%q", note)
	}
}
