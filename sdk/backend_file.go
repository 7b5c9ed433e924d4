package sdk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/dory-io/dory/internal/statexfer"
)

const (
	stateFileMode = 0o600
	stateDirMode  = 0o750
)

// PVCBackend keeps the state in a file on a mounted volume, up to 10 MiB. The file's directory must exist: a volume that
// is not mounted is an error, and not an empty directory that ends with the container.
func PVCBackend(path string) Backend {
	return &fileBackend{path: path, kind: "volume file"}
}

// LocalBackend keeps the state in a file on this machine, up to 10 MiB, and makes the file's directory if need be.
func LocalBackend(path string) Backend {
	return &fileBackend{path: path, kind: "local file", makeDir: true}
}

// fileBackend writes a new file, flushes it, and renames it into place, so that at any moment, also after a power
// failure, there is either the old document or the new one.
type fileBackend struct {
	path    string
	kind    string
	makeDir bool

	mu sync.Mutex
	// owns is whether this process keeps others from the file.
	owns bool
}

// String names the file.
func (b *fileBackend) String() string { return b.kind + " " + b.path }

// own keeps other processes of this machine from working with the file until this one ends. Nothing else keeps two of them apart
// where no operator hands out epochs.
func (b *fileBackend) own() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owns {
		return nil
	}
	dir := filepath.Dir(b.path)
	if b.makeDir {
		if err := os.MkdirAll(dir, stateDirMode); err != nil {
			return fmt.Errorf("making the directory of the state: %w", err)
		}
	} else if _, err := os.Stat(dir); err != nil {
		return nil
	}
	heldBy, err := tryLockFile(b.path + ".owner")
	switch {
	case err != nil:
		return fmt.Errorf("locking the state for this process: %w", err)
	case heldBy != "":
		return fmt.Errorf("another process (%s) works with %s: end it, or give this one a DORY_STATE_PATH or DORY_PROCESSOR_ID of its own", heldBy, b)
	}
	b.owns = true
	return nil
}

// Load implements Backend.
func (b *fileBackend) Load(context.Context) (Document, error) {
	text, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Document{}, b.absent()
	}
	if err != nil {
		return Document{}, fmt.Errorf("reading the state: %w", err)
	}
	doc, err := statexfer.Decode(text)
	if err != nil {
		return Document{}, fmt.Errorf("%s: %w", b, err)
	}
	return doc, nil
}

// absent tells a volume without state from a volume that is not there.
func (b *fileBackend) absent() error {
	if b.makeDir {
		return ErrNoState
	}
	if _, err := os.Stat(filepath.Dir(b.path)); err != nil {
		return fmt.Errorf("is the volume mounted? %w", err)
	}
	return ErrNoState
}

// Save implements Backend.
func (b *fileBackend) Save(_ context.Context, doc Document) error {
	text, err := doc.Encode()
	if err != nil {
		return err
	}
	dir := filepath.Dir(b.path)
	if b.makeDir {
		if err := os.MkdirAll(dir, stateDirMode); err != nil {
			return fmt.Errorf("making the directory of the state: %w", err)
		}
	}
	// Another process that shares the volume must not replace the file between the look at it and the rename.
	unlock, err := lockFile(b.path + ".lock")
	if err != nil {
		return fmt.Errorf("locking the state: %w", err)
	}
	defer unlock()
	if err := b.refuseToReplace(doc); err != nil {
		return err
	}
	return replaceFile(dir, b.path, text)
}

func (b *fileBackend) refuseToReplace(doc Document) error {
	text, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at the saved state: %w", err)
	}
	saved, err := statexfer.DecodeMetadata(text)
	if err != nil {
		return nil //nolint:nilerr // What cannot be read any more may be replaced: the document in hand is known to be good.
	}
	return refuseToReplace(saved, doc)
}

func replaceFile(dir, path string, text []byte) error {
	fresh := path + ".new"
	if err := writeDurably(fresh, text); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", fresh, err), os.Remove(fresh))
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("putting the new %s in place: %w", path, err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("making the new %s durable: %w", path, err)
	}
	return nil
}

func writeDurably(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, stateFileMode) //nolint:gosec // The processor's author chose the path.
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
