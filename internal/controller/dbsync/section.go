package dbsync

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/quantity"
)

// maxShown is how much of a wrong value an error repeats, in bytes.
const maxShown = 64

// findings collects what is wrong with a template, and what of it was ignored.
type findings struct {
	problems []error
	warnings []string
}

// section is one JSON object of a template, read key by key. A key that is absent or null has its default; what
// nobody asked for stays behind in fields.
type section struct {
	path     string
	fields   map[string]json.RawMessage
	report   *findings
	children []*section
}

// readRoot reads the whole template; nothing at all is an empty object.
func readRoot(raw json.RawMessage) *section {
	s := &section{report: &findings{}}
	s.fields = s.decode("the template", raw)
	return s
}

// object reads a key that holds a section.
func (s *section) object(key string) *section {
	child := &section{path: s.at(key), report: s.report}
	child.fields = s.decode(child.path, s.take(key))
	s.children = append(s.children, child)
	return child
}

func (s *section) decode(path string, raw json.RawMessage) map[string]json.RawMessage {
	if len(raw) == 0 || jsonType(raw) == "null" {
		return nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		s.problem("%s is %s (%s), expected a JSON object", path, shorten(string(raw)), jsonType(raw))
	}
	return fields
}

// take removes a key and returns its value, nil if there is none.
func (s *section) take(key string) json.RawMessage {
	raw := s.fields[key]
	delete(s.fields, key)
	if len(raw) == 0 || jsonType(raw) == "null" {
		return nil
	}
	return raw
}

// empty is a section that is not there, or says nothing.
func (s *section) empty() bool { return len(s.fields) == 0 }

// at is the full name of a key.
func (s *section) at(key string) string {
	if s.path == "" {
		return key
	}
	return s.path + "." + key
}

func (s *section) problem(format string, args ...any) {
	s.report.problems = append(s.report.problems, fmt.Errorf(format, args...))
}

func (s *section) warn(format string, args ...any) {
	s.report.warnings = append(s.report.warnings, fmt.Sprintf(format, args...))
}

func (s *section) wrong(key string, raw json.RawMessage, expected string) {
	s.problem("%s is %s (%s), expected %s", s.at(key), shorten(string(raw)), jsonType(raw), expected)
}

func (s *section) text(key, standard string) string {
	raw := s.take(key)
	if raw == nil {
		return standard
	}
	var value string
	if err := json.Unmarshal(raw, &value); err != nil {
		s.wrong(key, raw, "a string")
		return standard
	}
	return value
}

func (s *section) choice(key, standard string, allowed ...string) string {
	value := s.text(key, standard)
	if !slices.Contains(allowed, value) {
		s.problem("%s is %q, expected one of %s", s.at(key), shorten(value), strings.Join(allowed, ", "))
	}
	return value
}

// oneOf reads a key that holds one of the names of a type; the first is its default.
func oneOf[T ~string](s *section, key string, standard T, others ...T) T {
	allowed := []string{string(standard)}
	for _, other := range others {
		allowed = append(allowed, string(other))
	}
	return T(s.choice(key, string(standard), allowed...))
}

func (s *section) flag(key string, standard bool) bool {
	raw := s.take(key)
	if raw == nil {
		return standard
	}
	var value bool
	if err := json.Unmarshal(raw, &value); err != nil {
		s.wrong(key, raw, "true or false")
		return standard
	}
	return value
}

func (s *section) integer(key string, standard, least, most int32) int32 {
	raw := s.take(key)
	if raw == nil {
		return standard
	}
	value, err := strconv.ParseInt(string(bytes.TrimSpace(raw)), 10, 32)
	if err != nil || int32(value) < least || int32(value) > most {
		s.wrong(key, raw, fmt.Sprintf("a whole number from %d to %d", least, most))
		return standard
	}
	return int32(value)
}

// quantity reads a quantity of zero or more. An empty string is the default, as it is in the original.
func (s *section) quantity(key, standard string) resource.Quantity {
	fallback := resource.MustParse(standard)
	raw := s.take(key)
	if raw == nil || string(raw) == `""` {
		return fallback
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		s.wrong(key, raw, fmt.Sprintf("a quantity in quotes, such as %q", standard))
		return fallback
	}
	value, err := quantity.Parse(text)
	if err != nil || value.Sign() < 0 {
		s.wrong(key, raw, fmt.Sprintf("a quantity of zero or more, such as %q", standard))
		return fallback
	}
	return value
}

// maxTexts is the API's bound on the words of a command.
const maxTexts = 256

func (s *section) texts(key string) []string {
	raw := s.take(key)
	if raw == nil {
		return nil
	}
	var value []string
	if err := json.Unmarshal(raw, &value); err != nil || len(value) > maxTexts {
		s.wrong(key, raw, fmt.Sprintf("an array of at most %d strings, such as [\"/app\", \"--fast\"]", maxTexts))
		return nil
	}
	if len(value) == 0 {
		return nil // None is none, however it is written.
	}
	return value
}

// values reads all keys of the section as strings. Numbers and booleans count as their JSON text, because that
// is what their author means; anything else has no one obvious text.
func (s *section) values() map[string]string {
	values := make(map[string]string, len(s.fields))
	for _, key := range sortedKeys(s.fields) {
		raw := s.fields[key]
		var text string
		switch jsonType(raw) {
		case "a string":
			if err := json.Unmarshal(raw, &text); err != nil {
				s.wrong(key, raw, "a string")
			}
		case "a number", "a boolean":
			text = string(bytes.TrimSpace(raw))
		default:
			s.wrong(key, raw, "a string, a number or a boolean; write JSON as a string")
		}
		values[key] = text
	}
	clear(s.fields)
	return values
}

// ignored lists warnings and the keys that nobody asked for, here and below.
func (s *section) ignored() []string {
	ignored := slices.Clone(s.report.warnings)
	for _, at := range append([]*section{s}, s.children...) {
		for _, key := range sortedKeys(at.fields) {
			ignored = append(ignored, "unknown key "+shorten(at.at(key)))
		}
	}
	return ignored
}

// jsonType names the type of a JSON value by its first character.
func jsonType(raw json.RawMessage) string {
	trimmed := bytes.TrimSpace(raw)
	if len(trimmed) == 0 {
		return "nothing"
	}
	switch trimmed[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// shorten cuts a value for an error message.
func shorten(s string) string { return message.Shorten(s, maxShown) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
