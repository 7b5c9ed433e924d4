package drain

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/processkubelet"
)

// background is a kubectl drain that is looked at while it runs.
type background struct {
	w      *world
	ended  chan struct{}
	err    error
	mu     sync.Mutex
	output strings.Builder
}

func (b *background) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.output.Write(p)
}

func (b *background) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.output.String()
}

func (w *world) draining(node string, flags ...string) *background {
	w.Helper()
	b := &background{w: w, ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	w.Cleanup(func() { cancel(); <-b.ended })
	args := append([]string{"--kubeconfig", shared.adminConfig, "drain", node, "--timeout=" + patience.String()}, flags...)
	cmd := exec.CommandContext(ctx, shared.bin("kubectl"), args...)
	cmd.Stdout, cmd.Stderr = b, b
	w.must(cmd.Start())
	go func() {
		b.err = cmd.Wait()
		close(b.ended)
	}()
	return b
}

// says waits until the drain has said so.
func (b *background) says(words string) {
	b.w.Helper()
	b.w.until("the drain says "+strconv.Quote(words), func() error {
		if text := b.text(); !strings.Contains(text, words) {
			return fmt.Errorf("it says:\n%s", text)
		}
		return nil
	})
}

func (b *background) succeeds() {
	b.w.Helper()
	<-b.ended
	if b.err != nil {
		b.w.Fatalf("%v:\n%s", b.err, b.text())
	}
}

// Every asker of a thousand at once is told to come again, each processor moves once, and nothing is lost.
func TestAThousandEvictionsAtOnce(t *testing.T) {
	const processors, askers = 10, 100
	w := newWorld(t)
	w.start(alone).ready()
	var names, pods []string
	for i := range processors {
		names = append(names, fmt.Sprint("a", i))
	}
	w.onlyOn("n1", func() {
		var group errgroup.Group
		for _, name := range names {
			group.Go(func() error { return w.create(name) })
		}
		w.must(group.Wait())
		for _, name := range names {
			pods = append(pods, w.counts(name, "").Name)
		}
	})
	shared.kubelet.SetDelays(processkubelet.Delays{Start: slowStart})
	w.cordon("n1", true)
	var late atomic.Int64
	var group errgroup.Group
	for i := range processors * askers {
		group.Go(func() error {
			for {
				err := w.evict(pods[i%processors])
				switch {
				case err == nil:
					return fmt.Errorf("pod %s was let go", pods[i%processors])
				case strings.Contains(err.Error(), "context deadline exceeded"):
					late.Add(1) // This machine has better things to do.
				case !strings.Contains(err.Error(), triggered):
					return err
				default:
					return nil
				}
			}
		})
	}
	w.must(group.Wait())
	t.Logf("%d of %d were answered too late", late.Load(), processors*askers)
	shared.kubelet.SetDelays(processkubelet.Delays{})
	w.drained("n1")
	for _, name := range names {
		w.counts(name, "n1")
	}
	w.whole(names...)
	if moves := w.moves(); len(moves) != processors {
		t.Errorf("%d moves of %d processors", len(moves), processors)
	}
}

// A replica is killed while a move is under way. The other one answers in its place and, if the leader has died, finishes the
// move. A kubectl drain notices neither.
func TestAReplicaIsKilledDuringADrain(t *testing.T) {
	for _, dies := range []string{"leader", "follower"} {
		t.Run(dies, func(t *testing.T) {
			w := newWorld(t)
			leader := w.start().ready() // It has the lease when the second starts.
			follower := w.start().ready()
			w.counter("a", "n1")
			shared.kubelet.SetDelays(processkubelet.Delays{Start: slowStart})
			d := w.draining("n1")
			d.says(triggered)
			killed, other := leader, follower
			if dies == "follower" {
				killed, other = follower, leader
			}
			asked := other.reviews()
			killed.kill()
			d.succeeds()
			if other.reviews() == asked {
				t.Error("the other replica was never asked")
			}
			w.counts("a", "n1")
			w.whole("a")
		})
	}
}

// Both replicas are down for a while. A drain that begins then gives up with a reason, and the next one gets through.
func TestBothReplicasAreDownAndBack(t *testing.T) {
	w := newWorld(t)
	first, second := w.start().ready(), w.start().ready()
	w.counter("a", "n1")
	shared.kubelet.SetDelays(processkubelet.Delays{Start: slowStart})
	d := w.draining("n1")
	d.says(triggered)
	second.kill()
	first.kill()
	<-d.ended
	if d.err == nil || !strings.Contains(d.text(), "failed calling webhook") {
		t.Errorf("%v:\n%s", d.err, d.text())
	}
	w.start().ready()
	w.start().ready()
	w.drained("n1")
	w.counts("a", "n1")
	w.whole("a")
}

// The API server is killed while a move is under way, and comes back. kubectl does not survive that; the move does.
func TestTheAPIServerIsKilledDuringADrain(t *testing.T) {
	w := newWorld(t)
	o := w.start(alone).ready()
	w.counter("a", "n1")
	shared.kubelet.SetDelays(processkubelet.Delays{Start: slowStart})
	d := w.draining("n1")
	d.says(triggered)
	killAPIServer(t)
	w.must(shared.environment.ControlPlane.GetAPIServer().Start())
	<-d.ended
	w.until("the API server is back", func() error {
		_, err := shared.clients.Discovery().ServerVersion()
		return err
	})
	if o.hasEnded() { // As a kubelet would.
		o = w.start(alone)
	}
	o.ready()
	w.until("a drain gets through", func() error {
		output, err := w.drain("n1")
		if err != nil && strings.Contains(output, "connection refused") {
			return errors.New(output)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		return nil
	})
	w.counts("a", "n1")
	w.whole("a")
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

// Two nodes are drained at once, with room for what was on both on the third alone.
func TestTwoDrainsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	w.counter("a", "n1")
	w.counter("b", "n2")
	first, second := w.draining("n1"), w.draining("n2")
	first.succeeds()
	second.succeeds()
	for _, name := range []string{"a", "b"} {
		if pod := w.counts(name, ""); pod.Spec.NodeName != "n3" {
			t.Errorf("%s is on %s", name, pod.Spec.NodeName)
		}
	}
	w.whole("a", "b")
	for _, m := range w.moves() {
		if m.Status.TargetNode != "n3" && m.Status.Phase == doryv1alpha1.MigrationSucceeded {
			t.Errorf("%s went to %s, which was being drained", m.Name, m.Status.TargetNode)
		}
	}
}

// Two nodes are drained at once, with room for one of their processors. That one moves; the other keeps working on its node,
// and whoever drains it reads why. When the first node takes pods again, the second drain ends, too.
func TestTwoDrainsWithRoomForOne(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	large := func(p *doryv1alpha1.Processor) {
		p.Spec.Resources = &doryv1alpha1.ProcessorResources{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("40")}} // of a node's 64
	}
	drains := map[string]*background{}
	w.counter("a", "n1", large)
	w.counter("b", "n2", large)
	for _, node := range []string{"n1", "n2"} {
		drains[node] = w.draining(node)
	}
	left, kept, stays := "n1", "n2", "b"
	select {
	case <-drains["n1"].ended:
	case <-drains["n2"].ended:
		left, kept, stays = "n2", "n1", "a"
	}
	drains[left].succeeds()
	drains[kept].says("no node fits")
	if pod := w.counts(stays, ""); pod.Spec.NodeName != kept {
		t.Errorf("%s is on node %s, want %s", stays, pod.Spec.NodeName, kept)
	}
	w.cordon(left, false)
	drains[kept].succeeds()
	w.counts(stays, kept)
	w.whole("a", "b")
}

// The spec changes, and while its Update is under way, the node is drained. The drain ends with the processor elsewhere, by the
// new spec.
func TestADrainWhileAnUpdateIsUnderWay(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	w.counter("a", "n1")
	w.until("it is known to work, so that it is moved and not replaced", func() error { return w.checkpointed("a") })
	shared.kubelet.SetDelays(processkubelet.Delays{Start: slowStart})
	w.onlyOn("n1", func() { // The Update's target is on the node that is then drained.
		w.must(shared.k8s.Patch(t.Context(), &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "a"}},
			client.RawPatch(types.MergePatchType, []byte(`{"spec":{"env":[{"name":"COUNTER_INTERVAL","value":"3ms"}]}}`))))
		w.until("the Update's target starts", func() error {
			var all doryv1alpha1.ProcessorMigrationList
			w.must(shared.k8s.List(t.Context(), &all, client.InNamespace(w.namespace)))
			if len(all.Items) != 1 || all.Items[0].Spec.Reason != doryv1alpha1.MigrationUpdate || all.Items[0].Status.TargetNode != "n1" {
				p := &doryv1alpha1.Processor{}
				w.must(shared.k8s.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "a"}, p))
				return fmt.Errorf("%+v; the Processor: %+v", all.Items, p.Status)
			}
			return nil
		})
	})
	w.drained("n1")
	w.until("the Update is made where the processor is now", func() error {
		pod := w.counts("a", "n1")
		if got := pod.Spec.Containers[0].Env; !slices.ContainsFunc(got, func(e corev1.EnvVar) bool { return e.Value == "3ms" }) {
			return fmt.Errorf("pod %s has the environment %v", pod.Name, got)
		}
		return nil
	})
	w.whole("a")
}

// The node is deleted while the move off it is under way, by somebody who is faster than the drain: its object alone, so that
// the move is finished, or with its machine, so that the processor goes on from its checkpoint.
func TestTheNodeIsDeletedDuringADrain(t *testing.T) {
	for _, with := range []string{"alone", "with its machine"} {
		t.Run(with, func(t *testing.T) {
			w := newWorld(t)
			w.start(alone).ready()
			w.counter("a", "n1")
			w.until("there is a checkpoint", func() error { return w.checkpointed("a") })
			shared.kubelet.SetDelays(processkubelet.Delays{Start: slowStart})
			d := w.draining("n1")
			d.says(triggered)
			w.Cleanup(func() { w.must(shared.kubelet.AddNode(context.Background(), playedNode("n1"))) })
			if with == "alone" {
				w.must(shared.k8s.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}))
			} else {
				w.must(shared.kubelet.LoseNode(t.Context(), "n1"))
			}
			<-d.ended // Whatever kubectl makes of it.
			w.counts("a", "n1")
			if with == "alone" {
				w.whole("a")
			} else if chain := w.chain("a"); chain.Lost > 0 || chain.Broken > 0 {
				t.Errorf("more is gone than what came after the checkpoint: %+v", chain)
			}
		})
	}
}

// A processor that fits nowhere else keeps working, and whoever waits reads why. Room lets the drain end.
func TestNoRoomAnywhere(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	pod := w.counter("a", "n1")
	w.cordon("n2", true)
	w.cordon("n3", true)
	d := w.draining("n1")
	d.says("no node fits")
	if now := w.counts("a", ""); now.UID != pod.UID {
		t.Errorf("pod %s, was %s", now.Name, pod.Name)
	}
	w.cordon("n3", false)
	d.succeeds()
	w.counts("a", "n1")
	w.whole("a")
}

// A processor that can only be restarted is not ended for a place that there is not.
func TestNoRoomAnywhereForARestart(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	pod := w.counter("a", "n1", func(p *doryv1alpha1.Processor) { p.Spec.Migration.Strategy = doryv1alpha1.MigrationStopAndCopy })
	w.cordon("n2", true)
	w.cordon("n3", true)
	d := w.draining("n1")
	d.says("no other node that is ready")
	if now := w.counts("a", ""); now.UID != pod.UID || len(w.moves()) != 0 {
		t.Errorf("pod %s, was %s; %d moves", now.Name, pod.Name, len(w.moves()))
	}
	w.cordon("n3", false)
	d.succeeds()
	w.counts("a", "n1")
	w.whole("a")
}
