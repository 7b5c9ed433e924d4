package faults

import (
	"errors"
	"testing"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/migration"
	"github.com/dory-io/dory/test/processkubelet"
)

const impostorPackage = "github.com/dory-io/dory/test/faults/impostor"

// vices are in what a processor does not keep to the contract (see the impostor), and what comes of its move.
var vices = []struct {
	name, reason string
	// ofTarget says that it is the new version that has the vice, and not the one that works.
	ofTarget bool
}{
	{"captures-rubbish", migration.ReasonStateInvalid, false},
	{"captures-an-error", migration.ReasonStateInvalid, false},
	{"captures-unauthorised", migration.ReasonStateUnauthorized, false},
	{"captures-11-mb", migration.ReasonStateTooLarge, false},
	{"captures-cut-short", migration.ReasonSourceUnavailable, false},
	{"captures-nothing", migration.ReasonSourceUnavailable, false},
	{"captures-slowly", migration.ReasonMoved, false},
	{"captures-reluctantly", migration.ReasonMoved, false},
	{"never-quiesces", migration.ReasonNotQuiesced, false},
	{"refuses-to-quiesce", migration.ReasonQuiesceRefused, false},
	{"restores-rubbish", migration.ReasonStateRefused, true},
	{"restores-unauthorised", migration.ReasonStateUnauthorized, true},
	{"restores-too-large", migration.ReasonStateTooLarge, true},
	{"restores-nothing", migration.ReasonTargetUnavailable, true},
	{"restores-a-lie", migration.ReasonTargetUnavailable, true},
}

func viceImage(vice string) string { return vice + ":1" }

// impostors are the programs with vices, all of them one binary.
func (s *servers) impostors(programs map[string]processkubelet.Program) error {
	path, err := processkubelet.Build(impostorPackage)
	if err != nil {
		return err
	}
	for _, vice := range vices {
		programs[viceImage(vice.name)] = processkubelet.Program{Path: path, Env: []string{"IMPOSTOR_VICE=" + vice.name, "IMPOSTOR_COUNTER=" + s.counter}}
	}
	return nil
}

// Whatever a processor answers or does not answer, its move is rolled back for a reason that names it, and the source works
// on as if nothing had been. One that is only slow, or answers every third request alone, is moved.
func TestProcessorsThatDoNotKeepToTheContract(t *testing.T) {
	w := newWorld(t)
	w.watchEpochs()
	w.start(shared.shipped, alone)
	for _, vice := range vices {
		w.apply(vice.name, w.counter, func(p *doryv1alpha1.Processor) {
			p.Spec.Migration.HandoffTimeoutSeconds, p.Spec.Migration.HistoryLimit = 8, new(int32(10))
			if !vice.ofTarget {
				p.Spec.Image = viceImage(vice.name)
			}
		})
	}
	sources := map[string]string{}
	for _, vice := range vices {
		sources[vice.name] = w.worksOn(vice.name).Name
	}
	for _, vice := range vices {
		if vice.ofTarget {
			w.modify(vice.name, func(p *doryv1alpha1.Processor) { p.Spec.Image = viceImage(vice.name) })
		} else {
			w.move(vice.name, vice.name)
		}
	}
	for _, vice := range vices {
		s := w.firstEnd(vice.name)
		phase, pod, pods := doryv1alpha1.MigrationRolledBack, sources[vice.name], 1
		if vice.reason == migration.ReasonMoved {
			phase, pod, pods = doryv1alpha1.MigrationSucceeded, s.TargetPod, 2
		}
		if s.Phase != phase || s.Reason != vice.reason {
			t.Errorf("%s: %s: %s: %s; it should be %s for %s", vice.name, s.Phase, s.Reason, s.Message, phase, vice.reason)
		}
		w.actsOn(vice.name, pod)
		if said := w.prove(vice.name); said.Pods != pods || said.whole() != nil {
			t.Errorf("%s: %+v", vice.name, said)
		}
	}
}

// firstEnd waits for the end of the first move of a processor. An update that was rolled back may be tried again.
func (w *world) firstEnd(processor string) doryv1alpha1.ProcessorMigrationStatus {
	w.Helper()
	var first doryv1alpha1.ProcessorMigration
	w.until("the end of a move of "+processor, func() error {
		all, err := w.migrations(processor)
		if err != nil || len(all) == 0 {
			return errors.Join(err, errors.New("there is none"))
		}
		first = all[0]
		for _, m := range all[1:] {
			if m.CreationTimestamp.Before(&first.CreationTimestamp) {
				first = m
			}
		}
		return unended(&first)
	})
	return first.Status
}
