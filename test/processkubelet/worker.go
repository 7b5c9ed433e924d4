package processkubelet

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// retryDelay is the pause before something is tried again that failed outside of a process.
const retryDelay = 50 * time.Millisecond

// worker keeps one pod.
type worker struct {
	k               *Kubelet
	node            *node
	namespace, name string
	uid             types.UID
	out             *output
	changed         chan struct{}
	done            chan struct{}

	mu      sync.Mutex
	process *process // of which others may ask

	// Of run alone.
	pod      *corev1.Pod
	gone     bool
	dir      string
	address  address
	link     *link
	token    string
	view     view
	reported string
	startAt  time.Time
}

func newWorker(k *Kubelet, n *node, pod *corev1.Pod) *worker {
	return &worker{
		k: k, node: n, namespace: pod.Namespace, name: pod.Name, uid: pod.UID, pod: pod, out: newOutput(pod),
		changed: make(chan struct{}, 1), done: make(chan struct{}), view: view{started: metav1.Now()},
	}
}

func (w *worker) poke() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *worker) isDone() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// current is the process that runs, or nil.
func (w *worker) current() *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.process
}

func (w *worker) setCurrent(p *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.process = p
}

// run is the pod's life.
func (w *worker) run() {
	defer close(w.done)
	defer w.clean()
	if !w.prepare() {
		return
	}
	w.view.wait("ContainerCreating", "")
	for w.k.ctx.Err() == nil {
		down, cut, nodeChanged := w.node.state()
		if !cut {
			w.refresh()
		}
		if !down && (w.gone || w.pod.DeletionTimestamp != nil) {
			w.end()
			return
		}
		w.keep(down)
		w.report()
		var exited <-chan struct{}
		var next <-chan time.Time
		if p := w.current(); p != nil {
			exited = p.done
		}
		if wait := w.wait(down); wait > 0 {
			next = time.After(wait)
		}
		select {
		case <-w.k.ctx.Done():
		case <-nodeChanged:
			w.reported = "" // The node controller may have written another.
		case <-w.changed:
		case <-exited:
		case <-next:
			w.probe()
		}
	}
}

func (w *worker) prepare() bool {
	var err error
	if program, ok := w.k.program(processorContainer(w.pod).Image); ok && program.Path == "" {
		w.address = w.k.addresses.pretended()
	} else if w.dir, err = w.k.podDir(w.uid); err == nil {
		w.address, err = w.k.addresses.take()
	}
	if err != nil {
		w.out.note("%v", err)
		return false
	}
	w.view.ip = w.address.pod
	return true
}

func (w *worker) clean() {
	if p := w.current(); p != nil {
		p.kill()
		<-p.done
		w.setCurrent(nil)
	}
	w.disconnect()
	if w.address.host != 0 {
		w.k.addresses.give(w.address)
	}
}

func (w *worker) disconnect() {
	w.node.disconnect(w.link)
	w.link = nil
}

// refresh takes the newest object from the cache.
func (w *worker) refresh() {
	pod, err := w.k.pods.Pods(w.namespace).Get(w.name)
	switch {
	case err == nil && pod.UID == w.uid:
		w.pod = pod
	case err == nil, apierrors.IsNotFound(err):
		w.gone = true
	}
}

// keep has the container running, if its time has come.
func (w *worker) keep(down bool) {
	p := w.current()
	if p != nil && down {
		p.kill()
		<-p.done
	}
	if p != nil && p.ended() {
		w.ended(p)
		p = nil
	}
	if down {
		w.view.wait("NodeDown", "")
		return
	}
	if p != nil || w.isOver() || time.Now().Before(w.startAt) {
		return
	}
	if reason, err := w.start(); err != nil {
		w.view.wait(reason, err.Error())
		w.startAt = time.Now().Add(retryDelay)
	}
}

func (w *worker) ended(p *process) {
	w.setCurrent(nil)
	w.disconnect()
	w.view.stop(p)
	w.startAt = time.Now().Add(w.k.config.RestartDelay)
}

func (w *worker) start() (reason string, err error) {
	container := processorContainer(w.pod)
	program, ok := w.k.program(container.Image)
	if !ok {
		return "ImagePullBackOff", fmt.Errorf("no program stands for image %q", container.Image)
	}
	if err := w.k.sleep(w.k.delay().Start); err != nil {
		return "ContainerCreating", err
	}
	w.node.reporting.RLock() // A node that goes down waits, and finds the process.
	defer w.node.reporting.RUnlock()
	down, cut, _ := w.node.state()
	if down {
		return "NodeDown", errors.New("the node is down")
	}
	pod := w.pod
	if !cut {
		// A cache may be late, and here nothing slows a restart down as a container runtime does.
		if pod, err = w.k.client.CoreV1().Pods(w.namespace).Get(w.k.ctx, w.name, metav1.GetOptions{}); err != nil {
			return "ContainerCreating", err
		}
		if pod.UID != w.uid || pod.DeletionTimestamp != nil {
			return "ContainerCreating", errors.New("the pod is to end")
		}
		w.pod = pod
	}
	if program.Path == "" {
		p := pretend()
		w.setCurrent(p)
		w.view.run(p)
		w.view.ready = true
		return "", nil
	}
	env, err := w.environment(w.k.ctx, pod, program, w.dir)
	if err != nil {
		return "CreateContainerConfigError", err
	}
	if err := w.connect(container); err != nil {
		return "RunContainerError", err
	}
	args := container.Args
	if len(container.Command) > 1 {
		args = append(container.Command[1:len(container.Command):len(container.Command)], args...)
	}
	if w.view.last != nil {
		w.out.restarted()
	}
	p, err := startProcess(program.Path, args, env, w.dir, w.out)
	if err != nil {
		w.disconnect()
		return "RunContainerError", err
	}
	w.setCurrent(p)
	w.view.run(p)
	return "", nil
}

func (w *worker) connect(container *corev1.Container) error {
	if len(container.Ports) == 0 {
		return nil
	}
	port := strconv.Itoa(int(container.Ports[0].ContainerPort))
	var err error
	w.link, err = w.node.connect(w.k.ctx, net.JoinHostPort(w.address.pod, port), net.JoinHostPort(w.address.process, port))
	return err
}

// wait is until something is to be done that no event tells of; 0 for nothing.
func (w *worker) wait(down bool) time.Duration {
	p := w.current()
	switch {
	case down, p == nil && w.isOver(), p != nil && p.cmd == nil:
		return 0
	case p == nil:
		return max(time.Until(w.startAt), time.Millisecond)
	}
	return w.probePeriod()
}

// isOver says whether the container is never to be started again.
func (w *worker) isOver() bool {
	return ended(w.pod) || (w.view.last != nil && w.pod.Spec.RestartPolicy != corev1.RestartPolicyAlways)
}
