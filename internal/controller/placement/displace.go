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
	"github.com/dory-io/dory/internal/record"
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
	node, placeholders, found := l.snapshot.Displace(w.pod, how, w.avoid)
	if !found && len(w.avoid) > 0 {
		w.avoid = nil
		l.waiting.putOff(w, l.clock.Now())
	}
	if !found || l.snapshot.Assume(w.pod, node) != nil {
		return false
	}
	l.waiting.await(w, placeholders, l.clock.Now().Add(endPatience))
	for _, p := range placeholders {
		l.changed(l.snapshot.End(p.Key))
	}
	l.clerks.end(ctx, w.object, placeholders, node)
	return true
}

// takesRoom says whether a pod goes where room was kept for it, while placeholders made it or its claims were bound. They may
// not have been, and the node may not be what it was.
func (l *loop) takesRoom(w *waiter, node string, how scheduler.How) bool {
	ended := len(w.ending) == 0
	l.waiting.giveUp(w)
	left := l.snapshot.Forget(w.pod)
	if ended && l.snapshot.Fits(w.pod, node, how) && l.snapshot.Assume(w.pod, node) == nil {
		w.hasRoom = true
		return true
	}
	l.changed(left)
	w.hasRoom = false
	if !ended {
		w.shun(node)
	}
	return false
}

// shun a node until there is no other.
func (w *waiter) shun(node string) {
	if w.avoid == nil {
		w.avoid = map[string]bool{}
	}
	w.avoid[node] = true
}

// fitsSomewhere says whether something has changed that makes a place for a pod without any placeholder's end.
func (l *loop) fitsSomewhere(w *waiter) bool {
	for node := range l.changes {
		if l.snapshot.Fits(w.pod, node, scheduler.How{UseBuffer: w.useBuffer}) {
			return true
		}
	}
	return false
}

// endsItself lets a pod go that is deleted while it waits for others to end, or for its claims.
func (l *loop) endsItself(p *scheduler.Pod) {
	w, waits := l.waiting.pods[p.Key]
	if waits && (w.claiming != nil || len(w.ending) > 0) && p.Terminating() && w.pod.UID == p.UID {
		l.waiting.forget(p.Key)
		l.changed(l.snapshot.Forget(w.pod))
	}
}

// stayed is the failure to end placeholders. Whoever waits for one is placed anew, and they are read again.
func (l *loop) stayed(placeholders []*scheduler.Pod) {
	for _, placeholder := range placeholders {
		for key, w := range l.waiting.awaiting {
			if w.ending[placeholder.Key] == placeholder.UID {
				node, _ := l.snapshot.Assumed(key)
				l.waiting.giveUp(w)
				l.changed(l.snapshot.Forget(w.pod))
				w.shun(node)
				l.waiting.putOff(w, l.clock.Now())
			}
		}
		l.readAgain(placeholder)
	}
}

func keyOf(p *scheduler.Pod) client.ObjectKey {
	namespace, name, _ := toolscache.SplitMetaNamespaceKey(p.Key) //nolint:errcheck // scheduler.Key made it.
	return client.ObjectKey{Namespace: namespace, Name: name}
}

// end placeholders that make room for a pod, but for those that end already.
func (c *clerks) end(ctx context.Context, object *corev1.Pod, placeholders []*scheduler.Pod, node string) {
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
			return func(l *loop) { l.stayed(stayed) }
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
	narrator{record.New(c.config.Recorder)}.displaces(object, placeholder, node)
	return nil
}
