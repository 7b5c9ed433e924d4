package placement

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

func TestPodsGoToTheFullestNode(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.node("b", "4")
	w.pod("others", "2", func(p *corev1.Pod) { p.Spec.NodeName, p.Spec.SchedulerName = w.name+"-b", "another" })
	w.start(0)
	w.pod("first", "1")
	w.runsOn("first", "b")
	w.pod("second", "2")
	w.runsOn("second", "a")
	if bindings, reports := w.counted(); bindings != 2 || reports != 0 {
		t.Errorf("%d bindings and %d reports, want 2 and none", bindings, reports)
	}
}

func TestOthersPodsAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.pod("others", "1", func(p *corev1.Pod) { p.Spec.SchedulerName = "another" })
	w.start(0)
	w.pod("gated", "1", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}} })
	w.pod("ours", "1")
	w.runsOn("ours", "a")
	for _, name := range []string{"others", "gated"} {
		if node := w.get(name).Spec.NodeName; node != "" {
			t.Errorf("pod %s was bound to %s", name, node)
		}
	}
	gated := w.get("gated")
	gated.Spec.SchedulingGates = nil
	w.must(w.client.Update(t.Context(), gated))
	w.runsOn("gated", "a")
}

func TestARefusedBindingIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	refused := make(chan struct{}, 10)
	w.refuse = func(string, string) error {
		refused <- struct{}{}
		return errors.New("the API server has a bad day")
	}
	w.start(0)
	w.pod("p", "4")
	<-refused
	w.mu.Lock()
	w.refuse = nil
	w.mu.Unlock()
	w.eventually("the retry is waited for", func() bool {
		w.clock.Step(firstRetry)
		return w.get("p").Spec.NodeName != ""
	})
	w.runsOn("p", "a")
}

func TestAPodLargerThanAnyNode(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.start(0)
	w.pod("large", "5")
	refusal := w.isRefused("large")
	if refusal.Reason != corev1.PodReasonUnschedulable || !strings.Contains(refusal.Message, "1 insufficient cpu") {
		t.Errorf("refused for %s: %s", refusal.Reason, refusal.Message)
	}
	// What does not help is not tried, and nothing is said twice.
	w.pod("small", "1")
	w.runsOn("small", "a")
	w.must(w.client.Delete(t.Context(), w.get("small"), client.GracePeriodSeconds(0)))
	w.pod("next", "1")
	w.runsOn("next", "a")
	if _, reports := w.counted(); reports != 1 {
		t.Errorf("%d reports, want 1", reports)
	}
	w.node("b", "8") // As an autoscaler would answer.
	w.runsOn("large", "b")
}

func TestTheBufferIsForWhoWaitedLongEnough(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.start(10)
	w.pod("p", "4")
	if refusal := w.isRefused("p"); !strings.Contains(refusal.Message, "only the 10% buffer left") {
		t.Errorf("refused: %s", refusal.Message)
	}
	w.clock.Step(defaultBufferPatience - time.Second)
	w.pod("q", "100m", func(p *corev1.Pod) { p.Spec.NodeSelector["no"] = "where" })
	w.isRefused("q")
	if node := w.get("p").Spec.NodeName; node != "" {
		t.Errorf("bound to %s too early", node)
	}
	w.clock.Step(2 * time.Second)
	w.runsOn("p", "a")
}

func TestAFlappingNodeGetsPodsOnlyWhileReady(t *testing.T) {
	w := newWorld(t)
	n := w.node("a", "64")
	w.start(0)
	for i := range 5 {
		w.setReady(n, corev1.ConditionUnknown)
		name := fmt.Sprintf("p%d", i)
		w.pod("probe"+name, "1")
		w.isRefused("probe" + name)
		w.setReady(n, corev1.ConditionTrue)
		w.runsOn("probe"+name, "a")
	}
}

func TestANodeThatIsGoneGetsNoPods(t *testing.T) {
	w := newWorld(t)
	n := w.node("a", "4")
	w.pod("others", "1", func(p *corev1.Pod) { p.Spec.NodeName = n.Name })
	w.start(0)
	w.pod("first", "1")
	w.runsOn("first", "a")
	w.must(w.client.Delete(t.Context(), n))
	w.pod("second", "1")
	w.isRefused("second")
	w.node("b", "4")
	w.runsOn("second", "b")
}

func TestManyPodsAtOnceFillNodesAndNoMore(t *testing.T) {
	w := newWorld(t)
	const nodes, pods = 10, 300
	for i := range nodes {
		w.node(fmt.Sprintf("n%d", i), "32")
	}
	for i := range pods {
		w.pod(fmt.Sprintf("p%03d", i), "1")
	}
	w.start(0)
	w.allBound(pods)
	w.neverOvercommitted(32)
}

// Two leaders for a moment may each give the same room away; the API server binds every pod once.
func TestTwoPlacementsBindEveryPodOnce(t *testing.T) {
	w := newWorld(t)
	const pods = 60
	for i := range 4 {
		w.node(fmt.Sprintf("n%d", i), "64")
	}
	w.start(0)
	w.start(0)
	for i := range pods {
		w.pod(fmt.Sprintf("p%03d", i), "1")
	}
	w.allBound(pods)
	if bindings, _ := w.counted(); bindings < pods {
		t.Errorf("%d bindings for %d pods", bindings, pods)
	}
}

func (w *world) allBound(want int) {
	w.Helper()
	w.eventually("every pod is bound", func() bool {
		w.clock.Step(lastRetry) // Who lost a race tries again.
		return len(w.used()) > 0 && w.boundPods() == want
	})
}

func (w *world) boundPods() int {
	var pods corev1.PodList
	w.must(w.client.List(w.Context(), &pods, client.InNamespace(w.name)))
	bound := 0
	for i := range pods.Items {
		if pods.Items[i].Spec.NodeName != "" {
			bound++
		}
	}
	return bound
}

func (w *world) used() map[string]int64 {
	var pods corev1.PodList
	w.must(w.client.List(w.Context(), &pods, client.InNamespace(w.name)))
	used := map[string]int64{}
	for i := range pods.Items {
		p := &pods.Items[i]
		used[p.Spec.NodeName] += p.Spec.Containers[0].Resources.Requests.Cpu().Value()
	}
	return used
}

func (w *world) neverOvercommitted(cpus int64) {
	w.Helper()
	for node, used := range w.used() {
		if node != "" && used > cpus {
			w.Errorf("node %s has %d CPUs, and pods for %d", node, cpus, used)
		}
	}
}

func TestAProcessorOfLowerPriorityMakesRoomByMoving(t *testing.T) {
	w := newWorld(t)
	urgent := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: w.name}, Value: 1000}
	w.must(w.client.Create(t.Context(), urgent))
	a, b := w.node("a", "4"), w.node("b", "3")
	others := func(p *corev1.Pod) { p.Spec.NodeName, p.Spec.SchedulerName = a.Name, "another" }
	calm := func(p *corev1.Pod) { p.Labels = map[string]string{doryv1alpha1.LabelProcessor: "calm"} }
	w.pod("calm-1", "3", others, calm)
	w.start(0)
	w.pod("ordinary", "4")
	w.isRefused("ordinary")
	if moves := w.moves(); len(moves) != 0 {
		t.Errorf("%d processors were asked to move for one that is not more important", len(moves))
	}
	w.pod("urgent", "4", func(p *corev1.Pod) { p.Spec.PriorityClassName = urgent.Name })
	w.eventually("the other was asked to move", func() bool { return len(w.moves()) == 1 })
	asked := w.moves()[0].Spec
	want := doryv1alpha1.ProcessorMigrationSpec{
		Processor: "calm", Reason: doryv1alpha1.MigrationPreemption, SourcePod: "calm-1", TargetNode: b.Name, ActiveDeadlineSeconds: new(int64(120)),
	}
	if asked.Processor != want.Processor || asked.Reason != want.Reason || asked.SourcePod != want.SourcePod || asked.TargetNode != want.TargetNode || *asked.ActiveDeadlineSeconds != 120 {
		t.Errorf("asked for %+v, want %+v", asked, want)
	}
	if calm := w.get("calm-1"); calm.DeletionTimestamp != nil {
		t.Error("the source was ended by placement")
	}
	w.must(w.client.Delete(t.Context(), w.get("calm-1"), client.GracePeriodSeconds(0))) // As the move does at its end.
	w.runsOn("urgent", "a")
}

func (w *world) moves() []doryv1alpha1.ProcessorMigration {
	w.Helper()
	var list doryv1alpha1.ProcessorMigrationList
	w.must(w.client.List(w.Context(), &list, client.InNamespace(w.name)))
	return list.Items
}

func TestAClaimThatIsNotBoundIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	b := w.node("b", "4")
	w.start(0)
	w.pod("p", "1", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
		}}}
	})
	if refusal := w.isRefused("p"); !strings.Contains(refusal.Message, "there is no PersistentVolumeClaim data") {
		t.Errorf("refused: %s", refusal.Message)
	}
	w.volumeOn(b.Name)
	w.runsOn("p", "b")
}

// volumeOn makes the claim data, and a local volume on a node for it.
func (w *world) volumeOn(node string) {
	w.Helper()
	amount := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: w.name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: amount, AccessModes: modes, StorageClassName: "local",
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/data"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
			}}}},
		},
	}
	w.must(w.client.Create(w.Context(), volume))
	class := "local"
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, StorageClassName: &class, VolumeName: w.name, Resources: corev1.VolumeResourceRequirements{Requests: amount},
		},
	}
	w.must(w.client.Create(w.Context(), claim))
	claim.Status.Phase = corev1.ClaimBound
	w.must(w.client.Status().Update(w.Context(), claim))
}
