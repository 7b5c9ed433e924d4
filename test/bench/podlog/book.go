// Package podlog reads what counters printed from the files of their kubelets, and says from it how the work went from one
// pod to the next.
package podlog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// lookForLogs is how often new files are looked for. A pod lives for seconds.
const lookForLogs = 100 * time.Millisecond

// Book reads what the containers of a namespace print, where their kubelets write it. It opens every file as soon as
// it appears and keeps it open, so that it can be read when the pod is gone, and after the kubelet has begun another
// file. Nothing is read before the end, so that reading disturbs nothing.
type Book struct {
	pattern string
	stop    func()

	mu    sync.Mutex
	files []File
	err   error
}

// File is what a pod printed, or a part of it.
type File struct {
	// Pod and UID are the pod's.
	Pod, UID string
	path     string
	file     *os.File
	info     os.FileInfo
}

// Keep follows all containers of a namespace, those that come as well, until Close. podLogs is a pattern for where the
// nodes keep the logs of pods.
func Keep(ctx context.Context, podLogs, namespace string, clk clock.WithTicker) (*Book, error) {
	// The directory of a pod is called namespace_name_uid.
	b := &Book{pattern: filepath.Join(podLogs, namespace+"_*", "*", "*.log")}
	if found, err := filepath.Glob(podLogs); err != nil || len(found) == 0 {
		return nil, fmt.Errorf("no logs of pods at %s (-pod-logs): the nodes must be on this machine: %w", podLogs, orNone(err))
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { b.follow(ctx, clk) })
	b.stop = func() {
		cancel()
		running.Wait()
	}
	return b, nil
}

func orNone(err error) error {
	if err == nil {
		return os.ErrNotExist
	}
	return err
}

func (b *Book) follow(ctx context.Context, clk clock.WithTicker) {
	tick := clk.NewTicker(lookForLogs)
	defer tick.Stop()
	for {
		b.look()
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
		}
	}
}

func (b *Book) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	paths, err := filepath.Glob(b.pattern)
	for _, path := range paths {
		err = errors.Join(err, b.open(path))
	}
	b.err = errors.Join(b.err, err)
}

// open keeps a file that is not known yet. A file that the kubelet has put another in the place of is another file.
func (b *Book) open(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return ignoreGone(err)
	}
	for _, known := range b.files {
		if os.SameFile(known.info, info) {
			return nil
		}
	}
	file, err := os.Open(path) //nolint:gosec // the kubelets' own files
	if err != nil {
		return ignoreGone(err)
	}
	identity := strings.Split(filepath.Base(filepath.Dir(filepath.Dir(path))), "_")
	const parts = 3
	if len(identity) != parts {
		return errors.Join(fmt.Errorf("%s is not in a directory namespace_pod_uid", path), file.Close())
	}
	b.files = append(b.files, File{Pod: identity[1], UID: identity[2], path: path, file: file, info: info})
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Close ends it. The files cannot be read any more.
func (b *Book) Close() {
	b.stop()
	for _, f := range b.files {
		_ = f.file.Close() // it was read
	}
}

// Of are the files of the pods whose names begin like that, in the order in which they appeared.
func (b *Book) Of(prefix string) ([]File, error) {
	b.look() // The last ones.
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []File
	for _, f := range b.files {
		if strings.HasPrefix(f.Pod, prefix) {
			found = append(found, f)
		}
	}
	return found, b.err
}

// maxLine of a log. The kubelet's runtime splits lines at 16 KiB.
const maxLine = 64 << 10

// lines hands over what was printed on standard output, line by line.
func (f File) lines(visit func([]byte) error) error {
	entries := bufio.NewScanner(io.NewSectionReader(f.file, 0, 1<<40))
	entries.Buffer(make([]byte, maxLine), maxLine)
	var begun []byte
	for entries.Scan() {
		// Time, stream, whether the line is whole (F) or goes on in the next entry (P), text.
		fields := bytes.SplitN(entries.Bytes(), []byte(" "), 4)
		if len(fields) < 4 || string(fields[1]) != "stdout" {
			continue
		}
		begun = append(begun, fields[3]...)
		if string(fields[2]) != "F" {
			continue
		}
		if err := visit(begun); err != nil {
			return err
		}
		begun = begun[:0]
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("reading %s: %w", f.path, err)
	}
	return nil
}
