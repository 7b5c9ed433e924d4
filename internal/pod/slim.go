package pod

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// Slim drops the parts of a pod that nothing reads from a cache: three quarters of its memory. It is a cache's transform, so that
// what a cache has must never be written back as a whole. What a function of this package is to read from a cached pod, Slim must
// keep; the tests ask each of them about whole and slim pods, and the caches of the controllers' tests hold slim ones.
func Slim(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	pod.ManagedFields = nil
	delete(pod.Annotations, doryv1alpha1.AnnotationSpec) // Read past the cache, where a pod of an older spec is made again.
	pod.Spec.Volumes, pod.Spec.Tolerations, pod.Spec.Affinity, pod.Spec.TopologySpreadConstraints = nil, nil, nil, nil
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			containers[i] = slimContainer(&containers[i])
		}
	}
	return pod, nil
}

func slimContainer(c *corev1.Container) corev1.Container {
	slim := corev1.Container{Name: c.Name, Image: c.Image, Ports: c.Ports, LivenessProbe: c.LivenessProbe, RestartPolicy: c.RestartPolicy}
	if limit, limited := c.Resources.Limits[corev1.ResourceMemory]; limited {
		slim.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: limit}
	}
	for _, env := range c.Env {
		if slices.Contains(toldToInstances, env.Name) {
			slim.Env = append(slim.Env, env)
		}
	}
	return slim
}

// toldToInstances are the variables by which it is known what an instance was told when it was made.
var toldToInstances = []string{stateConfigMap, healthPort, stateBackend}
