package pod

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// Target is what an Update brings a running instance to: the revision of the spec and, where a restart was asked for,
// that request, so that each request is an Update of its own. Without requests it is the revision.
func Target(p *doryv1alpha1.Processor, edgeNode string) string {
	revision := Revision(p, edgeNode)
	requests := restartRequests(p)
	if requests == (restarts{}) {
		return revision
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{revision, requests.annotation, requests.spec, requests.config}, "\n")))
	return hex.EncodeToString(sum[:8])
}

// restarts are the last values by which restarts were asked for: by people, and by changes of configuration.
type restarts struct{ annotation, spec, config string }

func restartRequests(p *doryv1alpha1.Processor) restarts {
	requests := restarts{annotation: bounded(p.Annotations[doryv1alpha1.AnnotationRestartedAt]), spec: p.Spec.RestartedAt}
	if p.RestartsOnConfigChange() && p.Status.Config != nil {
		requests.config = p.Status.Config.Revision
	}
	return requests
}

// bounded keeps a value that the API server does not check short enough to be copied to pods.
func bounded(value string) string {
	const limit = 64
	if len(value) <= limit {
		return value
	}
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])
}

// SameRequests says whether two states of a Processor ask for the same restarts. Its generation does not tell: neither
// an annotation nor a ConfigMap is spec.
func SameRequests(a, b *doryv1alpha1.Processor) bool { return restartRequests(a) == restartRequests(b) }

// RestartDue says whether people asked for a restart that the pod is from before. A request that was taken back asks for
// nothing: what it was to end may have ended already.
func RestartDue(pod *corev1.Pod, p *doryv1alpha1.Processor) bool {
	asked := restartRequests(p)
	return unmet(asked.annotation, pod.Annotations[doryv1alpha1.AnnotationRestartedAt]) ||
		unmet(asked.spec, pod.Annotations[doryv1alpha1.AnnotationSpecRestartedAt])
}

func unmet(asked, started string) bool { return asked != "" && asked != started }

// StampRestarts records on a pod that it is started under these requests and with this configuration.
func StampRestarts(pod *corev1.Pod, p *doryv1alpha1.Processor) {
	asked := restartRequests(p)
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	setOrDrop(pod.Annotations, doryv1alpha1.AnnotationRestartedAt, asked.annotation)
	setOrDrop(pod.Annotations, doryv1alpha1.AnnotationSpecRestartedAt, asked.spec)
	config := ""
	if p.RestartsOnConfigChange() {
		config = RecordConfig(p.Status.Config)
	}
	setOrDrop(pod.Annotations, doryv1alpha1.AnnotationConfig, config)
}
