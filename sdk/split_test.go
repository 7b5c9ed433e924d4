package sdk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplitObject(t *testing.T) {
	known := map[string]string{"k": `{"a":1}`, "n": `12`}
	for text, want := range map[string]string{
		`{}`:                                `[]`,
		" {\n} ":                            `[]`,
		`{"a":1}`:                           `[a=1]`,
		` { "a" : 1 , "b":[1, {"c":"]"}] }`: `[a=1 b=[1, {"c":"]"}]]`,
		`{"a":"\\","b":"\"}","c":"x\\\""}`:  `[a="\\" b="\"}" c="x\\\""]`,
		`{"\u0061\"":null,"é":true}`:        `[a"=null é=true]`,
		`{"a":1,"a":2}`:                     `[a=1 a=2]`,
		`{"k":{"a":1},"n":12}`:              `[k={"a":1} n=12]`,
		`{"k":{"a":1} ,"n":123}`:            `[k={"a":1} n=123]`,
		`{"n":12.5,"k":{"a":1,"b":2}}`:      `[n=12.5 k={"a":1,"b":2}]`,
	} {
		members, err := splitObject([]byte(text), func(key string) []byte { return []byte(known[key]) })
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		parts := make([]string, len(members))
		for i, m := range members {
			parts[i] = m.key + "=" + string(m.text)
		}
		if diff := cmp.Diff(want, fmt.Sprint(parts)); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestSplitObjectRefuses(t *testing.T) {
	for _, text := range []string{
		``, ` `, `null`, `[]`, `7`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"a":,"b":1}`, `{"a" 1}`, `{a:1}`, `{"a":1}x`, `{"a":1}{}`,
		`{"a":"x}`, `{"a":"x\"}`, `{"a":[1}`, `{"a":1]`, `{"a":1 2}`, `{"` + "\x01" + `":1}`, `{"a":"\`,
	} {
		if members, err := splitObject([]byte(text), nil); err == nil {
			t.Errorf("%s: %v", text, members)
		}
	}
}

// The splitter does not check values; with every value checked, it must take what encoding/json takes, and nothing else.
func FuzzSplitObject(f *testing.F) {
	for _, seed := range []string{`{"a":1,"b":{"c":[1,"}"]}}`, `{"a":"\\\""}`, `{"n":12,"n":123}`, `{"a":1}]`, `{"a":[}]}`, `{"":{}}`, " {\"a\"\t:\r1\n} "} {
		f.Add([]byte(seed), []byte(`12`))
	}
	f.Fuzz(func(t *testing.T, text, last []byte) {
		known := func(string) []byte {
			if json.Valid(last) && len(last) == len(bytes.TrimSpace(last)) {
				return last
			}
			return nil
		}
		members, err := splitObject(text, known)
		got := make(map[string]json.RawMessage)
		for _, m := range members {
			got[m.key] = m.text
			if !json.Valid(m.text) && err == nil {
				err = fmt.Errorf("%s is no value", m.text)
			}
		}
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal(text, &want)
		if want == nil && wantErr == nil {
			return // null, which the splitter refuses.
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, encoding/json says %v", text, err, wantErr)
		}
		if err == nil && !cmp.Equal(want, got) {
			t.Fatalf("%q: %s", text, cmp.Diff(want, got))
		}
	})
}

func BenchmarkSplitObject(b *testing.B) {
	text := []byte(`{"n":1,"payload":"` + strings.Repeat("x", 8<<20) + `","list":[` + strings.Repeat(`{"a":[1,2]},`, 10000) + `1]}`)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := splitObject(text, nil); err != nil {
			b.Fatal(err)
		}
	}
}
