package statexfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"unicode/utf8"
)

const (
	// readBytes at a time: few calls, and what was read is still in the processor's cache when it is looked at.
	readBytes = 256 << 10
	// firstBytes of an answer of unknown size.
	firstBytes = 32 << 10
	// maxScanDepth is MaxDepth for what is in an ApplicationState.
	maxScanDepth = MaxDepth + 1
)

// stateMembers are the members of an ApplicationState that matter here, as their texts; nil where absent.
type stateMembers struct {
	data, stateVersion, podName, capturedAt, dataVersion, uptime, metrics, epoch, sequence, problem []byte
	// checksum is the hexadecimal SHA-256 of data, or empty if it was not asked for.
	checksum string
}

// scanState reads the body of an answer, of size bytes or of unknown size (-1), into one buffer that the members are
// parts of. It is as strict as RFC 8259; of equal keys the last one counts. While it looks at one piece of the body,
// and sums it if it should, the network brings the next. A length of data above 0 is taken instead of looking at data.
func scanState(body io.Reader, size int64, sums bool, length int) (stateMembers, error) {
	s := scanner{src: body, known: size >= 0, sums: sums, length: length}
	if s.known {
		s.buf = make([]byte, 0, size)
	}
	spans, err := s.state()
	if err != nil {
		return stateMembers{}, s.explain(err)
	}
	of := func(key string) []byte {
		span, ok := spans[key]
		if !ok {
			return nil
		}
		return s.buf[span.from:span.to:span.to]
	}
	return stateMembers{
		data: of("data"), stateVersion: of("state_version"), podName: of("pod_name"), capturedAt: of("captured_at"),
		dataVersion: of("data_version"), uptime: of("uptime_seconds"), metrics: of("metrics"), epoch: of("epoch"), sequence: of("sequence"), problem: of("error"), checksum: s.checksum,
	}, nil
}

// scanner checks JSON while it reads it. It keeps offsets only, because the buffer may move as it grows.
type scanner struct {
	src   io.Reader
	known bool // The buffer's capacity is the size of the whole.
	buf   []byte
	pos   int
	ended error // Why nothing more can be read.

	length   int // Of data, or 0 where it must be looked for.
	sums     bool
	sum      hash.Hash // Of what lies between summed and pos, and before.
	summed   int
	checksum string
}

type span struct{ from, to int }

// errEnds says that the text ends within a value.
var errEnds = errors.New("it ends too early")

// explain tells an answer that broke off, and may come whole the next time, from one that is no state.
func (s *scanner) explain(err error) error {
	switch {
	case errors.Is(s.ended, ErrTooLarge):
		return s.ended
	case s.ended != nil && !errors.Is(s.ended, io.EOF):
		return &brokenError{s.ended}
	case errors.Is(err, errEnds) && !s.known:
		return &brokenError{io.ErrUnexpectedEOF}
	case errors.Is(err, ErrTooDeep):
		return fmt.Errorf("%w: %w", ErrNotState, err)
	}
	return fmt.Errorf("%w: %w at byte %d: %w", ErrNotState, ErrInvalidJSON, s.pos, err)
}

// state reads an object up to the end of the body and finds its members.
func (s *scanner) state() (map[string]span, error) {
	spans := make(map[string]span, 16)
	if c := s.token(); c != '{' {
		return nil, s.unexpected("an object")
	}
	s.pos++
	for first := true; ; first = false {
		more, err := s.next('}', first)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		name, err := s.key()
		if err != nil {
			return nil, err
		}
		if spans[name], err = s.member(name); err != nil {
			return nil, err
		}
	}
	if s.token(); s.pos < len(s.buf) {
		return nil, errors.New("more text after the object")
	}
	if !errors.Is(s.ended, io.EOF) {
		return nil, s.ended
	}
	return spans, nil
}

func (s *scanner) member(name string) (span, error) {
	s.token()
	from := s.pos
	if name == "data" && s.length > 0 {
		err := s.jump(s.length)
		return span{from, s.pos}, err
	}
	if name != "data" || !s.sums {
		err := s.value(1)
		return span{from, s.pos}, err
	}
	s.sum, s.summed = sha256.New(), from
	err := s.value(1)
	s.sumUp()
	s.checksum, s.sum = hex.EncodeToString(s.sum.Sum(nil)), nil
	return span{from, s.pos}, err
}

// jump passes over an object of n bytes.
func (s *scanner) jump(n int) error {
	if !s.has(n) {
		return errEnds
	}
	if s.buf[s.pos] != '{' || s.buf[s.pos+n-1] != '}' {
		return fmt.Errorf("what is told to be an object of %d bytes is none", n)
	}
	s.pos += n
	return nil
}

func (s *scanner) sumUp() {
	if s.sum != nil {
		_, _ = s.sum.Write(s.buf[s.summed:s.pos])
		s.summed = s.pos
	}
}

// key reads a key of the outermost object with the colon after it.
func (s *scanner) key() (string, error) {
	s.token()
	from := s.pos
	if err := s.name(); err != nil {
		return "", err
	}
	text := bytes.TrimRight(s.buf[from:s.pos-1], " \t\r\n")
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text[1 : len(text)-1]), nil
	}
	var name string
	err := json.Unmarshal(text, &name)
	return name, err
}

// next is true before another element, and consumes the comma before it, or the closing bracket.
func (s *scanner) next(closing byte, first bool) (bool, error) {
	switch c := s.token(); {
	case c == ',' && !first:
		s.pos++
		return true, nil
	case c == closing:
		s.pos++
		return false, nil
	case first:
		return true, nil
	}
	return false, s.unexpected("',' or the end of the array or object")
}

func (s *scanner) value(depth int) error {
	switch c := s.token(); c {
	case '"':
		return s.str()
	case '{', '[':
		if depth >= maxScanDepth {
			return fmt.Errorf("%w: more than %d levels at byte %d", ErrTooDeep, maxScanDepth, s.pos)
		}
		s.pos++
		return s.elements(c, depth+1)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return s.number()
	}
	return s.unexpected("a value")
}

// elements reads an object or array from behind its opening bracket.
func (s *scanner) elements(opening byte, depth int) error {
	for first := true; ; first = false {
		more, err := s.next(opening+2, first) // In ASCII, } comes two after {, and ] two after [.
		if err != nil || !more {
			return err
		}
		if opening == '{' {
			if err := s.name(); err != nil {
				return err
			}
		}
		if err := s.value(depth); err != nil {
			return err
		}
	}
}

// name reads a key with the colon after it.
func (s *scanner) name() error {
	if s.token() != '"' {
		return s.unexpected("a key")
	}
	// Most are plain, and the colon follows at once.
	end := s.pos + 1 + plainRun(s.buf[s.pos+1:])
	if end+1 < len(s.buf) && s.buf[end] == '"' && s.buf[end+1] == ':' {
		s.pos = end + 2
		return nil
	}
	if err := s.str(); err != nil {
		return err
	}
	if s.token() != ':' {
		return s.unexpected("':'")
	}
	s.pos++
	return nil
}

func (s *scanner) literal(word string) error {
	for i := range len(word) {
		if s.peek() != word[i] {
			return s.unexpected(word)
		}
		s.pos++
	}
	return nil
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return s.unexpected("a digit")
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return s.unexpected("a digit")
		}
	}
	if c := s.peek(); c != 'e' && c != 'E' {
		return nil
	}
	s.pos++
	if c := s.peek(); c == '+' || c == '-' {
		s.pos++
	}
	if !s.digits() {
		return s.unexpected("a digit")
	}
	return nil
}

// digits is false where there is none.
func (s *scanner) digits() bool {
	found := false
	for {
		n := digits(s.buf[s.pos:])
		s.pos, found = s.pos+n, found || n > 0
		if s.pos < len(s.buf) || !s.fill() {
			return found
		}
	}
}

func (s *scanner) str() error {
	s.pos++
	for {
		s.pos += plainRun(s.buf[s.pos:])
		if s.pos < len(s.buf) && s.buf[s.pos] == '"' {
			s.pos++
			return nil
		}
		if err := s.special(); err != nil {
			return err
		}
	}
}

// special reads what plainRun stops at, within a string.
func (s *scanner) special() error {
	switch c := s.peek(); {
	case c == '"': // In the next piece; str sees it.
		return nil
	case c == '\\':
		return s.escape()
	case c >= utf8.RuneSelf:
		return s.runes()
	case c >= 0x20: // In the next piece, or DEL, which is plain only here.
		s.pos++
		return nil
	case s.pos == len(s.buf):
		return errEnds
	default:
		return fmt.Errorf("control character 0x%02x in a string", c)
	}
}

// runes reads characters beyond ASCII.
func (s *scanner) runes() error {
	for s.pos < len(s.buf) && s.buf[s.pos] >= utf8.RuneSelf {
		r, size := utf8.DecodeRune(s.buf[s.pos:])
		if r == utf8.RuneError && size == 1 {
			if !utf8.FullRune(s.buf[s.pos:]) {
				if s.fill() {
					continue
				}
				return errEnds
			}
			return fmt.Errorf("byte 0x%02x is not UTF-8", s.buf[s.pos])
		}
		s.pos += size
	}
	return nil
}

func (s *scanner) escape() error {
	if !s.has(2) {
		return errEnds
	}
	c := s.buf[s.pos+1]
	if c != 'u' {
		if _, ok := shortEscape(c); !ok {
			return fmt.Errorf("unknown escape \\%c in a string", c)
		}
		s.pos += 2
		return nil
	}
	if !s.has(6) {
		return errEnds
	}
	for _, digit := range s.buf[s.pos+2 : s.pos+6] {
		if _, ok := hexValue(digit); !ok {
			return errors.New("\\u without four hexadecimal digits in a string")
		}
	}
	s.pos += 6
	return nil
}

// token skips white space and is the byte that follows, or 0 at the end.
func (s *scanner) token() byte {
	if s.pos < len(s.buf) {
		if c := s.buf[s.pos]; c > ' ' {
			return c
		}
	}
	return s.afterSpace()
}

func (s *scanner) afterSpace() byte {
	for {
		switch c := s.peek(); c {
		case ' ', '\n', '\t', '\r':
			s.pos++
		default:
			return c
		}
	}
}

// peek is the byte at pos, or 0 at the end, which is no byte of JSON.
func (s *scanner) peek() byte {
	if s.pos < len(s.buf) || s.fill() {
		return s.buf[s.pos]
	}
	return 0
}

// has makes sure that n more bytes are in the buffer.
func (s *scanner) has(n int) bool {
	for s.pos+n > len(s.buf) {
		if !s.fill() {
			return false
		}
	}
	return true
}

func (s *scanner) unexpected(wanted string) error {
	if s.pos >= len(s.buf) {
		return errEnds
	}
	return fmt.Errorf("expected %s, found %q", wanted, s.buf[s.pos])
}

// fill reads a further piece of the body.
func (s *scanner) fill() bool {
	s.sumUp()
	for s.ended == nil && s.room() {
		had := len(s.buf)
		n, err := s.src.Read(s.buf[had:min(cap(s.buf), had+readBytes)])
		s.buf, s.ended = s.buf[:had+n], err
		if len(s.buf) > MaxStateBytes {
			s.ended = fmt.Errorf("%w: an answer of more than %d bytes", ErrTooLarge, MaxStateBytes)
			return false
		}
		if n > 0 {
			return true
		}
	}
	return false
}

// room makes the buffer larger where nobody knows how large it must be. It is false where the whole has been read.
func (s *scanner) room() bool {
	if len(s.buf) < cap(s.buf) {
		return true
	}
	if s.known {
		s.ended = io.EOF
		return false
	}
	s.buf = append(make([]byte, 0, min(max(firstBytes, 2*cap(s.buf)), MaxStateBytes+1)), s.buf...)
	return true
}
