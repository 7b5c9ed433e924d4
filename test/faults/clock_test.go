package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// jumpingClock sets the clock of a brittle operator, as NTP or a person does to a machine's: what time it is changes, and
// how long something takes does not.
const jumpingClock = `package main

import (
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"k8s.io/utils/clock"
)

type jumpingClock struct{ clock.RealClock }

// Now changes the seconds of a time that has a monotonic reading, and leaves the reading as it is.
func (jumpingClock) Now() time.Time {
	now := time.Now()
	text, _ := os.ReadFile(os.Getenv("` + clockVariable + `"))
	seconds, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	*(*uint64)(unsafe.Pointer(&now)) += uint64(seconds) << 30
	return now
}

func (c jumpingClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
`

// clockFile is the test's, so that a restarted operator has the same clock.
func (w *world) clockFile() string {
	if w.clock == "" {
		w.clock = filepath.Join(w.TempDir(), "clock")
	}
	return w.clock
}

// jump sets the operators' clocks to the real time plus this.
func (w *world) jump(to time.Duration) {
	w.Helper()
	file := w.clockFile()
	w.must(os.WriteFile(file+".new", fmt.Appendf(nil, "%d", int64(to.Seconds())), 0o600))
	w.must(os.Rename(file+".new", file))
}

// evict ends a pod as a kubelet does that needs the room.
func (w *world) evict(pod *corev1.Pod) {
	w.Helper()
	w.must(shared.k8s.Get(w.Context(), client.ObjectKeyFromObject(pod), pod))
	pod.Status.Phase, pod.Status.Reason = corev1.PodFailed, "Evicted"
	pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 137, Reason: "Error", StartedAt: *pod.Status.StartTime, FinishedAt: metav1.Now(),
	}}
	w.must(shared.k8s.Status().Update(w.Context(), pod))
}

const day = 24 * time.Hour

// The operator's clock is set a day ahead, back, and a day behind: nothing that runs is touched by that, what is to be started
// is started, and a wait that was begun does not last until the clock has caught up.
func TestClockJumps(t *testing.T) {
	w := newWorld(t)
	witness := w.watch()
	w.start(shared.brittle, alone, "--resync-interval=1s")
	stays := w.runsRow("stays")
	w.apply("moves")
	moving := w.runs("moves")
	ids := []string{"stays", "moves"}
	for i, to := range []time.Duration{day, 0, -day} {
		w.jump(to)
		moving = w.moved("moves", moving)
		ids = append(ids, fmt.Sprint("row-", i))
		w.runsRow(ids[len(ids)-1])
		w.stays("what runs is not touched", time.Second, func() error {
			now, err := w.running("stays")
			if err == nil && now.UID != stays.UID {
				err = errors.New("it was replaced")
			}
			return err
		})
	}

	w.jump(day)
	w.apply("fails")
	for range 2 {
		w.evict(w.runs("fails"))
	}
	w.backsOff("fails", 2)
	w.jump(-day)
	w.modify("fails", func(p *doryv1alpha1.Processor) { p.Spec.Env = []corev1.EnvVar{{Name: "A", Value: "b"}} })
	w.runs("fails")
	witness.agrees(append(ids, "fails"))
}

func (w *world) moved(name string, pod *corev1.Pod) *corev1.Pod {
	w.Helper()
	w.deletePod(pod)
	return w.replaced(name, pod)
}

func (w *world) backsOff(name string, failures int32) {
	w.Helper()
	w.until(fmt.Sprintf("%d failures are counted", failures), func() error {
		p, err := w.get(name)
		if err == nil && (p.Status.Backoff == nil || p.Status.Backoff.Failures != failures) {
			err = fmt.Errorf("backoff %+v", p.Status.Backoff)
		}
		return err
	})
}
