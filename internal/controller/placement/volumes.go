package placement

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// volumesOf finds where the volumes of a pod can be reached from, and why it cannot be placed before they are bound.
// Claims that wait for a first consumer are bound by kube-scheduler alone.
func volumesOf(ctx context.Context, reader client.Reader, pod *corev1.Pod) ([]*corev1.NodeSelector, string) {
	var reachable []*corev1.NodeSelector
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		name := pod.Name + "-" + volume.Name // Of the claim that is made for an ephemeral volume.
		if volume.PersistentVolumeClaim != nil {
			name = volume.PersistentVolumeClaim.ClaimName
		}
		from, problem := volumeOf(ctx, reader, pod.Namespace, name)
		if problem != "" {
			return nil, problem
		}
		if from != nil {
			reachable = append(reachable, from)
		}
	}
	return reachable, ""
}

func volumeOf(ctx context.Context, reader client.Reader, namespace, name string) (*corev1.NodeSelector, string) {
	var claim corev1.PersistentVolumeClaim
	switch err := reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &claim); {
	case apierrors.IsNotFound(err):
		return nil, "there is no PersistentVolumeClaim " + name
	case err != nil:
		return nil, fmt.Sprintf("PersistentVolumeClaim %s cannot be read: %v", name, err)
	case claim.Spec.VolumeName == "" || claim.Status.Phase != corev1.ClaimBound:
		return nil, fmt.Sprintf("PersistentVolumeClaim %s is not bound; if it waits for its first consumer, set spec.placement.scheduler to default", name)
	}
	var volume corev1.PersistentVolume
	if err := reader.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, &volume); err != nil {
		return nil, fmt.Sprintf("PersistentVolume %s of claim %s cannot be read: %v", claim.Spec.VolumeName, name, err)
	}
	if volume.Spec.NodeAffinity == nil {
		return nil, ""
	}
	return volume.Spec.NodeAffinity.Required, ""
}
