package main

import (
	"fmt"
	"runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/dory-io/dory/internal/scheduler"
	"github.com/dory-io/dory/test/bench/meter"
	"github.com/dory-io/dory/test/bench/report"
)

type bench struct {
	nodes, pods, plain, constrained, events int
	seed                                    uint64
	clock                                   clock.PassiveClock

	progress *report.Progress
	world    *world
	snapshot *scheduler.Snapshot
	running  []*corev1.Pod // what is in its place
	gone     *corev1.Pod   // the last that was deleted as an event; the next event brings it back
}

// timings of calls.
type timings []time.Duration

func (t timings) perSecond() float64 {
	var sum time.Duration
	for _, d := range t {
		sum += d
	}
	return float64(len(t)) / sum.Seconds()
}

func (t timings) microseconds(percentile float64) float64 {
	return meter.Rounded(float64(meter.Percentile(t, percentile))/float64(time.Microsecond), 1)
}

func (b *bench) run() error {
	if b.nodes < 20 || b.pods < 1 || b.plain < 1 || b.constrained < 1 || b.events < 1 {
		return fmt.Errorf("-nodes=%d -pods=%d -plain=%d -constrained=%d -events=%d: use 20 nodes or more, and 1 or more of the others",
			b.nodes, b.pods, b.plain, b.constrained, b.events)
	}
	b.progress = report.NewProgress(b.clock)
	b.world = newWorld(b.seed)
	before := heapMB()
	if err := b.fill(); err != nil {
		return err
	}
	b.progress.Say("%d nodes in %d classes, %d pods", b.snapshot.Nodes(), b.snapshot.Classes(), b.snapshot.Pods())
	plain, err := b.decide(b.plain, b.world.plain)
	if err != nil {
		return err
	}
	constrained, err := b.decide(b.constrained, b.world.constrained)
	if err != nil {
		return err
	}
	events := b.disturb()
	nodes, pods := b.snapshot.Nodes(), b.snapshot.Pods()
	b.running, b.gone = nil, nil
	return report.Figures{
		"nodes": nodes, "pods": pods, "classes": b.snapshot.Classes(),
		"plain_per_s": meter.Rounded(plain.perSecond(), 0), "plain_p99_us": plain.microseconds(0.99),
		"constrained_per_s": meter.Rounded(constrained.perSecond(), 0), "constrained_p99_us": constrained.microseconds(0.99),
		"event_p99_us": events.microseconds(0.99), "event_max_us": events.microseconds(1),
		"heap_mb": meter.Rounded(heapMB()-before, 1),
	}.Print()
}

// heapMB is what is still referred to.
func heapMB() float64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc) / (1 << 20)
}

// fill brings up the cluster, each pod where the engine wants it.
func (b *bench) fill() error {
	b.snapshot = scheduler.New(scheduler.Options{BufferPercent: scheduler.DefaultBufferPercent})
	for i := range b.nodes {
		b.snapshot.SetNode(b.world.node(i))
	}
	for range b.pods {
		if _, err := b.place(b.world.plain()); err != nil {
			return err
		}
	}
	return nil
}

// place decides on a pod and assumes it, which is what is measured, and lets it run there, which is an event.
func (b *bench) place(object *corev1.Pod) (time.Duration, error) {
	p := scheduler.NewPod(object, scheduler.PodOptions{})
	began := b.clock.Now()
	node, found := b.snapshot.Decide(p, scheduler.How{})
	if !found {
		return 0, fmt.Errorf("pod %s has no place: %s: use more nodes or fewer pods", p.Key, b.snapshot.Explain(p, scheduler.How{}))
	}
	err := b.snapshot.Assume(p, node)
	took := b.clock.Since(began)
	if err != nil {
		return 0, err
	}
	object.Spec.NodeName = node
	b.snapshot.SetPod(scheduler.NewPod(object, scheduler.PodOptions{}))
	b.running = append(b.running, object)
	return took, nil
}

// decide places pods one by one. For each that comes, one that runs goes, so that the cluster stays as full.
func (b *bench) decide(count int, next func() *corev1.Pod) (timings, error) {
	var took timings
	for range count {
		d, err := b.place(next())
		if err != nil {
			return nil, err
		}
		took = append(took, d)
		b.end()
	}
	b.progress.Say("%d decisions: %.0f a second, p99 %.1f µs", count, took.perSecond(), took.microseconds(0.99))
	return took, nil
}

// end takes a random pod away.
func (b *bench) end() {
	at, last := b.world.random.IntN(len(b.running)), len(b.running)-1
	gone := b.running[at]
	b.running[at], b.running[last] = b.running[last], nil
	b.running = b.running[:last]
	b.snapshot.DeletePod(scheduler.Key(gone.Namespace, gone.Name))
}

// disturb lets things happen, and times how long each takes to be read and taken in.
func (b *bench) disturb() timings {
	var took timings
	for i := range b.events {
		event := b.event(i)
		began := b.clock.Now()
		event()
		took = append(took, b.clock.Since(began))
	}
	b.progress.Say("%d events: p99 %.1f µs, at most %.1f µs", b.events, took.microseconds(0.99), took.microseconds(1))
	return took
}

// event is of a pod nine times out of ten, of a node otherwise; those that change something are as frequent as those
// that do not. A change is undone by a later one.
func (b *bench) event(i int) func() {
	object := b.running[b.world.random.IntN(len(b.running))]
	node := b.world.node(b.world.random.IntN(b.nodes))
	switch i % 20 {
	case 0:
		return func() { b.snapshot.SetNode(node) }
	case 1:
		node.Spec.Unschedulable = !node.Spec.Unschedulable
		return func() { b.snapshot.SetNode(node) }
	case 2, 6, 10, 14, 18:
		b.gone = object
		return func() { b.snapshot.DeletePod(scheduler.Key(object.Namespace, object.Name)) }
	case 3, 7, 11, 15, 19:
		object = b.gone
		return func() { b.snapshot.SetPod(scheduler.NewPod(object, scheduler.PodOptions{})) }
	default:
		object = object.DeepCopy()
		if i%4 == 0 {
			object.DeletionTimestamp = &metav1.Time{Time: b.clock.Now()}
		}
		return func() { b.snapshot.SetPod(scheduler.NewPod(object, scheduler.PodOptions{})) }
	}
}
