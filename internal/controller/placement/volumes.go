package placement

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/component-helpers/storage/volume"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// volumes are what the volumes of a pod mean for its place.
type volumes struct {
	// reachable is from where each of them can be reached, or could be.
	reachable []*corev1.NodeSelector
	// unbound are the claims that are bound once the pod has a node, and classes are theirs.
	unbound, classes []string
	// fixed says that one of them has a node already.
	fixed bool
	// problem is why the pod cannot be placed before somebody does something.
	problem string
}

func (v *volumes) equal(other volumes) bool {
	return v.problem == other.problem && v.fixed == other.fixed && slices.Equal(v.unbound, other.unbound) && slices.Equal(v.classes, other.classes) &&
		equality.Semantic.DeepEqual(v.reachable, other.reachable)
}

// volumesOf reads the claims of a pod.
func volumesOf(ctx context.Context, reader client.Reader, pod *corev1.Pod) volumes {
	var v volumes
	for i := range pod.Spec.Volumes {
		if err := v.add(ctx, reader, pod, &pod.Spec.Volumes[i]); err != nil {
			return volumes{problem: err.Error()}
		}
	}
	return v
}

func claimName(pod *corev1.Pod, of *corev1.Volume) string {
	if of.PersistentVolumeClaim != nil {
		return of.PersistentVolumeClaim.ClaimName
	}
	return ephemeral.VolumeClaimName(pod, of)
}

func (v *volumes) add(ctx context.Context, reader client.Reader, pod *corev1.Pod, of *corev1.Volume) error {
	name := claimName(pod, of)
	var claim corev1.PersistentVolumeClaim
	switch err := reader.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: name}, &claim); {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("there is no PersistentVolumeClaim %s", name)
	case err != nil:
		return fmt.Errorf("reading PersistentVolumeClaim %s: %w", name, err)
	case claim.DeletionTimestamp != nil:
		return fmt.Errorf("PersistentVolumeClaim %s is being deleted", name)
	}
	if of.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(pod, &claim); err != nil {
			return err
		}
	}
	if claim.Spec.VolumeName != "" && claim.Status.Phase == corev1.ClaimBound {
		return v.addBound(ctx, reader, &claim)
	}
	return v.addUnbound(ctx, reader, &claim)
}

func (v *volumes) addBound(ctx context.Context, reader client.Reader, claim *corev1.PersistentVolumeClaim) error {
	var bound corev1.PersistentVolume
	if err := reader.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, &bound); err != nil {
		return fmt.Errorf("reading PersistentVolume %s of claim %s: %w", claim.Spec.VolumeName, claim.Name, err)
	}
	v.reach(reachOf(&bound))
	return nil
}

// addUnbound takes a claim that waits for its first consumer.
func (v *volumes) addUnbound(ctx context.Context, reader client.Reader, claim *corev1.PersistentVolumeClaim) error {
	if slices.Contains(v.unbound, claim.Name) {
		return nil // The pod mounts it twice.
	}
	class, err := classOf(ctx, reader, claim)
	if err != nil {
		return err
	}
	suitable, err := suitableVolumes(ctx, reader, claim)
	if err != nil {
		return err
	}
	v.unbound, v.classes = append(v.unbound, claim.Name), append(v.classes, class.Name)
	switch node, err := selectedNode(ctx, reader, claim); {
	case err != nil:
		return err
	case prebound(claim, suitable):
		v.fixed = true
		v.reach(reachOf(suitable[0]))
	case node != "":
		v.fixed = true
		v.reach(onlyFrom(node))
	case provisions(class):
		v.reach(anyOf(append(reaches(suitable), topologiesOf(class))))
	case len(suitable) == 0:
		return fmt.Errorf("no PersistentVolume suits claim %s, and StorageClass %s provisions none", claim.Name, class.Name)
	default:
		v.reach(anyOf(reaches(suitable)))
	}
	return nil
}

// reach adds a condition; nil is none.
func (v *volumes) reach(from *corev1.NodeSelector) {
	if from != nil {
		v.reachable = append(v.reachable, from)
	}
}

// classOf is the StorageClass of a claim that waits for its first consumer. The error says why no other claim is waited for.
func classOf(ctx context.Context, reader client.Reader, claim *corev1.PersistentVolumeClaim) (*storagev1.StorageClass, error) {
	name := volume.GetPersistentVolumeClaimClass(claim)
	if name == "" || claim.Spec.VolumeName != "" {
		return nil, fmt.Errorf("PersistentVolumeClaim %s is not bound", claim.Name)
	}
	var class storagev1.StorageClass
	if err := reader.Get(ctx, client.ObjectKey{Name: name}, &class); err != nil {
		return nil, fmt.Errorf("PersistentVolumeClaim %s is not bound: reading StorageClass %s: %w", claim.Name, name, err)
	}
	if mode := class.VolumeBindingMode; mode == nil || *mode != storagev1.VolumeBindingWaitForFirstConsumer {
		return nil, fmt.Errorf("PersistentVolumeClaim %s is not bound", claim.Name)
	}
	return &class, nil
}

// selectedNode is where a claim is being provisioned for already. A node that is gone holds nobody.
func selectedNode(ctx context.Context, reader client.Reader, claim *corev1.PersistentVolumeClaim) (string, error) {
	name := claim.Annotations[volume.AnnSelectedNode]
	if name == "" {
		return "", nil
	}
	switch err := reader.Get(ctx, client.ObjectKey{Name: name}, &corev1.Node{}); {
	case apierrors.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("reading node %s, which is selected for claim %s: %w", name, claim.Name, err)
	}
	return name, nil
}

// suitableVolumes are those that could be bound to a claim, the smallest first, or the one alone that is meant for it.
func suitableVolumes(ctx context.Context, reader client.Reader, claim *corev1.PersistentVolumeClaim) ([]*corev1.PersistentVolume, error) {
	var suitable []*corev1.PersistentVolume
	for _, whom := range []string{claimKey(claim.Namespace, claim.Name), classKey(volume.GetPersistentVolumeClaimClass(claim))} {
		var all corev1.PersistentVolumeList
		if err := reader.List(ctx, &all, client.MatchingFields{indexFor: whom}, client.UnsafeDisableDeepCopy); err != nil { // Nobody changes them.
			return nil, fmt.Errorf("reading PersistentVolumes for claim %s: %w", claim.Name, err)
		}
		for i := range all.Items {
			one := &all.Items[i]
			found, err := volume.FindMatchingVolume(claim, []*corev1.PersistentVolume{one}, nil, nil, false, true)
			switch {
			case err != nil:
				return nil, fmt.Errorf("looking for a PersistentVolume for claim %s: %w", claim.Name, err)
			case found == nil:
			case volume.IsVolumeBoundToClaim(one, claim):
				return []*corev1.PersistentVolume{one}, nil
			case volume.CheckAccessModes(claim, one):
				suitable = append(suitable, one)
			}
		}
	}
	slices.SortFunc(suitable, func(a, b *corev1.PersistentVolume) int {
		return cmp.Or(a.Spec.Capacity.Storage().Cmp(*b.Spec.Capacity.Storage()), strings.Compare(a.Name, b.Name))
	})
	return suitable, nil
}

// indexFor finds PersistentVolumes by the claim that they are meant for, or by their class if they are free.
const indexFor = "for"

func claimKey(namespace, name string) string { return "claim/" + namespace + "/" + name }

func classKey(name string) string { return "class/" + name }

func forWhom(object client.Object) []string {
	v, ok := object.(*corev1.PersistentVolume)
	switch {
	case !ok:
		return nil
	case v.Spec.ClaimRef != nil:
		return []string{claimKey(v.Spec.ClaimRef.Namespace, v.Spec.ClaimRef.Name)}
	case v.Status.Phase == corev1.VolumeAvailable:
		return []string{classKey(volume.GetPersistentVolumeClass(v))}
	default:
		return nil
	}
}

// volumeNews are the keys of the claims and classes of which something has changed since those who wait for them were looked at.
type volumeNews map[string]bool

// concerns says whether a pod is to be looked at. What its volumes lack may be anything.
func (n volumeNews) concerns(pod *corev1.Pod, v *volumes) bool {
	return v.problem != "" || slices.ContainsFunc(v.classes, func(class string) bool { return n[classKey(class)] }) ||
		slices.ContainsFunc(pod.Spec.Volumes, func(of corev1.Volume) bool { return n[claimKey(pod.Namespace, claimName(pod, &of))] })
}

func prebound(claim *corev1.PersistentVolumeClaim, suitable []*corev1.PersistentVolume) bool {
	return len(suitable) == 1 && volume.IsVolumeBoundToClaim(suitable[0], claim)
}

func provisions(class *storagev1.StorageClass) bool {
	return class.Provisioner != volume.NotSupportedProvisioner
}

// reachOf is nil where a volume can be reached from everywhere.
func reachOf(v *corev1.PersistentVolume) *corev1.NodeSelector {
	if v.Spec.NodeAffinity == nil {
		return nil
	}
	return v.Spec.NodeAffinity.Required
}

func reaches(all []*corev1.PersistentVolume) []*corev1.NodeSelector {
	selectors := make([]*corev1.NodeSelector, 0, len(all))
	for _, v := range all {
		selectors = append(selectors, reachOf(v))
	}
	return selectors
}

// topologiesOf are those in which a class provisions volumes. Nil: all.
func topologiesOf(class *storagev1.StorageClass) *corev1.NodeSelector {
	if len(class.AllowedTopologies) == 0 {
		return nil
	}
	selector := &corev1.NodeSelector{}
	for _, topology := range class.AllowedTopologies {
		selector.NodeSelectorTerms = append(selector.NodeSelectorTerms, termOf(topology))
	}
	return selector
}

// anyOf joins conditions of which one has to hold. Nil, as one that always does.
func anyOf(selectors []*corev1.NodeSelector) *corev1.NodeSelector {
	union := &corev1.NodeSelector{}
	for _, selector := range selectors {
		if selector == nil {
			return nil
		}
		union.NodeSelectorTerms = append(union.NodeSelectorTerms, selector.NodeSelectorTerms...)
	}
	return union
}

// within takes a selector that cannot be read for one that matches nothing, as the engine does.
func within(selector *corev1.NodeSelector, node *corev1.Node) bool {
	if selector == nil {
		return true
	}
	matches, err := nodeaffinity.NewLazyErrorNodeSelector(selector).Match(node)
	return err == nil && matches
}

func termOf(topology corev1.TopologySelectorTerm) corev1.NodeSelectorTerm {
	var term corev1.NodeSelectorTerm
	for _, label := range topology.MatchLabelExpressions {
		term.MatchExpressions = append(term.MatchExpressions, corev1.NodeSelectorRequirement{
			Key: label.Key, Operator: corev1.NodeSelectorOpIn, Values: label.Values,
		})
	}
	return term
}

func onlyFrom(node string) *corev1.NodeSelector { return byName(corev1.NodeSelectorOpIn, node) }

func notFrom(nodes []string) *corev1.NodeSelector {
	return byName(corev1.NodeSelectorOpNotIn, nodes...)
}

// byName asks for each node by itself: a field takes one value.
func byName(operator corev1.NodeSelectorOperator, nodes ...string) *corev1.NodeSelector {
	var term corev1.NodeSelectorTerm
	for _, node := range nodes {
		term.MatchFields = append(term.MatchFields, corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: operator, Values: []string{node}})
	}
	return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}}
}
