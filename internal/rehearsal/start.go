package rehearsal

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
)

// node looks for the one that the pod names. Any other pod has a choice.
func (r Rehearsal) node(ctx context.Context, next, _ *corev1.Pod) error {
	name := next.Spec.NodeName
	if name == "" {
		return nil
	}
	node, err := lookup.Get[corev1.Node](ctx, r.Client, types.NamespacedName{Name: name})
	if err == nil && node == nil {
		return refuse("its template names node %q, which does not exist", name)
	}
	return err
}

// volumes looks for what the pod cannot start without: claims and ConfigMaps. Secrets are not the operator's to read.
func (r Rehearsal) volumes(ctx context.Context, next, _ *corev1.Pod) error {
	for i := range next.Spec.Volumes {
		if v := &next.Spec.Volumes[i]; v.PersistentVolumeClaim != nil {
			if err := r.claim(ctx, next.Namespace, v); err != nil {
				return err
			}
		}
	}
	references, _ := pod.References(&next.Spec)
	for _, reference := range references {
		if reference.Kind != doryv1alpha1.ConfigKindConfigMap || reference.Optional {
			continue
		}
		if err := r.configMap(ctx, next.Namespace, reference); err != nil {
			return err
		}
	}
	return nil
}

func (r Rehearsal) claim(ctx context.Context, namespace string, v *corev1.Volume) error {
	name := v.PersistentVolumeClaim.ClaimName
	claim, err := lookup.Get[corev1.PersistentVolumeClaim](ctx, r.Reader, types.NamespacedName{Namespace: namespace, Name: name})
	switch {
	case err != nil:
		return err
	case claim == nil:
		return refuse("its volume %s needs PersistentVolumeClaim %q, which does not exist in namespace %s", v.Name, name, namespace)
	case claim.DeletionTimestamp != nil:
		return refuse("its volume %s needs PersistentVolumeClaim %q, which is being deleted", v.Name, name)
	case claim.Status.Phase == corev1.ClaimLost:
		return refuse("its volume %s needs PersistentVolumeClaim %q, which has lost its volume", v.Name, name)
	}
	return nil
}

// configMap must be there, with the keys that the pod names.
func (r Rehearsal) configMap(ctx context.Context, namespace string, needed pod.Reference) error {
	found, err := lookup.Get[corev1.ConfigMap](ctx, r.Reader, types.NamespacedName{Namespace: namespace, Name: needed.Name})
	switch {
	case err != nil:
		return err
	case found == nil:
		return refuse("its environment or a volume of it needs ConfigMap %q, which does not exist in namespace %s", needed.Name, namespace)
	}
	for _, key := range needed.Keys {
		_, isText := found.Data[key]
		if _, isBinary := found.BinaryData[key]; !isText && !isBinary {
			return refuse("its environment or a volume of it needs the key %q of ConfigMap %q, which has no such key", key, needed.Name)
		}
	}
	return nil
}

func containersOf(p *corev1.Pod) []corev1.Container {
	return slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
}

// images are asked of the namespace's other pods that the cache has, which are those of processors: their kubelets have tried the
// same ones with the same credentials. What was never tried is not held against a pod, and what a node has says little: kubelets
// report a part of their images alone.
func (r Rehearsal) images(ctx context.Context, next, old *corev1.Pod) error {
	var others corev1.PodList
	if err := r.Client.List(ctx, &others, client.InNamespace(next.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing the pods of namespace %s: %w", next.Namespace, err)
	}
	for i := range others.Items {
		other := &others.Items[i]
		if other.Name == old.Name || other.DeletionTimestamp != nil {
			continue
		}
		if err := failsToPull(next, other); err != nil {
			return err
		}
	}
	return nil
}

func failsToPull(next, other *corev1.Pod) error {
	failing := map[string]*corev1.ContainerStateWaiting{}
	statuses := slices.Concat(other.Status.InitContainerStatuses, other.Status.ContainerStatuses)
	for _, c := range containersOf(other) {
		for i := range statuses {
			if s := &statuses[i]; s.Name == c.Name && pod.Imageless(s) {
				failing[c.Image] = s.State.Waiting
			}
		}
	}
	for _, c := range containersOf(next) {
		if waiting := failing[c.Image]; waiting != nil {
			return refuse("pod %s waits for the image %q of container %s already (%s: %s)", other.Name, c.Image, c.Name, waiting.Reason, waiting.Message)
		}
	}
	return nil
}
