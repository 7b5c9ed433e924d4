// Package cluster is the way of a benchmark to a cluster with real kubelets on this machine, and a namespace there.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const (
	// timeToRun bounds every wait for pods: scheduler, kubelet and probes on busy cores, after one that may take its
	// whole grace period.
	timeToRun = 2 * time.Minute
	// poll is how often the API server is asked for what is waited for.
	poll = 100 * time.Millisecond
)

// Cluster has at least two nodes for processors.
type Cluster struct {
	Client client.Client
	// Nodes that run processors in the cloud.
	Nodes []string
	// Namespace of this benchmark alone.
	Namespace string
}

// Connect finds the cluster by KUBECONFIG, and makes a namespace whose name begins with the prefix.
func Connect(ctx context.Context, prefix string) (*Cluster, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("no cluster: run it by its make target, or set KUBECONFIG: %w", err)
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), doryv1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	c := &Cluster{}
	if c.Client, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return nil, err
	}
	var nodes corev1.NodeList
	if err := c.Client.List(ctx, &nodes, client.MatchingLabels{"workload-type": "application"}); err != nil {
		return nil, fmt.Errorf("listing the nodes that run processors: %w", err)
	}
	for i := range nodes.Items {
		c.Nodes = append(c.Nodes, nodes.Items[i].Name)
	}
	if len(c.Nodes) < 2 {
		return nil, fmt.Errorf("nodes labelled workload-type=application: %v; a move needs two", c.Nodes)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix}}
	if err := c.Client.Create(ctx, namespace); err != nil {
		return nil, fmt.Errorf("creating a namespace: %w", err)
	}
	c.Namespace = namespace.Name
	return c, nil
}

// OtherNode is the first that is not the one.
func (c *Cluster) OtherNode(than string) string {
	for _, node := range c.Nodes {
		if node != than {
			return node
		}
	}
	return ""
}

// Clear removes what was made: Processors first, because the operator ends their pods.
func (c *Cluster) Clear(ctx context.Context) error {
	if err := c.Client.DeleteAllOf(ctx, &doryv1alpha1.Processor{}, client.InNamespace(c.Namespace)); err != nil {
		return fmt.Errorf("removing the Processors of namespace %s: %w", c.Namespace, err)
	}
	err := Until(ctx, "the end of all Processors", func(ctx context.Context) (bool, string, error) {
		var left doryv1alpha1.ProcessorList
		err := c.Client.List(ctx, &left, client.InNamespace(c.Namespace))
		return len(left.Items) == 0, fmt.Sprintf("%d are left", len(left.Items)), err
	})
	if err != nil {
		return err
	}
	return c.Client.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.Namespace}})
}

// Until waits for a condition, and tells in its error how far it was.
func Until(ctx context.Context, what string, met func(context.Context) (done bool, seen string, err error)) error {
	var last string
	err := wait.PollUntilContextTimeout(ctx, poll, timeToRun, true, func(ctx context.Context) (bool, error) {
		done, seen, err := met(ctx)
		last = seen
		return done, err
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w; seen last: %s", what, err, last)
	}
	return nil
}

// Ready says whether a pod is.
func Ready(p *corev1.Pod) bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// PodLogs is where the local cluster's nodes keep the logs of pods, as a pattern.
func PodLogs(root string) string {
	state := os.Getenv("DORY_CLUSTER_STATE")
	if state == "" {
		state = filepath.Join(root, ".run", "cluster")
	}
	return filepath.Join(state, "nodes", "*", "pod-logs")
}
