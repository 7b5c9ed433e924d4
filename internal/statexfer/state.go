package statexfer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync"
	"time"
)

// State is a processor's state at one moment. Its data is shared by everybody who holds the State, and never modified.
type State struct {
	// Data is the text of the state's JSON object, byte for byte as the processor wrote it.
	Data json.RawMessage
	// Position of the state. HasPosition is false where the processor's SDK knows none.
	Position    Position
	HasPosition bool
	// RawChecksum is the hexadecimal SHA-256 of Data: of a large state as the processor tells it, if it does. Two states with the same are the same; two with different ones may
	// still mean the same, which only Checksum tells.
	RawChecksum string
	// CapturedAt is the processor's own time, or the client's where the processor tells none.
	CapturedAt time.Time
	// PodName is who the processor says it is.
	PodName string
	// StateVersion is the version of the ApplicationState that Data came in.
	StateVersion string
	// DataVersion is the version of Data's own format, or empty where the processor tells none.
	DataVersion string
	// Uptime of the process that answered, or 0 where it tells none. It tells a process that restarted before its kubelet
	// does.
	Uptime time.Duration
	// Iterations is how they went lately.
	Iterations Iterations

	once     sync.Once
	checksum string
	err      error
}

// Checksum is the contract's checksum of the state: that of its canonical form, which costs a pass over the state. It is
// made when it is first asked for. It fails as Canonical does.
func (s *State) Checksum() (string, error) {
	s.once.Do(func() {
		var canonical []byte
		if canonical, s.err = Canonical(s.Data); s.err == nil {
			s.checksum = Checksum(canonical)
		}
	})
	return s.checksum, s.err
}

// Document is the state as the document of a processor's state ConfigMap.
func (s *State) Document(processorID string) Document {
	return Document{
		Payload: s.Data,
		Metadata: Metadata{
			Position: s.Position, Time: s.CapturedAt, ProcessorID: processorID, PodName: s.PodName, DataVersion: s.DataVersion,
		},
	}
}

// State is the document's state as Client.Restore takes it.
func (d Document) State() *State {
	data := d.Payload
	if len(data) > MaxStateBytes {
		data = compact(data)
	}
	return &State{
		Data:         data,
		Position:     d.Metadata.Position,
		HasPosition:  d.Metadata.Position != Position{},
		RawChecksum:  rawChecksum(data),
		CapturedAt:   d.Metadata.Time,
		PodName:      d.Metadata.PodName,
		StateVersion: StateVersion,
		DataVersion:  d.Metadata.DataVersion,
	}
}

func rawChecksum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
