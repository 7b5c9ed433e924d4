package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

var (
	errNoObject = errors.New("the state is no JSON object")
	errNull     = errors.New("the state is null, not a JSON object")
)

// member is one key of a JSON object and the text of its value.
type member struct {
	key  string
	text json.RawMessage
}

// splitter finds the members of JSON objects without decoding them: the values are taken apart, and checked, by those
// who know their types. It is what makes the last copy of a handoff fast: encoding/json would read all of it twice.
type splitter struct {
	text []byte
	pos  int
	// known is the text that the value of a key had the last time. Comparing it is the fastest way to its end.
	known func(key string) []byte
}

// splitObject is the members of a JSON object that is the whole text.
func splitObject(text []byte, known func(key string) []byte) ([]member, error) {
	s := splitter{text: text, known: known}
	members, err := s.object()
	if err == nil {
		err = s.end()
	}
	return members, err
}

// end is for after the last value.
func (s *splitter) end() error {
	s.space()
	if s.pos != len(s.text) {
		return s.errorf("more text after its end")
	}
	return nil
}

func (s *splitter) object() ([]member, error) {
	var members []member
	err := s.each(func(key string) error {
		text, err := s.value(key)
		members = append(members, member{key, text})
		return err
	})
	return members, err
}

// each calls for every key; visit consumes its value.
func (s *splitter) each(visit func(key string) error) error {
	s.space()
	if bytes.HasPrefix(s.text[s.pos:], []byte("null")) {
		s.pos += len("null")
		return errNull
	}
	if s.peek() != '{' {
		return s.errorf("expected '{'")
	}
	s.pos++
	if s.space(); s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		key, err := s.key()
		if err == nil {
			err = visit(key)
		}
		if err != nil {
			return err
		}
		s.space()
		s.pos++
		switch s.before() {
		case ',':
		case '}':
			return nil
		default:
			s.pos--
			return s.errorf("expected ',' or '}' after a value")
		}
	}
}

func (s *splitter) key() (string, error) {
	s.space()
	from := s.pos
	if s.peek() != '"' {
		return "", s.errorf("expected a key in double quotes")
	}
	if err := s.skipString(); err != nil {
		return "", err
	}
	var key string
	if err := json.Unmarshal(s.text[from:s.pos], &key); err != nil {
		return "", s.errorf("a key: %v", err)
	}
	if s.space(); s.peek() != ':' {
		return "", s.errorf("expected ':' after a key")
	}
	s.pos++
	s.space()
	return key, nil
}

// value consumes a value and returns its text, which is not checked beyond where it ends.
func (s *splitter) value(key string) (json.RawMessage, error) {
	from := s.pos
	if s.isKnown(key) {
		return s.text[from:s.pos:s.pos], nil
	}
	if err := s.skip(); err != nil {
		return nil, err
	}
	return s.text[from:s.pos:s.pos], nil
}

// isKnown consumes the value if it is the known one. A known text is one whole value, so that it is the same value
// exactly if it is there and the value ends after it.
func (s *splitter) isKnown(key string) bool {
	if s.known == nil {
		return false
	}
	known := s.known(key)
	if len(known) == 0 || !bytes.HasPrefix(s.text[s.pos:], known) {
		return false
	}
	end := s.pos + len(known)
	if end < len(s.text) && !isDelimiter(s.text[end]) {
		return false
	}
	s.pos = end
	return true
}

func (s *splitter) skip() error {
	switch c := s.peek(); c {
	case '"':
		return s.skipString()
	case '{', '[':
		return s.skipNested()
	}
	from := s.pos
	for s.pos < len(s.text) && !isDelimiter(s.text[s.pos]) {
		s.pos++
	}
	if s.pos == from {
		return s.errorf("expected a value")
	}
	return nil
}

// skipNested goes by the brackets' number only: whoever decodes the value sees whether they match.
func (s *splitter) skipNested() error {
	for depth := 0; s.pos < len(s.text); {
		switch s.text[s.pos] {
		case '"':
			if err := s.skipString(); err != nil {
				return err
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.pos++
		if depth == 0 {
			return nil
		}
	}
	return s.errorf("unexpected end")
}

// skipString looks for the closing quote, and then whether a backslash before it says that it is none. Both searches go
// over every byte once.
func (s *splitter) skipString() error {
	s.pos++
	quote := s.pos - 1
	for {
		if quote < s.pos {
			next := bytes.IndexByte(s.text[s.pos:], '"')
			if next < 0 {
				s.pos = len(s.text)
				return s.errorf("unexpected end of a string")
			}
			quote = s.pos + next
		}
		escape := bytes.IndexByte(s.text[s.pos:quote], '\\')
		if escape < 0 {
			s.pos = quote + 1
			return nil
		}
		s.pos = min(s.pos+escape+2, len(s.text))
	}
}

func (s *splitter) space() {
	for s.pos < len(s.text) && isSpace(s.text[s.pos]) {
		s.pos++
	}
}

// peek is the next byte, or 0 at the end, which is no byte of JSON outside of strings.
func (s *splitter) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

// before is the byte that was consumed last, or 0 beyond the end.
func (s *splitter) before() byte {
	if s.pos <= len(s.text) {
		return s.text[s.pos-1]
	}
	return 0
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func isDelimiter(c byte) bool { return c == ',' || c == '}' || c == ']' || isSpace(c) }

func (s *splitter) errorf(format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d: %s", errNoObject, s.pos, fmt.Sprintf(format, args...))
}
