package placement

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/volume"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const zone = "example.com/zone"

// class makes a StorageClass of the world whose claims wait for their first consumer.
func (w *world) class(provisioner string, zones ...string) {
	w.Helper()
	mode := storagev1.VolumeBindingWaitForFirstConsumer
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: w.name}, Provisioner: provisioner, VolumeBindingMode: &mode}
	if len(zones) > 0 {
		class.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: zone, Values: zones}}}}
	}
	w.must(w.client.Create(w.Context(), class))
	w.Cleanup(func() { _ = client.IgnoreNotFound(w.client.Delete(context.Background(), class)) })
}

func (w *world) claim(name string) {
	w.Helper()
	w.must(w.client.Create(w.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &w.name,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}))
}

// volume makes one of the world's class that can be reached from a node alone.
func (w *world) volume(name, node, size string) *corev1.PersistentVolume {
	w.Helper()
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: w.name + "-" + name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)},
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: w.name,
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/data"}},
			NodeAffinity:           &corev1.VolumeNodeAffinity{Required: onlyFrom(w.name + "-" + node)},
		},
	}
	w.must(w.client.Create(w.Context(), v))
	w.Cleanup(func() { _ = client.IgnoreNotFound(w.client.Delete(context.Background(), v)) })
	v.Status.Phase = corev1.VolumeAvailable
	w.must(w.client.Status().Update(w.Context(), v))
	return v
}

// bindClaim does what Kubernetes' controller of volumes does once a volume is promised to a claim.
func (w *world) bindClaim(name, toVolume string) {
	w.Helper()
	claim := w.getClaim(name)
	claim.Spec.VolumeName = toVolume
	w.must(w.client.Update(w.Context(), claim))
	claim.Status.Phase = corev1.ClaimBound
	w.must(w.client.Status().Update(w.Context(), claim))
}

func (w *world) getClaim(name string) *corev1.PersistentVolumeClaim {
	w.Helper()
	var claim corev1.PersistentVolumeClaim
	w.must(w.client.Get(w.Context(), client.ObjectKey{Namespace: w.name, Name: name}, &claim))
	return &claim
}

// isPromised waits until a volume is promised to a claim.
func (w *world) isPromised(v *corev1.PersistentVolume, claim string) {
	w.Helper()
	w.eventually("volume "+v.Name+" is promised to claim "+claim, func() bool {
		w.must(w.client.Get(w.Context(), client.ObjectKeyFromObject(v), v))
		return volume.IsVolumeBoundToClaim(v, w.getClaim(claim))
	})
	if v.Annotations[volume.AnnBoundByController] == "" {
		w.Errorf("volume %s would stay promised when claim %s is gone", v.Name, claim)
	}
}

// isSelected waits until a claim is to be provisioned for a node.
func (w *world) isSelected(claim, node string) {
	w.Helper()
	w.eventually("node "+node+" is selected for claim "+claim, func() bool {
		return w.getClaim(claim).Annotations[volume.AnnSelectedNode] == w.name+"-"+node
	})
}

// giveUp does what a provisioner does that can make no volume for the node.
func (w *world) giveUp(name string) {
	w.Helper()
	claim := w.getClaim(name)
	delete(claim.Annotations, volume.AnnSelectedNode)
	w.must(w.client.Update(w.Context(), claim))
}

func using(claims ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, claim := range claims {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
			}})
		}
	}
}

func inZone(name string) func(*corev1.Node) { return func(n *corev1.Node) { n.Labels[zone] = name } }

func (w *world) label(n *corev1.Node, change func(*corev1.Node)) {
	w.Helper()
	change(n)
	w.must(w.client.Update(w.Context(), n))
}

func TestAPodGoesWhereThereIsAVolumeForItsClaim(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.node("b", "4")
	w.class(volume.NotSupportedProvisioner)
	w.volume("large", "b", "5Gi")
	v := w.volume("small", "b", "2Gi")
	w.volume("too-small", "a", "1Mi")
	w.claim("data")
	w.start(0)
	w.pod("p", "1", using("data"))
	w.isPromised(v, "data")
	if node := w.get("p").Spec.NodeName; node != "" {
		t.Fatalf("bound to %s before its claim was", node)
	}
	w.bindClaim("data", v.Name)
	w.runsOn("p", "b")
}

func TestRoomIsKeptForAPodWhoseClaimsAreBeingBound(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.class(volume.NotSupportedProvisioner)
	v := w.volume("v", "a", "1Gi")
	w.claim("data")
	w.start(0)
	w.pod("p", "3", using("data"))
	w.isPromised(v, "data")
	w.pod("other", "2")
	w.isRefused("other")
	w.bindClaim("data", v.Name)
	w.runsOn("p", "a")
}

func TestAVolumeGoesToOneClaim(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.node("b", "4")
	w.class(volume.NotSupportedProvisioner)
	first, second, third := w.volume("v1", "a", "1Gi"), w.volume("v2", "b", "1Gi"), w.volume("v3", "b", "1Gi")
	w.claim("one")
	w.claim("other")
	w.claim("third")
	w.start(0)
	w.pod("p", "1", using("one", "other"))
	// A first look says that a will do for each of the claims; only b does for both.
	w.eventually("both volumes of b are promised", func() bool {
		w.clock.Step(lastRetry)
		w.must(w.client.Get(t.Context(), client.ObjectKeyFromObject(second), second))
		w.must(w.client.Get(t.Context(), client.ObjectKeyFromObject(third), third))
		return second.Spec.ClaimRef != nil && third.Spec.ClaimRef != nil
	})
	w.must(w.client.Get(t.Context(), client.ObjectKeyFromObject(first), first))
	if first.Spec.ClaimRef != nil {
		t.Errorf("volume %s was promised to %s", first.Name, first.Spec.ClaimRef.Name)
	}
	w.bindClaim(second.Spec.ClaimRef.Name, second.Name)
	w.bindClaim(third.Spec.ClaimRef.Name, third.Name)
	w.runsOn("p", "b")
	w.pod("q", "1", using("third"))
	w.isPromised(first, "third")
}

func TestAVolumeIsProvisionedForTheNodeOfThePod(t *testing.T) {
	w := newWorld(t)
	w.label(w.node("a", "4"), inZone("east"))
	w.label(w.node("b", "4"), inZone("west"))
	w.class("example.com/disks", "west", "south")
	w.claim("data")
	w.start(0)
	w.pod("p", "1", using("data"))
	w.isSelected("data", "b")
	v := w.volume("made", "b", "1Gi")
	w.bindClaim("data", v.Name)
	w.runsOn("p", "b")
}

func TestAProvisionerThatGivesUpIsAskedForAnotherNode(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.node("b", "4")
	w.class("example.com/disks")
	w.claim("data")
	w.start(0)
	w.pod("p", "1", using("data"))
	for _, node := range []string{"a", "b", "a"} { // In the end it may be that a can have one after all.
		w.eventually("node "+node+" is selected", func() bool {
			w.clock.Step(lastRetry)
			return w.getClaim("data").Annotations[volume.AnnSelectedNode] == w.name+"-"+node
		})
		if node := w.get("p").Spec.NodeName; node != "" {
			t.Fatalf("bound to %s without its volume", node)
		}
		w.giveUp("data")
	}
	w.eventually("a node is selected once more", func() bool {
		w.clock.Step(lastRetry)
		return w.getClaim("data").Annotations[volume.AnnSelectedNode] != ""
	})
	v := w.volume("made", "b", "1Gi")
	w.bindClaim("data", v.Name)
	w.eventually("the pod is bound", func() bool {
		w.clock.Step(lastRetry)
		return w.get("p").Spec.NodeName == w.name+"-b"
	})
}

func TestANewLeaderGoesOnWithTheNodeThatWasSelected(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.label(w.node("b", "4"), inZone("west"))
	w.class("example.com/disks")
	w.claim("data")
	claim := w.getClaim("data")
	metav1.SetMetaDataAnnotation(&claim.ObjectMeta, volume.AnnSelectedNode, w.name+"-b")
	w.must(w.client.Update(t.Context(), claim))
	w.volume("also-there", "a", "1Gi") // It is not for a claim for which another one is being made.
	w.pod("p", "3", using("data"))
	w.start(0)
	w.pod("rival", "2", func(p *corev1.Pod) { p.Spec.NodeSelector[zone] = "west" })
	w.isRefused("rival") // p has its room on b.
	w.isSelected("data", "b")
	v := w.volume("made", "b", "1Gi")
	w.bindClaim("data", v.Name)
	w.runsOn("p", "b")
}

func TestAClassThatComesLater(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.claim("data")
	w.start(0)
	w.pod("p", "1", using("data"))
	if refusal := w.isRefused("p"); !strings.Contains(refusal.Message, "reading StorageClass "+w.name) {
		t.Errorf("refused: %s", refusal.Message)
	}
	w.class("example.com/disks")
	w.isSelected("data", "a")
}

func TestAClaimThatNobodyCanServe(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.class(volume.NotSupportedProvisioner)
	w.claim("data")
	w.start(0)
	w.pod("p", "1", using("data"))
	if refusal := w.isRefused("p"); !strings.Contains(refusal.Message, "no PersistentVolume suits claim data, and StorageClass "+w.name+" provisions none") {
		t.Errorf("refused: %s", refusal.Message)
	}
	v := w.volume("v", "a", "1Gi")
	w.isPromised(v, "data")
	w.bindClaim("data", v.Name)
	w.runsOn("p", "a")
}

func TestAPodThatIsDeletedWhileItsClaimsAreBoundKeepsNoRoom(t *testing.T) {
	w := newWorld(t)
	w.node("a", "4")
	w.class("example.com/disks")
	w.claim("data")
	w.start(0)
	w.pod("p", "3", using("data"), func(p *corev1.Pod) { p.Finalizers = []string{"example.com/stays"} })
	w.isSelected("data", "a")
	w.pod("other", "2")
	w.isRefused("other")
	w.must(w.client.Delete(t.Context(), w.get("p")))
	w.runsOn("other", "a")
	p := w.get("p")
	p.Finalizers = nil
	w.must(w.client.Update(t.Context(), p))
}
