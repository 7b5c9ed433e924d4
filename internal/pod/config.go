package pod

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// RecordConfig is what AnnotationConfig says of a pod that is made while the objects are as given; empty if there is
// nothing to say.
func RecordConfig(config *doryv1alpha1.ProcessorConfig) string {
	if config == nil || len(config.Objects) == 0 {
		return ""
	}
	record := make(map[string]string, len(config.Objects))
	for _, object := range config.Objects {
		record[nameOf(object)] = object.Hash
	}
	encoded, err := json.Marshal(record)
	if err != nil {
		return "" // A map of strings always encodes.
	}
	return string(encoded)
}

func nameOf(object doryv1alpha1.ConfigObject) string { return string(object.Kind) + " " + object.Name }

// ChangedConfig names the objects whose content is another than the pod was made with. One that the pod has no record of
// changed nothing: it came with the spec, or the pod could not have started before it was there. Nor did one that is gone.
func ChangedConfig(pod *corev1.Pod, p *doryv1alpha1.Processor) []string {
	recorded := pod.Annotations[doryv1alpha1.AnnotationConfig]
	if !p.RestartsOnConfigChange() || p.Status.Config == nil || recorded == "" {
		return nil
	}
	var record map[string]string
	if err := json.Unmarshal([]byte(recorded), &record); err != nil {
		return nil // Not ours: nothing is ended on its word.
	}
	var changed []string
	for _, object := range p.Status.Config.Objects {
		if had, known := record[nameOf(object)]; known && object.Hash != "" && object.Hash != had {
			changed = append(changed, nameOf(object))
		}
	}
	return changed
}

// Cause says in a few words why the pod is outdated.
func Cause(pod *corev1.Pod, p *doryv1alpha1.Processor, edgeNode string) string {
	changed := ChangedConfig(pod, p)
	switch {
	case pod.Annotations[doryv1alpha1.AnnotationRevision] != Revision(p, edgeNode):
		return "the spec changed"
	case RestartDue(pod, p):
		return "a restart was asked for"
	case len(changed) > few:
		return fmt.Sprintf("%s and %d others changed", strings.Join(changed[:few], ", "), len(changed)-few)
	case len(changed) > 0:
		return strings.Join(changed, ", ") + " changed"
	default:
		return "its liveness is probed where it does not answer"
	}
}

// few names are as many as a person reads in a message.
const few = 3
