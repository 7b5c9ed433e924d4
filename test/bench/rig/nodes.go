package rig

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
)

// nodesTimeout is generous: 500 nodes take 8 s.
const nodesTimeout = 2 * time.Minute

// creators is how many objects are created at a time.
const creators = 16

// makeNodes makes the nodes and waits until kwok has them ready and the taint of unready ones is gone.
func (r *Rig) makeNodes(ctx context.Context) error {
	clients, err := kubernetes.NewForConfig(r.Admin)
	if err != nil {
		return err
	}
	errs := make([]error, r.options.Nodes)
	workqueue.ParallelizeUntil(ctx, creators, r.options.Nodes, func(i int) {
		_, errs[i] = clients.CoreV1().Nodes().Create(ctx, node(i, r.options.NodeSize), metav1.CreateOptions{})
	})
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("creating a node: %w", err)
		}
	}
	err = wait.PollUntilContextTimeout(ctx, time.Second, nodesTimeout, false, func(ctx context.Context) (bool, error) {
		nodes, err := clients.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return false, err
		}
		return usable(nodes.Items) == r.options.Nodes, r.Check()
	})
	if err != nil {
		return fmt.Errorf("waiting for %d ready nodes: %w", r.options.Nodes, err)
	}
	return nil
}

func usable(nodes []corev1.Node) int {
	n := 0
	for i := range nodes {
		for _, condition := range nodes[i].Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue && len(nodes[i].Spec.Taints) == 0 {
				n++
			}
		}
	}
	return n
}

func node(i int, size corev1.ResourceList) *corev1.Node {
	name := fmt.Sprintf("node-%03d", i)
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		"workload-type": "application", corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
	}}, Status: corev1.NodeStatus{Capacity: size, Allocatable: size}}
}
