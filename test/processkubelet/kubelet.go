package processkubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// TB is what is needed of testing.TB; ginkgo's GinkgoT has it, too.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Failed() bool
}

// Config says what to play. Zero durations mean the defaults.
type Config struct {
	// REST reaches the API server as somebody who may do everything.
	REST *rest.Config
	// Programs are the images, by name. A pod with another image waits in ImagePullBackOff.
	Programs map[string]Program
	// Nodes to begin with.
	Nodes []Node
	// ProbePeriod bounds how long readiness goes unnoticed; 100 ms by default. A probe's own period counts if it is shorter.
	ProbePeriod time.Duration
	// RestartDelay is between the end of a container and its next start; 100 ms by default. A kubelet's own is 10 s, doubled
	// with every failure.
	RestartDelay time.Duration
}

// Program is what an image stands for.
type Program struct {
	// Path of the binary. The container's arguments are handed to it; of its command, all but the first word. Without a
	// path there is no process: the pod is said to run, is ready at once, and ends at once when it is to. That is for tests
	// that ask for many pods and nothing of them.
	Path string
	// Env comes on top of the pod's environment.
	Env []string
}

// Delays slow down what a kubelet does.
type Delays struct {
	// Bind is before a pod gets its node, Start before a container is started (as for the pull of an image), Report before
	// every status that is written, Stop before a deleted pod is looked at.
	Bind, Start, Report, Stop time.Duration
}

const (
	defaultProbePeriod  = 100 * time.Millisecond
	defaultRestartDelay = 100 * time.Millisecond
)

// Kubelet is the scheduler and all kubelets.
type Kubelet struct {
	config    Config
	client    kubernetes.Interface
	dir       string
	addresses *addresses
	pods      corev1listers.PodLister

	ctx    context.Context //nolint:containedctx // the life of everything that Start began
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// wake tells the scheduler that something has changed.
	wake chan struct{}

	mu       sync.Mutex
	closed   bool
	programs map[string]Program
	delays   Delays
	nodes    map[string]*node
	workers  map[types.UID]*worker
	outputs  []*output
}

// Start plays until the test's end, and tells what its processes said if the test fails.
func Start(tb TB, config Config) *Kubelet {
	tb.Helper()
	k, err := New(config)
	if err != nil {
		tb.Fatalf("processkubelet: %v", err)
	}
	tb.Cleanup(func() {
		k.Close()
		if tb.Failed() {
			tb.Logf("%s", k.Logs())
		}
	})
	return k
}

// New starts to play. Close ends it, with every process.
func New(config Config) (*Kubelet, error) {
	if config.ProbePeriod <= 0 {
		config.ProbePeriod = defaultProbePeriod
	}
	if config.RestartDelay <= 0 {
		config.RestartDelay = defaultRestartDelay
	}
	config.REST = rest.CopyConfig(config.REST)
	config.REST.QPS = -1
	client, err := kubernetes.NewForConfig(config.REST)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	k := &Kubelet{
		config: config, client: client, wake: make(chan struct{}, 1),
		programs: maps.Clone(config.Programs), nodes: map[string]*node{}, workers: map[types.UID]*worker{},
	}
	if k.programs == nil {
		k.programs = map[string]Program{}
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	if err := k.start(); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (k *Kubelet) start() error {
	var err error
	if k.dir, err = os.MkdirTemp("", "dory-processkubelet-"); err != nil {
		return err
	}
	if k.addresses, err = reserveAddresses(k.ctx); err != nil {
		return err
	}
	for _, node := range k.config.Nodes {
		if err := k.AddNode(k.ctx, node); err != nil {
			return err
		}
	}
	return k.watch()
}

func (k *Kubelet) watch() error {
	factory := informers.NewSharedInformerFactory(k.client, 0)
	informer := factory.Core().V1().Pods()
	k.pods = informer.Lister()
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { k.saw(obj.(*corev1.Pod)) },
		UpdateFunc: func(_, obj any) { k.saw(obj.(*corev1.Pod)) },
		DeleteFunc: k.lost,
	})
	if err != nil {
		return err
	}
	nodes := factory.Core().V1().Nodes()
	_, err = nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { k.wakeScheduler() },
		UpdateFunc: func(any, any) { k.wakeScheduler() },
	})
	if err != nil {
		return err
	}
	factory.Start(k.ctx.Done())
	k.wg.Go(func() {
		<-k.ctx.Done()
		factory.Shutdown()
	})
	k.wg.Go(func() { k.schedule(nodes.Lister()) })
	for kind, ok := range factory.WaitForCacheSync(k.ctx.Done()) {
		if !ok {
			return fmt.Errorf("watching %v: %w", kind, context.Cause(k.ctx))
		}
	}
	return nil
}

// Close kills every process and waits until all is quiet. The pods' objects stay as they are.
func (k *Kubelet) Close() {
	k.mu.Lock()
	again := k.closed
	k.closed = true
	k.mu.Unlock()
	if again {
		return
	}
	k.cancel()
	k.wg.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, node := range k.nodes {
		node.api.close()
	}
	if k.addresses != nil {
		k.addresses.close()
	}
	if k.dir != "" {
		if err := os.RemoveAll(k.dir); err != nil {
			fmt.Fprintln(os.Stderr, "processkubelet: leaving", k.dir, "behind:", err)
		}
	}
}

// SetProgram makes an image available, or another program.
func (k *Kubelet) SetProgram(image string, program Program) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.programs[image] = program
}

// RemoveProgram takes an image away from what starts from now on.
func (k *Kubelet) RemoveProgram(image string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.programs, image)
}

// SetDelays slows down whatever begins from now on.
func (k *Kubelet) SetDelays(delays Delays) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.delays = delays
}

func (k *Kubelet) program(image string) (Program, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	program, ok := k.programs[image]
	return program, ok
}

func (k *Kubelet) delay() Delays {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.delays
}

func (k *Kubelet) wakeScheduler() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// saw hands a pod to its worker, or to the scheduler.
func (k *Kubelet) saw(pod *corev1.Pod) {
	if pod.Spec.NodeName == "" || ended(pod) { // Its end makes room.
		k.wakeScheduler()
	}
	if pod.Spec.NodeName == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if w, ok := k.workers[pod.UID]; ok {
		w.poke()
		return
	}
	node, ours := k.nodes[pod.Spec.NodeName]
	if !ours || k.closed || ended(pod) {
		return
	}
	w := newWorker(k, node, pod)
	k.workers[pod.UID] = w
	k.outputs = append(k.outputs, w.out)
	k.wg.Go(func() {
		w.run()
		k.forget(w)
	})
}

// forget lets go of a pod that ended, unless its object is still to be recognised.
func (k *Kubelet) forget(w *worker) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if pod, err := k.pods.Pods(w.namespace).Get(w.name); err != nil || pod.UID != w.uid {
		delete(k.workers, w.uid)
	}
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func (k *Kubelet) lost(obj any) {
	if tombstone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = tombstone.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	k.wakeScheduler()
	k.mu.Lock()
	defer k.mu.Unlock()
	if w, ok := k.workers[pod.UID]; ok {
		w.poke()
		if w.isDone() {
			delete(k.workers, pod.UID)
		}
	}
}

// worker is that of the pod of this name which has a process now, or else the newest.
func (k *Kubelet) worker(namespace, name string) (*worker, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		if w.namespace == namespace && w.name == name && !w.isDone() {
			return w, nil
		}
	}
	return nil, fmt.Errorf("pod %s/%s has no process here", namespace, name)
}

// podDir is what a pod has of the file system.
func (k *Kubelet) podDir(uid types.UID) (string, error) {
	dir := filepath.Join(k.dir, string(uid))
	return dir, os.MkdirAll(dir, 0o700)
}

// sleep waits, unless everything ends.
func (k *Kubelet) sleep(d time.Duration) error {
	if d <= 0 {
		return k.ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-k.ctx.Done():
		return errors.New("the kubelet is closed")
	}
}
