package placement

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/scheduler"
)

// mostChanges is how many different changes are compared with each sleeper before all are just woken.
const mostChanges = 32

// loop is the one goroutine that decides.
type loop struct {
	config   Config
	clock    clock.WithTicker
	inbox    *inbox
	reader   client.Reader // of the caches
	snapshot *scheduler.Snapshot
	waiting  *waiting
	clerks   *clerks
	backlog  backlog
	metrics  *Metrics
	// changes since sleepers were last looked at.
	changes    map[string]scheduler.Kind
	volumeNews volumeNews
	// ctx is that of run: letters come without one.
	ctx context.Context
}

func newLoop(c Config, box *inbox, reader client.Reader) *loop {
	l := &loop{
		config: c, clock: c.Clock, inbox: box, reader: reader, metrics: c.Metrics,
		snapshot: scheduler.New(scheduler.Options{BufferPercent: c.Options.BufferPercent}),
		waiting:  newWaiting(c.Clock.Now()), changes: map[string]scheduler.Kind{}, volumeNews: volumeNews{},
	}
	l.clerks = &clerks{config: c, inbox: box, cached: reader, desks: make(chan struct{}, c.Options.Concurrency)}
	return l
}

// run reads letters and places pods until the context ends.
func (l *loop) run(ctx context.Context) {
	l.ctx = ctx
	for ctx.Err() == nil {
		for _, letter := range l.inbox.take() {
			letter(l)
		}
		l.readVolumes()
		l.waiting.due(l.clock.Now())
		l.wakeHelped()
		l.tellOfBound()
		if l.placeNext(ctx) {
			continue
		}
		l.metrics.waiting(l.waiting.len())
		l.rest(ctx)
	}
	l.clerks.wait()
}

// tellOfBound writes the events that are due. Those that are held when the operator ends are never written: the pod's own
// condition says the same.
func (l *loop) tellOfBound() {
	for _, a := range l.backlog.due(l.clock.Now(), l.clerks.idle()) {
		narrator{record.New(l.config.Recorder)}.scheduled(a.pod, a.node)
	}
}

// rest waits for a letter, for a free clerk if somebody is ready, until somebody may try again, or until an event is due.
func (l *loop) rest(ctx context.Context) {
	until := l.waiting.next
	if due, some := l.backlog.next(l.clerks.idle()); some && due.Before(until) {
		until = due
	}
	left := until.Sub(l.clock.Now())
	if left <= 0 {
		return
	}
	timer := l.clock.NewTimer(left)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-l.inbox.arrived:
	case <-timer.C():
	}
}

// placeNext places the first of those who are ready, if a clerk is free to bind it. False: nothing to do now.
func (l *loop) placeNext(ctx context.Context) bool {
	if l.waiting.ready.Len() == 0 || !l.clerks.take() {
		return false
	}
	popped, _ := l.waiting.ready.Pop()
	w := l.waiting.pods[popped.Key]
	w.again = time.Time{}
	if w.claiming != nil {
		l.clerks.free()
		l.unclaim(w, errClaimsLate)
		return true
	}
	if len(w.object.Spec.Volumes) > 0 {
		w.pod, w.volumes = l.read(w.object)
	}
	how := scheduler.How{UseBuffer: w.useBuffer}
	if node, assumed := l.snapshot.Assumed(w.pod.Key); assumed && l.takesRoom(w, node, how) {
		l.send(ctx, w, node)
		return true
	}
	node, found := l.snapshot.Decide(w.pod, how)
	if !found {
		if !l.displace(ctx, w, how) {
			l.refuse(ctx, w, how)
		}
		return true
	}
	if err := l.snapshot.Assume(w.pod, node); err != nil {
		l.waiting.putOff(w, l.clock.Now())
		l.clerks.free()
		return true
	}
	l.send(ctx, w, node)
	return true
}

// send has a clerk bind a pod to its node, or its claims first.
func (l *loop) send(ctx context.Context, w *waiter, node string) {
	if len(w.volumes.unbound) == 0 {
		l.clerks.bind(ctx, w.object, w.pod, node)
		return
	}
	choices, err := l.choose(w, node)
	if err != nil {
		l.clerks.free()
		l.unclaim(w, err)
		return
	}
	w.attempts++
	w.claiming = &claiming{attempt: w.attempts, choices: choices}
	w.again = l.clock.Now().Add(claimPatience)
	l.waiting.expect(w.again)
	l.clerks.claim(ctx, w.object, w.pod, w.claiming, node)
}

// refuse lets a pod sleep, and says why where that is news.
func (l *loop) refuse(ctx context.Context, w *waiter, how scheduler.How) {
	refusal := l.snapshot.Explain(w.pod, how)
	l.metrics.refused()
	now := l.clock.Now()
	l.waiting.sleep(w, refusal, now.Add(l.config.Options.BufferPatience), refusal.OnlyBuffer || l.snapshot.KeepsRoom())
	reason, message := refusal.String(), ""
	if w.failure != "" {
		reason += "; " + w.failure
	}
	if w.news(reason, now) {
		message = w.told
	}
	l.clerks.help(ctx, w.object, message, l.roomFor(w, how, now))
	l.forgiveNodes(w)
}

// podChanged takes in a pod, and puts it into the queue if it waits for us.
func (l *loop) podChanged(object *corev1.Pod) {
	mine := l.mine(object)
	var v volumes
	if mine {
		v = l.volumesOf(object)
	}
	p := l.podWith(object, v)
	l.changed(l.snapshot.SetPod(p))
	if p.Over() {
		l.waiting.ended(p.Key, "")
	} else {
		l.waiting.ended(p.Key, p.UID)
	}
	l.endsItself(p)
	_, assumed := l.snapshot.Assumed(p.Key)
	if !mine || !p.Waiting() || assumed || len(object.Spec.SchedulingGates) > 0 {
		if !mine || !assumed {
			l.waiting.forget(p.Key)
		}
		return
	}
	l.waiting.add(object, p, v)
}

// mine says whether a pod waits for this placement.
func (l *loop) mine(object *corev1.Pod) bool {
	return object.Spec.SchedulerName == l.config.Options.SchedulerName && object.Spec.NodeName == ""
}

// read makes of a waiting pod what the engine knows of it.
func (l *loop) read(object *corev1.Pod) (*scheduler.Pod, volumes) {
	v := l.volumesOf(object)
	return l.podWith(object, v), v
}

func (l *loop) podWith(object *corev1.Pod, v volumes) *scheduler.Pod {
	return scheduler.NewPod(object, scheduler.PodOptions{
		Volumes: v.reachable, Problem: v.problem, Movable: l.config.Options.Movable(object), Placeholder: l.config.Options.placeholder(object),
	})
}

// readAgain takes in what the cache says of a pod, where that may have been passed over.
func (l *loop) readAgain(p *scheduler.Pod) {
	var object corev1.Pod
	if err := l.reader.Get(l.ctx, keyOf(p), &object); err == nil {
		l.podChanged(&object)
	}
}

func (l *loop) podGone(key string) {
	l.waiting.forget(key)
	l.changed(l.snapshot.DeletePod(key))
	l.waiting.ended(key, "")
}

// bound is how an attempt to bind ended. The assumption stays until the pod is seen on its node.
func (l *loop) bound(p *scheduler.Pod, err error) {
	if err == nil {
		l.waiting.forget(p.Key)
		return
	}
	w, found := l.waiting.pods[p.Key]
	known := found && w.pod.UID == p.UID
	if known && w.keepsRoom(err) {
		l.waiting.putOff(w, l.clock.Now())
		return
	}
	l.changed(l.snapshot.Forget(p))
	if known {
		w.hasRoom = false
		l.waiting.putOff(w, l.clock.Now())
		l.readAgain(p) // It may have been told to end.
	}
}

func (l *loop) changed(change scheduler.Change) {
	if change.Kinds != 0 {
		l.changes[change.Node] |= change.Kinds
	}
}

// wakeHelped wakes those for whom the changes may have made a place.
func (l *loop) wakeHelped() {
	if len(l.changes) == 0 {
		return
	}
	for _, w := range l.waiting.awaiting {
		if l.fitsSomewhere(w) {
			l.waiting.wake(w)
		}
	}
	for _, w := range l.waiting.sleepers {
		if l.helped(w) {
			l.waiting.wake(w)
		}
	}
	clear(l.changes)
}

func (l *loop) helped(w *waiter) bool {
	for node, kinds := range l.changes {
		change := scheduler.Change{Node: node, Kinds: kinds}
		if !w.refusal.HelpedBy(change) {
			continue
		}
		how := scheduler.How{UseBuffer: w.useBuffer}
		if len(l.changes) > mostChanges || !w.pod.OnlyNode(change) || l.snapshot.Fits(w.pod, node, how) || l.snapshot.Yields(w.pod, node, how) {
			return true
		}
		w.refusal = w.refusal.Unsure() // The node still lacks something, and the refusal does not say what.
	}
	return false
}
