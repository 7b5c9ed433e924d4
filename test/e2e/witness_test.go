//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// witness watches the pods of one processor in the order in which the API server wrote them, and so sees also what was true
// for a moment only.
type witness struct {
	mu      sync.Mutex
	present map[types.UID]*corev1.Pod
	created []string
	wrong   []string
}

// watchPods watches a processor's pods until the test ends.
func watchPods(ctx context.Context, key client.ObjectKey) *witness {
	GinkgoHelper()
	// The context of a BeforeEach ends with it; the watch is stopped below.
	watching, err := clientset.CoreV1().Pods(key.Namespace).Watch(context.WithoutCancel(ctx),
		metav1.ListOptions{LabelSelector: doryv1alpha1.LabelProcessor + "=" + key.Name})
	Expect(err).NotTo(HaveOccurred())
	w := &witness{present: map[types.UID]*corev1.Pod{}}
	var running sync.WaitGroup
	stopping := make(chan struct{})
	running.Go(func() {
		for event := range watching.ResultChan() {
			w.saw(event)
		}
		select {
		case <-stopping:
		default:
			w.note("the watch ended before the test did")
		}
	})
	DeferCleanup(func() {
		close(stopping)
		watching.Stop()
		running.Wait()
	})
	return w
}

func (w *witness) saw(event watch.Event) {
	pod, ok := event.Object.(*corev1.Pod)
	if !ok {
		w.note("%s %+v", event.Type, event.Object)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch event.Type {
	case watch.Added:
		w.created = append(w.created, pod.Name)
	case watch.Deleted:
		if !stopped(pod) {
			w.wrong = append(w.wrong, fmt.Sprintf("pod %s was removed before it had stopped: %+v", pod.Name, pod.Status))
		}
		delete(w.present, pod.UID)
		return
	default:
	}
	w.present[pod.UID] = pod
	for _, other := range w.present {
		if other.UID != pod.UID && mayAct(other) && mayAct(pod) {
			w.wrong = append(w.wrong, fmt.Sprintf("pod %s might act while pod %s might: %+v, %+v", pod.Name, other.Name, pod.Status, other.Status))
		}
	}
}

// mayAct says whether a process of the pod, the present one or one that its kubelet starts next, may act for the processor:
// the kubelet has not confirmed its end, and its metadata do not make it stand by.
func mayAct(pod *corev1.Pod) bool {
	return !stopped(pod) && pod.Annotations[doryv1alpha1.AnnotationRole] != doryv1alpha1.RoleStandby
}

func (w *witness) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

// stopped says whether nothing of the pod runs: it never had a node, or its kubelet has confirmed the end of it and of each of
// its containers.
func stopped(pod *corev1.Pod) bool {
	if pod.Spec.NodeName == "" {
		return true
	}
	if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
		return false
	}
	return !slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Terminated == nil })
}

// hasSeen checks that these pods were created, in this order, and that no two of them might act at once.
func (w *witness) hasSeen(pods ...string) {
	GinkgoHelper()
	w.mu.Lock()
	defer w.mu.Unlock()
	Expect(w.created).To(Equal(pods))
	Expect(w.wrong).To(BeEmpty())
}

// isContent checks that no two pods might act at once, whichever were created.
func (w *witness) isContent() {
	GinkgoHelper()
	w.mu.Lock()
	defer w.mu.Unlock()
	Expect(w.wrong).To(BeEmpty())
}
