package oracle

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/dory-io/dory/internal/scheduler"
	"github.com/dory-io/dory/internal/scheduler/schedulertest"
	"github.com/dory-io/dory/test/oracle/kube"
)

// TestDecisionsPassTheFiltersOfKubeScheduler draws clusters, and pods one after another. Without a buffer, a pod may go to
// exactly the nodes that kube-scheduler's filters let it go to, but for nodes that are not ready, which kube-scheduler knows
// only by the taint that such a node gets.
func TestDecisionsPassTheFiltersOfKubeScheduler(t *testing.T) {
	theirs, err := kube.New(t.Context(), kube.Unchanged)
	if err != nil {
		t.Fatal(err)
	}
	drawn := 0
	rapid.Check(t, func(r *rapid.T) {
		w := world{T: r, theirs: theirs, ours: scheduler.New(scheduler.Options{}), buffered: scheduler.New(scheduler.Options{BufferPercent: 10})}
		defer w.clear()
		w.namespaces()
		for i := range rapid.IntRange(1, 6).Draw(r, "nodes") {
			w.addNode(schedulertest.Node(r, schedulertest.NodeName(i)))
		}
		for i := range rapid.IntRange(0, 12).Draw(r, "pods in place") {
			w.addPod(schedulertest.Pod(r, fmt.Sprintf("in-place-%d", i)), rapid.SampledFrom(w.nodes).Draw(r, "node").Name)
		}
		for i := range rapid.IntRange(1, 12).Draw(r, "pods") {
			drawn++
			w.decide(t, schedulertest.Pod(r, fmt.Sprintf("pod-%d", i)))
		}
	})
	t.Logf("%d decisions compared", drawn)
}

type world struct {
	*rapid.T
	theirs   *kube.Scheduler
	ours     *scheduler.Snapshot
	buffered *scheduler.Snapshot
	nodes    []*corev1.Node
	pods     []*corev1.Pod
	unready  []string
}

func (w *world) must(err error) {
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) namespaces() {
	for _, name := range schedulertest.Namespaces {
		labels := map[string]string{"colour": name}
		w.ours.SetNamespace(name, labels)
		w.buffered.SetNamespace(name, labels)
		w.must(w.theirs.SetNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}))
	}
}

// addNode gives a cordoned node the taint that it has in every cluster, because spreading may heed it.
func (w *world) addNode(n *corev1.Node) {
	if n.Spec.Unschedulable {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	if n.Status.Conditions[0].Status != corev1.ConditionTrue {
		w.unready = append(w.unready, n.Name)
	}
	w.nodes = append(w.nodes, n)
	w.ours.SetNode(n)
	w.buffered.SetNode(n)
	w.theirs.SetNode(n)
}

func (w *world) addPod(p *corev1.Pod, node string) {
	p.Spec.NodeName = node
	if rapid.IntRange(0, 9).Draw(w.T, "terminating") == 0 {
		p.DeletionTimestamp = &metav1.Time{}
	}
	w.pods = append(w.pods, p)
	w.must(w.theirs.SetPod(p))
	w.ours.SetPod(scheduler.NewPod(p, scheduler.PodOptions{}))
	w.buffered.SetPod(scheduler.NewPod(p, scheduler.PodOptions{}))
}

func (w *world) clear() {
	for _, p := range w.pods {
		w.must(w.theirs.DeletePod(p))
	}
	for _, n := range w.nodes {
		w.must(w.theirs.DeleteNode(n))
	}
}

func (w *world) decide(t *testing.T, object *corev1.Pod) {
	t.Helper()
	feasible, err := w.theirs.Feasible(t.Context(), object)
	w.must(err)
	feasible = slices.DeleteFunc(feasible, func(name string) bool { return slices.Contains(w.unready, name) })

	p := scheduler.NewPod(object, scheduler.PodOptions{})
	var fits []string
	for _, n := range w.nodes {
		if w.ours.Fits(p, n.Name, scheduler.How{}) {
			fits = append(fits, n.Name)
		}
	}
	if !slices.Equal(fits, feasible) {
		w.Fatalf("pod %s fits on %v; kube-scheduler says %v; refusal: %s", p.Key, fits, feasible, w.ours.Explain(p, scheduler.How{}))
	}
	for _, s := range []*scheduler.Snapshot{w.ours, w.buffered} {
		if node, found := s.Decide(p, scheduler.How{}); found && !slices.Contains(feasible, node) {
			w.Fatalf("pod %s goes to %s; kube-scheduler would let it go to %v", p.Key, node, feasible)
		}
	}
	node, found := w.ours.Decide(p, scheduler.How{})
	if found != (len(feasible) > 0) {
		w.Fatalf("pod %s is refused: %s; kube-scheduler would let it go to %v", p.Key, w.ours.Explain(p, scheduler.How{}), feasible)
	}
	if found {
		w.addPod(object, node)
	}
}
