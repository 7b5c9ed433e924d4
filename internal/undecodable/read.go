package undecodable

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"
	kjson "sigs.k8s.io/json"

	"github.com/dory-io/dory/internal/quantity"
)

const (
	// maxFaults and maxCause bound what is said about one object. An event holds 1024 bytes.
	maxFaults = 3
	maxCause  = 600
)

// fault is a field that Go does not take.
type fault struct {
	path string
	err  error
}

// read decodes JSON into an object. What it does not take is left out, and the object marked. An error is about what
// nothing can be without: its metadata.
func read(raw []byte, into client.Object) error {
	raw = quantity.Defuse(raw, reflect.TypeOf(into))
	kind := into.GetObjectKind().GroupVersionKind()
	refused := unmarshal(raw, into)
	if refused == nil {
		return nil
	}
	var whole map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // A number is written back as it came.
	if err := decoder.Decode(&whole); err != nil {
		return refused
	}
	var faults []fault
	kept, _ := prune(whole, "", func(value any) error { return attempt(value, into) }, &faults)
	for _, f := range faults {
		if first, _, _ := strings.Cut(f.path, "."); first == "metadata" || first == "" {
			return refused
		}
	}
	if err := attempt(kept, into); err != nil {
		return refused
	}
	if into.GetObjectKind().GroupVersionKind().Empty() {
		into.GetObjectKind().SetGroupVersionKind(kind)
	}
	Mark(into, causeOf(faults, refused))
	return nil
}

// unmarshal is Go's decoder as Kubernetes uses it.
func unmarshal(raw []byte, into client.Object) error {
	return kjson.UnmarshalCaseSensitivePreserveInts(raw, into)
}

// attempt decodes a value into the object, and into nothing that was there before.
func attempt(value any, into client.Object) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding a part of an object: %w", err)
	}
	zero(into)
	return unmarshal(raw, into)
}

// prune takes out of a value what the attempt refuses, as little as possible.
func prune(value any, path string, attempt func(any) error, faults *[]fault) (kept any, keep bool) {
	err := attempt(value)
	if err == nil {
		return value, true
	}
	switch value := value.(type) {
	case map[string]any:
		if attempt(map[string]any{}) != nil {
			break
		}
		left := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(value)) {
			below := func(v any) error { return attempt(map[string]any{name: v}) }
			if part, ok := prune(value[name], strings.TrimPrefix(path+"."+name, "."), below, faults); ok {
				left[name] = part
			}
		}
		return left, true
	case []any:
		if attempt([]any{}) != nil {
			break
		}
		left := []any{}
		for i := range value {
			below := func(v any) error { return attempt([]any{v}) }
			if part, ok := prune(value[i], fmt.Sprintf("%s[%d]", path, i), below, faults); ok {
				left = append(left, part)
			}
		}
		return left, true
	}
	if value == quantity.Defused {
		err = quantity.ErrDefused
	}
	*faults = append(*faults, fault{path, err})
	return nil, false
}

func causeOf(faults []fault, whole error) string {
	if len(faults) == 0 {
		return shorten(whole.Error())
	}
	var causes []string
	for _, f := range faults[:min(len(faults), maxFaults)] {
		causes = append(causes, f.path+": "+f.err.Error())
	}
	if more := len(faults) - maxFaults; more > 0 {
		causes = append(causes, fmt.Sprintf("and %d more", more))
	}
	return shorten(strings.Join(causes, "; "))
}

func shorten(text string) string {
	if len(text) > maxCause {
		return strings.ToValidUTF8(text[:maxCause], "") + "…"
	}
	return text
}
