package faults

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/migration"
)

// killsVariable set to "all" kills the operator before and after every step, with and without another replica that takes
// over. Else each step is met once for each strategy, in these four ways by turns.
const killsVariable = "MIGRATION_KILLS"

// point is where an operator dies. There are two failpoints around every step.
type point struct{ failpoint, step string }

const (
	before = "migrationBefore"
	after  = "migrationAfter"
)

func (p point) term() string {
	if p == (point{}) {
		return ""
	}
	return fmt.Sprintf("return(%q)", p.step)
}

// ways to die, and to go on: by a new operator, or by a replica that stands by.
var ways = []struct {
	failpoint string
	takenOver bool
}{{before, false}, {after, true}, {after, false}, {before, true}}

// The operator is killed before and after every step of a move, and whoever comes next goes on or rolls back: never do two
// instances act, and no iteration is lost or repeated where the strategy promises that. The list of steps is the migration
// controller's own, so that a new one that no scene comes to makes this fail.
func TestOperatorKilledAtEachStepOfAMove(t *testing.T) {
	for _, play := range plays {
		t.Run(play.name, func(t *testing.T) {
			t.Parallel()
			play.perform(t)
		})
	}
}

func (p play) perform(t *testing.T) {
	t.Helper()
	w := newWorld(t)
	w.confined = true
	w.watchEpochs()
	c := &crew{w: w}
	c.follow(point{})
	for _, name := range p.processors {
		w.counts(name, append(p.changes(), special[name]...)...)
	}
	met := 0
	for i, step := range migration.Steps() {
		told, found := p.scenes[step]
		if never := slices.Contains(p.never, step); found == never {
			t.Errorf("step %s of a move by %s: it must either have a scene, or be one that this strategy never takes", step, p.name)
		}
		if !found {
			continue
		}
		for j, way := range ways {
			if os.Getenv(killsVariable) == "all" || j == (met+len(p.scenes))%len(ways) {
				p.kill(c, told, fmt.Sprintf("m-%d-%d", i, j), point{way.failpoint, step}, way.takenOver)
			}
		}
		met++
	}
	for _, step := range p.never {
		if c.tookStep(step) {
			t.Errorf("a move by %s took the step %s, which it is said never to take", p.name, step)
		}
	}
}

// kill lets an operator die at the point in the course of a scene, and sees how that ends.
func (p play) kill(c *crew, told scene, name string, at point, takenOver bool) {
	w := c.w
	w.Helper()
	w.Logf("%s: dies at %s %s; taken over: %t", name, at.failpoint, at.step, takenOver)
	a := &act{world: w, name: name, processor: told.processor, drains: p.drains}
	if takenOver {
		c.standBy()
	}
	first := at
	if told.until != "" {
		first = point{after, told.until}
	}
	c.arm(c.leader, first)
	told.begins(a)
	c.dies(first)
	if told.until != "" {
		told.meanwhile(a)
		c.follow(at)
		if takenOver {
			c.leads()
			c.standBy()
		}
		c.dies(at)
	}
	c.follow(point{})
	w.until("all moves have ended after "+name, a.ended)
	a.over()
	for _, phase := range a.ends {
		if phase == doryv1alpha1.MigrationFailed && !told.fails {
			w.Errorf("%s ended as %s", name, phase)
		}
	}
	w.worksOn(told.processor)
	w.wants(p.proves(w.prove(told.processor)))
	if !w.Failed() {
		c.allIsWell()
	}
}

// act is a scene that is being told.
type act struct {
	*world
	name, processor string
	move            *doryv1alpha1.ProcessorMigration
	ends            []doryv1alpha1.MigrationPhase
	// drains says that the move comes of its node's leaving, which is leaves.
	drains bool
	leaves string
}

func (a *act) ended() error {
	all, err := a.migrations(a.processor)
	if err != nil {
		return err
	}
	a.ends = nil
	for i := range all {
		if err := unended(&all[i]); err != nil {
			return err
		}
		if all[i].DeletionTimestamp == nil && (a.drains || strings.HasPrefix(all[i].Name, a.name)) {
			a.ends = append(a.ends, all[i].Status.Phase)
		}
	}
	return a.left()
}

// crew are replicas of the operator, of which one leads.
type crew struct {
	w               *world
	leader, standby *operator
	logs            []*operator
}

func (c *crew) start(at point) *operator {
	c.w.Helper()
	term := ""
	if at != (point{}) {
		term = at.failpoint + "=" + at.term()
	}
	o := c.w.startArmed(shared.brittle, term, "--log-level=debug")
	c.logs = append(c.logs, o)
	return o
}

// leads waits until the leader leads, so that no other one can be faster.
func (c *crew) leads() {
	c.w.Helper()
	c.w.until("the operator leads", func() error {
		if !c.leader.says(leads) && !c.leader.hasEnded() {
			return errors.New("not yet")
		}
		return nil
	})
}

func (c *crew) standBy() { c.standby = c.start(point{}) }

// arm lets the operator die at the point. It may have been started just now.
func (c *crew) arm(o *operator, at point) {
	c.w.Helper()
	c.w.until("the operator can be armed", func() error {
		_, err := o.gofail(c.w.Context(), http.MethodPut, at.failpoint, at.term())
		return err
	})
}

func (c *crew) dies(at point) {
	c.w.Helper()
	c.w.until(fmt.Sprintf("the operator comes to %s %s, and dies", at.failpoint, at.step), func() error {
		if !c.leader.hasEnded() {
			return errors.New("it lives")
		}
		return nil
	})
	if status, ok := c.leader.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		c.w.Fatalf("the operator was to be killed at %s %s, but has ended by itself: %s", at.failpoint, at.step, c.leader.cmd.ProcessState)
	}
}

// follow lets the next one lead, after the leader's death: the replica that stands by or, without one, a new one. The lease
// is taken away, to save the 15 s until it has run out.
func (c *crew) follow(at point) {
	c.w.Helper()
	next := c.standby
	switch {
	case next == nil:
		c.expire()
		next = c.start(at)
	case at != (point{}):
		c.arm(next, at)
		c.expire()
	default:
		c.expire()
	}
	c.leader, c.standby = next, nil
}

func (c *crew) expire() {
	c.w.Helper()
	c.w.must(client.IgnoreNotFound(shared.k8s.Delete(c.w.Context(), c.w.lease())))
}

// allIsWell keeps those that are dead by intention from telling of it when something else fails later.
func (c *crew) allIsWell() {
	for _, o := range c.logs {
		o.silent = o != c.leader
	}
}

// tookStep says whether a log tells of the step.
func (c *crew) tookStep(step string) bool {
	return slices.ContainsFunc(c.logs, func(o *operator) bool { return o.says(fmt.Sprintf(`"step":%q`, step)) })
}
