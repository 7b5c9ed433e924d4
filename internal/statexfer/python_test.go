package statexfer

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// pythonScript answers each line with "ok <canonical form>" or "error <why>". The text is decoded strictly, because
// that is how a ConfigMap's text arrives; allow_nan=False because Infinity is no JSON.
const pythonScript = `
import json, sys
for line in sys.stdin.buffer:
    try:
        print("ok", json.dumps(json.loads(line[:-1].decode("utf-8")), sort_keys=True, allow_nan=False), flush=False)
    except Exception as e:
        print("error", type(e).__name__)
`

// TestCanonicalAgreesWithPython needs python3 with its standard library (Debian's package python3; python3-minimal
// has no json). What every other SDK checks our documents with is not worth guessing.
func TestCanonicalAgreesWithPython(t *testing.T) {
	const documents = 20_000
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := &generator{rand.New(rand.NewPCG(seed, 0))}
	texts := make([]string, documents)
	for i := range texts {
		texts[i] = g.document()
	}
	accepted := 0
	for i, want := range askPython(t, texts) {
		got := "error"
		canonical, err := Canonical([]byte(texts[i]))
		if err == nil {
			got = "ok " + string(canonical)
			accepted++
		} else if strings.Contains(err.Error(), "beyond the range") {
			continue // We refuse it also where a later, equal key would have removed it.
		}
		if got != want && (got != "error" || !strings.HasPrefix(want, "error ")) {
			t.Fatalf("seed %d, document %d\n%q\nPython says\n%s\nwe say\n%s", seed, i, texts[i], want, got)
		}
	}
	if accepted < documents/2 {
		t.Errorf("only %d of %d documents were valid: the generator tests too little", accepted, documents)
	}
}

func askPython(t *testing.T, texts []string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", "-c", pythonScript)
	cmd.Env = []string{"PYTHONIOENCODING=ascii", "PATH=/usr/local/bin:/usr/bin:/bin"}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("this test needs python3 (Debian: apt-get install python3): %v", err)
	}
	go func() {
		defer in.Close()
		_, _ = io.WriteString(in, strings.Join(texts, "\n")+"\n")
	}()
	answers := make([]string, 0, len(texts))
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		answers = append(answers, lines.Text())
	}
	if err := cmd.Wait(); err != nil || len(answers) != len(texts) {
		t.Fatalf("python3 gave %d answers to %d documents: %v\n%s", len(answers), len(texts), err, stderr.String())
	}
	return answers
}

// generator makes documents without raw line breaks, most of them valid.
type generator struct{ *rand.Rand }

func (g *generator) document() string {
	text := g.value(g.IntN(6))
	if g.IntN(5) == 0 {
		return g.damage(text)
	}
	return text
}

// damage changes one byte, which leaves many documents valid, and valid in surprising ways.
func (g *generator) damage(text string) string {
	const bytes = "\"\\{}[]:,.-+eEuU0123456789dDabf \t\r\x00\x7fNInt\xc3\xa9"
	b := []byte(text)
	if i := g.IntN(len(b)); g.IntN(2) == 0 {
		b = append(b[:i], b[i+1:]...)
	} else {
		b[i] = bytes[g.IntN(len(bytes))]
	}
	return string(b)
}

func (g *generator) value(depth int) string {
	if depth == 0 {
		return g.scalar()
	}
	items := make([]string, g.IntN(5))
	object := g.IntN(2) == 0
	for i := range items {
		items[i] = g.space() + g.value(depth-1-g.IntN(depth)) + g.space()
		if object {
			items[i] = g.space() + g.str(g.IntN(3)) + g.space() + ":" + items[i]
		}
	}
	if object {
		return "{" + strings.Join(items, ",") + g.space() + "}"
	}
	return "[" + strings.Join(items, ",") + g.space() + "]"
}

func (g *generator) space() string {
	return []string{"", "", "", " ", "\t", "\r"}[g.IntN(6)]
}

func (g *generator) scalar() string {
	switch g.IntN(8) {
	case 0:
		return []string{"true", "false", "null"}[g.IntN(3)]
	case 1, 2, 3:
		return g.float()
	case 4:
		return g.integer()
	default:
		return g.str(g.IntN(12))
	}
}

func (g *generator) integer() string {
	text := strconv.FormatInt(int64(g.Uint64()>>g.IntN(64)), 10)
	if g.IntN(4) == 0 {
		text += strings.Repeat("7", g.IntN(60))
	}
	if g.IntN(8) == 0 {
		return "-0"
	}
	return text
}

// float writes random bits, round numbers near the limits of the notation, and odd spellings.
func (g *generator) float() string {
	f := math.Float64frombits(g.Uint64())
	switch {
	case g.IntN(3) == 0:
		f = math.Pow(10, float64(g.IntN(50)-25)) * float64(g.IntN(1000)-500)
	case math.IsNaN(f), math.IsInf(f, 0):
		f = math.Copysign(0, -1)
	}
	switch g.IntN(5) {
	case 0:
		return strconv.FormatFloat(f, 'E', -1, 64)
	case 1:
		return strconv.FormatFloat(f, 'e', g.IntN(25), 64)
	case 2:
		return fmt.Sprintf("%d.%de%d", g.IntN(100), g.IntN(100000), g.IntN(700)-350)
	default:
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
}

func (g *generator) str(length int) string {
	var b strings.Builder
	b.WriteByte('"')
	for range length {
		b.WriteString(g.char())
	}
	b.WriteByte('"')
	return b.String()
}

func (g *generator) char() string {
	switch g.IntN(8) {
	case 0:
		return []string{`\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`}[g.IntN(8)]
	case 1:
		return fmt.Sprintf(`\u%04x`, g.IntN(0x10000))
	case 2: // Surrogates, in and out of pairs.
		return fmt.Sprintf(`\u%04X`, 0xd800+g.IntN(0x800))
	case 3:
		return string(rune(0x10000 + g.IntN(0x100000)))
	case 4:
		return string(rune(0x80 + g.IntN(0xd700)))
	default:
		return string("abcdefghijklmnopqrstuvwxyz<>&/' \x7f"[g.IntN(33)])
	}
}

func manyKeys(n int, order func(int) int) []byte {
	var b strings.Builder
	b.WriteString("{")
	for i := range n {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, `"key-%08d":{"value":%d.5,"name":"something"}`, order(i), i)
	}
	b.WriteString("}")
	return []byte(b.String())
}
