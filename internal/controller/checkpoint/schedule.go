package checkpoint

import "time"

// due says whether to look now, or else for how long to wait; 0 is until something happens.
func (e *entry) due(o *observation) (bool, time.Duration) {
	if !o.running() {
		return false, 0
	}
	if upcoming := instanceOf(o.holder); upcoming != e.upcoming {
		e.next = e.firstTurn(o)
		e.upcoming = upcoming
		e.holds = 0
	}
	if e.interval == 0 && e.instance == e.upcoming {
		return false, 0 // It was looked at once, to see that it has its state.
	}
	// A shorter interval counts at once.
	if limit := e.interval; limit > 0 && e.next.Sub(o.now) > limit+limit/2 {
		e.next = e.turn(o.now)
	}
	if wait := e.next.Sub(o.now); wait > 0 {
		return false, wait
	}
	return true, 0
}

// firstTurn looks at a process that has just become ready at once: it may have lost its state, and must not go on without it
// for long. One that was there before this operator was waits its turn.
func (e *entry) firstTurn(o *observation) time.Time {
	unknown := e.upcoming == instance{}
	if unknown && e.interval > 0 && o.now.Sub(readySince(o.holder)) > e.interval {
		return e.turn(o.now)
	}
	return o.now
}

// turn is the next point in time that is this processor's.
func (e *entry) turn(after time.Time) time.Time {
	if e.interval <= 0 {
		return after
	}
	offset := phase(e.uid, e.interval)
	into := time.Duration((after.UnixNano() - int64(offset)) % int64(e.interval))
	return after.Add(e.interval - into)
}

// outcome is how a look ended.
type outcome struct {
	// err is why it failed.
	err error
	// reason is the condition's, where it is neither ReasonCheckpointFailing nor ReasonCaptureFailing.
	reason string
	// uncaptured says that the state could not be had, which a move needs, too.
	uncaptured bool
	// again is when to look again, where it is not at the next turn.
	again time.Duration
}

// conclude sets the next turn, and counts failures.
func (e *entry) conclude(o *observation, out outcome, now time.Time) {
	switch {
	case out.err != nil:
		e.fail(o, out, now)
	case out.again > 0:
		e.next = now.Add(out.again)
	default:
		e.failures, e.trouble, e.holds = 0, nil, 0
		e.next = e.turn(now)
		if e.next.Sub(now) < e.interval/2 {
			e.next = e.next.Add(e.interval)
		}
	}
}

// fail retries within the interval at first, so that one lost answer does not cost a whole one.
func (e *entry) fail(o *observation, out outcome, now time.Time) {
	e.failures++
	pause := max(e.interval, time.Second)
	if e.failures < failuresToTell {
		pause = max(e.interval/4, 250*time.Millisecond)
	}
	e.next = now.Add(pause)
	late := e.interval > 0 && now.Sub(e.since) >= intervalsToTell*e.interval
	if e.failures >= failuresToTell || late || out.reason != "" {
		e.trouble = troubleOf(o, e, out)
	}
}

// laneDelay is when a processor that found its lane full tries again.
const laneDelay = 500 * time.Millisecond

// lanes keep workers free for processors that answer at once and have little to say.
type lanes struct {
	// slow is for those that failed last time: they may take all of their time again.
	slow chan struct{}
	// heavy is for large states, each of which takes a multiple of its size in memory.
	heavy chan struct{}
	// single takes one at a time: a state that takes as much memory as several others, or a large one that is also slow.
	single chan struct{}
}

const (
	heavyBytes = 1 << 20
	heavyLanes = 4
	// hugeBytes of canonical JSON are more than most states have that are as large as they may be on their way.
	hugeBytes = 12 << 20
)

func newLanes(concurrency int) lanes {
	return lanes{
		slow: make(chan struct{}, max(1, concurrency/4)), heavy: make(chan struct{}, min(heavyLanes, concurrency)), single: make(chan struct{}, 1),
	}
}

// enter answers false where the lane is full.
func (l lanes) enter(o *observation, e *entry) (leave func(), ok bool) {
	var lane chan struct{}
	switch size := e.sizeOf(o); {
	case size > hugeBytes, size > heavyBytes && e.failures > 0:
		lane = l.single
	case size > heavyBytes:
		lane = l.heavy
	case e.failures > 0:
		lane = l.slow
	default:
		return func() {}, true
	}
	select {
	case lane <- struct{}{}:
		return func() { <-lane }, true
	default:
		return nil, false
	}
}

// sizeOf is how large the state was last. An operator that has just started knows it from the status.
func (e *entry) sizeOf(o *observation) int64 {
	if c := o.processor.Status.Checkpoint; c != nil {
		return max(e.saved.Size, c.SizeBytes)
	}
	return e.saved.Size
}
