package statexfer

import (
	"unicode/utf16"
	"unicode/utf8"
)

// compact rewrites a canonical text without spaces, and with the characters themselves in place of their escapes: as short as
// its processor wrote it, who takes no more than MaxStateBytes.
func compact(canonical []byte) []byte {
	w := canonicalWriter{src: canonical, dst: make([]byte, 0, len(canonical)/2)}
	for quoted := false; w.pos < len(w.src); {
		switch c := w.src[w.pos]; {
		case c == '"':
			quoted = !quoted
		case c == ' ' && !quoted:
			w.pos++
			continue
		case c == '\\':
			w.unescaped()
			continue
		}
		w.dst = append(w.dst, w.src[w.pos])
		w.pos++
	}
	return w.dst
}

// unescaped copies one escape, as its character where JSON allows that.
func (w *canonicalWriter) unescaped() {
	from := w.pos
	r, err := w.escape()
	if err == nil && r >= 0x7f && !utf16.IsSurrogate(r) {
		w.dst = utf8.AppendRune(w.dst, r)
		return
	}
	w.dst = append(w.dst, w.src[from:w.pos]...)
}
