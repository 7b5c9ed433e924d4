package main

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/lifecycle"
	"github.com/dory-io/dory/internal/pod"
)

// cacheOptions keep in memory only what is read: our pods, the one account per namespace, and of
// nodes only what decisions need.
func cacheOptions() cache.Options {
	ours := labels.SelectorFromSet(labels.Set{doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy})
	token := &metav1.PartialObjectMetadata{}
	token.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	account := fields.OneTermEqualSelector("metadata.name", lifecycle.ServiceAccount)
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:            {Label: ours, Transform: pod.Slim},
			&corev1.ServiceAccount{}: {Field: account},
			&rbacv1.RoleBinding{}:    {Field: account},
			&corev1.Node{}:           {Transform: slimNode},
			// Others' are many, and large.
			&appsv1.ControllerRevision{}: {Label: ours},
			token:                        {Field: fields.OneTermEqualSelector("metadata.name", pod.TokenSecret)},
		},
	}
}

// slimNode drops what makes nodes large: lists of images and volumes, annotations, managed fields.
func slimNode(obj any) (any, error) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	return &corev1.Node{
		TypeMeta: node.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion, Labels: node.Labels,
			CreationTimestamp: node.CreationTimestamp, DeletionTimestamp: node.DeletionTimestamp,
		},
		Spec:   corev1.NodeSpec{Unschedulable: node.Spec.Unschedulable, Taints: node.Spec.Taints},
		Status: corev1.NodeStatus{Conditions: node.Status.Conditions},
	}, nil
}
