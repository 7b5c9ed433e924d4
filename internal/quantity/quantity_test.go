package quantity

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// bombs are what Go's parser computes on for hours, or could.
var bombs = []string{
	"1e-999999999", "1E999999999", "1e+2147483647", "0.5e100", ".5e-100", "1.e999", "-1e-999", "+1E+999", " 1e-999999999 ", "1e007",
	"1" + strings.Repeat("0", maxLength), "0." + strings.Repeat("0", maxLength) + "1",
}

func TestCheck(t *testing.T) {
	for _, text := range bombs {
		if _, err := Parse(text); err == nil || len(err.Error()) > 200 {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"0", "1", "500m", "2Gi", "1.5", "1e3", "1E3", "1e-9", "1e99", "1E", "1Ei", "-5", "+.5Gi", "9223372036854775807", "999999999999999999999999999999"} {
		if _, err := Parse(text); err != nil {
			t.Error(err)
		}
	}
	for _, text := range []string{"", "abc", "1e", "1e1.5", "1 Gi"} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%q is parsed", text)
		}
	}
}

// What is let through is parsed at once, which a fuzzer's own limit sees.
func FuzzParse(f *testing.F) {
	for _, text := range bombs {
		f.Add(text)
	}
	f.Fuzz(func(_ *testing.T, text string) { _, _ = Parse(text) })
}

// Every quantity of a pod's spec is found in the schema, so one that Kubernetes adds is tried without a word here.
func TestEveryQuantityOfAPodIsLookedAt(t *testing.T) {
	into := reflect.TypeFor[corev1.PodSpec]()
	paths := quantities(into, nil)
	for _, want := range []string{
		"containers 0 resources requests cpu", "initContainers 0 resources limits cpu", "ephemeralContainers 0 resources limits cpu", "overhead cpu",
		"containers 0 env 0 valueFrom resourceFieldRef divisor", "volumes 0 emptyDir sizeLimit", "volumes 0 projected sources 0 downwardAPI items 0 resourceFieldRef divisor",
		"volumes 0 downwardAPI items 0 resourceFieldRef divisor", "volumes 0 ephemeral volumeClaimTemplate spec resources requests cpu", "resources requests cpu",
	} {
		if !slices.Contains(paths, want) {
			t.Errorf("%s is not found", want)
		}
	}
	t.Logf("%d quantities", len(paths))
	for _, path := range paths {
		for _, bomb := range append(bombs, "1e308") {
			values := []any{bomb}
			if bomb == "1e308" { // As a number, too: the API server lets all in that a float64 holds.
				values = append(values, json.Number(bomb))
			}
			for _, value := range values {
				raw := document(t, path, value)
				if err := InJSON(raw, into); err == nil {
					t.Errorf("%s is let through", raw)
				}
				if err := InJSON(Defuse(raw, into), into); err != nil {
					t.Errorf("%s is not defused: %v", raw, err)
				}
			}
		}
		raw := document(t, path, "1e2")
		if err := InJSON(raw, into); err != nil {
			t.Error(err)
		}
	}
}

func TestOnlyQuantitiesAreLookedAt(t *testing.T) {
	raw := []byte(`{"metadata":{"name":"1e999","annotations":{"a":"1e-999999999"},"uid":"0b1e4567-68a7-4d8f-9b0f-2f5b6d2e8a11"},
		"spec":{"image":"1e999","env":[{"name":"A","value":"1e999"}],"podTemplate":{"spec":{"x":{"requests":{"cpu":"1e999"}},"n":123456789012345678901234567890123}}}}`)
	into := reflect.TypeFor[doryv1alpha1.Processor]()
	if err := InJSON(raw, into); err != nil {
		t.Error(err)
	}
	if defused := Defuse(raw, into); string(defused) != string(raw) {
		t.Errorf("it is changed: %s", defused)
	}
	bad := []byte(strings.Replace(string(raw), `"image"`, `"resources":{"limits":{"gpu":"1e999","cpu":"1"}},"image"`, 1))
	if err := InJSON(bad, into); err == nil || !strings.Contains(err.Error(), `spec.resources.limits.gpu: the exponent of "1e999"`) {
		t.Error(err)
	}
	p := &doryv1alpha1.Processor{}
	if err := json.Unmarshal(Defuse(bad, into), p); err == nil || p.Annotations["a"] != "1e-999999999" {
		t.Errorf("%v, %+v", err, p)
	}
}

func TestSuspicious(t *testing.T) {
	for text, want := range map[string]bool{
		`{"a":"1e-999"}`: true, `{"a":1E+999}`: true, `["1e999"]`: true, `[1,1e999]`: true, "[\n1e999]": true, `{"a":"` + strings.Repeat("1", maxLength+1) + `"}`: true,
		`{"uid":"0b1e4567-68a7-1e456"}`: false, `{"a":"1e99"}`: false, `{}`: false, `{"a":"v1e999"}`: false, ``: false, `e999`: false,
	} {
		if got := Suspicious([]byte(text)); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

// BenchmarkSuspicious is what looking costs at each answer of the API server.
func BenchmarkSuspicious(b *testing.B) {
	raw := []byte(strings.Repeat(`{"metadata":{"name":"p-1","uid":"0b1ed4c2-68a7-4d8f-9b0f-2f5b6d2e8a11"},"spec":{"image":"example/camera:1"}},`, 10000))
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if Suspicious(raw) {
			b.Fatal("it is")
		}
	}
}

// quantities are the paths to every quantity below a type.
func quantities(of reflect.Type, above []reflect.Type) (paths []string) {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if slices.Contains(above, of) {
		return nil
	}
	if of == quantityType {
		return []string{""}
	}
	above = append(slices.Clone(above), of)
	below := func(step string, of reflect.Type) {
		for _, path := range quantities(of, above) {
			paths = append(paths, strings.TrimSpace(step+" "+path))
		}
	}
	switch of.Kind() {
	case reflect.Slice:
		below("0", of.Elem())
	case reflect.Map:
		below("cpu", of.Elem())
	case reflect.Struct:
		for field := range of.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			below(name, field.Type)
		}
	default:
	}
	return paths
}

// document has a value at a path.
func document(t *testing.T, path string, value any) []byte {
	t.Helper()
	steps := strings.Fields(path)
	for _, step := range slices.Backward(steps) {
		if step == "0" {
			value = []any{value}
		} else {
			value = map[string]any{step: value}
		}
	}
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
