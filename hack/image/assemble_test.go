package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// staticBinary builds the pause program, which is small.
func staticBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pause")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../pause")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestArchiveIsReproducibleAndComplete(t *testing.T) {
	binary, dir := staticBinary(t), t.TempDir()
	var archives [2][]byte
	for i := range archives {
		output := filepath.Join(dir, "image.tar")
		if err := run([]string{"-binary", binary, "-name", "dory-test:dev", "-output", output, "-cacerts"}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(output)
		if err != nil {
			t.Fatal(err)
		}
		archives[i] = data
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of the same binary differ")
	}
	checkArchive(t, filepath.Join(dir, "image.tar"))
}

func checkArchive(t *testing.T, path string) {
	t.Helper()
	tag, err := name.NewTag("dory-test:dev")
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(path, &tag)
	if err != nil {
		t.Fatal(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if file.Config.User != "65532:65532" || len(file.Config.Entrypoint) != 1 || file.Config.Entrypoint[0] != "/pause" {
		t.Errorf("user %q, entrypoint %q", file.Config.User, file.Config.Entrypoint)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	entries := readEntries(t, content)
	if entries["tmp/"] != 0o1777 || entries["pause"] != 0o755 || entries["etc/passwd"] != 0o644 {
		t.Errorf("entries %v", entries)
	}
}

func readEntries(t *testing.T, r io.Reader) map[string]int64 {
	t.Helper()
	entries := map[string]int64{}
	for reader := tar.NewReader(r); ; {
		header, err := reader.Next()
		if err == io.EOF {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		entries[header.Name] = header.Mode
		if header.ModTime.Unix() != 0 || header.Uid != 0 {
			t.Errorf("%s: time %s, uid %d depend on who built it", header.Name, header.ModTime, header.Uid)
		}
	}
}

func TestBadInputIsNamed(t *testing.T) {
	output := filepath.Join(t.TempDir(), "x.tar")
	for want, args := range map[string][]string{
		"are all needed":         {"-binary", "x"},
		"must be NAME:TAG":       {"-binary", "x", "-name", "Not Valid", "-output", output},
		"the tag is missing":     {"-binary", "x", "-name", "dory", "-output", output},
		"is not a Linux program": {"-binary", "assemble.go", "-name", "a:b", "-output", output},
		"CGO_ENABLED=0":          {"-binary", "/bin/sh", "-name", "a:b", "-output", output},
	} {
		if err := run(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}
