package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The API server is killed at random while pods are made, three times, and comes back with its data: whatever a write was
// that nobody got an answer to, it makes no second pod and lets no epoch fall.
func TestAPIServerKilledAndBack(t *testing.T) {
	const outages, each = 3, 20
	w := newWorld(t)
	random, witness := w.random(), w.watch()
	o := w.start(shared.shipped)
	kept := w.runsRow("kept")
	var ids []string
	for range outages {
		pods := witness.births() + 1 + random.IntN(each-1)
		ids = append(ids, w.rows(len(ids), each)...)
		w.until("pods are made", func() error {
			if witness.births() < pods {
				return errors.New("not yet")
			}
			return nil
		})
		killAPIServer(t)
		late := fmt.Sprint("late-", len(ids))
		w.row(late)
		ids = append(ids, late)
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
		w.must(shared.environment.ControlPlane.GetAPIServer().Start())
		if o.hasEnded() { // As a kubelet would.
			o = w.start(shared.shipped)
		}
	}
	w.until("the operator works", func() error {
		if o.hasEnded() {
			o = w.start(shared.shipped)
		}
		_, err := w.running(ids[len(ids)-1])
		return err
	})
	w.allRun(len(ids) + 1)
	if now := w.runs("kept"); now.UID != kept.UID {
		t.Errorf("pod %s was replaced by %s", kept.Name, now.Name)
	}
	witness.agrees(append(ids, "kept"))
}

func (w *world) runsRow(id string) *corev1.Pod {
	w.Helper()
	w.row(id)
	return w.runs(id)
}

// killAPIServer finds the process among our own children, because envtest only knows how to stop it in good order.
func killAPIServer(t *testing.T) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		command, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(command), shared.bin("kube-apiserver")+"\x00") || !strings.Contains(string(command), shared.dir) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for syscall.Kill(pid, 0) == nil {
			time.Sleep(time.Millisecond)
		}
		return
	}
	t.Fatal("no process of the API server is found")
}
