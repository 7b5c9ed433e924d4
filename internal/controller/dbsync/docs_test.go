package dbsync

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dory-io/dory/internal/store"
)

// documented is the template of docs/database.md, which has every key with its default.
func documented(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "database.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "```json\n")
	block, _, ended := strings.Cut(after, "```\n")
	if !found || !ended {
		t.Fatal("docs/database.md has no block of JSON")
	}
	return block
}

func TestTheDocumentedDefaultsAreTheDefaults(t *testing.T) {
	whole, warnings, err := Render(rowWith(config(documented(t))))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("error %v, warnings %q", err, warnings)
	}
	// An empty section leaves a policy unset; one key is enough to fill it with defaults.
	nothing, _, err := Render(rowWith(config(`{"state": {"checkpoint_interval_sec": 30}, "update": {"strategy": "Live"}, "migration": {"history_limit": 5}}`)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(nothing, whole); diff != "" {
		t.Errorf("docs/database.md gives a key another value than its default (-default +documented):\n%s", diff)
	}
}

// TestEveryKeyIsDocumented finds the keys where they are read.
func TestEveryKeyIsDocumented(t *testing.T) {
	var sections map[string]map[string]any
	if err := json.Unmarshal([]byte(documented(t)), &sections); err != nil {
		t.Fatal(err)
	}
	var known []string
	for section, keys := range sections {
		known = append(known, section)
		for key := range keys {
			known = append(known, key)
		}
	}
	files, err := filepath.Glob("render_*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("render_*.go: %q, %v", files, err)
	}
	read := regexp.MustCompile(`(?:s\.(?:integer|text|texts|choice|flag|quantity)\(|oneOf\(s, |root\.object\()"([a-z_]+)"`)
	var keys []string
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range read.FindAllStringSubmatch(string(source), -1) {
			keys = append(keys, found[1])
			if !slices.Contains(known, found[1]) {
				t.Errorf("%s reads the key %q, which docs/database.md does not have", file, found[1])
			}
		}
	}
	for _, key := range known {
		if !slices.Contains(keys, key) {
			t.Errorf("docs/database.md has the key %q, which nothing reads", key)
		}
	}
}

func TestImagesThatNoKubeletTakes(t *testing.T) {
	for _, image := range []string{"MyProc:1", "registry.example/My/proc:1", "app:1@sha256:abc", "https://registry.example/app"} {
		_, _, err := Render(rowWith(func(r *store.ProcessorRow) { r.ImageURI = image }))
		if err == nil || !strings.Contains(err.Error(), "which no kubelet takes") {
			t.Errorf("%q: error %v", image, err)
		}
	}
}
