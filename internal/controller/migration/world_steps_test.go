package migration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// incident is something that happens at one step of a move.
type incident struct {
	name string
	do   func(w *world, m *doryv1alpha1.ProcessorMigration)
	// ends are the endings that are right, whichever step it happens at.
	ends []string
}

const (
	moved      = "Succeeded Moved"
	cancelled  = "RolledBack Cancelled"
	sourceLost = "Failed SourceLost"
	targetLost = "Failed TargetLost"
	backLost   = "RolledBack TargetLost"
	// vanished migrations end without a word.
	vanished = ""
)

var incidents = []incident{
	{"nothing", func(*world, *doryv1alpha1.ProcessorMigration) {}, []string{moved}},
	{"the operator dies", func(*world, *doryv1alpha1.ProcessorMigration) { panic(died{}) }, []string{moved}},
	{"the source's container crashes", func(w *world, m *doryv1alpha1.ProcessorMigration) { w.crashes(m.Status.SourcePod) }, []string{moved, "RolledBack SourceRestarted"}},
	{"the target's container crashes", func(w *world, m *doryv1alpha1.ProcessorMigration) { w.crashes(m.Status.TargetPod) }, []string{moved}},
	{"both containers crash", func(w *world, m *doryv1alpha1.ProcessorMigration) {
		w.crashes(m.Status.SourcePod)
		w.crashes(m.Status.TargetPod)
	}, []string{moved, sourceLost, backLost, "RolledBack SourceRestarted"}},
	{"the source's node dies", func(w *world, m *doryv1alpha1.ProcessorMigration) { w.dies(m.Status.SourcePod) }, []string{moved, sourceLost, "Failed NothingToMove"}},
	{"the target's node dies", func(w *world, m *doryv1alpha1.ProcessorMigration) { w.dies(m.Status.TargetPod) }, []string{moved, targetLost, backLost}},
	{"both nodes die", func(w *world, m *doryv1alpha1.ProcessorMigration) {
		w.dies(m.Status.SourcePod)
		w.dies(m.Status.TargetPod)
	}, []string{moved, sourceLost, targetLost, "Failed NothingToMove"}},
	{"the source is deleted", func(w *world, m *doryv1alpha1.ProcessorMigration) { w.markDeleted(m.Status.SourcePod) }, []string{moved, sourceLost, "Failed NothingToMove"}},
	{"the target is deleted", func(w *world, m *doryv1alpha1.ProcessorMigration) { w.markDeleted(m.Status.TargetPod) }, []string{moved, targetLost, backLost}},
	{"the operator dies and then the source", func(w *world, m *doryv1alpha1.ProcessorMigration) {
		w.crashes(m.Status.SourcePod)
		panic(died{})
	}, []string{moved, sourceLost, "RolledBack SourceRestarted"}},
	{"the operator dies and then the target", func(w *world, m *doryv1alpha1.ProcessorMigration) {
		w.crashes(m.Status.TargetPod)
		panic(died{})
	}, []string{moved}},
	{"the migration is deleted", func(w *world, m *doryv1alpha1.ProcessorMigration) { w.removeMigration(m.Name) }, []string{vanished}},
	{"the migration is removed with its finalizer", func(w *world, m *doryv1alpha1.ProcessorMigration) { delete(w.migrations, m.Name) }, []string{vanished}},
	{"the migration is called off", func(w *world, m *doryv1alpha1.ProcessorMigration) { w.cancel(m) }, []string{moved, cancelled}},
	{"its deadline passes", func(w *world, m *doryv1alpha1.ProcessorMigration) {
		m.Spec.ActiveDeadlineSeconds = new(int64(w.now.Sub(m.CreationTimestamp.Time) / time.Second))
	}, []string{moved, "RolledBack DeadlineExceeded"}},
	{"the spec changes", func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.changesSpec() }, []string{moved, "RolledBack Superseded"}},
	{"the processor is suspended", func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.suspend(true) }, []string{
		moved, "RolledBack ProcessorSuspended", "Failed ProcessorSuspended", "Failed NothingToMove",
	}},
	{"the processor is deleted", func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.deleteProcessor() }, []string{vanished}},
	{"somebody issues an epoch to the holder", func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.reissues() }, []string{moved}},
	{"somebody issues an epoch to another pod", func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.issue("dory-cam-intruder", 0) }, []string{
		moved, "Failed HolderChanged", "Failed NothingToMove", sourceLost, targetLost,
	}},
	{"the API server fails once", func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.failures = 1 }, []string{moved}},
	{"the processors fail for a minute", func(w *world, m *doryv1alpha1.ProcessorMigration) {
		for _, name := range []string{m.Status.SourcePod, m.Status.TargetPod} {
			if p := w.pods[name]; p != nil && p.Spec.NodeName != "" {
				w.unreachable[p.Spec.NodeName] = w.now.Add(minute)
			}
		}
	}, []string{
		moved, "RolledBack NotQuiesced", "RolledBack SourceUnavailable", "RolledBack TargetUnavailable", "RolledBack TargetNotReady",
		"Failed TargetNotReady", "Failed NothingToMove",
	}},
	{"the source never comes to the end of an iteration", func(w *world, m *doryv1alpha1.ProcessorMigration) {
		if p := w.processes[m.Status.SourcePod]; p != nil {
			p.stubborn = true
		}
	}, []string{moved, "RolledBack NotQuiesced"}},
	{"the target takes no state", func(w *world, m *doryv1alpha1.ProcessorMigration) {
		if p := w.processes[m.Status.TargetPod]; p != nil {
			p.refuses = true
		}
	}, []string{moved, "RolledBack StateRefused", targetLost}},
	{"the target says that it takes the state, and does not", func(w *world, m *doryv1alpha1.ProcessorMigration) {
		if p := w.processes[m.Status.TargetPod]; p != nil {
			p.forgetful = true
		}
	}, []string{moved, "RolledBack StateMismatch", targetLost}},
	{"the target finds no node", func(w *world, m *doryv1alpha1.ProcessorMigration) { w.unschedulable[m.Status.TargetPod] = true }, []string{
		moved, "RolledBack TargetUnschedulable", "Failed TargetUnschedulable",
	}},
}

const minute = 60e9

func (w *world) crashes(name string) {
	if p := w.processes[name]; p != nil {
		w.note("INCIDENT: the container of %s crashes", name)
		w.lose(p)
	}
}

// checkpointed makes durable what a process has done.
func (w *world) checkpointed(name string) {
	saved := w.processes[name].state
	saved.position.Epoch = w.processes[name].seen
	w.store(saved)
}

// dies is the end of a node, and of nothing else on it.
func (w *world) dies(name string) {
	p := w.pods[name]
	if p == nil || p.Spec.NodeName == "" || over(p) {
		return
	}
	w.note("INCIDENT: the node of %s dies", name)
	if process := w.processes[name]; process != nil {
		w.lose(process)
	}
	w.ended(p, corev1.PodFailed)
}

// Everything that can happen happens before and after every step of every strategy: never two PRIMARYs, no iteration lost
// or repeated but for what dies with its process, and an end that fits.
func TestIncidentAtEveryStep(t *testing.T) {
	for _, f := range fleets {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			taken := f.move(t, "", incidents[0]).seen
			for _, s := range steps {
				if !taken[s] {
					continue
				}
				for _, i := range incidents {
					for _, moment := range []string{"before " + string(s), "after " + string(s)} {
						f.move(t, moment, i)
					}
				}
			}
		})
	}
}

// move makes one move, in which the incident happens at the moment.
func (f fleet) move(t *testing.T, moment string, i incident) *world {
	t.Helper()
	w := newWorld(7, f.legacy, f.strategy, 0)
	for range 30 {
		w.tick()
	}
	w.migrates()
	name := w.migrationNames()[0]
	w.planned = map[string]func(){moment: func() {
		w.note("INCIDENT: %s %s", moment, i.name)
		i.do(w, w.migrationOr(name))
	}}
	for range 60 {
		w.pass()
		w.tick()
	}
	w.planned = nil
	clear(w.unreachable)
	w.suspend(false)
	w.settle()
	end := w.ending(name)
	if w.wrong == "" && !slices.Contains(i.ends, end) && end != moved {
		w.wrong = fmt.Sprintf("it ends as %q, want one of %q", end, i.ends)
	}
	if w.wrong != "" {
		t.Errorf("%s, %s %s: %s\n%s", f.name, i.name, moment, w.wrong, strings.Join(w.story[max(0, len(w.story)-90):], "\n"))
	}
	return w
}

// ending is how a migration ended; empty once it is gone.
func (w *world) ending(name string) string {
	if m := w.migrations[name]; m != nil {
		return fmt.Sprintf("%s %s", m.Status.Phase, m.Status.Reason)
	}
	return vanished
}

// migrationOr is the migration as it is, or an empty one where it is gone.
func (w *world) migrationOr(name string) *doryv1alpha1.ProcessorMigration {
	if m := w.migrations[name]; m != nil {
		return m
	}
	return &doryv1alpha1.ProcessorMigration{}
}
