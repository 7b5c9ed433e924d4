package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const (
	// nodes is how many there are; few, because nothing depends on it.
	nodes = 10
	// kubelets is how many pods are worked on at a time.
	kubelets = 16
)

// kubelet binds pods to nodes and runs them, as processors of the fleet. It plays the scheduler, too.
type kubelet struct {
	clients *kubernetes.Clientset
	fleet   *fleet
	clock   clock.PassiveClock
	queue   workqueue.TypedRateLimitingInterface[types.NamespacedName]
	pods    cache.Store
	// report takes the errors of requests that will not be repeated.
	report func(error)
}

func newKubelet(clients *kubernetes.Clientset, f *fleet, clk clock.PassiveClock, report func(error)) *kubelet {
	return &kubelet{
		clients: clients, fleet: f, clock: clk, report: report,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[types.NamespacedName]()),
	}
}

// start makes the nodes, and runs pods in the background until ctx ends.
func (k *kubelet) start(ctx context.Context) error {
	if err := k.makeNodes(ctx); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(k.clients, 0)
	informer := factory.Core().V1().Pods().Informer()
	k.pods = informer.GetStore()
	enqueue := func(o any) {
		pod, ok := o.(*corev1.Pod)
		if ok && pod.Labels[doryv1alpha1.LabelManagedBy] == doryv1alpha1.ManagedBy {
			k.queue.Add(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name})
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, o any) { enqueue(o) }})
	if err != nil {
		return fmt.Errorf("watching pods: %w", err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for range kubelets {
		go k.work(ctx)
	}
	go func() {
		<-ctx.Done()
		k.queue.ShutDown()
	}()
	return nil
}

func (k *kubelet) makeNodes(ctx context.Context) error {
	for i := range nodes {
		node := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: nodeName(i), Labels: map[string]string{"workload-type": "application"}},
			Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Bench", LastTransitionTime: metav1.NewTime(k.clock.Now()),
			}}},
		}
		made, err := k.clients.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		if err == nil {
			made.Status.Conditions = node.Status.Conditions
			_, err = k.clients.CoreV1().Nodes().UpdateStatus(ctx, made, metav1.UpdateOptions{})
		}
		if err != nil {
			return fmt.Errorf("making node %s: %w", node.Name, err)
		}
	}
	return nil
}

func nodeName(i int) string { return fmt.Sprintf("node-%02d", i) }

func (k *kubelet) work(ctx context.Context) {
	for {
		key, shutDown := k.queue.Get()
		if shutDown {
			return
		}
		switch err := k.sync(ctx, key); {
		case err == nil || ctx.Err() != nil || apierrors.IsNotFound(err):
			k.queue.Forget(key)
		case k.queue.NumRequeues(key) < 5:
			k.queue.AddRateLimited(key)
		default:
			k.report(fmt.Errorf("running pod %s: %w", key, err))
		}
		k.queue.Done(key)
	}
}

// sync takes the pod's next step; the event of each step brings it here again.
func (k *kubelet) sync(ctx context.Context, key types.NamespacedName) error {
	object, exists, err := k.pods.GetByKey(key.String())
	if err != nil || !exists {
		return err
	}
	pod, ok := object.(*corev1.Pod)
	switch {
	case !ok:
		return nil
	case pod.DeletionTimestamp != nil:
		return k.end(ctx, pod)
	case pod.Spec.NodeName == "":
		return k.bind(ctx, pod)
	case pod.Status.Phase == corev1.PodPending:
		return k.run(ctx, pod)
	}
	return nil
}

func (k *kubelet) bind(ctx context.Context, pod *corev1.Pod) error {
	const digits = 2 // of the UID, which is random
	n, err := strconv.ParseUint(string(pod.UID[:digits]), 16, 8)
	if err != nil {
		return fmt.Errorf("the UID %q: %w", pod.UID, err)
	}
	err = k.clients.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName(int(n) % nodes)},
	}, metav1.CreateOptions{})
	if apierrors.IsConflict(err) {
		return nil // It was bound already, and the event of that is on its way.
	}
	return err
}

func (k *kubelet) run(ctx context.Context, pod *corev1.Pod) error {
	epoch, err := strconv.ParseInt(pod.Labels[doryv1alpha1.LabelEpoch], 10, 64)
	if err != nil {
		return fmt.Errorf("its epoch: %w", err)
	}
	address, err := k.fleet.start(ctx, pod.Labels[doryv1alpha1.LabelProcessor], pod.Name, epoch)
	if err != nil {
		return err
	}
	return k.setStatus(ctx, pod, runningStatus(pod, address, metav1.NewTime(k.clock.Now())))
}

func runningStatus(pod *corev1.Pod, address string, now metav1.Time) corev1.PodStatus {
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}, HostIP: "127.0.0.1", StartTime: &now,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: pod.Spec.Containers[0].Name, Image: pod.Spec.Containers[0].Image, ImageID: "bench", ContainerID: "bench://" + string(pod.UID),
			Ready: true, Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	for _, condition := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return status
}

// end says that the containers ended, upon which the operator gives the pod free, and then removes it.
func (k *kubelet) end(ctx context.Context, pod *corev1.Pod) error {
	if pod.Status.Phase != corev1.PodSucceeded {
		return k.setStatus(ctx, pod, corev1.PodStatus{Phase: corev1.PodSucceeded})
	}
	return k.clients.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
	})
}

// patchTimeout bounds one request, so that a busy API server is noticed.
const patchTimeout = 30 * time.Second

func (k *kubelet) setStatus(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus) error {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	patch, err := json.Marshal(struct {
		Status corev1.PodStatus `json:"status"`
	}{status})
	if err != nil {
		return err
	}
	_, err = k.clients.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
