package quantity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Suspicious says whether a JSON document has a string or a number that begins like a quantity and that Check would refuse. It is
// asked about all that is read, so it is cheap, and right about UIDs and digests.
func Suspicious(raw []byte) bool {
	digits := 0
	for i, c := range raw {
		if isDigit(c) {
			if digits++; digits > maxLength {
				return true
			}
			continue
		}
		if (c == 'e' || c == 'E') && digits > 0 && begins(raw, i-digits) && exponent(raw[i+1:]) {
			return true
		}
		digits = 0
	}
	return false
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' || c == '.' }

// begins says whether a string or a number of JSON begins here, a sign and spaces aside.
func begins(raw []byte, at int) bool {
	if at > 0 && (raw[at-1] == '+' || raw[at-1] == '-') {
		at--
	}
	return at == 0 || bytes.IndexByte([]byte("\" :,[\t\r\n"), raw[at-1]) >= 0
}

func exponent(raw []byte) bool {
	if len(raw) > 0 && (raw[0] == '+' || raw[0] == '-') {
		raw = raw[1:]
	}
	const digits = 3
	for i := range digits {
		if i >= len(raw) || raw[i] < '0' || raw[i] > '9' {
			return false
		}
	}
	return true
}

// InJSON says what is wrong with the first quantity of a JSON document that must not be parsed, and where it is. The document is
// what would be decoded into a value of the type, whose fields say which of its strings and numbers are quantities.
func InJSON(raw []byte, into reflect.Type) error {
	if !Suspicious(raw) {
		return nil
	}
	whole, err := generic(raw)
	if err != nil {
		return err
	}
	walk(whole, into, "", func(path string, wrong error) any {
		if err == nil {
			err = fmt.Errorf("%s: %w", path, wrong)
		}
		return nil
	})
	return err
}

// Defused stands where a quantity was that must not be parsed. A parser refuses it at once.
const Defused = "not parsed: too long or large"

// ErrDefused is what to say about Defused.
var ErrDefused = fmt.Errorf("the quantity is not parsed: it has more than %d characters, or an exponent of more than 2 digits", maxLength)

// Defuse puts Defused in the place of every quantity of a JSON document that must not be parsed. All else stays as it is. What
// cannot be read is left to the decoder, which says so.
func Defuse(raw []byte, into reflect.Type) []byte {
	if !Suspicious(raw) {
		return raw
	}
	whole, err := generic(raw)
	if err != nil {
		return raw
	}
	found := false
	whole = walk(whole, into, "", func(string, error) any {
		found = true
		return Defused
	})
	if !found {
		return raw
	}
	if defused, err := json.Marshal(whole); err == nil {
		return defused
	}
	return raw
}

// generic keeps numbers as they are written.
func generic(raw []byte) (whole any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&whole); err != nil {
		return nil, fmt.Errorf("reading JSON: %w", err)
	}
	return whole, nil
}

var (
	quantityType = reflect.TypeFor[resource.Quantity]()
	unmarshaler  = reflect.TypeFor[json.Unmarshaler]()
)

// walk calls replace for every quantity in a value that Check refuses, and puts what that answers into its place.
func walk(value any, into reflect.Type, path string, replace func(path string, wrong error) any) any {
	for into.Kind() == reflect.Pointer {
		into = into.Elem()
	}
	if into == quantityType {
		if wrong := Check(textOf(value)); wrong != nil {
			return replace(path, wrong)
		}
		return value
	}
	if reflect.PointerTo(into).Implements(unmarshaler) {
		return value
	}
	switch value := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			if below := typeBelow(into, name); below != nil {
				value[name] = walk(value[name], below, strings.TrimPrefix(path+"."+name, "."), replace)
			}
		}
	case []any:
		if into.Kind() != reflect.Slice {
			break
		}
		for i := range value {
			value[i] = walk(value[i], into.Elem(), fmt.Sprintf("%s[%d]", path, i), replace)
		}
	}
	return value
}

// textOf is what a quantity is parsed from; its decoder takes strings and numbers, and trims them.
func textOf(value any) string {
	switch value := value.(type) {
	case string:
		return value
	case json.Number:
		return value.String()
	}
	return ""
}

// typeBelow is the type of what a name in an object stands for; nil if nothing reads it.
func typeBelow(into reflect.Type, name string) reflect.Type {
	switch into.Kind() {
	case reflect.Map:
		return into.Elem()
	case reflect.Struct:
	default:
		return nil
	}
	for field := range into.Fields() {
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case tag == name && name != "":
			return field.Type
		case tag == "" && field.Anonymous:
			embedded := field.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			if below := typeBelow(embedded, name); below != nil {
				return below
			}
		}
	}
	return nil
}
