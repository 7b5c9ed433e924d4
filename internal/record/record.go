// Package record is the one way to write events. What is too long for an event is shortened, because the API server refuses
// the whole of it otherwise.
package record

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"

	"github.com/dory-io/dory/internal/message"
)

// Recorder writes events.
type Recorder struct{ to events.EventRecorder }

// New makes a Recorder.
func New(to events.EventRecorder) Recorder { return Recorder{to} }

// Eventf writes an event about an object, and another one that has to do with it, which may be nil.
func (r Recorder) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) {
	r.to.Eventf(regarding, related, kind, reason, action, "%s", message.Shorten(fmt.Sprintf(note, args...), message.EventLimit))
}
