package migration

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// fleet is a kind of processor in a world.
type fleet struct {
	name     string
	legacy   bool
	strategy doryv1alpha1.MigrationStrategy
}

var fleets = []fleet{
	{"Live", false, doryv1alpha1.MigrationAuto},
	{"StopAndCopy", false, doryv1alpha1.MigrationStopAndCopy},
	{"Overlap", true, doryv1alpha1.MigrationAuto},
}

// worlds is how many worlds each fleet gets; MIGRATION_WORLDS says otherwise.
func worlds(t *testing.T) int {
	t.Helper()
	const usual = 300
	text := os.Getenv("MIGRATION_WORLDS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("MIGRATION_WORLDS is %q: %v", text, err)
	}
	return n
}

// Whatever goes wrong, and wherever the operator dies: there are never two PRIMARYs, no iteration is lost or done twice but
// for what dies with the process that did it, no source is left quiesced, and everything comes to an end.
func TestModel(t *testing.T) {
	seen := map[step]bool{}
	for _, f := range fleets {
		t.Run(f.name, func(t *testing.T) {
			ended := map[string]int{}
			for seed := range uint64(worlds(t)) {
				w := newWorld(seed, f.legacy, f.strategy, int(seed%12))
				w.hasty = os.Getenv("HASTY") != ""
				w.live()
				if w.wrong != "" {
					t.Fatalf("seed %d: %s\n%s", seed, w.wrong, strings.Join(w.story, "\n"))
				}
				for ending, times := range w.endings {
					ended[ending] += times
				}
				for s := range w.seen {
					seen[s] = true
				}
			}
			t.Log(ended)
		})
	}
	for _, s := range steps {
		if !seen[s] {
			t.Errorf("no world has ever taken the step %s", s)
		}
	}
}

// live is a life: a processor, some migrations, mishaps, and then peace, in which everything must come to an end.
func (w *world) live() {
	for range 20 {
		w.tick()
	}
	w.migrates()
	for i := range 100 {
		if w.wrong != "" {
			return
		}
		w.pass()
		w.tick()
		if i%40 == 39 {
			w.migrates()
		}
	}
	w.faults = 0
	clear(w.unreachable)
	clear(w.unschedulable)
	w.suspend(false)
	w.settle()
}

// settle waits for the end.
func (w *world) settle() {
	var unfinished string
	for range 400 {
		w.pass()
		w.tick()
		if w.wrong != "" {
			return
		}
		if unfinished = w.unfinished(); unfinished == "" {
			return
		}
		if w.chance(30) {
			w.now = w.now.Add(10 * time.Second)
		}
	}
	w.violate("it does not come to an end: %s", unfinished)
}

// unfinished says what is not as it should be in the end.
func (w *world) unfinished() string {
	for _, name := range w.migrationNames() {
		m := w.migrations[name]
		if !m.Ended() {
			return fmt.Sprintf("migration %s is %s (%s: %s)", name, m.Status.Phase, m.Status.Reason, m.Status.Message)
		}
		if slices.Contains(m.Finalizers, Finalizer) {
			return fmt.Sprintf("migration %s has its finalizer", name)
		}
	}
	if w.processor == nil {
		return ""
	}
	acting := w.acting()
	switch {
	case len(w.migrations) > w.processor.HistoryLimit()+w.lastAttempts():
		return fmt.Sprintf("%d migrations are kept", len(w.migrations))
	case len(acting) != 1 || len(w.pods) != 1:
		return fmt.Sprintf("%d processes act, %d pods", len(acting), len(w.pods))
	case w.epoch.Spec.Holder != acting[0].pod:
		return fmt.Sprintf("%s acts, %s holds the epoch", acting[0].pod, w.epoch.Spec.Holder)
	case aside(w.pods[acting[0].pod]):
		return acting[0].pod + " acts and is marked as a standby"
	}
	return ""
}

// lastAttempts is how many migrations are kept beyond the history's limit, because a drain goes by them.
func (w *world) lastAttempts() int {
	for _, m := range w.migrations {
		if m.Spec.SourcePod != "" && w.epoch != nil && m.Spec.SourcePod == w.epoch.Spec.Holder {
			return 1
		}
	}
	return 0
}
