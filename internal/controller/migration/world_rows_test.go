package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

// Several things that go wrong in a row, each at a step: what random worlds seldom come to.
func TestMishapsInARow(t *testing.T) {
	type happening = func(w *world, m *doryv1alpha1.ProcessorMigration)
	for _, test := range []struct {
		name string
		at   map[string]happening
		ends []string
		mute bool
	}{
		{name: "a source is started anew as PRIMARY because its kubelet has not heard that it stands aside", at: map[string]happening{
			"after verify": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.crashes(m.Status.SourcePod)
				aside := w.pods[m.Status.SourcePod].Annotations[doryv1alpha1.AnnotationRole]
				w.pods[m.Status.SourcePod].Annotations[doryv1alpha1.AnnotationRole] = doryv1alpha1.RolePrimary
				w.run(w.pods[m.Status.SourcePod])
				w.pods[m.Status.SourcePod].Annotations[doryv1alpha1.AnnotationRole] = aside
				w.processes[m.Status.SourcePod].readyAt, w.processes[m.Status.SourcePod].pondering = w.now, true
			},
		}, ends: []string{moved}},
		{name: "the target is all that knows the final state, and does not answer at once", at: map[string]happening{
			"after verify": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.crashes(m.Status.SourcePod)
				panic(died{})
			},
			"before gather": func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.failures = 4 },
		}, ends: []string{moved, "RolledBack NotQuiesced"}},
		{name: "the same, and the move is called off", at: map[string]happening{
			"after verify": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.crashes(m.Status.SourcePod)
				w.removeMigration(m.Name)
				panic(died{})
			},
			"before gather": func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.failures = 4 },
		}, ends: []string{vanished}},
		{name: "the source's node dies, the target is all that knows the final state, and the move is called off", at: map[string]happening{
			"after verify": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.dies(m.Status.SourcePod)
				w.removeMigration(m.Name)
				panic(died{})
			},
		}, ends: []string{vanished}},
		{name: "somebody issues another epoch to the target that works, and the operator looks anew", at: map[string]happening{
			"after adopt": func(w *world, _ *doryv1alpha1.ProcessorMigration) {
				w.reissues()
				w.failures = 1
			},
		}, ends: []string{moved}},
		{name: "the target is started anew right after it was promoted", at: map[string]happening{
			"after promote": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.crashes(m.Status.TargetPod)
				w.run(w.pods[m.Status.TargetPod])
			},
		}, ends: []string{moved}},
		{name: "the target is started anew after the commit, and does not tell that it knows nothing", mute: true, at: map[string]happening{
			"after commit": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.crashes(m.Status.TargetPod)
				w.run(w.pods[m.Status.TargetPod])
				w.processes[m.Status.TargetPod].readyAt = w.now
				panic(died{})
			},
		}, ends: []string{moved}},
		{name: "the same, and the source is gone", mute: true, at: map[string]happening{
			"after commit": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.checkpointed(m.Status.SourcePod)
				w.dies(m.Status.SourcePod)
				w.crashes(m.Status.TargetPod)
				w.run(w.pods[m.Status.TargetPod])
				w.processes[m.Status.TargetPod].readyAt = w.now
				panic(died{})
			},
		}, ends: []string{moved}},
		{name: "the target dies after the commit, and the source is all that knows the state", at: map[string]happening{
			"after commit": func(w *world, m *doryv1alpha1.ProcessorMigration) { w.dies(m.Status.TargetPod) },
		}, ends: []string{targetLost}},
		{name: "the target dies after the commit, and the source does not answer at once", at: map[string]happening{
			"after commit":  func(w *world, m *doryv1alpha1.ProcessorMigration) { w.dies(m.Status.TargetPod) },
			"before gather": func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.failures = 2 },
		}, ends: []string{targetLost}},
		{name: "a move is rolled back, and the source is started anew before its pod says that it acts", at: map[string]happening{
			"before restore": func(w *world, m *doryv1alpha1.ProcessorMigration) { w.processes[m.Status.TargetPod].forgetful = true },
			"before step-back": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.crashes(m.Status.SourcePod)
				w.run(w.pods[m.Status.SourcePod])
			},
		}, ends: []string{"RolledBack StateMismatch"}},
		{name: "the source quiesces, the target gets stuck, and then the source dies", at: map[string]happening{
			"before restore": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.unreachable[w.pods[m.Status.TargetPod].Spec.NodeName] = w.now.Add(2 * minute)
			},
			"after save": func(w *world, m *doryv1alpha1.ProcessorMigration) { w.dies(m.Status.SourcePod) },
		}, ends: []string{moved, sourceLost}},
		{name: "the operator is overtaken right before the commit by one that rolls back, and wakes when the source acts", at: map[string]happening{
			"before commit": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.freeze(m.Status.TargetPod)
				w.removeMigration(m.Name)
				panic(died{})
			},
			"after resume": func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.wakeUp() },
		}, ends: []string{vanished}},
		{name: "the same, and somebody has taken the finalizer off", at: map[string]happening{
			"before commit": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.freeze(m.Status.TargetPod)
				delete(w.migrations, m.Name)
				panic(died{})
			},
			"after resume": func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.wakeUp() },
		}, ends: []string{vanished}},
		{name: "the same, and it wakes right before the bar", at: map[string]happening{
			"before commit": func(w *world, m *doryv1alpha1.ProcessorMigration) {
				w.freeze(m.Status.TargetPod)
				w.cancel(m)
				panic(died{})
			},
			"before bar": func(w *world, _ *doryv1alpha1.ProcessorMigration) { w.wakeUp() },
		}, ends: []string{moved}},
		{name: "the epoch was issued although the API server said that it failed", at: map[string]happening{
			"after commit": func(*world, *doryv1alpha1.ProcessorMigration) { panic(died{}) },
			"after look":   func(*world, *doryv1alpha1.ProcessorMigration) {},
		}, ends: []string{moved}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(7, false, doryv1alpha1.MigrationAuto, 0)
			w.mute = test.mute
			for range 30 {
				w.tick()
			}
			w.migrates()
			name := w.migrationNames()[0]
			w.planned = map[string]func(){}
			for moment, happens := range test.at {
				w.planned[moment] = func() {
					w.note("INCIDENT: %s", moment)
					happens(w, w.migrationOr(name))
				}
			}
			w.settle()
			end := w.ending(name)
			if w.wrong == "" && !slices.Contains(test.ends, end) {
				w.wrong = "it ends as " + end
			}
			if w.wrong == "" && w.frozen != nil {
				w.wrong = "nobody woke the operator that was overtaken"
			}
			if w.wrong != "" {
				t.Errorf("%s\n%s", w.wrong, strings.Join(w.story, "\n"))
			}
		})
	}
}

// A source that is to save its state by itself is not ended while there is no durable copy of it.
func TestStopAndCopyNeedsACopy(t *testing.T) {
	for name, test := range map[string]struct {
		full      error
		onMissing doryv1alpha1.OnMissing
		end       string
	}{
		"there is room for it":       {nil, doryv1alpha1.OnMissingPreferLatest, moved},
		"it is too large":            {fmt.Errorf("%w: 3 MiB", statexfer.ErrTooLarge), doryv1alpha1.OnMissingPreferLatest, "RolledBack StateNotKept"},
		"the quota is full":          {errors.New("exceeded quota"), doryv1alpha1.OnMissingPreferLatest, "RolledBack StateNotKept"},
		"nobody minds if it is lost": {statexfer.ErrTooLarge, doryv1alpha1.OnMissingDiscard, moved},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(7, false, doryv1alpha1.MigrationStopAndCopy, 0)
			w.full, w.processor.Spec.State = test.full, &doryv1alpha1.ProcessorState{OnMissing: test.onMissing}
			for range 30 {
				w.tick()
			}
			w.migrates()
			name, source := w.migrationNames()[0], w.epoch.Spec.Holder
			w.settle()
			if end := w.ending(name); end != test.end || (end != moved && w.epoch.Spec.Holder != source) || w.wrong != "" {
				t.Errorf("it ends as %q, want %q; %s acts, and %s did; %s\n%s", end, test.end, w.epoch.Spec.Holder, source, w.wrong, strings.Join(w.story, "\n"))
			}
		})
	}
}

// A version on trial, with one that worked kept beside it and a spec after it that waits, is restarted elsewhere as what it is.
func TestAVersionOnTrialMovesAsItIs(t *testing.T) {
	for name, test := range map[string]struct {
		after func(w *world)
		end   string
	}{
		"its pod is gone":                         {func(*world) {}, moved},
		"its pod is gone, and what was kept, too": {func(w *world) { w.moving = nil }, "Failed TargetInvalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(7, false, doryv1alpha1.MigrationStopAndCopy, 0)
			for range 30 {
				w.tick()
			}
			worked := w.processor.DeepCopy()
			worked.Spec.Image = "counter:worked"
			w.kept = pod.NewOrigin(worked, "", worldKey)
			w.changesSpec()
			w.migrates()
			m := w.migrations[w.migrationNames()[0]]
			w.planned = map[string]func(){"after commit": func() {
				delete(w.pods, w.migrations[m.Name].Status.SourcePod)
				test.after(w)
				panic(died{})
			}}
			w.settle()
			if end := w.ending(m.Name); end != test.end || w.wrong != "" {
				t.Errorf("it ends as %q, want %q; %s\n%s", end, test.end, w.wrong, strings.Join(w.story, "\n"))
			}
		})
	}
}

// foresight is a store of states that says this of a successor.
type foresight struct {
	result statestore.Result
	err    error
}

func (f foresight) Foresee(context.Context, *doryv1alpha1.Processor) (statestore.Result, error) {
	return f.result, f.err
}

func (f foresight) Prepare(context.Context, *doryv1alpha1.Processor) (statestore.Result, error) {
	return statestore.Result{}, nil
}

// A source is not ended for a target that would not be started.
func TestStopAndCopyNeedsASuccessorThatMayStart(t *testing.T) {
	for name, test := range map[string]struct {
		foresight
		end string
	}{
		"it may start":       {foresight{}, moved},
		"its state is lost":  {foresight{result: statestore.Result{Reason: doryv1alpha1.ReasonStateMissing, Message: "gone"}}, "RolledBack StateMissing"},
		"it is waited for":   {foresight{err: errors.New("waited for")}, "RolledBack StateMissing"},
		"an epoch is absurd": {foresight{result: statestore.Result{Reason: doryv1alpha1.ReasonEpochBehindState, Message: "absurd"}}, "RolledBack StateMissing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(7, false, doryv1alpha1.MigrationStopAndCopy, 0)
			w.reconciler.states = test.foresight
			for range 30 {
				w.tick()
			}
			w.migrates()
			name, source := w.migrationNames()[0], w.epoch.Spec.Holder
			w.settle()
			if end := w.ending(name); end != test.end || (end != moved && w.epoch.Spec.Holder != source) || w.wrong != "" {
				t.Errorf("it ends as %q, want %q; %s acts, and %s did; %s\n%s", end, test.end, w.epoch.Spec.Holder, source, w.wrong, strings.Join(w.story, "\n"))
			}
		})
	}
}

// Nothing is worth as much as an empty state under a new epoch, if one goes by its position.
func TestGatherLeavesOutWhatIsEmpty(t *testing.T) {
	at := func(epoch, sequence int64) *statexfer.State {
		return &statexfer.State{HasPosition: true, Position: statexfer.Position{Epoch: epoch, Sequence: sequence}}
	}
	var k knowledge
	old, fresh := at(6, 900), at(7, 0)
	k.consider(old, "")
	k.consider(fresh, "pod")
	k.consider(nil, "pod")
	if k.newest != old {
		t.Errorf("newest is %v, want the one of epoch 6", k.newest)
	}
	newer := at(7, 3)
	k.consider(newer, "pod")
	k.consider(at(7, 3), "")
	if k.newest != newer || k.newestIn != "pod" {
		t.Errorf("newest is %v in %q, want the one that a pod has", k.newest, k.newestIn)
	}
}
