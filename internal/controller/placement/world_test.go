package placement

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const (
	patience = 60 * time.Second
	polling  = 50 * time.Millisecond
)

var worlds atomic.Int32

// world is a part of the API server that one test has for itself: its nodes are labelled, and its pods select them and
// name a scheduler of their own.
type world struct {
	*testing.T
	name   string
	client client.Client
	clock  *clocktesting.FakeClock

	mu sync.Mutex
	// refuse says whether a binding fails, and how.
	refuse func(pod, node string) error
	// undeletable is why no pod can be deleted, and deleted how often it was tried.
	undeletable error
	deleted     int
	// bindings and reports are how many were sent.
	bindings, reports int
	// told are the reasons of events.
	told []string
}

// Eventf makes the world a recorder of what is told in it.
func (w *world) Eventf(_, _ runtime.Object, _, reason, _, _ string, _ ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, reason)
}

func (w *world) wasTold(reason string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.told, reason)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	needAPI(t)
	w := &world{T: t, name: fmt.Sprintf("world-%d", worlds.Add(1)), client: api.client, clock: clocktesting.NewFakeClock(time.Now())}
	w.must(w.client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.name}}))
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// start runs a placement until the test ends.
func (w *world) start(bufferPercent int32) {
	w.Helper()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	w.must(err)
	placer := New(Config{
		API: api.config, Clock: w.clock, Recorder: w, Metrics: metrics,
		Client: interceptor.NewClient(api.client, interceptor.Funcs{SubResourceCreate: w.bind, SubResourcePatch: w.report, Delete: w.delete}),
		Options: Options{SchedulerName: w.name, BufferPercent: bufferPercent, Movable: func(p *corev1.Pod) bool {
			return p.Labels[doryv1alpha1.LabelProcessor] != ""
		}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- placer.Start(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("the placement ended: %v", err)
		}
	})
}

func (w *world) bind(ctx context.Context, c client.Client, subresource string, pod, binding client.Object, opts ...client.SubResourceCreateOption) error {
	w.mu.Lock()
	w.bindings++
	refuse := w.refuse
	w.mu.Unlock()
	if refuse != nil {
		if err := refuse(pod.GetName(), binding.(*corev1.Binding).Target.Name); err != nil {
			return err
		}
	}
	return c.SubResource(subresource).Create(ctx, pod, binding, opts...)
}

func (w *world) report(ctx context.Context, c client.Client, subresource string, pod client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
	w.mu.Lock()
	w.reports++
	w.mu.Unlock()
	return c.SubResource(subresource).Patch(ctx, pod, patch, opts...)
}

func (w *world) delete(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
	w.mu.Lock()
	w.deleted++
	err := w.undeletable
	w.mu.Unlock()
	if err != nil {
		return err
	}
	return c.Delete(ctx, o, opts...)
}

// keep lets no pod be deleted for that reason, or nil.
func (w *world) keep(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.undeletable = why
}

// deletions are how often the placement wanted to delete a pod.
func (w *world) deletions() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deleted
}

func (w *world) counted() (int, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bindings, w.reports
}

// node makes a ready node with so many CPUs.
func (w *world) node(name, cpus string) *corev1.Node {
	w.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.name + "-" + name, Labels: map[string]string{"world": w.name}}}
	w.must(w.client.Create(w.Context(), n))
	n.Spec.Taints = nil // The API server taints new nodes, and nobody here would untaint them.
	w.must(w.client.Update(w.Context(), n))
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpus), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	n.Status.Capacity = n.Status.Allocatable
	w.setReady(n, corev1.ConditionTrue)
	w.Cleanup(func() { _ = client.IgnoreNotFound(w.client.Delete(context.Background(), n)) })
	return n
}

func (w *world) setReady(n *corev1.Node, status corev1.ConditionStatus) {
	w.Helper()
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	w.must(w.client.Status().Update(w.Context(), n))
}

// pod makes a pod that asks for so many CPUs.
func (w *world) pod(name, cpus string, changes ...func(*corev1.Pod)) *corev1.Pod {
	w.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: name},
		Spec: corev1.PodSpec{
			SchedulerName: w.name, NodeSelector: map[string]string{"world": w.name},
			Containers: []corev1.Container{{Name: "main", Image: "image", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpus)},
			}}},
		},
	}
	for _, change := range changes {
		change(p)
	}
	w.must(w.client.Create(w.Context(), p))
	return p
}

func (w *world) eventually(what string, holds func() bool) {
	w.Helper()
	err := wait.PollUntilContextTimeout(w.Context(), polling, patience, true, func(context.Context) (bool, error) { return holds(), nil })
	if err != nil {
		w.Fatalf("not so after %s: %s", patience, what)
	}
}

func (w *world) get(name string) *corev1.Pod {
	w.Helper()
	var p corev1.Pod
	w.must(w.client.Get(w.Context(), client.ObjectKey{Namespace: w.name, Name: name}, &p))
	return &p
}

// runsOn waits until a pod is bound to a node.
func (w *world) runsOn(pod, node string) {
	w.Helper()
	w.eventually(fmt.Sprintf("pod %s is on %s", pod, node), func() bool { return w.get(pod).Spec.NodeName == w.name+"-"+node })
}

// isRefused waits until a pod says why it has no node.
func (w *world) isRefused(pod string) *corev1.PodCondition {
	w.Helper()
	var found *corev1.PodCondition
	w.eventually("pod "+pod+" is refused", func() bool {
		found = refusalOf(w.get(pod))
		return found != nil
	})
	return found
}

func refusalOf(p *corev1.Pod) *corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return &c
		}
	}
	return nil
}
