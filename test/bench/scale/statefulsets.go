package main

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// statefulSets are the measure: what Kubernetes itself has for stateful singletons.
type statefulSets struct {
	clients  *kubernetes.Clientset
	template corev1.PodTemplateSpec
}

func (*statefulSets) name() string { return "statefulsets" }

func (s *statefulSets) create(ctx context.Context, i int) error {
	name := objectName(i)
	labels := map[string]string{"app": name}
	template := *s.template.DeepCopy()
	template.Labels = labels
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](1), ServiceName: name,
			Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template,
		},
	}
	_, err := s.clients.AppsV1().StatefulSets(s.name()).Create(ctx, set, metav1.CreateOptions{})
	return err
}

func (s *statefulSets) settled(ctx context.Context) (int, error) {
	list, err := s.clients.AppsV1().StatefulSets(s.name()).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range list.Items {
		if list.Items[i].Status.ReadyReplicas == 1 {
			n++
		}
	}
	return n, nil
}

func (s *statefulSets) remove(ctx context.Context) error {
	return s.clients.AppsV1().StatefulSets(s.name()).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
}

func objectName(i int) string { return fmt.Sprintf("cam-%05d", i) }
