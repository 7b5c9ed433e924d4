package statexfer

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The contract's vectors: payload, and the SHA-256 of its canonical form.
func TestChecksumVectorsOfTheContract(t *testing.T) {
	for payload, want := range map[string]string{
		`{}`:                             "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
		`{"counter": 0, "sessions": {}}`: "f740aa9ef355bf44c9ab940f9f172f63eec697b37ff8f38a582387fcdc26e40c",
		`{"a": {"c": [1, 2.0, true, null], "d": 2}, "b": 1}`:                                                  "ecdf6dd1eae121a105323f7098f11db53fc30a7f8ebbe937a249e87b88a9941f",
		`{"name": "caf\u00e9 \u20ac \ud83d\ude00"}`:                                                           "ddcf2c46daf0bce9810cae285e4a824bf1c9d85b9b8c38a9f8af352bc1721ffd",
		`{"name": "café € 😀"}`:                                                                                "ddcf2c46daf0bce9810cae285e4a824bf1c9d85b9b8c38a9f8af352bc1721ffd",
		`{"f": 0.1, "g": 1e+16, "h": 1e-07, "i": 123456789012345678901234567890, "j": 1.0}`:                   "2114dd1ef4210f9b085fafcff4221d1e14f22b88e3daaf9087851a9af895a114",
		`{"j":1.00,"i":123456789012345678901234567890,"h":0.0000001,"g":10000000000000000.0,"f":0.1000e0   }`: "2114dd1ef4210f9b085fafcff4221d1e14f22b88e3daaf9087851a9af895a114",
	} {
		canonical, err := Canonical([]byte(payload))
		if err != nil {
			t.Errorf("Canonical(%s): %v", payload, err)
			continue
		}
		if got := Checksum(canonical); got != want {
			t.Errorf("checksum of %s is %s, want %s (canonical %s)", payload, got, want, canonical)
		}
	}
}

func TestCanonical(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"separators":                     {`{"a":[1,2],"b":{}}`, `{"a": [1, 2], "b": {}}`},
		"white space":                    {" \t\r\n[ ]\n", `[]`},
		"keys sorted at every level":     {`{"b":{"d":1,"c":2},"a":[{"z":0,"y":0}]}`, `{"a": [{"y": 0, "z": 0}], "b": {"c": 2, "d": 1}}`},
		"keys by code point, not UTF-16": {`{"\ud83d\ude00":1,"\uffff":2,"a":3}`, `{"a": 3, "\uffff": 2, "\ud83d\ude00": 1}`},
		"keys compare decoded":           {`{"b":1,"\u0061":2}`, `{"a": 2, "b": 1}`},
		"lone surrogates as keys":        {`{"\ue000":1,"\ud800":2,"\udfff":3}`, `{"\ud800": 2, "\udfff": 3, "\ue000": 1}`},
		"the last of equal keys wins":    {`{"a":1,"b":2,"\u0061":3}`, `{"a": 3, "b": 2}`},
		"three equal keys":               {`{"a":1,"a":2,"a":3}`, `{"a": 3}`},
		"empty key":                      {`{"a":1,"":2}`, `{"": 2, "a": 1}`},
		"escapes":                        {`"\"\\\/\b\f\n\r\t\u007f\u0000\u001F"`, `"\"\\/\b\f\n\r\t\u007f\u0000\u001f"`},
		"not escaped":                    {`"/<>&'"`, `"/<>&'"`},
		"delete is escaped":              {"\"\x7f\"", `"\u007f"`},
		"lower-case hex":                 {`"\u20AC"`, `"\u20ac"`},
		"beyond the basic plane":         {`"😀"`, `"\ud83d\ude00"`},
		"lone high surrogate":            {`"\ud83dx"`, `"\ud83dx"`},
		"lone low surrogate":             {`"\ude00"`, `"\ude00"`},
		"surrogates in the wrong order":  {`"\ude00\ud83d"`, `"\ude00\ud83d"`},
		"high surrogate twice":           {`"\ud83d\ud83d\ude00"`, `"\ud83d\ud83d\ude00"`},
		"high surrogate, then a letter":  {`"\ud83d\u0041"`, `"\ud83dA"`},
		"integer of any size":            {"-" + strings.Repeat("9", 400), "-" + strings.Repeat("9", 400)},
		"integer minus zero":             {`[-0]`, `[0]`},
		"float minus zero":               {`[-0.0,-0e5]`, `[-0.0, -0.0]`},
		"whole floats":                   {`[1.0,1e2,1E+2,100e-2]`, `[1.0, 100.0, 100.0, 1.0]`},
		"exponent from 1e16 up":          {`[9999999999999998.0,1e16,1e22,1e23,1.5e300]`, `[9999999999999998.0, 1e+16, 1e+22, 1e+23, 1.5e+300]`},
		"exponent below 1e-4":            {`[0.0001,0.00001,1e-7,1.25e-5]`, `[0.0001, 1e-05, 1e-07, 1.25e-05]`},
		"smallest and largest":           {`[5e-324,1.7976931348623157e308]`, `[5e-324, 1.7976931348623157e+308]`},
		"too small becomes zero":         {`[1e-400]`, `[0.0]`},
		"shortest digits":                {`[0.30000000000000004,0.10000000000000001]`, `[0.30000000000000004, 0.1]`},
		"literals":                       {`[true,false,null]`, `[true, false, null]`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Canonical([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCanonicalRefuses(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for name, test := range map[string]struct {
		in   string
		want error
		says string
	}{
		"nothing":              {"", ErrInvalidJSON, "expected a value"},
		"NaN":                  {`{"a":NaN}`, ErrInvalidJSON, "at byte 5: NaN is no JSON number"},
		"Infinity":             {`[Infinity]`, ErrInvalidJSON, "Infinity is no JSON number"},
		"-Infinity":            {`[-Infinity]`, ErrInvalidJSON, "-Infinity is no JSON number"},
		"float out of range":   {`[1e400]`, ErrInvalidJSON, "1e400 is beyond the range"},
		"leading zero":         {`[01]`, ErrInvalidJSON, "malformed number"},
		"no digits":            {`[-]`, ErrInvalidJSON, "malformed number"},
		"no fraction":          {`[1.]`, ErrInvalidJSON, "malformed number"},
		"no exponent":          {`[1e]`, ErrInvalidJSON, "malformed number"},
		"no exponent's digits": {`[1e+]`, ErrInvalidJSON, "malformed number"},
		"trailing comma":       {`[1,]`, ErrInvalidJSON, "expected a value"},
		"trailing comma, key":  {`{"a":1,}`, ErrInvalidJSON, "expected a key"},
		"no comma":             {`[1 2]`, ErrInvalidJSON, "expected ','"},
		"no colon":             {`{"a" 1}`, ErrInvalidJSON, "expected ':'"},
		"key without quotes":   {`{a:1}`, ErrInvalidJSON, "expected a key"},
		"two values":           {`{} {}`, ErrInvalidJSON, "more text"},
		"open array":           {`[`, ErrInvalidJSON, "expected a value"},
		"open object":          {`{"a":1`, ErrInvalidJSON, "expected ','"},
		"open string":          {`"a`, ErrInvalidJSON, "does not end"},
		"open escape":          {`"\`, ErrInvalidJSON, "does not end"},
		"unknown escape":       {`"\x41"`, ErrInvalidJSON, `unknown escape \x`},
		"short unicode escape": {`"\u12"`, ErrInvalidJSON, "four hexadecimal digits"},
		"bad second escape":    {`"\ud83d\u12g4"`, ErrInvalidJSON, "four hexadecimal digits"},
		"control character":    {"\"\n\"", ErrInvalidJSON, "control character 0x0a"},
		"not UTF-8":            {"\"\xff\"", ErrInvalidJSON, "byte 0xff is not UTF-8"},
		"surrogate as UTF-8":   {"\"\xed\xa0\x80\"", ErrInvalidJSON, "is not UTF-8"},
		"byte order mark":      {"\ufeff{}", ErrInvalidJSON, "expected a value"},
		"too deep":             {deep(MaxDepth + 1), ErrTooDeep, "more than 512 levels"},
		"too large":            {strings.Repeat(" ", MaxStateBytes+1), ErrTooLarge, "10485761 bytes of JSON, the limit is 10485760"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Canonical([]byte(test.in))
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got error %v, want %v that says %q", err, test.want, test.says)
			}
		})
	}
	if _, err := Canonical([]byte(deep(MaxDepth))); err != nil {
		t.Errorf("%d levels: %v", MaxDepth, err)
	}
}

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"b":[1,-0,2.50,1e22],"a":{"\u00e9":"\ud83d\ude00"}}`, `{"a":1,"a":2}`, `"\ud800"`, `[`, `-0.0`, `nul`, "\"\x80\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		canonical, err := Canonical(text)
		if err != nil {
			return
		}
		if !json.Valid(text) || !json.Valid(canonical) {
			t.Fatalf("%q, which became %q, is no JSON", text, canonical)
		}
		again, err := Canonical(canonical)
		if err != nil || !bytes.Equal(canonical, again) {
			t.Fatalf("%q became %q, and that became %q (%v)", text, canonical, again, err)
		}
		if !sameMeaning(t, text, canonical) {
			t.Fatalf("%q became %q, which means something else", text, canonical)
		}
	})
}

// sameMeaning compares as Go decodes, which has floats only.
func sameMeaning(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if json.Unmarshal(a, &x) != nil {
		return true // An integer beyond the range of Go's floats.
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	return cmp.Equal(x, y)
}

func BenchmarkCanonical(b *testing.B) {
	for name, text := range map[string][]byte{
		"8MiB_one_string": []byte(`{"payload":"` + strings.Repeat("x", 8<<20) + `"}`),
		"16KiB_sorted":    manyKeys(340, func(i int) int { return i }),
		"1MiB_sorted":     manyKeys(20_000, func(i int) int { return i }),
		"1MiB_unsorted":   manyKeys(20_000, func(i int) int { return (i * 7919) % 20_000 }),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				canonical, err := Canonical(text)
				if err != nil {
					b.Fatal(err)
				}
				Checksum(canonical)
			}
		})
	}
}
