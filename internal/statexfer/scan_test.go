package statexfer

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// ways to read the same text.
var ways = map[string]func(text []byte) (stateMembers, error){
	"at once": func(text []byte) (stateMembers, error) {
		return scanState(bytes.NewReader(text), int64(len(text)), true, 0)
	},
	"byte by byte": func(text []byte) (stateMembers, error) {
		return scanState(iotest.OneByteReader(bytes.NewReader(text)), int64(len(text)), true, 0)
	},
	"of unknown size": func(text []byte) (stateMembers, error) { return scanState(bytes.NewReader(text), -1, true, 0) },
	"of unknown size, in halves, the last with its end": func(text []byte) (stateMembers, error) {
		return scanState(iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(text))), -1, true, 0)
	},
}

// FuzzScanState compares with encoding/json, which is less strict only about UTF-8.
func FuzzScanState(f *testing.F) {
	for _, seed := range []string{
		`{"data":{"a":[1,-0.5e+7,true,false,null,"\u00e9\n"]},"state_version":"1.0","epoch":7,"sequence":42}`, `{"data":{},"data":[]}`,
		`{"d\u0061ta":1}`, `{"é":"😀","error":"\ud800"}`, ` { } `, `{"a":01}`, `{"a":1.}`, `{"a":1e}`, `{"a":-}`, `{"a":"\x"}`, `{"a":"` + "\x7f\x00" + `"}`,
		`{"a":tru}`, `{"a"}`, `{"a":1,}`, `{,}`, `{"a":[}]}`, `{"a":1}x`, `{"data":"` + strings.Repeat("abcdefgh", 9) + "\xc3\xa9" + `"}`, "{\"a\":\"\xff\"}", "null", "[]", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want map[string]json.RawMessage
		valid := json.Unmarshal(text, &want) == nil && want != nil && utf8.Valid(text)
		for way, scan := range ways {
			got, err := scan(text)
			if errors.Is(err, ErrTooDeep) {
				continue
			}
			if (err == nil) != valid {
				t.Fatalf("%q, read %s: valid is %t, and the error %v", text, way, valid, err)
			}
			if valid {
				compareMembers(t, got, want)
			}
		}
		if data := want["data"]; valid && len(data) > 0 && data[0] == '{' && bytes.Count(text, []byte("data")) == 1 {
			got, err := scanState(iotest.HalfReader(bytes.NewReader(text)), int64(len(text)), false, len(data))
			if err != nil {
				t.Fatal(err)
			}
			got.checksum = rawChecksum(got.data)
			compareMembers(t, got, want)
		}
	})
}

func compareMembers(t *testing.T, got stateMembers, want map[string]json.RawMessage) {
	t.Helper()
	for key, text := range map[string][]byte{
		"data": got.data, "state_version": got.stateVersion, "pod_name": got.podName, "captured_at": got.capturedAt,
		"epoch": got.epoch, "sequence": got.sequence, "error": got.problem, "data_version": got.dataVersion, "uptime_seconds": got.uptime,
	} {
		if wanted, there := want[key]; (text != nil) != there || !bytes.Equal(text, wanted) {
			t.Fatalf("%s is %q, want %q", key, text, wanted)
		}
		if cap(text) != len(text) {
			t.Fatalf("whoever appends to %s would write into the body behind it", key)
		}
	}
	if got.data != nil && got.checksum != rawChecksum(got.data) {
		t.Fatalf("checksum %s of %q", got.checksum, got.data)
	}
}

// Every prefix of an answer ends too early, and every break is one.
func TestScanStateOfPrefixes(t *testing.T) {
	text := stateBody(oddData + " ")
	for i := range len(text) - 1 {
		if _, err := scanState(strings.NewReader(text[:i]), int64(i), true, 0); !errors.Is(err, ErrNotState) {
			t.Errorf("%q: %v", text[:i], err)
		}
		var broken *brokenError
		if _, err := scanState(strings.NewReader(text[:i]), -1, true, 0); !errors.As(err, &broken) {
			t.Errorf("%q of unknown size: %v", text[:i], err)
		}
		reader := io.MultiReader(strings.NewReader(text[:i]), iotest.ErrReader(errors.New("reset by peer")))
		if _, err := scanState(reader, int64(len(text)), true, 0); !errors.As(err, &broken) || !strings.Contains(err.Error(), "reset by peer") {
			t.Errorf("%q, then an error: %v", text[:i], err)
		}
	}
}

func TestScanStateReadsIntoOneBuffer(t *testing.T) {
	text := stateBody(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`)
	reader := strings.NewReader(text)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := scanState(reader, int64(len(text)), true, 0)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if size := after.TotalAlloc - before.TotalAlloc; size > uint64(len(text))+64<<10 {
		t.Errorf("%d bytes were allocated for an answer of %d", size, len(text))
	}
}

func TestPlainRun(t *testing.T) {
	for length := range 40 {
		for c := range 256 {
			text := bytes.Repeat([]byte("~ "), 25)
			text[length] = byte(c)
			want := length
			if isPlain(byte(c)) {
				want = len(text)
			}
			if got := plainRun(text); got != want {
				t.Fatalf("byte 0x%02x at %d stops at %d", c, length, got)
			}
		}
	}
}

func BenchmarkScanState(b *testing.B) {
	for name, data := range map[string][]byte{
		"8MiB_one_string": []byte(`{"payload":"` + strings.Repeat("x", 8<<20-14) + `"}`),
		"8MiB_many_keys":  manyKeys(160_000, func(i int) int { return i }),
		"16KiB_many_keys": manyKeys(340, func(i int) int { return i }),
	} {
		b.Run(name, func(b *testing.B) {
			text := stateBody(string(data))
			reader := strings.NewReader(text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(text)
				if _, err := scanState(reader, int64(len(text)), true, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
