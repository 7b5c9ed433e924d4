package placement

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/scheduler"
)

// clerks write to the API server, several at a time, while the loop decides on.
type clerks struct {
	config Config
	inbox  *inbox
	cached client.Reader
	desks  chan struct{} // one token for each clerk at work
	work   sync.WaitGroup
}

// take engages a clerk. False: all are busy; one sends a letter when it is done.
func (c *clerks) take() bool {
	select {
	case c.desks <- struct{}{}:
		return true
	default:
		return false
	}
}

// free lets a clerk go that has nothing to do.
func (c *clerks) free() { <-c.desks }

// idle says whether no clerk is at work.
func (c *clerks) idle() bool { return len(c.desks) == 0 }

// wait for the clerks at work.
func (c *clerks) wait() { c.work.Wait() }

// do lets the clerk that was taken work, and then tell the loop.
func (c *clerks) do(work func() letter) {
	c.work.Go(func() {
		done := work()
		c.free()
		c.inbox.send(done)
	})
}

// bind a pod to its node.
func (c *clerks) bind(ctx context.Context, object *corev1.Pod, p *scheduler.Pod, node string) {
	c.do(func() letter {
		err := c.writeBinding(ctx, object, node)
		switch {
		case err == nil:
			c.config.Metrics.bound(c.config.Clock.Since(object.CreationTimestamp.Time))
		case !expected(err):
			c.config.Metrics.failed()
			log.FromContext(ctx).Error(err, "a pod was not bound and will be placed again", "pod", p.Key, "node", node)
		}
		return func(l *loop) {
			if err == nil {
				l.backlog.add(object, node, l.clock.Now())
			}
			l.bound(p, err)
		}
	})
}

// errNews is that something is not as it was when it was decided about.
var errNews = errors.New("it has changed meanwhile")

// expected are the ends of races that are lost without harm: the pod is gone, or has a node already.
func expected(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err) || errors.Is(err, errNews)
}

// writeBinding looks for the node first, because the API server does not: it would bind a pod to one that is gone.
func (c *clerks) writeBinding(ctx context.Context, object *corev1.Pod, node string) error {
	if err := c.cached.Get(ctx, client.ObjectKey{Name: node}, &corev1.Node{}); err != nil {
		return fmt.Errorf("looking for node %s: %w", node, err)
	}
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: object.Namespace, Name: object.Name, UID: object.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	if err := c.config.Client.SubResource("binding").Create(ctx, object.DeepCopy(), binding); err != nil {
		return fmt.Errorf("binding pod %s to node %s: %w", client.ObjectKeyFromObject(object), node, err)
	}
	return nil
}

// help says why a pod was refused, unless the message is empty, and asks others to make room for it.
func (c *clerks) help(ctx context.Context, object *corev1.Pod, message string, moves []scheduler.Move) {
	if message == "" && len(moves) == 0 {
		c.free()
		return
	}
	c.do(func() letter {
		if message != "" {
			c.report(ctx, object, message)
		}
		c.askToMove(ctx, object, moves)
		return func(*loop) {}
	})
}

// report tells the pod's author, and whoever provisions nodes.
func (c *clerks) report(ctx context.Context, object *corev1.Pod, message string) {
	if err := c.writeCondition(ctx, object, message); client.IgnoreNotFound(err) != nil {
		log.FromContext(ctx).Error(err, "a pod's condition was not written", "pod", client.ObjectKeyFromObject(object))
	}
	narrator{record.New(c.config.Recorder)}.refused(object, message)
}

func (c *clerks) writeCondition(ctx context.Context, object *corev1.Pod, message string) error {
	now := metav1.NewTime(c.config.Clock.Now())
	condition := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message, LastTransitionTime: now,
	}
	for _, known := range object.Status.Conditions {
		if known.Type == corev1.PodScheduled && known.Status == corev1.ConditionFalse {
			condition.LastTransitionTime = known.LastTransitionTime
		}
	}
	before := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: object.Namespace, Name: object.Name, UID: object.UID}}
	after := before.DeepCopy()
	after.Status.Conditions = []corev1.PodCondition{condition}
	return c.config.Client.Status().Patch(ctx, after, client.StrategicMergeFrom(before))
}
