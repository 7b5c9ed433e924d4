package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/bench/cluster"
	"github.com/dory-io/dory/test/bench/workload"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// kind is what is compared.
type kind struct {
	// name starts the keys of the figures.
	name string
	// strategy is empty for the StatefulSet.
	strategy   doryv1alpha1.MigrationStrategy
	stateBytes int
	// exact kinds neither lose an iteration nor repeat one.
	exact bool
}

var (
	live64k     = kind{"live_64k", doryv1alpha1.MigrationLive, 64 * kib, true}
	live8m      = kind{"live_8m", doryv1alpha1.MigrationLive, 8 * mib, true}
	overlap     = kind{"overlap", doryv1alpha1.MigrationOverlap, 64 * kib, false}
	stopAndCopy = kind{"stopandcopy", doryv1alpha1.MigrationStopAndCopy, 64 * kib, true}
	statefulSet = kind{"statefulset", "", 64 * kib, false}
)

var kinds = []kind{live64k, live8m, overlap, stopAndCopy, statefulSet}

// story is one counter and all of its moves.
type story struct {
	kind  kind
	name  string
	moves int
	// ended are the moves, in their order.
	ended []move
}

// move is what became of one.
type move struct {
	phase           doryv1alpha1.MigrationPhase
	reason, message string
	// source and target are pods; of a StatefulSet, where they have the same name, empty.
	source, target string
	// pause is the operator's word, duration the time from the request to the end.
	pause, duration time.Duration
}

func (m move) succeeded() bool { return m.phase == doryv1alpha1.MigrationSucceeded }

// plan deals the moves of each kind out to counters that move side by side, the kinds one after the other.
func (b *bench) plan() []*story {
	var stories []*story
	suffix := rand.String(5)
	for _, k := range kinds {
		left := b.others
		if k == live64k || k == live8m {
			left = b.moves
		}
		counters := min(b.lanes, left)
		for i := range counters {
			share := left / (counters - i)
			left -= share
			stories = append(stories, &story{kind: k, moves: share, name: fmt.Sprintf("%s-%d-%s", keyName(k.name), i, suffix)})
		}
	}
	return stories
}

// keyName is the kind's name as objects may have it.
func keyName(name string) string {
	text := []byte(name)
	for i, c := range text {
		if c == '_' {
			text[i] = '-'
		}
	}
	return string(text)
}

// moveAll lets each lane tell one story after the other.
func (b *bench) moveAll(ctx context.Context) ([]*story, error) {
	stories := b.plan()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := make(chan *story, len(stories))
	for _, s := range stories {
		next <- s
	}
	close(next)
	outcomes := make(chan error, b.lanes)
	for range b.lanes {
		go func() { outcomes <- b.tellAll(ctx, next) }()
	}
	var first error
	for range b.lanes {
		if err := <-outcomes; err != nil && first == nil {
			first = err
			cancel()
		}
	}
	return stories, first
}

func (b *bench) tellAll(ctx context.Context, stories <-chan *story) error {
	for s := range stories {
		tell := b.moveProcessor
		if s.kind.strategy == "" {
			tell = b.deletePods
		}
		began := b.clock.Now()
		b.progress.Say("%s: %d times", s.name, s.moves)
		if err := tell(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		b.progress.Say("%s: done, %.1f s each", s.name, b.clock.Since(began).Seconds()/float64(s.moves))
	}
	return nil
}

// moveProcessor moves a processor to and fro between two nodes.
func (b *bench) moveProcessor(ctx context.Context, s *story) error {
	p := b.counter(s).Processor()
	if err := b.cluster.Client.Create(ctx, p); err != nil {
		return err
	}
	for i := range s.moves {
		from, err := b.runningOn(ctx, s.name)
		if err != nil {
			return err
		}
		ended, err := b.move(ctx, s, i, b.cluster.OtherNode(from))
		if err != nil {
			return err
		}
		if !ended.succeeded() {
			b.progress.Say("%s: move %d is %s: %s: %s", s.name, i, ended.phase, ended.reason, ended.message)
		}
		s.ended = append(s.ended, ended)
	}
	if _, err := b.runningOn(ctx, s.name); err != nil {
		return err
	}
	return b.cluster.Client.Delete(ctx, p)
}

// counter is what a story moves, with as much state as its kind.
func (b *bench) counter(s *story) workload.Counter {
	return workload.Counter{
		Namespace: b.cluster.Namespace, Name: s.name, Image: b.counterImage, Interval: b.interval, StateBytes: s.kind.stateBytes,
		CPU: "50m", Memory: "64Mi",
	}
}

// runningOn waits until the processor runs, and answers on which node.
func (b *bench) runningOn(ctx context.Context, name string) (string, error) {
	node := ""
	err := cluster.Until(ctx, "a running instance", func(ctx context.Context) (bool, string, error) {
		var p doryv1alpha1.Processor
		if err := b.cluster.Client.Get(ctx, client.ObjectKey{Namespace: b.cluster.Namespace, Name: name}, &p); err != nil {
			return false, "", err
		}
		if p.Status.Instance != nil {
			node = p.Status.Instance.Node
		}
		return p.Status.Phase == doryv1alpha1.ProcessorRunning && node != "", fmt.Sprintf("%+v", p.Status), nil
	})
	return node, err
}

// move asks for one move, and waits for its end.
func (b *bench) move(ctx context.Context, s *story, i int, to string) (move, error) {
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.cluster.Namespace, Name: fmt.Sprintf("%s-%03d", s.name, i)},
		Spec: doryv1alpha1.ProcessorMigrationSpec{
			Processor: s.name, Reason: doryv1alpha1.MigrationManual, TargetNode: to, Strategy: s.kind.strategy,
		},
	}
	began := b.clock.Now()
	if err := b.cluster.Client.Create(ctx, m); err != nil {
		return move{}, err
	}
	err := cluster.Until(ctx, "the end of ProcessorMigration "+m.Name, func(ctx context.Context) (bool, string, error) {
		err := b.cluster.Client.Get(ctx, client.ObjectKeyFromObject(m), m)
		return m.Ended(), fmt.Sprintf("%+v", m.Status), err
	})
	if err != nil {
		return move{}, err
	}
	ended := move{
		phase: m.Status.Phase, reason: m.Status.Reason, message: m.Status.Message,
		source: m.Status.SourcePod, target: m.Status.TargetPod, duration: b.clock.Since(began),
	}
	if m.Status.Pause != nil {
		ended.pause = m.Status.Pause.Duration
	}
	return ended, nil
}
