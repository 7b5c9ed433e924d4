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
	spec.Suspend = nil
	spec.Probes.LivenessPath = LivenessPath(p)
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

// Outdated says whether the pod was made from another spec than the Processor's. A pod without a revision was
// adopted and counts as current until the adoption has stamped it.
func Outdated(pod *corev1.Pod, p *doryv1alpha1.Processor, edgeNode string) bool {
	revision := pod.Annotations[doryv1alpha1.AnnotationRevision]
	return revision != "" && revision != Revision(p, edgeNode)
}
