package statexfer

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var written = time.Date(2026, 3, 1, 12, 30, 15, 123456000, time.UTC)

func sample() Document {
	return Document{
		Payload: json.RawMessage(`{"counter":0,"sessions":{}}`),
		Metadata: Metadata{
			Position: Position{Epoch: 7, Sequence: 42}, Time: written, ProcessorID: "p-1", PodName: "dory-p-1-x", RestartCount: 1,
		},
	}
}

const sampleText = `{"payload": {"counter": 0, "sessions": {}}, ` +
	`"metadata": {"timestamp":1772368215.123456,"timestamp_iso":"2026-03-01T12:30:15.123456Z","processor_id":"p-1",` +
	`"pod_name":"dory-p-1-x","restart_count":1,"epoch":7,"sequence":42}, ` +
	`"checksum": "f740aa9ef355bf44c9ab940f9f172f63eec697b37ff8f38a582387fcdc26e40c"}`

func TestDocumentGolden(t *testing.T) {
	text, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleText, string(text)); diff != "" {
		t.Error(diff)
	}
	back, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	want := sample()
	want.Payload = json.RawMessage(`{"counter": 0, "sessions": {}}`)
	if diff := cmp.Diff(want, back); diff != "" {
		t.Error(diff)
	}
}

// What the Python SDK checks on load, done by Python itself.
func TestPythonAcceptsOurDocuments(t *testing.T) {
	d := sample()
	d.Payload = json.RawMessage(`{"é":[1e21,-0.0,2.50,123456789012345678901234567890],"a":"\ud83d</>&"}`)
	text, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "python3", "-c", `
import hashlib, json, sys
d = json.load(sys.stdin)
assert hashlib.sha256(json.dumps(d["payload"], sort_keys=True).encode()).hexdigest() == d["checksum"]
assert isinstance(d["metadata"]["timestamp"], float)
`)
	cmd.Stdin = strings.NewReader(string(text))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, text)
	}
}

func TestDecodeTakesWhatOtherSDKsWrite(t *testing.T) {
	for name, test := range map[string]struct {
		metadata string
		want     Metadata
	}{
		"no position": {
			`{"timestamp":1772368215.123456,"processor_id":"p","pod_name":"q","restart_count":2}`,
			Metadata{Time: written, ProcessorID: "p", PodName: "q", RestartCount: 2},
		},
		"empty":         {`{}`, Metadata{}},
		"other types":   {`{"timestamp":"now","processor_id":7,"pod_name":null,"restart_count":"3"}`, Metadata{}},
		"unknown keys":  {`{"epoch":1,"sequence":2,"more":{}}`, Metadata{Position: Position{1, 2}}},
		"null position": {`{"epoch":null,"sequence":null}`, Metadata{}},
	} {
		t.Run(name, func(t *testing.T) {
			text := `{"checksum":"44136FA355B3678A1146AD16F7E8649E94FB4FC21FE77E8310C060F61CAAFF8A","metadata":` + test.metadata + `,"payload":{ }}`
			got, err := Decode([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.Metadata); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	const sum = `"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"`
	for name, test := range map[string]struct {
		in   string
		want error
		says string
	}{
		"no JSON":               {`{"payload"`, ErrMalformed, "unexpected end"},
		"null":                  {`null`, ErrMalformed, "no payload"},
		"empty":                 {``, ErrMalformed, "unexpected end"},
		"no payload":            {`{"metadata":{},"checksum":` + sum + `}`, ErrMalformed, "no payload"},
		"payload in capitals":   {`{"Payload":{},"metadata":{},"checksum":` + sum + `}`, ErrMalformed, "no payload"},
		"no metadata":           {`{"payload":{},"checksum":` + sum + `}`, ErrMalformed, "no metadata"},
		"no checksum":           {`{"payload":{},"metadata":{}}`, ErrMalformed, "no checksum"},
		"checksum is a number":  {`{"payload":{},"metadata":{},"checksum":1}`, ErrMalformed, "checksum is no text"},
		"checksum is null":      {`{"payload":{},"metadata":{},"checksum":null}`, ErrMalformed, "checksum is no text"},
		"payload is no object":  {`{"payload":[],"metadata":{},"checksum":` + sum + `}`, ErrMalformed, "the payload is no object"},
		"payload is null":       {`{"payload":null,"metadata":{},"checksum":` + sum + `}`, ErrMalformed, "the payload is no object"},
		"metadata is no object": {`{"payload":{},"metadata":[],"checksum":` + sum + `}`, ErrMalformed, "metadata is no object"},
		"negative epoch":        {`{"payload":{},"metadata":{"epoch":-1},"checksum":` + sum + `}`, ErrMalformed, "epoch is -1"},
		"sequence is a text":    {`{"payload":{},"metadata":{"sequence":"1"},"checksum":` + sum + `}`, ErrMalformed, `sequence is "1"`},
		"changed payload": {
			`{"payload":{"a":1},"metadata":{},"checksum":` + sum + `}`, ErrChecksum,
			"the document says 44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a, its payload has ",
		},
		"too large": {strings.Repeat(" ", MaxDocumentBytes+1), ErrTooLarge, "the limit is"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode([]byte(test.in))
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got error %v, want %v that says %q", err, test.want, test.says)
			}
		})
	}
}

func TestDecodeMetadataOfADamagedDocument(t *testing.T) {
	m, err := DecodeMetadata([]byte(strings.Replace(sampleText, `"counter": 0`, `"counter": 1`, 1)))
	if err != nil || m.Position != (Position{Epoch: 7, Sequence: 42}) {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		payload string
		want    error
	}{
		"no object": {`[1]`, ErrMalformed},
		"no JSON":   {`{`, ErrInvalidJSON},
		"nothing":   {``, ErrInvalidJSON},
		"infinite":  {`{"a":1e999}`, ErrInvalidJSON},
		"too large": {`{"a":"` + strings.Repeat("a", MaxStateBytes) + `"}`, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := (Document{Payload: json.RawMessage(test.payload)}).Encode(); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestPositionOrder(t *testing.T) {
	ordered := []Position{{}, {0, 1}, {1, 0}, {1, 1}, {1, 100}, {2, 0}}
	for i, p := range ordered {
		for j, q := range ordered {
			if got := p.Compare(q); got != compareInts(i, j) {
				t.Errorf("%v compared with %v is %d", p, q, got)
			}
		}
	}
}

func compareInts(i, j int) int {
	switch {
	case i < j:
		return -1
	case i > j:
		return 1
	}
	return 0
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(sampleText))
	f.Add([]byte(`{"payload":{},"metadata":{},"checksum":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Decode(text)
		if err != nil {
			return
		}
		again, err := d.Encode()
		if err != nil {
			t.Fatalf("%q was read, but cannot be written: %v", text, err)
		}
		back, err := Decode(again)
		if err != nil || !cmp.Equal(d.Payload, back.Payload) || d.Metadata.Position != back.Metadata.Position {
			t.Fatalf("%q became %q (%v)", text, again, err)
		}
	})
}

func BenchmarkEncodeDecode8MiB(b *testing.B) {
	d := sample()
	d.Payload = json.RawMessage(`{"payload":"` + strings.Repeat("x", 8<<20) + `"}`)
	b.SetBytes(int64(len(d.Payload)))
	for b.Loop() {
		text, err := d.Encode()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Decode(text); err != nil {
			b.Fatal(err)
		}
	}
}
