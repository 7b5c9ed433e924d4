//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// logbook reads what the containers of a namespace print, where their kubelets write it. It opens every file as soon as it
// appears and keeps it open, so that the last words of a pod can be read when the pod is gone, and those of a node's pods
// while the node is cut off.
type logbook struct {
	pattern string

	mu    sync.Mutex
	files map[string]containerLog // by path
}

// containerLog is what one start of a container printed.
type containerLog struct {
	pod  string
	file *os.File
}

// keepLogs follows all containers of a namespace, those that come as well, until the test ends.
func keepLogs(namespace string) *logbook {
	GinkgoHelper()
	b := &logbook{
		pattern: filepath.Join(clusterState(), "nodes", "*", "pod-logs", namespace+"_*", "*", "*.log"),
		files:   map[string]containerLog{},
	}
	b.open()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.follow(ctx) })
	DeferCleanup(func() {
		cancel()
		running.Wait()
		for _, log := range b.files {
			_ = log.file.Close() // it was read
		}
	})
	return b
}

func (b *logbook) follow(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			b.open()
		}
	}
}

// open opens the files that are new. Paths have the pod's UID in them, and the number of the container's start.
func (b *logbook) open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	paths, _ := filepath.Glob(b.pattern)
	for _, path := range paths {
		if _, known := b.files[path]; known {
			continue
		}
		file, err := os.Open(path)
		if err != nil {
			continue // gone again
		}
		identity := strings.Split(filepath.Base(filepath.Dir(filepath.Dir(path))), "_")
		b.files[path] = containerLog{pod: identity[1], file: file}
	}
}

// of are the logs of the pods whose names begin like that, in no order that means anything.
func (b *logbook) of(prefix string) []containerLog {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []containerLog
	for _, path := range slices.Sorted(maps.Keys(b.files)) {
		if log := b.files[path]; strings.HasPrefix(log.pod, prefix) {
			found = append(found, log)
		}
	}
	return found
}

// lines are what was printed so far, on both streams.
func (l containerLog) lines() []string {
	GinkgoHelper()
	text, err := io.ReadAll(io.NewSectionReader(l.file, 0, 1<<30))
	Expect(err).NotTo(HaveOccurred())
	var lines []string
	var begun strings.Builder
	for entry := range bytes.SplitSeq(text, []byte("\n")) {
		// Time, stream, whether the line is whole (F) or goes on in the next entry (P), text.
		fields := bytes.SplitN(entry, []byte(" "), 4)
		if len(fields) < 4 {
			continue
		}
		begun.Write(fields[3])
		if string(fields[2]) == "F" {
			lines = append(lines, begun.String())
			begun.Reset()
		}
	}
	return lines
}
