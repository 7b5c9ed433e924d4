package message_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dory-io/dory/internal/message"
)

func TestShorten(t *testing.T) {
	for name, test := range map[string]struct {
		text  string
		limit int
		want  string
	}{
		"fits":                          {"ready", 5, "ready"},
		"too long":                      {"not ready", 6, "not…"},
		"between characters":            {"äöüäöü", 8, "äö…"},
		"between characters, one later": {"äöüäöü", 9, "äöü…"},
		"emoji":                         {"🚀🚀🚀", 8, "🚀…"},
		"fits to the byte":              {"äöü", 6, "äöü"},
		"no UTF-8":                      {"a\xffb", 10, "a\ufffdb"},
		"nothing fits":                  {"äöü", 3, "…"},
	} {
		t.Run(name, func(t *testing.T) {
			got := message.Shorten(test.text, test.limit)
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
			if len(got) > test.limit || !utf8.ValidString(got) {
				t.Errorf("%q has %d bytes, valid %v", got, len(got), utf8.ValidString(got))
			}
		})
	}
}

func FuzzShorten(f *testing.F) {
	f.Add("äöü\xff🚀", 7)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = max(3, limit%4096)
		for _, got := range []string{message.Shorten(text, limit), message.Line(text, limit)} {
			if len(got) > limit || !utf8.ValidString(got) {
				t.Errorf("%q with a limit of %d became %q", text, limit, got)
			}
		}
	})
}

func TestLine(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"several lines":      {"Traceback:\n  File \"x\"\r\n\tboom", `Traceback: File "x" boom`},
		"what no one prints": {"red \x1b[31mtext\x00\u202e\xff", "red [31mtext"},
		"long":               {strings.Repeat("ä", 100), strings.Repeat("ä", 18) + "…"},
		"mostly space":       {"a" + strings.Repeat(" ", 1000) + "b", "a…"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := message.Line(test.text, 40); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
