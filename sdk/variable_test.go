package sdk

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type session struct {
	User string         `json:"user"`
	Seen map[string]int `json:"seen"`
}

// declareAll declares a variable of each kind, with initial values.
func declareAll(p *Processor) {
	Var(p, "integer", int64(-1))
	Var(p, "float", 0.5)
	Var(p, "text", "x")
	Var(p, "list", []string{"a"})
	Var(p, "sessions", map[string]session{})
	Var(p, "pointer", (*session)(nil))
	Var(p, "any", any(nil))
	Var(p, "raw", json.RawMessage(`[]`))
	Var(p, "bytes", []byte{})
}

func restored(t *testing.T, state string) *Processor {
	t.Helper()
	p := newProcessor(t, &memory{})
	declareAll(p)
	if _, err := p.vars.restore(json.RawMessage(state)); err != nil {
		t.Fatal(err)
	}
	return p
}

func snapshot(t *testing.T, p *Processor) string {
	t.Helper()
	text, err := p.vars.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return string(text.join())
}

const initialValues = `{"integer":-1,"float":0.5,"text":"x","list":["a"],"sessions":{},"pointer":null,"any":null,"raw":[],"bytes":""}`

func TestInitialValues(t *testing.T) {
	p := newProcessor(t, &memory{})
	declareAll(p)
	if diff := cmp.Diff(initialValues, snapshot(t, p)); diff != "" {
		t.Error(diff)
	}
}

func TestNoVariablesIsAnEmptyObject(t *testing.T) {
	p := newProcessor(t, &memory{})
	if got := snapshot(t, p); got != "{}" {
		t.Errorf("got %s", got)
	}
	if _, err := p.vars.restore(json.RawMessage(`{"kept":1}`)); err != nil {
		t.Fatal(err)
	}
	if got := snapshot(t, p); got != `{"kept":1}` {
		t.Errorf("got %s", got)
	}
}

func TestRestoreAndSnapshotLoseNothing(t *testing.T) {
	for name, state := range map[string]string{
		"all": `{"integer":9223372036854775807,"float":1e-7,"text":"é\u2028","list":[],"sessions":{"a":{"user":"u","seen":{"x":1}}},` +
			`"pointer":{"user":"","seen":null},"any":{"big":12345678901234567890123,"float":1.0},"raw":{"a":[1.50,2]},"bytes":"AAE="}`,
		"nulls": `{"integer":0,"float":0,"text":"","list":null,"sessions":null,"pointer":null,"any":null,"raw":null,"bytes":null}`,
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(state, snapshot(t, restored(t, state))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRestoreReplacesTheWholeState(t *testing.T) {
	p := restored(t, `{"integer":5,"text":"y","old":1}`)
	if _, err := p.vars.restore(json.RawMessage(`{"float":2.5}`)); err != nil {
		t.Fatal(err)
	}
	want := `{"integer":-1,"float":2.5,"text":"x","list":["a"],"sessions":{},"pointer":null,"any":null,"raw":[],"bytes":""}`
	if diff := cmp.Diff(want, snapshot(t, p)); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownKeysAreKept(t *testing.T) {
	p := newProcessor(t, &memory{})
	Var(p, "n", 0)
	unknown, err := p.vars.restore(json.RawMessage(`{"z":1.0,"n":5,"a":{"b":12345678901234567890123}}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "z"}, unknown); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(`{"n":5,"a":{"b":12345678901234567890123},"z":1.0}`, snapshot(t, p)); diff != "" {
		t.Error(diff)
	}
}

func TestRestoreThatFailsChangesNothing(t *testing.T) {
	for _, state := range []string{
		`{"integer":1,"float":"x"}`, `{"integer":1.5}`, `{"integer":null}`, `{"text":null}`, `{"bytes":"no base64!"}`, `{"integer":1,"other":1e999}`,
		`{"integer":9223372036854775808}`, `[]`, `null`, ``, `{"other":1}`,
	} {
		p := newProcessor(t, &memory{})
		declareAll(p)
		if _, err := p.vars.restore(json.RawMessage(state)); err == nil {
			t.Errorf("%s was restored", state)
		}
		if diff := cmp.Diff(initialValues, snapshot(t, p)); diff != "" {
			t.Errorf("%s: %s", state, diff)
		}
	}
}

func TestForeignState(t *testing.T) {
	p := newProcessor(t, &memory{})
	Var(p, "n", 0)
	if _, err := p.vars.restore(json.RawMessage(`{"error":"x"}`)); !errors.Is(err, ErrForeignState) {
		t.Errorf("got %v", err)
	}
	if _, err := p.vars.restore(json.RawMessage(`{}`)); err != nil {
		t.Errorf("an empty state: %v", err)
	}
}

func TestUndoTakesBackTheWholeIteration(t *testing.T) {
	p := newProcessor(t, &memory{})
	n, text := Var(p, "n", 1), Var(p, "text", "before")
	for _, keep := range []bool{false, true, false} {
		before := snapshot(t, p)
		p.vars.beginIteration()
		n.Set(n.Get() + 1)
		n.Set(n.Get() + 1)
		text.Set("after")
		during := snapshot(t, p)
		if !p.vars.endIteration(keep) || p.vars.endIteration(!keep) {
			t.Error("an iteration ends once")
		}
		want := before
		if keep {
			want = during
		}
		if diff := cmp.Diff(want, snapshot(t, p)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestSnapshotSaysWhichVariableIsWrong(t *testing.T) {
	p := newProcessor(t, &memory{})
	f := Var(p, "ratio", 0.0)
	p.vars.beginIteration()
	f.Set(math.NaN())
	p.vars.endIteration(true)
	if _, err := p.vars.snapshot(); err == nil || err.Error() != `variable "ratio": json: unsupported value: NaN` {
		t.Errorf("got %v", err)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	p, err := New(environ(), WithBackend(&memory{}))
	if err != nil {
		b.Fatal(err)
	}
	sessions := make(map[string]session)
	for i := range 1000 {
		sessions[string(rune('a'+i%26))+string(rune('0'+i))] = session{User: "someone", Seen: map[string]int{"x": i}}
	}
	Var(p, "sessions", sessions)
	for b.Loop() {
		if _, err := p.vars.snapshot(); err != nil {
			b.Fatal(err)
		}
	}
}
