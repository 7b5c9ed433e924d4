package statexfer

import (
	"bytes"
	"strings"
	"testing"
)

func TestCompact(t *testing.T) {
	for name, text := range map[string]string{
		"spaces":             `{"a":[1,2,{"b c":" d "}],"e":null}`,
		"characters":         `{"a":"café € 😀 状態","状態":1}`,
		"delete":             "{\"a\":\"\x7f\"}",
		"control characters": `{"a":"\u0000\n\u001f"}`,
		"quotes":             `{"a\"b, c":"\\\\","d":"\\\" \""}`,
		"lone surrogates":    `{"a":"\ud83dx\ude00","b":"\ud83d\ud83d"}`,
		"nothing":            `{}`,
	} {
		t.Run(name, func(t *testing.T) {
			canonical, err := Canonical([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if got := compact(canonical); string(got) != text {
				t.Errorf("compact(%s) = %s, want %s", canonical, got, text)
			}
		})
	}
}

// TestALimitIsThatOfWhatTravels: the canonical form of a state within the limit may be longer than that.
func TestALimitIsThatOfWhatTravels(t *testing.T) {
	for name, letter := range map[string]string{"CJK": "状", "accents": "é", "delete": "\x7f"} {
		t.Run(name, func(t *testing.T) {
			payload := `{"a":"` + strings.Repeat(letter, (MaxStateBytes-100)/len(letter)) + `"}`
			text, err := Document{Payload: []byte(payload)}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if len(text) < 2*(MaxStateBytes-100) {
				t.Errorf("a document of %d bytes shows nothing", len(text))
			}
			document, err := Decode(text)
			if err != nil {
				t.Fatal(err)
			}
			if state := document.State(); !bytes.Equal(state.Data, []byte(payload)) || state.RawChecksum != rawChecksum(state.Data) {
				t.Errorf("a state of %d bytes came back as one of %d", len(payload), len(state.Data))
			}
		})
	}
}
