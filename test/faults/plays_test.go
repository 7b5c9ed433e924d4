package faults

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// play is all that can happen to moves of one strategy, or of one origin.
type play struct {
	name       string
	strategy   doryv1alpha1.MigrationStrategy
	processors []string
	// drains says that nobody asks for the moves: the processor's node is announced to go.
	drains bool
	// scenes by the steps that they come to.
	scenes map[string]scene
	// never are steps that moves of this strategy do not take.
	never []string
	// proves judges what the processor has printed.
	proves func(proof) error
}

// scene leads the operator to a step.
type scene struct {
	processor string
	// until is a step after which an operator dies in any case, so that something can happen in the middle of a move. Without
	// it, the scene is over at the step that it leads to.
	until     string
	begins    func(*act)
	meanwhile func(*act)
	// fails says that the move has to.
	fails bool
}

const (
	counting = "counting"
	// hurried is a processor whose target has little time to start.
	hurried = "hurried"
	// dated is a processor whose changed spec waits for a person.
	dated = "dated"
)

var special = map[string][]func(*doryv1alpha1.Processor){
	hurried: {func(p *doryv1alpha1.Processor) { p.Spec.Migration.StartTimeoutSeconds = 1 }},
	dated: {func(p *doryv1alpha1.Processor) {
		p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateOnDelete}
	}},
}

// asks for a move, or drains the processor's node, and finds the move that comes of it.
func asks(a *act) {
	if !a.drains {
		a.move = a.world.move(a.processor, a.name)
		return
	}
	a.leaves = a.worksOn(a.processor).Spec.NodeName
	earlier, err := a.migrations(a.processor)
	a.must(err)
	a.taint(a.leaves, leaving)
	a.until("the drain's move", func() error {
		all, err := a.migrations(a.processor)
		if err != nil {
			return err
		}
		for i := range all {
			if !slices.ContainsFunc(earlier, func(m doryv1alpha1.ProcessorMigration) bool { return m.UID == all[i].UID }) {
				a.move = &all[i]
				return nil
			}
		}
		return errors.New("none")
	})
}

// calledOff is deleted, while it holds its finalizer.
func calledOff(a *act) { a.must(shared.k8s.Delete(a.Context(), a.migration(a.move))) }

var moves = scene{processor: counting, begins: asks}

// keepsItsVersion: the spec has become another one since, and the version that runs is what moves.
var keepsItsVersion = scene{processor: dated, begins: func(a *act) {
	a.modify(dated, func(p *doryv1alpha1.Processor) {
		p.Spec.Env = append(p.Spec.Env[:1], corev1.EnvVar{Name: "NOT_APPLIED", Value: a.name})
	})
	asks(a)
}}

// waits is of two moves at once.
var waits = scene{processor: counting, begins: func(a *act) {
	asks(a)
	a.world.move(a.processor, a.name+"-next", func(m *doryv1alpha1.ProcessorMigration) { m.Spec.Reason = doryv1alpha1.MigrationConsolidation })
}}

func goesBackAfter(step string) scene {
	return scene{processor: counting, until: step, begins: asks, meanwhile: calledOff}
}

// revives: the source crashes when the target holds its state, and the move is called off.
var revives = scene{processor: counting, until: "restore", begins: asks, meanwhile: func(a *act) {
	source := a.migration(a.move).Status.SourcePod
	a.must(shared.kubelet.KillContainer(a.namespace, source))
	a.restarted(source)
	calledOff(a)
}}

// restarted waits until a pod is ready whose process was killed.
func (w *world) restarted(name string) {
	w.Helper()
	w.until(name+" is back", func() error {
		pod, err := w.pod(name)
		if err != nil {
			return err
		}
		if s := pod.Status.ContainerStatuses[0]; s.RestartCount == 0 || !s.Ready {
			return fmt.Errorf("%d restarts, ready %t", s.RestartCount, s.Ready)
		}
		return nil
	})
}

// losesSourceAfter is of a source that somebody deletes, and of a move that is called off.
func losesSourceAfter(step string) scene {
	return scene{processor: counting, until: step, begins: asks, fails: true, meanwhile: func(a *act) {
		source := a.migration(a.move).Status.SourcePod
		pod, err := a.pod(source)
		a.must(err)
		a.must(client.IgnoreNotFound(shared.k8s.Delete(a.Context(), pod)))
		a.vanishes(source)
		calledOff(a)
	}}
}

// findsNoRoom: nobody takes the target.
var findsNoRoom = scene{processor: hurried, fails: true, begins: func(a *act) {
	a.move = a.world.move(a.processor, a.name, func(m *doryv1alpha1.ProcessorMigration) { m.Spec.TargetNode = fullNode })
}}

// tells has a scene come to several steps.
func tells(s scene, steps ...string) map[string]scene {
	told := map[string]scene{}
	for _, step := range steps {
		told[step] = s
	}
	return told
}

func merged(all ...map[string]scene) map[string]scene {
	together := map[string]scene{}
	for _, one := range all {
		maps.Copy(together, one)
	}
	return together
}

// live are the scenes of moves between two iterations.
var live = merged(
	tells(keepsItsVersion, "recall"),
	tells(moves, "look", "ask-source", "ask-turn", "hold", "enter-placing", "create-target", "enter-starting", "ask-target", "enter-warming", "capture",
		"warm", "enter-handing-off", "draw", "step-aside", "check-source", "check-target", "quiesce", "restore", "verify", "confirm", "commit",
		"promote", "adopt", "enter-retiring", "delete-source", "enter-succeeded", "release", "collect"),
	tells(waits, "note"),
	tells(goesBackAfter("quiesce"), "enter-rolling-back", "bar", "resume", "step-back", "delete-target", "enter-rolled-back"),
	tells(revives, "gather", "revive-issue", "revive-restore", "revive-promote"),
	tells(losesSourceAfter("restore"), "save", "enter-failed"),
)

var plays = []play{
	{
		name: "Live", strategy: doryv1alpha1.MigrationLive, processors: []string{counting, dated}, proves: proof.whole,
		scenes: live, never: []string{"rehearse", "reserve", "foresee", "keep"},
	},
	{
		name: "Drain", drains: true, strategy: doryv1alpha1.MigrationLive, processors: []string{counting, dated}, proves: proof.whole,
		scenes: live, never: []string{"rehearse", "reserve", "foresee", "keep"},
	},
	{
		name: "Overlap", strategy: doryv1alpha1.MigrationOverlap, processors: []string{counting}, proves: proof.atLeastOnce,
		scenes: merged(
			tells(moves, "look", "ask-turn", "hold", "enter-placing", "create-target", "enter-starting", "enter-handing-off", "check-target", "capture",
				"restore", "verify", "confirm", "commit", "promote", "adopt", "enter-retiring", "delete-source", "enter-succeeded", "release", "collect"),
			tells(waits, "note"),
			tells(goesBackAfter("create-target"), "enter-rolling-back", "bar", "delete-target", "enter-rolled-back"),
			tells(losesSourceAfter("create-target"), "enter-failed"),
		),
		never: []string{
			"recall", "ask-source", "ask-target", "enter-warming", "rehearse", "warm", "reserve", "foresee", "keep", "draw", "step-aside", "check-source", "quiesce",
			"resume", "gather", "save", "revive-issue", "revive-restore", "revive-promote", "step-back",
		},
	},
	{
		name: "StopAndCopy", strategy: doryv1alpha1.MigrationStopAndCopy, processors: []string{counting, hurried}, proves: proof.whole,
		scenes: merged(
			tells(moves, "look", "ask-turn", "hold", "enter-warming", "rehearse", "capture", "reserve", "foresee", "keep", "enter-handing-off", "delete-source", "gather",
				"commit", "enter-placing", "create-target", "enter-starting", "enter-succeeded", "release", "collect"),
			tells(waits, "note"),
			tells(goesBackAfter("capture"), "enter-rolling-back", "enter-rolled-back"),
			tells(findsNoRoom, "delete-target", "enter-failed"),
		),
		never: []string{
			"recall", "ask-source", "ask-target", "warm", "draw", "step-aside", "check-source", "check-target", "quiesce", "restore", "verify", "confirm",
			"promote", "adopt", "enter-retiring", "bar", "resume", "save", "revive-issue", "revive-restore", "revive-promote", "step-back",
		},
	},
}
