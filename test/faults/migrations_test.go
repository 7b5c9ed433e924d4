package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/migration"
	"github.com/dory-io/dory/internal/store/pgtest"
	"github.com/dory-io/dory/test/processkubelet"
)

// slowly lets an operator stay at every step for a moment, so that something can happen in the middle.
func (w *world) slowly(o *operator, d time.Duration) {
	w.Helper()
	w.until("the operator can be slowed down", func() error {
		_, err := o.gofail(w.Context(), http.MethodPut, after, fmt.Sprintf("sleep(%d)", d.Milliseconds()))
		return err
	})
}

// diesAfter lets an operator die in the middle of a move.
func (w *world) diesAfter(o *operator, step string) {
	w.Helper()
	c := &crew{w: w, leader: o}
	c.arm(o, point{after, step})
}

// doomed are nodes that no other test's pods are on.
func (w *world) doomed(n int) func(*doryv1alpha1.Processor) {
	w.Helper()
	for i := range n {
		w.must(shared.kubelet.AddNode(w.Context(), processkubelet.Node{
			Name: fmt.Sprint(w.namespace, "-", i), Labels: map[string]string{"workload-type": "application", "doomed": w.namespace},
		}))
	}
	return func(p *doryv1alpha1.Processor) {
		p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{NodeSelector: map[string]string{"doomed": w.namespace}}
	}
}

// The nodes of source and target lose their power when the target holds the state and the epoch is not issued yet. While
// nobody knows what became of them, nothing else starts; then they come back, or are gone for good, and the processor goes on
// from its newest checkpoint.
func TestBothNodesDieInAMove(t *testing.T) {
	for name, comesToAnEnd := range map[string]func(w *world, nodes []string){
		"and come back": func(w *world, nodes []string) {
			for _, node := range nodes {
				w.must(shared.kubelet.StartNode(w.Context(), node))
			}
		},
		"for good": func(w *world, nodes []string) {
			for _, node := range nodes {
				w.must(shared.kubelet.LoseNode(w.Context(), node))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.watchEpochs()
			o := w.start(shared.brittle, alone)
			w.counts(counting, by(doryv1alpha1.MigrationLive), w.doomed(3))
			kept := w.checkpointed(counting)
			w.diesAfter(o, "restore")
			m := w.move(counting, "m")
			(&crew{w: w, leader: o}).dies(point{after, "restore"})
			nodes := w.nodesOf(m)
			for _, node := range nodes {
				w.must(shared.kubelet.StopNode(t.Context(), node))
			}
			printed := len(w.lines(counting))
			w.start(shared.shipped, alone)
			w.stays("nothing starts before it is known that both are dead", 3*time.Second, func() error {
				pods, err := w.livePods(counting)
				if err == nil && len(pods) != len(nodes) {
					err = fmt.Errorf("%d pods", len(pods))
				}
				if now := len(w.lines(counting)); now != printed {
					err = errors.Join(err, fmt.Errorf("%d lines were %d", now, printed))
				}
				return err
			})
			comesToAnEnd(w, nodes)
			w.worksOn(counting)
			w.ends(m)
			w.wants(w.prove(counting).onePrimary())
			if first := w.firstAfter(counting, printed); first <= kept {
				t.Errorf("it went on from iteration %d, and %d was kept", first, kept)
			}
		})
	}
}

// nodesOf are the nodes of source and target.
func (w *world) nodesOf(m *doryv1alpha1.ProcessorMigration) []string {
	w.Helper()
	var nodes []string
	status := w.migration(m).Status
	for _, name := range []string{status.SourcePod, status.TargetPod} {
		pod, err := w.pod(name)
		w.must(err)
		nodes = append(nodes, pod.Spec.NodeName)
	}
	return slices.Compact(nodes)
}

// checkpointed waits for a checkpoint, and answers its sequence.
func (w *world) checkpointed(processor string) int64 {
	w.Helper()
	var sequence int64
	w.until("a checkpoint", func() error {
		p, err := w.get(processor)
		if err != nil {
			return err
		}
		if p.Status.Checkpoint == nil || p.Status.Checkpoint.Sequence == nil || *p.Status.Checkpoint.Sequence == 0 {
			return errors.New("none yet")
		}
		sequence = *p.Status.Checkpoint.Sequence
		return nil
	})
	return sequence
}

// firstAfter is the number of the first iteration after so many lines.
func (w *world) firstAfter(processor string, lines int) int64 {
	w.Helper()
	var iteration struct {
		N int64 `json:"n"`
	}
	for _, line := range w.lines(processor)[lines:] {
		if json.Unmarshal([]byte(line.Text), &iteration) == nil {
			return iteration.N
		}
	}
	w.Fatal("no iteration follows")
	return 0
}

// PostgreSQL is away from before a move until after it. The processor is a row's, so that its epochs are recorded there, too:
// the move goes by the ProcessorEpoch, and the next one's epoch is higher in the database, too.
func TestMoveWithoutPostgreSQL(t *testing.T) {
	postgres := pgtest.Start(t)
	w := newWorldOn(t, postgres)
	w.watchEpochs()
	w.start(shared.shipped, alone, "--resync-interval=1s")
	config, err := json.Marshal(map[string]any{
		"env_vars": map[string]string{"COUNTER_INTERVAL": "20ms"}, "container": map[string]any{"port": w.port()},
	})
	w.must(err)
	w.sql(`UPDATE processor_template_versions SET image_uri = $1, runtime_config_template = $2 WHERE processor_template_id = 't'`, counterImage, string(config))
	w.row(counting)
	source := w.worksOn(counting)
	w.runs(counting)

	w.must(postgres.Kill())
	s := w.ends(w.move(counting, "m"))
	if s.Phase != doryv1alpha1.MigrationSucceeded || s.Strategy != doryv1alpha1.MigrationLive || s.TargetEpoch != s.SourceEpoch+1 {
		t.Errorf("without the database: %+v", s)
	}
	if now := w.worksOn(counting); now.Name != s.TargetPod || now.Name == source.Name {
		t.Errorf("pod %s acts, not %s", now.Name, s.TargetPod)
	}

	w.must(postgres.Start())
	w.until("the database knows the epoch", func() error {
		known, err := ask[int64](w, `SELECT coalesce(max(epoch), 0) FROM processors WHERE id = $1`, counting)
		if err == nil && known != s.TargetEpoch {
			err = fmt.Errorf("it knows %d", known)
		}
		return err
	})
	again := w.ends(w.move(counting, "again"))
	fence, err := ask[int64](w, `SELECT epoch FROM processor_epochs WHERE processor_id = $1`, counting)
	w.must(err)
	if again.Phase != doryv1alpha1.MigrationSucceeded || again.TargetEpoch <= s.TargetEpoch || fence != again.TargetEpoch {
		t.Errorf("with the database, which has epoch %d: %+v", fence, again)
	}
	w.worksOn(counting)
	w.wants(w.prove(counting).whole())
}

// The API server is killed when the source stands still and the epoch is about to be issued, and comes back with its data.
func TestAPIServerKilledInTheHandoff(t *testing.T) {
	w := newWorld(t)
	w.watchEpochs()
	o := w.start(shared.brittle, alone)
	w.counts(counting, by(doryv1alpha1.MigrationLive))
	o.holdAt("fenceBeforeRecord", 500*time.Millisecond)
	m := w.move(counting, "m")
	w.arrives(o, "fenceBeforeRecord")
	killAPIServer(t)
	w.must(shared.environment.ControlPlane.GetAPIServer().Start())
	w.until("the move has ended", func() error {
		if o.hasEnded() { // As a kubelet would.
			o = w.start(shared.shipped, alone)
		}
		fresh := m.DeepCopy()
		if err := w.read(fresh); err != nil {
			return err
		}
		return unended(fresh)
	})
	if s := w.migration(m).Status; s.Phase != doryv1alpha1.MigrationSucceeded && s.Phase != doryv1alpha1.MigrationRolledBack {
		t.Errorf("%s: %s: %s", s.Phase, s.Reason, s.Message)
	}
	w.worksOn(counting)
	w.wants(w.prove(counting).whole())
}

// The spec changes while a manual move is under way, be it before the handoff or in it. The move is finished first with the
// version that runs, since it is only to bring another place; then the new spec arrives, and nothing is lost.
func TestUpdateDuringAManualMove(t *testing.T) {
	hasNew := func(pod *corev1.Pod) bool {
		return slices.ContainsFunc(pod.Spec.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == "NEW" })
	}
	for name, at := range map[string]doryv1alpha1.MigrationPhase{
		"before the handoff": doryv1alpha1.MigrationPlacing,
		"in the handoff":     doryv1alpha1.MigrationHandingOff,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.watchEpochs()
			o := w.start(shared.brittle, alone)
			w.counts(counting, by(doryv1alpha1.MigrationLive), func(p *doryv1alpha1.Processor) { p.Spec.Migration.HistoryLimit = new(int32(10)) })
			w.slowly(o, 300*time.Millisecond)
			m := w.move(counting, "m")
			w.reaches(m, at)
			w.modify(counting, func(p *doryv1alpha1.Processor) {
				p.Spec.Env = append(p.Spec.Env, corev1.EnvVar{Name: "NEW", Value: "yes"})
			})
			if s := w.ends(m); s.Phase != doryv1alpha1.MigrationSucceeded || s.Reason != migration.ReasonMoved {
				t.Errorf("the manual move is %s: %s: %s", s.Phase, s.Reason, s.Message)
			}
			if target, err := w.pod(w.migration(m).Status.TargetPod); err == nil && hasNew(target) {
				t.Errorf("the manual move brought the new spec: %+v", target.Spec.Containers[0].Env)
			}
			w.until("the new spec has arrived", func() error {
				pod := w.worksOn(counting)
				if !hasNew(pod) {
					return fmt.Errorf("not in pod %s", pod.Name)
				}
				return nil
			})
			w.wants(w.prove(counting).whole())
		})
	}
}

// A leader is frozen in its commit, when source and target stand by. The move is called off, and another leader wakes the
// source; right then the first one wakes up, too, and goes on: what it is about to write was decided by an epoch that is not
// the newest any more.
func TestLeaderOvertakenInItsCommit(t *testing.T) {
	w := newWorld(t)
	w.confined = true
	w.watchEpochs()
	r := &replicas{w: w}
	r.add(shared.brittle)
	r.leader()
	source := w.counts(counting, by(doryv1alpha1.MigrationLive))
	frozen := r.all[0]
	frozen.holdAt("fenceBeforeRecord", 500*time.Millisecond)
	m := w.move(counting, "m")
	w.arrives(frozen, "fenceBeforeRecord")
	frozen.signal(syscall.SIGSTOP)
	r.without(frozen)
	w.must(shared.k8s.Delete(t.Context(), m))

	next := r.add(shared.brittle)
	w.slowly(next, time.Second)
	r.expire()
	acting, stood := w.migration(m).Status.SourcePod, time.Now()
	w.until("the source acts again", func() error {
		if !w.hasWorked(counting, acting, stood) {
			return errors.New("not yet")
		}
		return nil
	})
	frozen.signal(syscall.SIGCONT)
	w.until("the move is gone", func() error { return w.gone(m) })
	w.stays("nobody else is given the epoch", 2*time.Second, func() error {
		epoch, err := w.epoch(source.ID())
		if err == nil && epoch.Spec.Holder != acting {
			err = fmt.Errorf("%s holds it, and %s acts", epoch.Spec.Holder, acting)
		}
		return err
	})
	frozen.kill()
	if pod := w.worksOn(counting); pod.Name != acting {
		t.Errorf("%s works on instead of %s", pod.Name, acting)
	}
	w.wants(w.prove(counting).whole())
}

// gone is nil once the move does not exist any more.
func (w *world) gone(m *doryv1alpha1.ProcessorMigration) error {
	err := w.read(m.DeepCopy())
	if err == nil {
		err = errors.New("it is there")
	}
	return client.IgnoreNotFound(err)
}
