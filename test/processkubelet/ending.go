package processkubelet

import (
	"context"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// end ends the container in good order, and says so.
func (w *worker) end() {
	if w.k.sleep(w.k.delay().Stop) != nil {
		return
	}
	w.stop()
	if w.k.ctx.Err() != nil || w.gone {
		return
	}
	w.view.finish()
	for w.k.ctx.Err() == nil && !w.gone {
		if w.report() && w.remove() {
			return
		}
		_, cut, nodeChanged := w.node.state()
		timer := time.NewTimer(retryDelay)
		if cut {
			timer.Stop()
		}
		select {
		case <-w.k.ctx.Done():
		case <-nodeChanged:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// stop asks with all of the grace period, and then ends the process.
func (w *worker) stop() {
	p := w.current()
	if p == nil {
		return
	}
	grace := w.grace()
	ctx, cancel := context.WithTimeout(w.k.ctx, grace)
	defer cancel()
	container := processorContainer(w.pod)
	if p.cmd != nil && container.Lifecycle != nil && container.Lifecycle.PreStop != nil && container.Lifecycle.PreStop.HTTPGet != nil {
		if err := w.get(ctx, p, container.Lifecycle.PreStop.HTTPGet); err != nil {
			w.out.note("preStop: %v", err)
		}
	}
	p.signal(syscall.SIGTERM)
	w.waitForEnd(ctx, p)
	p.kill()
	<-p.done
	w.ended(p)
}

// waitForEnd also returns when the time is over, or the node is.
func (w *worker) waitForEnd(ctx context.Context, p *process) {
	for {
		down, _, nodeChanged := w.node.state()
		if down {
			return
		}
		select {
		case <-p.done:
			return
		case <-ctx.Done():
			return
		case <-nodeChanged:
		}
	}
}

// grace is the deletion's. A pod whose object just vanished gets what its spec says.
func (w *worker) grace() time.Duration {
	seconds := int64(30)
	switch {
	case w.pod.DeletionGracePeriodSeconds != nil:
		seconds = *w.pod.DeletionGracePeriodSeconds
	case w.pod.Spec.TerminationGracePeriodSeconds != nil:
		seconds = *w.pod.Spec.TerminationGracePeriodSeconds
	}
	return time.Duration(max(seconds, 1)) * time.Second
}

// remove deletes the object, as a kubelet does once the pod's end is reported; finalizers may hold it.
func (w *worker) remove() bool {
	n := w.node
	n.reporting.RLock()
	defer n.reporting.RUnlock()
	if _, cut, _ := n.state(); cut {
		return false
	}
	now := int64(0)
	err := w.k.client.CoreV1().Pods(w.namespace).Delete(w.k.ctx, w.name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(w.uid)),
	})
	return ignoreGone(err) == nil
}
