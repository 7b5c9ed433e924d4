// Package failpoints builds programs of this module with the failpoints of their sources in them. A failpoint is a comment,
// as go.etcd.io/gofail defines it:
//
//	// gofail: var fenceBeforeRecord struct{}
//
// so that a program that is built as usual has nothing of them. What is built here reads GOFAIL_FAILPOINTS and serves
// GOFAIL_HTTP.
package failpoints

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/gofail/code"
)

// mark is how a failpoint begins.
const mark = "// gofail: var "

// Edit makes another source of one, for this build alone. A file that does not exist is empty, and is added.
type Edit func(source string) (string, error)

// Build builds the package of this module, such as ./cmd/dory-operator of the directory root, into the file output, and
// answers the names of all failpoints in it, in their order. The edits are for what failpoints cannot do, by the files'
// paths below root; such a file can have no failpoints.
func Build(ctx context.Context, root, pkg, output string, edits map[string]Edit) ([]string, error) {
	packages, err := list(ctx, root, pkg)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "dory-failpoints-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // of a temporary directory
	t := translation{dir: dir, replace: map[string]string{}}
	for _, p := range packages {
		if err := t.translate(p); err != nil {
			return nil, fmt.Errorf("failpoints of %s: %w", p.Dir, err)
		}
	}
	for path, edit := range edits {
		if err := t.edit(filepath.Join(root, path), edit); err != nil {
			return nil, fmt.Errorf("another %s: %w", path, err)
		}
	}
	overlay := filepath.Join(dir, "overlay.json")
	text, err := json.Marshal(map[string]any{"Replace": t.replace})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return nil, err
	}
	if _, err := run(ctx, root, "build", "-trimpath", "-overlay", overlay, "-o", output, pkg); err != nil {
		return nil, err
	}
	slices.Sort(t.names)
	return t.names, nil
}

// pack is what there is to know of a package.
type pack struct {
	Dir     string   `json:"Dir"`
	Name    string   `json:"Name"`
	GoFiles []string `json:"GoFiles"`
}

// list answers the packages of this module that pkg is made of.
func list(ctx context.Context, root, pkg string) ([]pack, error) {
	output, err := run(ctx, root, "list", "-deps", "-json=Dir,Name,GoFiles,Module", pkg)
	if err != nil {
		return nil, err
	}
	var packages []pack
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var p struct {
			pack
			Module struct {
				Main bool `json:"Main"`
			} `json:"Module"`
		}
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading what go list says: %w", err)
		}
		if p.Module.Main {
			packages = append(packages, p.pack)
		}
	}
}

// translation gathers files that stand for others.
type translation struct {
	dir     string
	names   []string
	replace map[string]string
}

func (t *translation) translate(p pack) error {
	var found []*code.Failpoint
	for _, file := range p.GoFiles {
		path := filepath.Join(p.Dir, file)
		source, err := os.ReadFile(path) //nolint:gosec // a source of this module
		if err != nil {
			return err
		}
		if !bytes.Contains(source, []byte(mark)) {
			continue
		}
		var translated bytes.Buffer
		inFile, err := code.ToFailpoints(&translated, bytes.NewReader(source))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		found = append(found, inFile...)
		if err := t.add(path, translated.Bytes()); err != nil {
			return err
		}
	}
	if len(found) == 0 {
		return nil
	}
	var binding bytes.Buffer
	if err := code.NewBinding(p.Name, found).Write(&binding); err != nil {
		return err
	}
	for _, failpoint := range found {
		t.names = append(t.names, failpoint.Name())
	}
	return t.add(filepath.Join(p.Dir, "failpoints.fail.go"), binding.Bytes())
}

func (t *translation) edit(path string, edit Edit) error {
	source, err := os.ReadFile(path) //nolint:gosec // a source of this module
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if t.replace[path] != "" {
		return errors.New("it has failpoints")
	}
	edited, err := edit(string(source))
	if err != nil {
		return err
	}
	return t.add(path, []byte(edited))
}

func (t *translation) add(path string, content []byte) error {
	t.replace[path] = filepath.Join(t.dir, fmt.Sprintf("%d.go", len(t.replace)))
	return os.WriteFile(t.replace[path], content, 0o600)
}

func run(ctx context.Context, dir string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the arguments are this package's own
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.Bytes(), nil
}
