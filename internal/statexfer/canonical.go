package statexfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// Canonical rewrites a JSON text as Python's json.dumps(json.loads(text), sort_keys=True) would: the form that the
// contract's checksums are made of. Integers keep all their digits, numbers with a point or an exponent are floats
// and written as Python's repr, keys are sorted by code point, the last of several equal keys wins, and a lone
// surrogate stays one. Infinity, NaN and floats beyond the range of a double are refused with ErrInvalidJSON,
// because Python would write them as what is no JSON. The text may have up to MaxStateBytes and MaxDepth levels.
func Canonical(text []byte) ([]byte, error) {
	return canonical(text, MaxStateBytes)
}

func canonical(text []byte, limit int) ([]byte, error) {
	if len(text) > limit {
		return nil, fmt.Errorf("%w: %d bytes of JSON, the limit is %d", ErrTooLarge, len(text), limit)
	}
	// Spaces after commas and colons make dense JSON longer by up to a quarter.
	w := canonicalWriter{src: text, dst: make([]byte, 0, len(text)+len(text)/4)}
	if err := w.document(); err != nil {
		return nil, err
	}
	return w.dst, nil
}

// Checksum is the hexadecimal SHA-256 of a text that Canonical returned.
func Checksum(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}

// canonicalWriter reads src once and appends its canonical form to dst. Members of the objects that are open at
// the moment lie on two stacks, so that an object whose keys are sorted already costs no copy.
type canonicalWriter struct {
	src     []byte
	pos     int
	dst     []byte
	members []member
	keys    []byte
	scratch []byte
}

// member is one key and its value: the decoded key in keys, and the text `"key": value` in dst.
type member struct{ keyFrom, keyTo, from, to int }

func (w *canonicalWriter) document() error {
	if err := w.value(0); err != nil {
		return err
	}
	w.space()
	if w.pos != len(w.src) {
		return w.errorf("more text after the end of the value")
	}
	return nil
}

func (w *canonicalWriter) value(depth int) error {
	w.space()
	switch c := w.peek(); {
	case c == '{':
		return w.object(depth + 1)
	case c == '[':
		return w.array(depth + 1)
	case c == '"':
		return w.str(false)
	case c == '-' && !w.has("-Infinity"), c >= '0' && c <= '9':
		return w.number()
	default:
		return w.literal()
	}
}

func (w *canonicalWriter) literal() error {
	for _, word := range []string{"true", "false", "null"} {
		if w.has(word) {
			w.dst = append(w.dst, word...)
			w.pos += len(word)
			return nil
		}
	}
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if w.has(word) {
			return w.errorf("%s is no JSON number; keep such a value as a string or null", word)
		}
	}
	return w.errorf("expected a value")
}

func (w *canonicalWriter) array(depth int) error {
	if err := w.open('[', depth); err != nil {
		return err
	}
	for first := true; !w.closes(']'); first = false {
		if err := w.separator(first); err != nil {
			return err
		}
		if err := w.value(depth); err != nil {
			return err
		}
	}
	w.dst = append(w.dst, ']')
	return nil
}

func (w *canonicalWriter) object(depth int) error {
	firstMember, firstKey := len(w.members), len(w.keys)
	if err := w.open('{', depth); err != nil {
		return err
	}
	body := len(w.dst)
	for first := true; !w.closes('}'); first = false {
		if err := w.separator(first); err != nil {
			return err
		}
		if err := w.member(depth); err != nil {
			return err
		}
	}
	w.sortMembers(body, w.members[firstMember:])
	w.members, w.keys = w.members[:firstMember], w.keys[:firstKey]
	w.dst = append(w.dst, '}')
	return nil
}

func (w *canonicalWriter) member(depth int) error {
	w.space()
	m := member{keyFrom: len(w.keys), from: len(w.dst)}
	if w.peek() != '"' {
		return w.errorf("expected a key in double quotes")
	}
	if err := w.str(true); err != nil {
		return err
	}
	m.keyTo = len(w.keys)
	w.space()
	if w.peek() != ':' {
		return w.errorf("expected ':' after a key")
	}
	w.pos++
	w.dst = append(w.dst, ": "...)
	if err := w.value(depth); err != nil {
		return err
	}
	m.to = len(w.dst)
	w.members = append(w.members, m)
	return nil
}

// sortMembers rewrites dst from body on, unless its members are in order and distinct already. Keys compare as
// bytes of UTF-8, which is the order of code points.
func (w *canonicalWriter) sortMembers(body int, members []member) {
	compare := func(a, b member) int { return bytes.Compare(w.key(a), w.key(b)) }
	if ascending(members, compare) {
		return
	}
	slices.SortFunc(members, func(a, b member) int {
		if order := compare(a, b); order != 0 {
			return order
		}
		return a.from - b.from // Equal keys stay in their order, of which the last one counts.
	})
	w.scratch = w.scratch[:0]
	for i, m := range members {
		if i+1 < len(members) && compare(m, members[i+1]) == 0 {
			continue
		}
		if len(w.scratch) > 0 {
			w.scratch = append(w.scratch, ", "...)
		}
		w.scratch = append(w.scratch, w.dst[m.from:m.to]...)
	}
	w.dst = append(w.dst[:body], w.scratch...)
}

func (w *canonicalWriter) key(m member) []byte { return w.keys[m.keyFrom:m.keyTo] }

func ascending(members []member, compare func(a, b member) int) bool {
	for i := 1; i < len(members); i++ {
		if compare(members[i-1], members[i]) >= 0 {
			return false
		}
	}
	return true
}

func (w *canonicalWriter) open(bracket byte, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("%w: more than %d levels at byte %d", ErrTooDeep, MaxDepth, w.pos)
	}
	w.pos++
	w.dst = append(w.dst, bracket)
	return nil
}

// closes consumes the closing bracket if it comes next.
func (w *canonicalWriter) closes(bracket byte) bool {
	w.space()
	if w.peek() != bracket {
		return false
	}
	w.pos++
	return true
}

func (w *canonicalWriter) separator(first bool) error {
	if first {
		return nil
	}
	if w.peek() != ',' {
		return w.errorf("expected ',' or the end of the array or object")
	}
	w.pos++
	w.dst = append(w.dst, ", "...)
	return nil
}

func (w *canonicalWriter) space() {
	for w.pos < len(w.src) {
		switch w.src[w.pos] {
		case ' ', '\t', '\n', '\r':
			w.pos++
		default:
			return
		}
	}
}

// peek is the next byte, or 0 at the end, which is no byte of JSON outside of strings.
func (w *canonicalWriter) peek() byte {
	if w.pos < len(w.src) {
		return w.src[w.pos]
	}
	return 0
}

func (w *canonicalWriter) has(word string) bool {
	return bytes.HasPrefix(w.src[w.pos:], []byte(word))
}

func (w *canonicalWriter) errorf(format string, args ...any) error {
	return fmt.Errorf("%w at byte %d: %s", ErrInvalidJSON, w.pos, fmt.Sprintf(format, args...))
}
