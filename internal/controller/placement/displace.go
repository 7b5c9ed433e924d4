package placement

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/scheduler"
)

// endPatience is how long placeholders may take to end: the usual grace period, and as much again.
const endPatience = time.Minute

// placeholder says whether somebody made the pod to keep room for others, and left it to this placement.
func (o *Options) placeholder(p *corev1.Pod) bool {
	return p.Labels[doryv1alpha1.LabelPlaceholder] == "true" && p.Spec.SchedulerName == o.SchedulerName && !o.Movable(p)
}

// displace gives a pod the room of placeholders, which is its own from now on, and lets it be bound when they have ended. Where
// they are about to, nobody who provisions nodes needs to hear of it.
func (l *loop) displace(ctx context.Context, w *waiter, how scheduler.How) bool {
	how.Not, w.avoid = w.avoid, ""
	node, placeholders, found := l.snapshot.Displace(w.pod, how)
	if !found || l.snapshot.Assume(w.pod, node) != nil {
		return false
	}
	l.waiting.await(w, placeholders, l.clock.Now().Add(endPatience))
	for _, p := range placeholders {
		l.changed(l.snapshot.End(p.Key))
	}
	l.clerks.end(ctx, w.object, w.pod, placeholders, node)
	return true
}

// giveUp a node where placeholders do not end, for one round.
func (l *loop) giveUp(w *waiter, node string) {
	l.waiting.giveUp(w)
	l.changed(l.snapshot.Forget(w.pod))
	w.avoid = node
}

// stayed is the failure to end placeholders: the pod is placed anew, and they are read again.
func (l *loop) stayed(p *scheduler.Pod, placeholders []*scheduler.Pod) {
	if w, found := l.waiting.awaiting[p.Key]; found && w.pod == p {
		l.waiting.giveUp(w)
		l.changed(l.snapshot.Forget(p))
		l.waiting.putOff(w, l.clock.Now())
	}
	for _, placeholder := range placeholders {
		var object corev1.Pod
		if err := l.reader.Get(l.ctx, keyOf(placeholder), &object); err == nil {
			l.podChanged(&object)
		}
	}
}

func keyOf(p *scheduler.Pod) client.ObjectKey {
	namespace, name, _ := toolscache.SplitMetaNamespaceKey(p.Key) //nolint:errcheck // scheduler.Key made it.
	return client.ObjectKey{Namespace: namespace, Name: name}
}

// end placeholders that make room for a pod, but for those that end already.
func (c *clerks) end(ctx context.Context, object *corev1.Pod, p *scheduler.Pod, placeholders []*scheduler.Pod, node string) {
	c.do(func() letter {
		var errs []error
		var stayed []*scheduler.Pod
		for _, placeholder := range placeholders {
			if placeholder.Terminating() {
				continue
			}
			if err := c.endOne(ctx, object, placeholder, node); err != nil {
				errs, stayed = append(errs, err), append(stayed, placeholder)
			}
		}
		if err := errors.Join(errs...); err != nil {
			log.FromContext(ctx).Error(err, "not every placeholder makes room", "pod", client.ObjectKeyFromObject(object))
			return func(l *loop) { l.stayed(p, stayed) }
		}
		return func(*loop) {}
	})
}

// endOne deletes the very pod that was decided about, and no other one of its name.
func (c *clerks) endOne(ctx context.Context, object *corev1.Pod, p *scheduler.Pod, node string) error {
	key, uid := keyOf(p), types.UID(p.UID)
	placeholder := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: uid}}
	err := c.config.Client.Delete(ctx, placeholder, client.Preconditions{UID: &uid})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil // It is gone, as will be heard.
	case err != nil:
		return fmt.Errorf("deleting placeholder %s: %w", p.Key, err)
	}
	narrator{c.config.Recorder}.displaces(object, placeholder, node)
	return nil
}
