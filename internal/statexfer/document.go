package statexfer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Position is how far a processor's state has come. The epoch rises with every change of the acting instance, the
// sequence with every committed iteration. A document without one, from another SDK, has position zero, which is
// older than any other.
type Position struct {
	Epoch    int64
	Sequence int64
}

// Compare is negative where p is older than q, positive where it is newer, and 0 where they are the same.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.Sequence, q.Sequence))
}

// String names both parts, for messages.
func (p Position) String() string {
	return fmt.Sprintf("epoch %d sequence %d", p.Epoch, p.Sequence)
}

// Metadata says who wrote a state document and when.
type Metadata struct {
	// Position of the state; the fields epoch and sequence are an extension of the contract.
	Position
	// Time of the capture, to the microsecond.
	Time time.Time
	// ProcessorID whose state it is.
	ProcessorID string
	// PodName of the writer.
	PodName string
	// RestartCount that the writer was started with.
	RestartCount int
	// DataVersion is the version of the payload's own format, which only the processor's author knows about. Empty
	// where there is none; the field data_version is an extension of the contract.
	DataVersion string
}

// Document is a processor's state with what is needed to trust it.
type Document struct {
	// Payload is the state: the text of a JSON object.
	Payload  json.RawMessage
	Metadata Metadata
}

// envelope is the document's JSON, taken apart.
type envelope struct {
	payload  json.RawMessage
	checksum string
}

type metadataJSON struct {
	Timestamp    float64 `json:"timestamp"`
	TimestampISO string  `json:"timestamp_iso"`
	ProcessorID  string  `json:"processor_id"`
	PodName      string  `json:"pod_name"`
	RestartCount int     `json:"restart_count"`
	Epoch        int64   `json:"epoch"`
	Sequence     int64   `json:"sequence"`
	DataVersion  string  `json:"data_version,omitempty"`
}

// Encode writes the document as every SDK reads it: payload, metadata and checksum. The payload is written in its
// canonical form, which may be longer than MaxStateBytes. It fails with ErrMalformed where the payload is no object, and as
// Canonical does.
func (d Document) Encode() ([]byte, error) {
	payload, err := canonicalObject(d.Payload, MaxStateBytes)
	if err != nil {
		return nil, err
	}
	metadata, err := d.Metadata.encode()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(len(payload) + len(metadata) + 128)
	b.WriteString(`{"payload": `)
	b.Write(payload)
	b.WriteString(`, "metadata": `)
	b.Write(metadata)
	b.WriteString(`, "checksum": "`)
	b.WriteString(Checksum(payload))
	b.WriteString(`"}`)
	return b.Bytes(), nil
}

func (m Metadata) encode() ([]byte, error) {
	text, err := json.Marshal(metadataJSON{
		Timestamp:    float64(m.Time.UnixMicro()) / 1e6,
		TimestampISO: FormatTime(m.Time),
		ProcessorID:  m.ProcessorID,
		PodName:      m.PodName,
		RestartCount: m.RestartCount,
		Epoch:        m.Epoch,
		Sequence:     m.Sequence,
		DataVersion:  m.DataVersion,
	})
	if err != nil {
		return nil, fmt.Errorf("writing the metadata of a state document: %w", err)
	}
	return text, nil
}

// FormatTime writes a time as the contract's documents do: RFC 3339 in UTC, to the microsecond.
func FormatTime(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
}

// Decode reads a document and verifies its checksum. It fails with ErrMalformed where payload, metadata or checksum
// is absent or not what it should be, and with ErrChecksum, naming both sums, where the payload was changed.
func Decode(text []byte) (Document, error) {
	if len(text) > MaxDocumentBytes {
		return Document{}, fmt.Errorf("%w: a document of %d bytes, the limit is %d", ErrTooLarge, len(text), MaxDocumentBytes)
	}
	parts, metadata, err := open(text)
	if err != nil {
		return Document{}, err
	}
	payload, err := canonicalObject(parts.payload, maxCanonicalBytes)
	if err != nil {
		return Document{}, err
	}
	if got := Checksum(payload); !strings.EqualFold(got, parts.checksum) {
		return Document{}, fmt.Errorf("%w: the document says %s, its payload has %s", ErrChecksum, parts.checksum, got)
	}
	return Document{Payload: payload, Metadata: metadata}, nil
}

// DecodeMetadata reads a document's metadata without looking at its payload: enough to compare positions, also where
// the payload is damaged.
func DecodeMetadata(text []byte) (Metadata, error) {
	_, metadata, err := open(text)
	return metadata, err
}

// open goes by a map, because a struct would also take keys in another case, which no other SDK does.
func open(text []byte) (envelope, Metadata, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil {
		return envelope{}, Metadata{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	for _, key := range []string{"payload", "metadata", "checksum"} {
		if keys[key] == nil {
			return envelope{}, Metadata{}, fmt.Errorf("%w: no %s", ErrMalformed, key)
		}
	}
	parts := envelope{payload: keys["payload"]}
	if err := json.Unmarshal(keys["checksum"], &parts.checksum); err != nil || parts.checksum == "" {
		return envelope{}, Metadata{}, fmt.Errorf("%w: checksum is no text", ErrMalformed)
	}
	metadata, err := decodeMetadata(keys["metadata"])
	return parts, metadata, err
}

// decodeMetadata is strict only about the position: whatever else other SDKs write there must not keep a good
// payload from being read.
func decodeMetadata(text json.RawMessage) (Metadata, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil || fields == nil {
		return Metadata{}, fmt.Errorf("%w: metadata is no object", ErrMalformed)
	}
	m := Metadata{
		ProcessorID:  lenient[string](fields["processor_id"]),
		PodName:      lenient[string](fields["pod_name"]),
		RestartCount: lenient[int](fields["restart_count"]),
		DataVersion:  lenient[string](fields["data_version"]),
	}
	if seconds := lenient[float64](fields["timestamp"]); seconds != 0 {
		m.Time = time.UnixMicro(int64(seconds * 1e6)).UTC()
	}
	var err error
	if m.Epoch, err = counter("epoch", fields["epoch"]); err != nil {
		return Metadata{}, err
	}
	if m.Sequence, err = counter("sequence", fields["sequence"]); err != nil {
		return Metadata{}, err
	}
	return m, nil
}

// lenient is the zero value where the text is absent or of another type.
func lenient[T any](text json.RawMessage) T {
	var value, zero T
	if text == nil || json.Unmarshal(text, &value) != nil {
		return zero
	}
	return value
}

func counter(name string, text json.RawMessage) (int64, error) {
	if text == nil || string(text) == "null" {
		return 0, nil
	}
	var n int64
	if err := json.Unmarshal(text, &n); err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %s is %s, not a whole number from 0 up", ErrMalformed, name, text)
	}
	return n, nil
}

func canonicalObject(text json.RawMessage, limit int) ([]byte, error) {
	payload, err := canonical(text, limit)
	if err != nil {
		return nil, fmt.Errorf("the payload of a state document: %w", err)
	}
	if payload[0] != '{' {
		return nil, fmt.Errorf("%w: the payload is no object", ErrMalformed)
	}
	return payload, nil
}
