package rehearsal

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/lookup"
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
		v := &next.Spec.Volumes[i]
		switch {
		case v.PersistentVolumeClaim != nil:
			if err := r.claim(ctx, next.Namespace, v); err != nil {
				return err
			}
		case v.ConfigMap != nil && (v.ConfigMap.Optional == nil || !*v.ConfigMap.Optional):
			if err := r.configMap(ctx, next.Namespace, v.ConfigMap.Name, "its volume "+v.Name); err != nil {
				return err
			}
		}
	}
	for name, of := range environmentOf(next) {
		if err := r.configMap(ctx, next.Namespace, name, "the environment of its container "+of); err != nil {
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

func (r Rehearsal) configMap(ctx context.Context, namespace, name, who string) error {
	found := &metav1.PartialObjectMetadata{}
	found.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	err := r.Reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, found)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("looking for ConfigMap %s/%s: %w", namespace, name, err)
	case err != nil:
		return refuse("%s needs ConfigMap %q, which does not exist in namespace %s", who, name, namespace)
	}
	return nil
}

// environmentOf are the ConfigMaps that containers are started with, and one container of each.
func environmentOf(p *corev1.Pod) map[string]string {
	needed := map[string]string{}
	must := func(optional *bool) bool { return optional == nil || !*optional }
	for _, c := range containersOf(p) {
		for i := range c.EnvFrom {
			if ref := c.EnvFrom[i].ConfigMapRef; ref != nil && must(ref.Optional) {
				needed[ref.Name] = c.Name
			}
		}
		for i := range c.Env {
			if from := c.Env[i].ValueFrom; from != nil && from.ConfigMapKeyRef != nil && must(from.ConfigMapKeyRef.Optional) {
				needed[from.ConfigMapKeyRef.Name] = c.Name
			}
		}
	}
	return needed
}

func containersOf(p *corev1.Pod) []corev1.Container {
	return slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
}

// images are asked of the other pods of the namespace, whose kubelets have tried the same ones with the same credentials.
// What was never tried is not held against a pod.
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
			if s := &statuses[i]; s.Name == c.Name && s.State.Waiting != nil && imageless(s.State.Waiting.Reason) {
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

func imageless(reason string) bool {
	switch reason {
	case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError":
		return true
	}
	return false
}
