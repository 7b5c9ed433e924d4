package docs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/dory-io/dory/test/docs/markdown"
)

// timeForABlock bounds one block of commands, of which none waits for anything.
const timeForABlock = 2 * time.Minute

// TestBlocks tries every block of code of every document.
func TestBlocks(t *testing.T) {
	for _, doc := range documents(t) {
		t.Run(doc.Path, func(t *testing.T) {
			t.Parallel()
			for _, fault := range doc.Faults {
				t.Error(fault)
			}
			house := newHouse(t)
			for _, block := range doc.Blocks {
				if err := house.try(t, block); err != nil {
					t.Errorf("%s: %v\n%s", block.Where(), err, indent(block.Text))
				}
			}
			// What builds upon each other is tried as one, as it is on real kubelets.
			if script := markdown.Walkthrough(doc, time.Second, false); script != "" {
				if out, err := bash(t, house.directory, script, timeForABlock, house.environment...); err != nil {
					t.Errorf("%s: %v\n%s", doc.Path, err, out)
				}
			}
		})
	}
}

// TestCommandsInProse tries the commands and statements in backticks.
func TestCommandsInProse(t *testing.T) {
	for _, doc := range documents(t) {
		t.Run(doc.Path, func(t *testing.T) {
			t.Parallel()
			house := newHouse(t)
			for _, span := range doc.Spans {
				block := markdown.Block{Text: span.Text + "\n"}
				var err error
				switch {
				case startsCommand.MatchString(span.Text):
					err = house.shell(t, block)
				case startsSQL.MatchString(span.Text):
					err = house.sql(t, block)
				}
				if err != nil {
					t.Errorf("%s: %v\n%s", span.Where, err, indent(span.Text))
				}
			}
		})
	}
}

var (
	startsCommand = regexp.MustCompile(`^(kubectl|make|psql|docker|bin/(cluster|image)|go (run|mod|get|build|tool)) `)
	startsSQL     = regexp.MustCompile(`^(SELECT|INSERT|UPDATE|DELETE) `)
	startsShell   = regexp.MustCompile(`^([a-z_]+=\S|[A-Z_]+=\S+ |(kubectl|make|psql|docker|go|bin/\S+|export|alias|cd|mkdir|cat|while|until|for|if|git) )`)
)

// house is where a person would sit who reads one document: in a checkout of this repository, with a database.
type house struct {
	directory   string
	environment []string
	calls       string
}

func newHouse(tb testing.TB) *house {
	tb.Helper()
	h := &house{directory: tb.TempDir()}
	entries, err := os.ReadDir(root)
	if err != nil {
		tb.Fatal(err)
	}
	top, err := filepath.Abs(root)
	if err != nil {
		tb.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "bin" && !strings.HasPrefix(name, ".") {
			must(tb, os.Symlink(filepath.Join(top, name), filepath.Join(h.directory, name)))
		}
	}
	programs := filepath.Join(h.directory, ".programs")
	must(tb, os.MkdirAll(filepath.Join(h.directory, "bin", "k8s"), 0o750))
	must(tb, os.Mkdir(programs, 0o750))
	must(tb, os.Mkdir(filepath.Join(h.directory, ".home"), 0o750))
	for name := range shims {
		putShim(tb, name, filepath.Join(programs, name))
	}
	putShim(tb, "kubectl", filepath.Join(h.directory, "bin", "k8s", "kubectl"))
	putShim(tb, "cluster", filepath.Join(h.directory, "bin", "cluster"))
	putShim(tb, "image", filepath.Join(h.directory, "bin", "image"))
	h.calls = filepath.Join(h.directory, ".calls")
	database := world.database.NewDatabase(tb)
	h.environment = []string{
		"PATH=" + programs + ":" + os.Getenv("PATH"),
		"HOME=" + filepath.Join(h.directory, ".home"),
		"DORY_DATABASE_URL=" + database,
		variableRoot + "=" + top,
		variableKubectl + "=" + world.kubectl,
		variableKubeconfig + "=" + world.kubeconfig,
		variableDatabase + "=" + database,
		variableCalls + "=" + h.calls,
		variablePath + "=" + os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0", // A shim under the race detector would wait for a second at its end.
	}
	return h
}

func putShim(tb testing.TB, name, path string) {
	tb.Helper()
	self, err := os.Executable()
	must(tb, err)
	script := fmt.Sprintf("#!/bin/sh\n%s=%s exec %s \"$@\"\n", shimVariable, name, self)
	must(tb, os.WriteFile(path, []byte(script), 0o700))
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// try does with a block what its language asks for. A block of which nothing can be tried is an error.
func (h *house) try(tb testing.TB, block markdown.Block) error {
	tb.Helper()
	if block.Directive.Verb == "output" {
		return nil
	}
	switch language(block) {
	case "sh":
		if block.Directive.Verb != "" {
			return nil // A part of the walk-through.
		}
		return h.shell(tb, block)
	case "sql":
		return h.sql(tb, block)
	case "yaml":
		return h.manifest(block)
	case "go":
		return compile(tb, block)
	case "json":
		if !json.Valid([]byte(block.Text)) {
			return errors.New("no JSON")
		}
		return nil
	case "mermaid":
		if !strings.HasPrefix(block.Text, "flowchart ") && !strings.HasPrefix(block.Text, "sequenceDiagram\n") && !strings.HasPrefix(block.Text, "stateDiagram") {
			return errors.New("no diagram")
		}
		return nil
	}
	return errors.New("nothing in this block can be tried: name its language, or say what it is in a comment before it, <!-- test: output: REASON -->")
}

// language is what the fence says, or what an indented block looks like.
func language(block markdown.Block) string {
	switch block.Language {
	case "bash", "shell", "console":
		return "sh"
	case "":
	default:
		return block.Language
	}
	for line := range strings.Lines(block.Text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case startsShell.MatchString(line):
			return "sh"
		case startsSQL.MatchString(line):
			return "sql"
		}
		break
	}
	if fields := (map[string]any{}); yaml.Unmarshal([]byte(block.Text), &fields) == nil && len(fields) > 0 {
		return "yaml"
	}
	return ""
}

func (h *house) shell(tb testing.TB, block markdown.Block) error {
	tb.Helper()
	must(tb, os.RemoveAll(h.calls))
	if out, err := bash(tb, h.directory, block.Text, timeForABlock, h.environment...); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if _, err := os.Stat(h.calls); err != nil && !regexp.MustCompile(`(?m)^(export|alias|cd|mkdir|git) `).MatchString(block.Text) {
		return errors.New("none of the commands is one that these tests know")
	}
	return nil
}

// sql runs a statement, and takes it back.
func (h *house) sql(tb testing.TB, block markdown.Block) error {
	tb.Helper()
	statement := strings.TrimSuffix(strings.TrimSpace(block.Text), ";")
	script := "psql \"$DORY_DATABASE_URL\" <<'END'\nBEGIN;\n" + statement + ";\nROLLBACK;\nEND\n"
	if out, err := bash(tb, h.directory, script, timeForABlock, h.environment...); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// manifest asks the API server about an object. A part of a Processor is put into one, and a part of a kustomization into the file
// that the block's first line names.
func (h *house) manifest(block markdown.Block) error {
	fields := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(block.Text), &fields); err != nil {
		return err
	}
	if name, ok := strings.CutPrefix(strings.SplitN(block.Text, "\n", 2)[0], "# "); ok && strings.HasSuffix(name, "kustomization.yaml") {
		return addedTo(name, block.Text)
	}
	text := block.Text
	if _, whole := fields["kind"]; !whole {
		spec, ok := fields["spec"].(map[string]any)
		if !ok {
			return errors.New("neither a whole object nor the spec of a Processor")
		}
		if _, has := spec["image"]; !has {
			spec["image"] = "dory-counter:dev"
		}
		part := map[string]any{
			"apiVersion": "dory.io/v1alpha1", "kind": "Processor", "spec": spec,
			"metadata": map[string]any{"name": "part", "namespace": "default"},
		}
		encoded, err := yaml.Marshal(part)
		if err != nil {
			return err
		}
		text = string(encoded)
	}
	_, err := kubectl(text, "create", "--dry-run=server", "--validate=strict", "-f", "-")
	return err
}

// addedTo builds the kustomization at that path with more text in it.
func addedTo(path, text string) error {
	copied, err := os.MkdirTemp("", "dory-docs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(copied)
	if out, err := exec.CommandContext(context.Background(), "cp", "-r", filepath.Join(root, "config"), copied).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	path = filepath.Join(copied, path)
	present, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(present, "\n"+text...), 0o600); err != nil {
		return err
	}
	_, err = kubectl("", "kustomize", filepath.Dir(path))
	return err
}

// compile builds a program as if it stood in this module, which has all that it may import.
func compile(tb testing.TB, block markdown.Block) error {
	tb.Helper()
	if !strings.HasPrefix(block.Text, "package ") {
		return errors.New("a part of a program cannot be compiled: show a whole one")
	}
	top, err := filepath.Abs(root)
	must(tb, err)
	directory := tb.TempDir()
	source := filepath.Join(directory, "main.go")
	must(tb, os.WriteFile(source, []byte(block.Text), 0o600))
	if out, err := exec.CommandContext(tb.Context(), "gofmt", "-l", source).CombinedOutput(); err != nil || len(out) > 0 {
		return fmt.Errorf("not formatted: %s (%w)", out, cmp.Or(err, errors.New("gofmt lists it")))
	}
	program := filepath.Join(top, "test", "docs", "program", "main.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{program: source}})
	must(tb, err)
	must(tb, os.WriteFile(filepath.Join(directory, "overlay.json"), overlay, 0o600))
	command := exec.CommandContext(tb.Context(), "go", "build", "-o", os.DevNull, "-overlay", filepath.Join(directory, "overlay.json"), "./test/docs/program")
	command.Dir = top
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func indent(text string) string {
	return "    | " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    | ")
}
