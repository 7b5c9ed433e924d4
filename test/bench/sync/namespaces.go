package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func namespaceOf(i int) string { return fmt.Sprintf("site-%d", i%namespaces) }

func (b *bench) makeNamespaces(ctx context.Context) error {
	clients, err := kubernetes.NewForConfig(b.rig.Admin)
	if err != nil {
		return err
	}
	for i := range namespaces {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceOf(i)}}
		if _, err := clients.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("creating namespace %s: %w", namespace.Name, err)
		}
	}
	return nil
}
