package sdk

import (
	"encoding"
	"encoding/json"
	"reflect"
)

// typeFacts are what the type of a variable tells about its values.
type typeFacts struct {
	// immutable values cannot be changed but by Set: nothing in them refers to anything else. Their text stays right.
	immutable bool
	// open types have room for values of any type, where numbers must be read as json.Number.
	open bool
}

func factsOf(t reflect.Type) typeFacts {
	return typeFacts{immutable: isImmutable(t), open: isOpen(t, make(map[reflect.Type]bool))}
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// isImmutable takes types that write their own JSON for mutable: what they write may depend on anything.
func isImmutable(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(marshaler) || reflect.PointerTo(t).Implements(textMarshaler) {
		return false
	}
	switch t.Kind() {
	case reflect.Array:
		return isImmutable(t.Elem())
	case reflect.Struct:
		for field := range t.Fields() {
			if !isImmutable(field.Type) {
				return false
			}
		}
		return true
	default:
	}
	return t.Kind() == reflect.String || t.Kind() >= reflect.Bool && t.Kind() <= reflect.Float64
}

func isOpen(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Array, reflect.Map, reflect.Pointer, reflect.Slice:
		return isOpen(t.Elem(), seen)
	case reflect.Struct:
		for field := range t.Fields() {
			if isOpen(field.Type, seen) {
				return true
			}
		}
	default:
	}
	return false
}
