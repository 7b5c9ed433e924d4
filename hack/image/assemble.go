package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const caBundle = "etc/ssl/certs/ca-certificates.crt"

type options struct {
	binary         string
	user           int
	caCertificates bool
}

// assemble makes the image: one layer, which holds the binary and the little that programs expect around them.
func assemble(o options) (v1.Image, error) {
	architecture, err := checkStatic(o.binary)
	if err != nil {
		return nil, err
	}
	content, err := layerContent(o)
	if err != nil {
		return nil, err
	}
	// Not compressed: the archive is read on the machine that writes it, and gzip would take longer than all the rest.
	image, err := mutate.AppendLayers(empty.Image, static.NewLayer(content, types.DockerUncompressedLayer))
	if err != nil {
		return nil, fmt.Errorf("add the layer: %w", err)
	}
	return withConfig(image, o, architecture)
}

func withConfig(image v1.Image, o options, architecture string) (v1.Image, error) {
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the image's configuration: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", architecture
	file.Config.Entrypoint = []string{"/" + filepath.Base(o.binary)}
	file.Config.User = fmt.Sprintf("%d:%d", o.user, o.user)
	file.Config.WorkingDir = "/"
	file.Config.Env = []string{"PATH=/", "HOME=/tmp"}
	return mutate.ConfigFile(image, file)
}

// checkStatic refuses what would not start in an image without a C library, and tells the architecture.
func checkStatic(path string) (string, error) {
	file, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("-binary %s is not a Linux program: %w", path, err)
	}
	defer func() { _ = file.Close() }()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return "", fmt.Errorf("-binary %s needs a dynamic linker, which the image has not: build it with CGO_ENABLED=0", path)
		}
	}
	switch file.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	default:
		return "", fmt.Errorf("-binary %s is for %s: only amd64 and arm64 are known", path, file.Machine)
	}
}

// layerContent is the layer's tar.
func layerContent(o options) ([]byte, error) {
	binary, err := os.ReadFile(o.binary)
	if err != nil {
		return nil, fmt.Errorf("read -binary: %w", err)
	}
	var b layer
	b.dir("etc", 0o755)
	b.file("etc/passwd", 0o644, fmt.Appendf(nil, "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:%[1]d:%[1]d:nonroot:/tmp:/sbin/nologin\n", o.user))
	b.file("etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\nnonroot:x:%d:\n", o.user))
	if o.caCertificates {
		if err := b.certificates(); err != nil {
			return nil, err
		}
	}
	b.dir("tmp", 0o1777)
	b.file(filepath.Base(o.binary), 0o755, binary)
	return b.close()
}

// layer writes entries that are alike whoever makes them, and when. Its first failure is told by close.
type layer struct {
	buffer bytes.Buffer
	writer *tar.Writer
	err    error
}

func (l *layer) dir(name string, mode int64) {
	l.entry(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, nil)
}

func (l *layer) file(name string, mode int64, data []byte) {
	l.entry(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, data)
}

func (l *layer) entry(header *tar.Header, data []byte) {
	if l.err != nil {
		return
	}
	if l.writer == nil {
		l.writer = tar.NewWriter(&l.buffer)
	}
	header.ModTime, header.Format = time.Unix(0, 0), tar.FormatUSTAR
	if l.err = l.writer.WriteHeader(header); l.err == nil {
		_, l.err = l.writer.Write(data)
	}
}

func (l *layer) certificates() error {
	bundle, err := os.ReadFile("/" + caBundle)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the certificate authorities: %w", err)
	}
	l.dir("etc/ssl", 0o755)
	l.dir("etc/ssl/certs", 0o755)
	l.file(caBundle, 0o644, bundle)
	return nil
}

func (l *layer) close() ([]byte, error) {
	if l.err == nil {
		l.err = l.writer.Close()
	}
	if l.err != nil {
		return nil, fmt.Errorf("write the layer: %w", l.err)
	}
	return l.buffer.Bytes(), nil
}
