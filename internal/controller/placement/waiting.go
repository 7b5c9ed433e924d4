package placement

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/dory-io/dory/internal/scheduler"
)

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
	// quiet is how long a refusal is not repeated in other words, such as other numbers.
	quiet = 30 * time.Second
	// wakeAll is how often everybody tries again, should anything have been overlooked.
	wakeAll = 5 * time.Minute
)

// waiter is a pod that has no node yet: ready, asleep until something helps it, put off until a moment, waiting for
// placeholders to end or for its claims to be bound, or being bound.
type waiter struct {
	object *corev1.Pod
	pod    *scheduler.Pod

	asleep   bool
	refusal  scheduler.Refusal
	failures int
	// again is when a pod is tried again that was not bound; buffer is when it may use the buffer. Zero: not set.
	again, buffer time.Time
	useBuffer     bool // it has waited long enough

	roomAskedAt time.Time // when others were last asked to move for it

	// ending are the UIDs of the placeholders that it waits for, by key; avoid are the nodes where they did not end.
	ending  map[string]string
	avoid   map[string]bool
	hasRoom bool // was kept for it

	volumes volumes
	// claiming is nil unless its claims are being bound; attempts are how often they were to be. failedOn are nodes for which
	// they were not, and failure is what went wrong last.
	claiming *claiming
	attempts int
	failedOn []string
	failure  string

	told   string // the refusal that was reported last
	toldAt time.Time
}

// keepsRoom says whether a pod keeps the room that was made for it although it was not bound: for a few more tries, where
// there is nothing about the pod or the node that speaks against it.
func (w *waiter) keepsRoom(err error) bool {
	const tries = 5
	return w.hasRoom && !expected(err) && w.failures < tries
}

// news says whether a refusal is to be reported, and takes note of it.
func (w *waiter) news(text string, now time.Time) bool {
	if text == w.told || (w.told != "" && now.Sub(w.toldAt) < quiet) {
		return false
	}
	w.told, w.toldAt = text, now
	return true
}

// waiting is the book of all who wait.
type waiting struct {
	pods     map[string]*waiter
	sleepers map[string]*waiter
	awaiting map[string]*waiter // the end of placeholders
	ready    *scheduler.Queue
	// next is the first moment at which somebody may be due.
	next      time.Time
	wakeAllAt time.Time
}

func newWaiting(now time.Time) *waiting {
	return &waiting{
		pods: map[string]*waiter{}, sleepers: map[string]*waiter{}, awaiting: map[string]*waiter{}, ready: scheduler.NewQueue(),
		next: now.Add(wakeAll), wakeAllAt: now.Add(wakeAll),
	}
}

func (b *waiting) len() int { return len(b.pods) }

// add takes in a pod. One that is known and asks for the same stays as it is.
func (b *waiting) add(object *corev1.Pod, p *scheduler.Pod, v volumes) {
	w, known := b.pods[p.Key]
	switch {
	case !known || w.pod.UID != p.UID:
		b.forget(p.Key)
		w = &waiter{told: toldBefore(object)}
		b.pods[p.Key] = w
	case equality.Semantic.DeepEqual(w.object.Spec, object.Spec) && w.pod.SameProblem(p) && w.volumes.equal(v):
		w.object = object
		return
	}
	w.object, w.pod, w.volumes = object, p, v
	b.wake(w)
}

// toldBefore is what an earlier leader reported.
func toldBefore(object *corev1.Pod) string {
	for _, c := range object.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Message
		}
	}
	return ""
}

func (b *waiting) forget(key string) {
	delete(b.pods, key)
	delete(b.sleepers, key)
	delete(b.awaiting, key)
	b.ready.Remove(key)
}

func (b *waiting) wake(w *waiter) {
	w.asleep = false
	delete(b.sleepers, w.pod.Key)
	b.ready.Push(w.pod)
}

// sleep lets a pod wait until something helps, or at the latest until the moment from which it may use the buffer, if that
// may help. A placeholder keeps room, and takes none from those that it is kept for.
func (b *waiting) sleep(w *waiter, refusal scheduler.Refusal, buffer time.Time, mayHelp bool) {
	w.asleep, w.refusal = true, refusal
	b.sleepers[w.pod.Key] = w
	if mayHelp && !w.pod.Placeholder() && !w.useBuffer && w.buffer.IsZero() {
		w.buffer = buffer
		b.expect(buffer)
	}
}

// putOff lets a pod that was not bound wait, longer each time.
func (b *waiting) putOff(w *waiter, now time.Time) {
	w.again = now.Add(min(firstRetry<<min(w.failures, 10), lastRetry))
	w.failures++
	b.expect(w.again)
}

// await lets a pod wait for placeholders to end, though not for ever.
func (b *waiting) await(w *waiter, placeholders []*scheduler.Pod, until time.Time) {
	w.ending = map[string]string{}
	for _, p := range placeholders {
		w.ending[p.Key] = p.UID
	}
	w.again = until
	b.expect(until)
	b.awaiting[w.pod.Key] = w
}

// giveUp what a pod waits for.
func (b *waiting) giveUp(w *waiter) {
	w.ending = nil
	delete(b.awaiting, w.pod.Key)
}

// ended wakes who has waited for the pod, if that was the last. An empty UID is that of a pod that is gone, any other that of
// one that is there instead.
func (b *waiting) ended(key, uid string) {
	for _, w := range b.awaiting {
		if awaited, waits := w.ending[key]; !waits || awaited == uid {
			continue
		}
		delete(w.ending, key)
		if len(w.ending) == 0 {
			b.giveUp(w)
			w.again = time.Time{}
			b.wake(w)
		}
	}
}

func (b *waiting) expect(moment time.Time) {
	if moment.Before(b.next) {
		b.next = moment
	}
}

// due makes those ready whose moment has come.
func (b *waiting) due(now time.Time) {
	if now.Before(b.next) {
		return
	}
	all := !now.Before(b.wakeAllAt)
	if all {
		b.wakeAllAt = now.Add(wakeAll)
	}
	b.next = b.wakeAllAt
	for _, w := range b.pods {
		if b.comes(w, now) || (all && w.asleep) {
			b.wake(w)
		}
	}
}

// comes says whether a pod's moment has come, and expects its next otherwise.
func (b *waiting) comes(w *waiter, now time.Time) bool {
	come := false
	for _, moment := range []*time.Time{&w.again, &w.buffer} {
		switch {
		case moment.IsZero():
		case now.Before(*moment):
			b.expect(*moment)
		default:
			w.useBuffer = w.useBuffer || moment == &w.buffer
			come = come || moment == &w.again || w.asleep
			*moment = time.Time{}
		}
	}
	return come
}
