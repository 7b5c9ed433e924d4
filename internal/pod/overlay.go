package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/quantity"
)

// overlay merges the template over the generated pod.
func overlay(pod *corev1.Pod, template *doryv1alpha1.PodTemplateOverlay) error {
	if template == nil {
		return nil
	}
	pod.Labels = with(template.Metadata.Labels, pod.Labels)
	pod.Annotations = with(template.Metadata.Annotations, pod.Annotations)
	if template.Spec == nil || len(template.Spec.Raw) == 0 {
		return nil
	}
	spec, err := mergeSpec(pod.Spec, template.Spec.Raw)
	if err != nil {
		return fmt.Errorf("spec.podTemplate.spec does not merge over the generated pod: %w", err)
	}
	pod.Spec = *spec
	return nil
}

func mergeSpec(generated corev1.PodSpec, patch []byte) (*corev1.PodSpec, error) {
	original, err := json.Marshal(generated)
	if err != nil {
		return nil, fmt.Errorf("encoding the generated pod: %w", err)
	}
	merged, err := strategicpatch.StrategicMergePatch(original, patch, corev1.PodSpec{})
	if err != nil {
		return nil, err
	}
	if err := quantity.InJSON(merged, reflect.TypeFor[corev1.PodSpec]()); err != nil {
		return nil, err
	}
	spec := &corev1.PodSpec{}
	strict, err := kjson.UnmarshalStrict(merged, spec)
	if err = errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	if containerNamed(spec.Containers, ContainerName) < 0 {
		return nil, fmt.Errorf("it removes the container %q, which is the processor itself", ContainerName)
	}
	return spec, nil
}
