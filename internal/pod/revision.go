package pod

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// Revision is a hash of everything in a Processor that its pod is made from. It covers the inputs and not the
// generated pod, so that a newer operator, which may generate a little differently, restarts nothing.
func Revision(p *doryv1alpha1.Processor, edgeNode string) string {
	spec := p.Spec.DeepCopy()
	spec.Suspend, spec.State, spec.Update, spec.Migration = nil, nil, nil, nil // say nothing about the pod
	spec.RestartedAt = ""                                                      // see restartDue
	spec.Probes.LivenessPath = ""                                              // compared by the probe itself, see wrongProbe
	spec.Placement = placementRevision(spec.Placement)
	encoded, err := json.Marshal(struct {
		Spec     *doryv1alpha1.ProcessorSpec `json:"spec"`
		EdgeNode string                      `json:"edgeNode,omitempty"`
	}{spec, edgeNode})
	if err != nil {
		// Only a RawExtension that is no JSON fails to encode, and the API server stores none. Its bytes still
		// tell one spec from another.
		encoded = spec.PodTemplate.Spec.Raw
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:8])
}

// placementRevision leaves out who finds the node: an instance that has one need not start again for that.
func placementRevision(placement *doryv1alpha1.ProcessorPlacement) *doryv1alpha1.ProcessorPlacement {
	if placement == nil || (placement.EdgeNode == "" && len(placement.NodeSelector) == 0) {
		return nil
	}
	return &doryv1alpha1.ProcessorPlacement{EdgeNode: placement.EdgeNode, NodeSelector: placement.NodeSelector}
}

// Outdated says whether the pod was made from another spec than the Processor's, or with other configuration, or a
// restart was asked for since. A
// pod without a revision was adopted and counts as current until the adoption has stamped it.
func Outdated(pod *corev1.Pod, p *doryv1alpha1.Processor, edgeNode string) bool {
	revision := pod.Annotations[doryv1alpha1.AnnotationRevision]
	return revision != "" && (revision != Revision(p, edgeNode) || RestartDue(pod, p) || len(ChangedConfig(pod, p)) > 0 || wrongProbe(pod, p))
}

// wrongProbe says whether the pod's liveness is probed at another path than the spec says, or than was learned. A
// path that was never said nor learned is wrong nowhere: an adopted pod keeps the one that it has, and so does one
// whose overlay says something else.
func wrongProbe(pod *corev1.Pod, p *doryv1alpha1.Processor) bool {
	said := p.Spec.Probes.LivenessPath
	if said == doryv1alpha1.LivenessPathAuto || said == "" {
		said = p.Status.LivenessPath
	}
	for _, container := range pod.Spec.Containers {
		probe := container.LivenessProbe
		if container.Name != ContainerName || said == "" || probe == nil || probe.HTTPGet == nil {
			continue
		}
		path := doryv1alpha1.LivenessPath(probe.HTTPGet.Path)
		known := path == doryv1alpha1.LivenessPathHealth || path == doryv1alpha1.LivenessPathHealthz
		return known && path != said
	}
	return false
}
