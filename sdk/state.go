package sdk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"sync"

	"github.com/dory-io/dory/internal/statexfer"
)

// ownPart is the length from which a variable's text is a part of its own: below it, copying costs less.
const ownPart = 4 << 10

// stateText is the JSON text of a state in parts, because the texts of large variables are shared and never copied. Nobody
// may modify them.
type stateText struct {
	parts [][]byte
	size  int
}

func oneText(text []byte) stateText {
	return stateText{parts: [][]byte{text}, size: len(text)}
}

// join is the text in one piece.
func (s stateText) join() json.RawMessage {
	if len(s.parts) == 1 {
		return s.parts[0]
	}
	return bytes.Join(s.parts, nil)
}

// checksum is the hexadecimal SHA-256 of the text.
func (s stateText) checksum() string {
	hash := sha256.New()
	for _, part := range s.parts {
		hash.Write(part)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// equals says whether the text is the same, which is much faster than to compare checksums.
func (s stateText) equals(text []byte) bool {
	if s.size != len(text) {
		return false
	}
	for _, part := range s.parts {
		if !bytes.Equal(part, text[:len(part)]) {
			return false
		}
		text = text[len(part):]
	}
	return true
}

func (s stateText) writeTo(w io.Writer) error {
	for _, part := range s.parts {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// textBuilder makes the text of a JSON object out of its members.
type textBuilder struct {
	done stateText
	open []byte
	any  bool
}

// add appends a member. A large text becomes a part as it is.
func (b *textBuilder) add(name, text []byte) {
	separator := byte('{')
	if b.any {
		separator = ','
	}
	b.any = true
	b.open = append(b.open, separator)
	b.open = append(b.open, name...)
	b.open = append(b.open, ':')
	if len(text) < ownPart {
		b.open = append(b.open, text...)
		return
	}
	b.flush()
	b.part(text)
}

func (b *textBuilder) flush() {
	if len(b.open) > 0 {
		b.part(b.open)
		b.open = nil
	}
}

func (b *textBuilder) part(text []byte) {
	b.done.parts = append(b.done.parts, text)
	b.done.size += len(text)
}

func (b *textBuilder) end() stateText {
	if !b.any {
		b.open = append(b.open, '{')
	}
	b.open = append(b.open, '}')
	b.flush()
	return b.done
}

// captured is the state between two iterations.
type captured struct {
	text stateText
	meta statexfer.Metadata
	// checksum of the text, made when it is first asked for.
	checksum func() string
}

func newCaptured(text stateText, meta statexfer.Metadata) *captured {
	return &captured{text: text, meta: meta, checksum: sync.OnceValue(text.checksum)}
}

// document is the state as backends keep it.
func (c *captured) document() Document {
	return Document{Payload: c.text.join(), Metadata: c.meta}
}
