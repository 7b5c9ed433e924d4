package placement

import (
	"cmp"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/component-helpers/storage/volume"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// claimStory plays the loop by hand, so that news comes in the order that a test wants.
type claimStory struct {
	*testing.T
	*loop
	client client.Client
	clock  *clocktesting.FakeClock
}

// newClaimStory has nodes, and one pod that uses claims of a class that waits for its first consumer.
func newClaimStory(t *testing.T, provisioner string, claims, nodes []string, more ...client.Object) *claimStory {
	t.Helper()
	mode, class := storagev1.VolumeBindingWaitForFirstConsumer, "class"
	objects := append([]client.Object{&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Provisioner: provisioner, VolumeBindingMode: &mode}}, more...)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "p"}, Spec: corev1.PodSpec{SchedulerName: "ours"}}
	using(claims...)(p)
	objects = append(objects, p)
	for _, name := range claims {
		objects = append(objects, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID(name)},
			Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		})
	}
	clk := clocktesting.NewFakeClock(time.Unix(1000, 0))
	for _, name := range nodes {
		objects = append(objects, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("10")},
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		}})
	}
	c := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithStatusSubresource(p).
		WithIndex(&corev1.PersistentVolume{}, indexFor, forWhom).WithObjects(objects...).Build()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s := &claimStory{T: t, client: c, clock: clk, loop: newLoop(Config{
		Client: c, Clock: clk, Recorder: &events.FakeRecorder{}, Metrics: metrics,
		Options: Options{SchedulerName: "ours", Concurrency: 1, Movable: func(*corev1.Pod) bool { return false }},
	}, newInbox(), c)}
	s.ctx = t.Context()
	for _, object := range objects {
		if node, ok := object.(*corev1.Node); ok {
			s.snapshot.SetNode(node)
		}
	}
	s.podChanged(p)
	return s
}

// place lets the loop decide once, and the clerk write. What the clerk has to say is not read yet.
func (s *claimStory) place() {
	s.Helper()
	s.waiting.due(s.clock.Now())
	if !s.placeNext(s.ctx) {
		s.Fatal("there is nothing to place")
	}
	s.clerks.wait()
}

func (s *claimStory) read() {
	for _, letter := range s.inbox.take() {
		letter(s.loop)
	}
	s.readVolumes()
}

// change a claim as somebody else does, which the cache shows at once.
func (s *claimStory) change(name string, change func(*corev1.PersistentVolumeClaim)) {
	s.Helper()
	var claim corev1.PersistentVolumeClaim
	if err := s.client.Get(s.ctx, client.ObjectKey{Namespace: "n", Name: name}, &claim); err != nil {
		s.Fatal(err)
	}
	change(&claim)
	phase := claim.Status.Phase
	if err := s.client.Update(s.ctx, &claim); err != nil {
		s.Fatal(err)
	}
	claim.Status.Phase = phase
	if err := s.client.Status().Update(s.ctx, &claim); err != nil {
		s.Fatal(err)
	}
	s.volumeNews[claimKey("n", name)] = true
}

func (s *claimStory) selected(claim string) string {
	s.Helper()
	var node string
	s.change(claim, func(c *corev1.PersistentVolumeClaim) { node = c.Annotations[volume.AnnSelectedNode] })
	return node
}

func giveUp(claim *corev1.PersistentVolumeClaim) { delete(claim.Annotations, volume.AnnSelectedNode) }

func bindTo(name string) func(*corev1.PersistentVolumeClaim) {
	return func(claim *corev1.PersistentVolumeClaim) {
		claim.Spec.VolumeName, claim.Status.Phase = name, corev1.ClaimBound
	}
}

func volumeNamed(name string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: "class", AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable},
	}
}

const disks = "example.com/disks"

func (s *claimStory) assumedOn(node string) {
	s.Helper()
	if at, _ := s.snapshot.Assumed("n/p"); at != node {
		s.Fatalf("the pod is assumed on %q, want %q", at, node)
	}
}

func TestAProvisionerThatGivesUpBeforeAnybodyLooks(t *testing.T) {
	for _, claims := range [][]string{{"one"}, {"one", "two"}} {
		s := newClaimStory(t, disks, claims, []string{"a", "b"})
		s.place()
		if at := s.selected("one"); at != "a" {
			t.Fatalf("node %q is selected, want a", at)
		}
		s.change("one", giveUp)
		s.read()
		s.assumedOn("")
		s.clock.Step(firstRetry)
		s.place()
		if len(claims) == 1 { // Of two, the other one's volume may still come.
			s.assumedOn("b")
		}
	}
}

func TestOldNewsOfAClaimIsNoRefusal(t *testing.T) {
	s := newClaimStory(t, disks, []string{"one"}, []string{"a"})
	s.place()
	s.read()
	s.waiting.pods["n/p"].claiming.promises[0].version = "1000000" // The cache is behind what was written.
	s.change("one", giveUp)
	s.read()
	s.assumedOn("a")
}

func TestClaimsAreNotWaitedForForEver(t *testing.T) {
	s := newClaimStory(t, disks, []string{"one"}, []string{"a"})
	s.place()
	s.read()
	s.clock.Step(claimPatience - 1)
	s.waiting.due(s.clock.Now())
	if s.waiting.ready.Len() != 0 {
		t.Fatal("given up too early")
	}
	s.clock.Step(1)
	s.place()
	s.assumedOn("")
	s.clock.Step(firstRetry) // A volume may still be on its way there.
	s.place()
	s.assumedOn("a")
}

func TestAVolumeThatWasForAnEarlierClaimIsNotWaitedFor(t *testing.T) {
	s := newClaimStory(t, volume.NotSupportedProvisioner, []string{"one"}, []string{"a"}, volumeNamed("v"))
	s.place()
	s.read()
	s.assumedOn("a")
	s.change("one", func(c *corev1.PersistentVolumeClaim) { c.UID = "made anew" })
	s.read()
	s.assumedOn("")
}

func TestAVolumeThatAnotherPodIsAboutToGetIsLeftToIt(t *testing.T) {
	for claim, want := range map[types.UID]string{"another": "w", "one": "v"} { // Two pods may use one claim.
		s := newClaimStory(t, volume.NotSupportedProvisioner, []string{"one"}, []string{"a"}, volumeNamed("v"), volumeNamed("w"))
		waitingPod(s.waiting, "other").claiming = &claiming{choices: []choice{{
			claim: &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: claim}}, volume: volumeNamed("v"),
		}}}
		choices, err := s.choose(s.waiting.pods["n/p"], "a")
		if err != nil || choices[0].volume.Name != want {
			t.Errorf("beside claim %s: %v is chosen, want %s: %v", claim, choices, want, err)
		}
	}
}

func TestAPodIsToldWhatItsClaimsLack(t *testing.T) {
	s := newClaimStory(t, volume.NotSupportedProvisioner, []string{"one", "two"}, []string{"a"}, volumeNamed("v"))
	for range 2 { // It is tried again and again.
		s.place()
		s.read()
		s.assumedOn("")
		s.clock.Step(lastRetry)
		s.place()
		var p corev1.Pod
		if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: "n", Name: "p"}, &p); err != nil {
			t.Fatal(err)
		}
		refusal := refusalOf(&p)
		if refusal == nil || !strings.Contains(refusal.Message, "0/1 nodes fit: 1 a volume cannot be reached; on a: no PersistentVolume is left for claim two") {
			t.Fatalf("told: %v", refusal)
		}
		s.read()
		s.clock.Step(lastRetry)
	}
	var v corev1.PersistentVolume
	if err := s.client.Get(t.Context(), client.ObjectKey{Name: "v"}, &v); err != nil || v.Spec.ClaimRef != nil {
		t.Errorf("the volume was given to %v, which does not help: %v", v.Spec.ClaimRef, err)
	}
}

func TestALateAnswerAboutClaimsChangesNothing(t *testing.T) {
	s := newClaimStory(t, disks, []string{"one"}, []string{"a", "b"}, volumeNamed("v"))
	s.place()
	late := s.inbox.take()
	s.change("one", bindTo("v"))
	s.read()
	s.place() // The binding is sent, and its end not read yet.
	for _, letter := range late {
		letter(s.loop)
	}
	s.assumedOn("a")
	w := s.waiting.pods["n/p"]
	s.claimed(w.pod, w.attempts, nil, errNoVolume)
	s.assumedOn("a")
	if s.waiting.ready.Len() != 0 {
		t.Error("the pod would be bound twice")
	}
}

func TestAClaimThatHasANodeGetsNoOther(t *testing.T) {
	s := newClaimStory(t, disks, []string{"one"}, []string{"a", "b"}, volumeNamed("v"))
	s.change("one", func(c *corev1.PersistentVolumeClaim) {
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, volume.AnnSelectedNode, "b")
	})
	if _, err := s.choose(s.waiting.pods["n/p"], "a"); !errors.Is(err, errNews) {
		t.Errorf("error %v, want %v", err, errNews)
	}
	s.place()
	s.read()
	s.assumedOn("b")
	if at := s.selected("one"); at != "b" {
		t.Errorf("node %q is selected now", at)
	}
	var v corev1.PersistentVolume
	if err := s.client.Get(t.Context(), client.ObjectKey{Name: "v"}, &v); err != nil || v.Spec.ClaimRef != nil {
		t.Errorf("the volume was given to %v, and one is being made: %v", v.Spec.ClaimRef, err)
	}
}

func TestWhichClaimsAreWaitedFor(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*corev1.PersistentVolumeClaim)
		pod     func(*corev1.Pod)
		class   string
		deleted bool
		problem string
	}{
		{name: "of a class that waits", change: func(*corev1.PersistentVolumeClaim) {}},
		{name: "mounted twice", change: func(*corev1.PersistentVolumeClaim) {}, pod: using("one")},
		{name: "of a class that binds at once", change: func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = new("immediate") }, problem: "PersistentVolumeClaim one is not bound"},
		{name: "for which a node was selected that is gone", change: func(c *corev1.PersistentVolumeClaim) {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, volume.AnnSelectedNode, "gone")
		}},
		{name: "that asks for what no volume offers", class: volume.NotSupportedProvisioner, problem: "no PersistentVolume suits claim one", change: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}},
		{name: "that is being deleted", problem: "PersistentVolumeClaim one is being deleted", change: func(c *corev1.PersistentVolumeClaim) {
			c.Finalizers = []string{"kubernetes.io/pvc-protection"}
		}, deleted: true},
		{name: "of no class", change: func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = new("") }, problem: "PersistentVolumeClaim one is not bound"},
		{name: "of a class that is not there", change: func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = new("gone") }, problem: "reading StorageClass gone"},
		{name: "bound to a volume that is not there", change: bindTo("gone"), problem: "reading PersistentVolume gone of claim one"},
		{name: "that has lost its volume", change: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName, c.Status.Phase = "gone", corev1.ClaimLost }, problem: "PersistentVolumeClaim one is not bound"},
		{
			name: "of somebody else, by the name of an ephemeral volume's", change: func(*corev1.PersistentVolumeClaim) {}, problem: "pod is not owner",
			pod: func(p *corev1.Pod) {
				p.Name = "o"
				p.Spec.Volumes = []corev1.Volume{{Name: "ne", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}}
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			immediate := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "immediate"}, Provisioner: disks}
			s := newClaimStory(t, cmp.Or(c.class, disks), []string{"one"}, []string{"a"}, immediate, volumeNamed("v"), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "o-ne"}})
			s.change("one", c.change)
			if c.deleted {
				if err := s.client.Delete(t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "one"}}); err != nil {
					t.Fatal(err)
				}
			}
			object := s.waiting.pods["n/p"].object.DeepCopy()
			if c.pod != nil {
				c.pod(object)
			}
			v := s.volumesOf(object)
			switch {
			case c.problem == "" && (v.problem != "" || len(v.unbound) != 1 || len(v.reachable) != 0):
				t.Errorf("problem %q, unbound %q, reachable from %v", v.problem, v.unbound, v.reachable)
			case !strings.Contains(v.problem, c.problem):
				t.Errorf("problem %q, want %q", v.problem, c.problem)
			}
		})
	}
}

func TestAPodThatWasToldToEndIsNotBoundAgainAndAgain(t *testing.T) {
	s := newClaimStory(t, disks, nil, []string{"a"})
	s.place()
	s.inbox.take()
	w := s.waiting.pods["n/p"]
	p := w.object.DeepCopy()
	if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil {
		t.Fatal(err)
	}
	p.Finalizers, p.Spec.NodeName = []string{"example.com/stays"}, ""
	if err := s.client.Update(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := s.client.Delete(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	s.bound(w.pod, apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "p", errors.New("it is being deleted")))
	s.assumedOn("")
	if s.waiting.len() != 0 {
		t.Error("it is still waited for")
	}
}

func TestAVolumeThatIsMeantForAClaimSaysWhere(t *testing.T) {
	v := volumeNamed("v")
	v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "n", Name: "one"}
	v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: onlyFrom("b")}
	s := newClaimStory(t, disks, []string{"one"}, []string{"a", "b"}, v)
	s.place()
	s.read()
	s.assumedOn("b")
	if at := s.selected("one"); at != "" {
		t.Errorf("another volume is asked for, on %s", at)
	}
}

func TestNothingIsProvisionedWhereTheClassDoesNot(t *testing.T) {
	s := newClaimStory(t, disks, []string{"one", "two"}, []string{"a"}, volumeNamed("v"))
	var class storagev1.StorageClass
	if err := s.client.Get(t.Context(), client.ObjectKey{Name: "class"}, &class); err != nil {
		t.Fatal(err)
	}
	class.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: zone, Values: []string{"west"}}}}}
	if err := s.client.Update(t.Context(), &class); err != nil {
		t.Fatal(err)
	}
	s.place()
	s.read()
	s.assumedOn("")
	if at := s.selected("two"); at != "" {
		t.Errorf("a volume is asked for on %s, which is not in the west", at)
	}
}
