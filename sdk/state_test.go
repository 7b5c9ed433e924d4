package sdk

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTextOfImmutableValuesIsKept(t *testing.T) {
	p := newProcessor(t, &memory{})
	text, n := Var(p, "text", strings.Repeat("x", 2*ownPart)), Var(p, "n", 1)
	first, again := parts(t, p), parts(t, p)
	if &first[1][0] != &again[1][0] {
		t.Error("a large text that did not change was made again")
	}
	p.vars.beginIteration()
	n.Set(2)
	text.Set("y")
	p.vars.endIteration(true)
	if got := snapshot(t, p); got != `{"text":"y","n":2}` {
		t.Errorf("after a change: %s", got)
	}
	p.vars.beginIteration()
	text.Set("z")
	if got := snapshot(t, p); got != `{"text":"z","n":2}` {
		t.Errorf("in the middle: %s", got)
	}
	p.vars.endIteration(false)
	if got := snapshot(t, p); got != `{"text":"y","n":2}` {
		t.Errorf("undone: %s", got)
	}
	if _, err := p.vars.restore(json.RawMessage(`{"text":"r"}`)); err != nil {
		t.Fatal(err)
	}
	if got := snapshot(t, p); got != `{"text":"r","n":1}` {
		t.Errorf("restored: %s", got)
	}
}

func parts(t *testing.T, p *Processor) [][]byte {
	t.Helper()
	text, err := p.vars.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return text.parts
}

// To change a map inside is not allowed, but that it is then forgotten as well would be the worst answer.
func TestChangesInsideOfValuesAreStillSaved(t *testing.T) {
	p := newProcessor(t, &memory{})
	m, s := Var(p, "m", map[string]int{"a": 1}), Var(p, "s", []int{1})
	if _, err := p.vars.restore(json.RawMessage(`{"m":{"a":2},"s":[2]}`)); err != nil {
		t.Fatal(err)
	}
	snapshot(t, p) // Which would keep the texts.
	for i := range 3 {
		p.vars.beginIteration()
		m.Get()["a"] = 10 + i
		s.Get()[0] = 20 + i
		p.vars.endIteration(true)
		want, err := json.Marshal(map[string]any{"m": map[string]int{"a": 10 + i}, "s": []int{20 + i}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), snapshot(t, p)); diff != "" {
			t.Error(diff)
		}
	}
	// What they were before must not be taken for what they are.
	if _, err := p.vars.restore(json.RawMessage(`{"m":{"a":2},"s":[2]}`)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"m":{"a":2},"s":[2]}`, snapshot(t, p)); diff != "" {
		t.Error(diff)
	}
}

func TestUnchangedValuesAreNotReadAgainOnAStandby(t *testing.T) {
	p := newProcessor(t, &memory{})
	v := Var(p, "v", map[string]int{})
	for range 2 {
		if _, err := p.vars.restore(json.RawMessage(`{"v":{"a":1}}`)); err != nil {
			t.Fatal(err)
		}
		snapshot(t, p)
	}
	kept := reflect.ValueOf(v.Get()).Pointer()
	if _, err := p.vars.restore(json.RawMessage(`{"v":{"a":1}}`)); err != nil {
		t.Fatal(err)
	}
	if reflect.ValueOf(v.Get()).Pointer() != kept {
		t.Error("the same value was read again")
	}
	if _, err := p.vars.restore(json.RawMessage(`{"v":{"a":2}}`)); err != nil || v.Get()["a"] != 2 {
		t.Errorf("%v, %v", v.Get(), err)
	}
}

func TestStateText(t *testing.T) {
	large := strings.Repeat("x", 3*ownPart)
	for _, values := range [][]string{{}, {"1"}, {"1", "2"}, {`"` + large + `"`}, {"1", `"` + large + `"`, "2"}, {`"` + large + `"`, `"` + large + `"`}} {
		var b textBuilder
		var want []string
		for i, value := range values {
			name := string(rune('a' + i))
			b.add([]byte(`"`+name+`"`), []byte(value))
			want = append(want, `"`+name+`":`+value)
		}
		text, wanted := b.end(), "{"+strings.Join(want, ",")+"}"
		if string(text.join()) != wanted || text.size != len(wanted) || text.checksum() != sumOf(wanted) {
			t.Errorf("%.100s: %d bytes", text.join(), text.size)
		}
		var written strings.Builder
		if err := text.writeTo(&written); err != nil || written.String() != wanted {
			t.Errorf("%.100s, %v", written.String(), err)
		}
		if !text.equals([]byte(wanted)) || text.equals([]byte(wanted+" ")) || text.equals([]byte(strings.Replace(wanted, "}", "]", 1))) {
			t.Errorf("%.100s does not know what it equals", wanted)
		}
	}
}

type (
	plain struct {
		A int
		B [2]string
		c bool
	}
	self struct{ Next *self }
	mine struct{ A int }
)

func (mine) MarshalText() ([]byte, error) { return nil, nil }

func TestFactsOfTypes(t *testing.T) {
	for _, test := range []struct {
		of              reflect.Type
		immutable, open bool
	}{
		{reflect.TypeFor[string](), true, false},
		{reflect.TypeFor[float64](), true, false},
		{reflect.TypeFor[time.Duration](), true, false},
		{reflect.TypeFor[plain](), true, false},
		{reflect.TypeFor[json.Number](), true, false},
		{reflect.TypeFor[time.Time](), false, false},
		{reflect.TypeFor[mine](), false, false},
		{reflect.TypeFor[unwritable](), false, false},
		{reflect.TypeFor[[]byte](), false, false},
		{reflect.TypeFor[json.RawMessage](), false, false},
		{reflect.TypeFor[*int](), false, false},
		{reflect.TypeFor[self](), false, false},
		{reflect.TypeFor[map[string]session](), false, false},
		{reflect.TypeFor[any](), false, true},
		{reflect.TypeFor[map[string]any](), false, true},
		{reflect.TypeFor[struct{ A []struct{ B *any } }](), false, true},
	} {
		if got := factsOf(test.of); got != (typeFacts{test.immutable, test.open}) {
			t.Errorf("%v: %+v", test.of, got)
		}
	}
	_ = plain{c: true}
}
