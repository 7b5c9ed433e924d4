package markdown

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const text = "# A title, and more\n\nSome `code that goes\nover` and a [link](docs/a.md#there).\n\n" +
	"    kubectl get pods\n\n    kubectl get nodes\n\nText.\n    indented, but a paragraph's\n\n" +
	"<!-- test: run -->\n\n    make demo\n\n```go\npackage main\n```\n\n" +
	"<!-- test: output: what kubectl\nprints -->\n```\nNAME\n```\n\n- item\n\n    not code\n"

func TestParse(t *testing.T) {
	doc := Parse("a.md", text)
	want := &Document{
		Path:     "a.md",
		Headings: []string{"A title, and more"},
		Spans:    []Span{{Where: "a.md:3", Text: "code that goes over"}},
		Links:    []Link{{Where: "a.md:4", Target: "docs/a.md#there"}},
		Blocks: []Block{
			{Path: "a.md", Line: 6, Text: "kubectl get pods\n\nkubectl get nodes\n"},
			{Path: "a.md", Line: 15, Text: "make demo\n", Directive: Directive{Verb: "run"}},
			{Path: "a.md", Line: 17, Language: "go", Text: "package main\n"},
			{Path: "a.md", Line: 23, Text: "NAME\n", Directive: Directive{Verb: "output", Argument: "what kubectl prints"}},
			{Path: "a.md", Line: 29, Text: "not code\n"},
		},
		Faults: []string{"a.md:29: an indented block after a list is read as text of the list: use a fence"},
	}
	if diff := cmp.Diff(want, doc); diff != "" {
		t.Error(diff)
	}
}

func TestDirectivesThatAreNone(t *testing.T) {
	for _, text := range []string{"<!-- test: -->\n", "<!-- test: later -->\n", "<!-- test: output -->\n", "<!-- test: file -->\n"} {
		if doc := Parse("a.md", text); len(doc.Faults) != 1 {
			t.Errorf("%q: faults %q, want one", text, doc.Faults)
		}
	}
}

func TestSlug(t *testing.T) {
	if got, want := Slug("Patience, and what comes after it"), "patience-and-what-comes-after-it"; got != want {
		t.Errorf("Slug: %q, want %q", got, want)
	}
}

func TestWalkthrough(t *testing.T) {
	doc := Parse("a.md", "<!-- test: run -->\n\n    x=1\n\n    not run\n\nSome text.\n\n    echo never\n\n"+
		"<!-- test: file f -->\n```go\n$x\n```\n\n<!-- test: run -->\n\n    echo $x; cat f\n\n<!-- test: endless -->\n\n    echo again; sleep 60\n")
	out, err := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", "cd "+t.TempDir()+"\nalias not=true\nnot() { :; }\n"+Walkthrough(doc, time.Second, true)).CombinedOutput()
	want := "--- a.md:3\n--- a.md:12\n--- a.md:18\n1\n$x\n--- a.md:22\nagain\n"
	if err != nil || string(out) != want {
		t.Errorf("error %v, output %q, want %q", err, out, want)
	}
}

func TestWalkthroughThatEnds(t *testing.T) {
	doc := Parse("a.md", "<!-- test: endless -->\n\n    true\n")
	out, err := exec.CommandContext(t.Context(), "bash", "-c", Walkthrough(doc, time.Minute, false)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "it ended by itself") {
		t.Errorf("error %v, output %q", err, out)
	}
}
