package statexfer

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// str copies a string with everything outside of printable ASCII escaped. As a key it is also decoded onto keys.
func (w *canonicalWriter) str(key bool) error {
	w.pos++
	w.dst = append(w.dst, '"')
	for {
		w.plain(key)
		if w.peek() == '"' {
			w.pos++
			w.dst = append(w.dst, '"')
			return nil
		}
		r, err := w.char()
		if err != nil {
			return err
		}
		w.dst = appendEscaped(w.dst, r)
		if key {
			w.keys = appendCodePoint(w.keys, r)
		}
	}
}

// plain copies the longest run that needs no thought.
func (w *canonicalWriter) plain(key bool) {
	end := w.pos + plainRun(w.src[w.pos:])
	w.dst = append(w.dst, w.src[w.pos:end]...)
	if key {
		w.keys = append(w.keys, w.src[w.pos:end]...)
	}
	w.pos = end
}

func isPlain(c byte) bool { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\' }

// char reads one code point, which may be a lone surrogate.
func (w *canonicalWriter) char() (rune, error) {
	switch c := w.peek(); {
	case w.pos == len(w.src):
		return 0, w.errorf("a string does not end")
	case c < 0x20:
		return 0, w.errorf("control character 0x%02x in a string; escape it", c)
	case c == '\\':
		return w.escape()
	}
	r, size := utf8.DecodeRune(w.src[w.pos:])
	if r == utf8.RuneError && size == 1 {
		return 0, w.errorf("byte 0x%02x is not UTF-8", w.src[w.pos])
	}
	w.pos += size
	return r, nil
}

func (w *canonicalWriter) escape() (rune, error) {
	if w.pos+1 == len(w.src) {
		return 0, w.errorf("a string does not end")
	}
	c := w.src[w.pos+1]
	if c == 'u' {
		return w.unicodeEscape()
	}
	r, ok := shortEscape(c)
	if !ok {
		return 0, w.errorf("unknown escape \\%c in a string", c)
	}
	w.pos += 2
	return r, nil
}

func shortEscape(c byte) (rune, bool) {
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	}
	return 0, false
}

// unicodeEscape reads \uXXXX, and the second half of a surrogate pair if it follows.
func (w *canonicalWriter) unicodeEscape() (rune, error) {
	high, ok := w.fourHex()
	if !ok {
		return 0, w.errorf("\\u without four hexadecimal digits in a string")
	}
	w.pos += 6
	if !utf16.IsSurrogate(high) || !w.has(`\u`) {
		return high, nil
	}
	low, ok := w.fourHex()
	if !ok {
		return 0, w.errorf("\\u without four hexadecimal digits in a string")
	}
	if pair := utf16.DecodeRune(high, low); pair != utf8.RuneError {
		w.pos += 6
		return pair, nil
	}
	return high, nil
}

// fourHex decodes the digits after the \u at pos.
func (w *canonicalWriter) fourHex() (rune, bool) {
	if w.pos+6 > len(w.src) {
		return 0, false
	}
	var r rune
	for _, c := range w.src[w.pos+2 : w.pos+6] {
		digit, ok := hexValue(c)
		if !ok {
			return 0, false
		}
		r = r<<4 | digit
	}
	return r, true
}

func hexValue(c byte) (rune, bool) {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0'), true
	case c >= 'a' && c <= 'f':
		return rune(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return rune(c-'A') + 10, true
	}
	return 0, false
}

func appendEscaped(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	switch {
	case r >= 0x20 && r < 0x7f:
		return append(dst, byte(r))
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return appendHex(appendHex(dst, high), low)
	}
	return appendHex(dst, r)
}

func appendHex(dst []byte, r rune) []byte {
	return append(dst, '\\', 'u', hexDigits[r>>12&0xf], hexDigits[r>>8&0xf], hexDigits[r>>4&0xf], hexDigits[r&0xf])
}

// appendCodePoint is UTF-8 that also has a form for lone surrogates, in their place of the order.
func appendCodePoint(dst []byte, r rune) []byte {
	if utf16.IsSurrogate(r) {
		return append(dst, 0xed, 0x80|byte(r>>6&0x3f), 0x80|byte(r&0x3f))
	}
	return utf8.AppendRune(dst, r)
}

func (w *canonicalWriter) number() error {
	text, float, ok := scanNumber(w.src[w.pos:])
	if !ok {
		return w.errorf("malformed number")
	}
	switch {
	case float:
		if err := w.float(text); err != nil {
			return err
		}
	case string(text) == "-0": // Python's integers have no negative zero.
		w.dst = append(w.dst, '0')
	default:
		w.dst = append(w.dst, text...)
	}
	w.pos += len(text)
	return nil
}

func (w *canonicalWriter) float(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsInf(f, 0) {
		return w.errorf("%s is beyond the range of a 64-bit float", text)
	}
	w.dst = appendPythonFloat(w.dst, f)
	return nil
}

// scanNumber finds the number that b begins with.
func scanNumber(b []byte) (text []byte, float, ok bool) {
	i := 0
	if b[i] == '-' {
		i++
	}
	integer := digits(b[i:])
	if integer == 0 || (integer > 1 && b[i] == '0') {
		return nil, false, false
	}
	i += integer
	if i < len(b) && b[i] == '.' {
		fraction := digits(b[i+1:])
		if fraction == 0 {
			return nil, false, false
		}
		i, float = i+1+fraction, true
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		exponent := scanExponent(b[i+1:])
		if exponent == 0 {
			return nil, false, false
		}
		i, float = i+1+exponent, true
	}
	return b[:i], float, true
}

// scanExponent is the length of the sign and digits that b begins with, or 0 if there are no digits.
func scanExponent(b []byte) int {
	sign := 0
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		sign = 1
	}
	if n := digits(b[sign:]); n > 0 {
		return sign + n
	}
	return 0
}

func digits(b []byte) int {
	n := 0
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	return n
}

// appendPythonFloat is Python's repr: the shortest digits that read back as f, with an exponent from 1e16 up and
// below 1e-4, and always a point or an exponent.
func appendPythonFloat(dst []byte, f float64) []byte {
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	if bytes.IndexByte(dst[start:], '.') >= 0 {
		return dst
	}
	return append(dst, ".0"...)
}
