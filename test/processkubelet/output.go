package processkubelet

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Line is one that a process has written to its standard output.
type Line struct {
	// At is when it was read here.
	At time.Time
	// Pod that wrote it, and Container, which counts the starts in this pod from 0.
	Pod       string
	Container int32
	Text      string
}

// output is what the processes of a pod have written.
type output struct {
	namespace, pod string
	labels         labels.Set

	mu        sync.Mutex
	container int32
	lines     []Line
	log       bytes.Buffer
}

func newOutput(pod *corev1.Pod) *output {
	return &output{namespace: pod.Namespace, pod: pod.Name, labels: pod.Labels}
}

// maxLog is how much of a pod's standard error is kept, in bytes.
const maxLog = 64 << 10

func (o *output) stdout() io.Writer { return &lineWriter{to: o, container: o.starts()} }
func (o *output) stderr() io.Writer { return logWriter{o} }

// note adds to what the pod has written.
func (o *output) note(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintf(&o.log, "processkubelet: "+format+"\n", args...)
}

func (o *output) starts() int32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.container
}

func (o *output) restarted() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.container++
}

// lineWriter cuts one process's output into lines; a last one without an end is none.
type lineWriter struct {
	to        *output
	container int32
	rest      []byte
}

// Write implements io.Writer.
func (w *lineWriter) Write(p []byte) (int, error) {
	now := time.Now()
	w.rest = append(w.rest, p...)
	w.to.mu.Lock()
	defer w.to.mu.Unlock()
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		w.to.lines = append(w.to.lines, Line{At: now, Pod: w.to.pod, Container: w.container, Text: string(line)})
		w.rest = rest
	}
}

type logWriter struct{ to *output }

// Write implements io.Writer.
func (w logWriter) Write(p []byte) (int, error) {
	w.to.mu.Lock()
	defer w.to.mu.Unlock()
	if w.to.log.Len() > maxLog {
		w.to.log.Next(w.to.log.Len() - maxLog/2)
	}
	return w.to.log.Write(p)
}

// Lines answers what all pods of a namespace with these labels have written to their standard output, in its order, also
// those that are gone.
func (k *Kubelet) Lines(namespace string, with map[string]string) []Line {
	k.mu.Lock()
	outputs := slices.Clone(k.outputs)
	k.mu.Unlock()
	var lines []Line
	for _, o := range outputs {
		if o.namespace == namespace && labels.SelectorFromSet(with).Matches(o.labels) {
			o.mu.Lock()
			lines = append(lines, o.lines...)
			o.mu.Unlock()
		}
	}
	slices.SortStableFunc(lines, func(a, b Line) int { return a.At.Compare(b.At) })
	return lines
}

// Logs are the ends of what the pods have written to their standard error, for a person.
func (k *Kubelet) Logs() string {
	k.mu.Lock()
	outputs := slices.Clone(k.outputs)
	k.mu.Unlock()
	slices.SortStableFunc(outputs, func(a, b *output) int { return cmp.Compare(a.namespace, b.namespace) })
	var all strings.Builder
	for _, o := range outputs {
		o.mu.Lock()
		fmt.Fprintf(&all, "--- %s/%s, %d lines, last log:\n%s", o.namespace, o.pod, len(o.lines), o.log.String())
		o.mu.Unlock()
	}
	return all.String()
}
