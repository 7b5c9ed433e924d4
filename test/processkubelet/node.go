package processkubelet

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Node is one to play.
type Node struct {
	Name   string
	Labels map[string]string
	Taints []corev1.Taint
}

// node is a machine with its kubelet.
type node struct {
	name string
	// api is how the processes of the node reach the API server.
	api *link

	// reporting is held for reading by whoever writes a status in the name of this node.
	reporting sync.RWMutex

	mu      sync.Mutex
	down    bool
	cut     bool
	changed chan struct{}
	// pods are the cables of the node's pods.
	pods map[*link]struct{}
}

// AddNode makes the Node object, ready, or takes over one that exists.
func (k *Kubelet) AddNode(ctx context.Context, spec Node) error {
	target, err := url.Parse(k.config.REST.Host)
	if err != nil || target.Host == "" {
		return fmt.Errorf("the API server's address %q is no URL", k.config.REST.Host)
	}
	api, err := newLink(k.ctx, "127.0.0.1:0", target.Host, false) //nolint:contextcheck // the link outlives the call
	if err != nil {
		return err
	}
	n := &node{name: spec.Name, api: api, changed: make(chan struct{}), pods: map[*link]struct{}{}}
	if err := k.createNode(ctx, spec); err != nil {
		api.close()
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nodes[spec.Name] = n
	return nil
}

func (k *Kubelet) createNode(ctx context.Context, spec Node) error {
	labels := map[string]string{corev1.LabelHostname: spec.Name, corev1.LabelOSStable: "linux"}
	maps.Copy(labels, spec.Labels)
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: spec.Name, Labels: labels}, Spec: corev1.NodeSpec{Taints: spec.Taints}}
	created, err := k.client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		return k.setNodeReady(ctx, spec.Name, corev1.ConditionTrue)
	case err != nil:
		return fmt.Errorf("creating node %s: %w", spec.Name, err)
	}
	plenty := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("250"),
	}
	created.Status.Capacity, created.Status.Allocatable = plenty, plenty
	created.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}, {Type: corev1.NodeHostName, Address: spec.Name}}
	created.Status.Conditions = []corev1.NodeCondition{nodeReady(corev1.ConditionTrue)}
	if _, err := k.client.CoreV1().Nodes().UpdateStatus(ctx, created, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("writing the status of node %s: %w", spec.Name, err)
	}
	// Admission taints new nodes until they are ready, and the node controller takes the taint off.
	return k.setTaints(ctx, spec)
}

func (k *Kubelet) setTaints(ctx context.Context, spec Node) error {
	return retryConflicts(func() error {
		current, err := k.client.CoreV1().Nodes().Get(ctx, spec.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Spec.Taints = spec.Taints
		_, err = k.client.CoreV1().Nodes().Update(ctx, current, metav1.UpdateOptions{})
		return err
	})
}

func retryConflicts(f func() error) error {
	for {
		if err := f(); !apierrors.IsConflict(err) {
			return err
		}
	}
}

func nodeReady(status corev1.ConditionStatus) corev1.NodeCondition {
	condition := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: status, Reason: "KubeletReady", Message: "played by a test",
		LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
	}
	if status != corev1.ConditionTrue {
		condition.Reason, condition.Message = "NodeStatusUnknown", "Kubelet stopped posting node status."
	}
	return condition
}

func (k *Kubelet) setNodeReady(ctx context.Context, name string, status corev1.ConditionStatus) error {
	err := retryConflicts(func() error {
		current, err := k.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Status.Conditions = []corev1.NodeCondition{nodeReady(status)}
		_, err = k.client.CoreV1().Nodes().UpdateStatus(ctx, current, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("writing the status of node %s: %w", name, err)
	}
	return nil
}

// StopNode is a power failure: every process of the node is dead when it returns, and its kubelet says nothing any more. The
// node and its pods are marked as not ready, as by the node controller.
func (k *Kubelet) StopNode(ctx context.Context, name string) error {
	return k.silence(ctx, name, true)
}

// PartitionNode cuts the network of the node: its processes work on, but reach no API server, and nobody reaches them.
func (k *Kubelet) PartitionNode(ctx context.Context, name string) error {
	return k.silence(ctx, name, false)
}

func (k *Kubelet) silence(ctx context.Context, name string, down bool) error {
	n, err := k.node(name)
	if err != nil {
		return err
	}
	n.set(down, true)
	if down {
		k.waitForProcesses(n)
	}
	if err := k.setNodeReady(ctx, name, corev1.ConditionUnknown); err != nil {
		return err
	}
	return k.markPodsNotReady(ctx, name)
}

// StartNode powers the node on again, or mends its network. Containers that died with it are started anew in the same pods,
// unless these are to end.
func (k *Kubelet) StartNode(ctx context.Context, name string) error {
	n, err := k.node(name)
	if err != nil {
		return err
	}
	if err := k.setNodeReady(ctx, name, corev1.ConditionTrue); err != nil {
		return err
	}
	n.set(false, false)
	return nil
}

// HealNode is StartNode, for a node that was partitioned.
func (k *Kubelet) HealNode(ctx context.Context, name string) error { return k.StartNode(ctx, name) }

// LoseNode is a machine that never comes back: its processes die, its Node object is deleted, and its pods fail and go, as by
// pod garbage collection.
func (k *Kubelet) LoseNode(ctx context.Context, name string) error {
	if err := k.StopNode(ctx, name); err != nil {
		return err
	}
	if err := k.client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("deleting node %s: %w", name, err)
	}
	return k.collectPods(ctx, name)
}

func (k *Kubelet) collectPods(ctx context.Context, name string) error {
	return k.eachPod(ctx, name, func(pod *corev1.Pod) error {
		if !ended(pod) {
			patch := fmt.Sprintf(`{"metadata":{"uid":%q},"status":{"phase":"Failed","message":"node %s is gone"}}`, pod.UID, name)
			if err := k.patchStatus(ctx, pod, []byte(patch)); err != nil {
				return err
			}
		}
		now := int64(0)
		err := k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
		})
		return ignoreGone(err)
	})
}

func (k *Kubelet) markPodsNotReady(ctx context.Context, node string) error {
	return k.eachPod(ctx, node, func(pod *corev1.Pod) error {
		for i := range pod.Status.Conditions {
			condition := &pod.Status.Conditions[i]
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				condition.Status, condition.Reason, condition.LastTransitionTime = corev1.ConditionFalse, "NodeNotReady", metav1.Now()
				_, err := k.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
				return ignoreGone(err)
			}
		}
		return nil
	})
}

func (k *Kubelet) eachPod(ctx context.Context, node string, do func(*corev1.Pod) error) error {
	pods, err := k.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return fmt.Errorf("listing the pods of node %s: %w", node, err)
	}
	for i := range pods.Items {
		if err := do(&pods.Items[i]); err != nil {
			return fmt.Errorf("pod %s/%s of node %s: %w", pods.Items[i].Namespace, pods.Items[i].Name, node, err)
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

func (k *Kubelet) node(name string) (*node, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n, ok := k.nodes[name]; ok {
		return n, nil
	}
	return nil, fmt.Errorf("no node %q is played", name)
}

func (k *Kubelet) waitForProcesses(n *node) {
	k.mu.Lock()
	var processes []*process
	for _, w := range k.workers {
		if p := w.current(); w.node == n && p != nil {
			processes = append(processes, p)
		}
	}
	k.mu.Unlock()
	for _, p := range processes {
		p.kill()
		<-p.done
	}
}

// set waits for statuses that are being written.
func (n *node) set(down, cut bool) {
	n.reporting.Lock()
	defer n.reporting.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down, n.cut = down, cut
	close(n.changed)
	n.changed = make(chan struct{})
	n.api.setCut(cut)
	for link := range n.pods {
		link.setCut(cut)
	}
}

// state answers what is so until changed is closed.
func (n *node) state() (down, cut bool, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down, n.cut, n.changed
}

// connect makes a pod's address reachable.
func (n *node) connect(ctx context.Context, address, target string) (*link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, err := newLink(ctx, address, target, n.cut)
	if err != nil {
		return nil, err
	}
	n.pods[l] = struct{}{}
	return l, nil
}

func (n *node) disconnect(l *link) {
	if l == nil {
		return
	}
	n.mu.Lock()
	delete(n.pods, l)
	n.mu.Unlock()
	l.close()
}
