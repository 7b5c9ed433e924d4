package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// chapter is the work of one pod.
type chapter struct {
	pod, uid string
	files    []logFile
	// first and last are when it worked for the first and for the last time. caughtUp is when it began to go on without a
	// gap until its end: later than first where it was given a state while it worked.
	first, caughtUp, last time.Time
	iterations            int
	// previous is the number of the iteration that was read last.
	previous int64
}

// iteration is a line of the counter.
type iteration struct {
	N    int64  `json:"n"`
	Hash string `json:"hash"`
	// Nanos are since 1970, of the one clock that all nodes share.
	Nanos int64 `json:"ns"`
}

func (c *chapter) add(i iteration) {
	at := time.Unix(0, i.Nanos)
	if c.iterations == 0 {
		c.first = at
	}
	if c.iterations == 0 || i.N != c.previous+1 {
		c.caughtUp = at
	}
	c.last, c.previous = at, i.N
	c.iterations++
}

// chapters are the pods of a story in the order in which they began to work. One that never worked has none.
func chapters(files []logFile) ([]*chapter, error) {
	byUID := map[string]*chapter{}
	var all []*chapter
	for _, f := range files {
		c := byUID[f.uid]
		if c == nil {
			c = &chapter{pod: f.pod, uid: f.uid}
			byUID[f.uid] = c
			all = append(all, c)
		}
		c.files = append(c.files, f)
		if err := f.lines(c.read); err != nil {
			return nil, err
		}
	}
	all = slices.DeleteFunc(all, func(c *chapter) bool { return c.iterations == 0 })
	slices.SortFunc(all, func(a, b *chapter) int { return a.first.Compare(b.first) })
	return all, nil
}

// read ignores what is no line of the counter, such as the SDK's log.
func (c *chapter) read(line []byte) error {
	var i iteration
	if json.Unmarshal(line, &i) != nil || i.N < 1 || i.Hash == "" {
		return nil //nolint:nilerr // see above
	}
	if i.Nanos == 0 {
		return fmt.Errorf("pod %s prints no time in nanoseconds: %s", c.pod, line)
	}
	c.add(i)
	return nil
}

// turn is how the work went from one pod to the next.
type turn struct {
	// pause is how long nobody worked, both how long both did.
	pause, both time.Duration
}

func turnOf(source, target *chapter) turn {
	between := target.caughtUp.Sub(source.last)
	return turn{pause: max(0, between), both: max(0, -between)}
}

// turns finds the pods of every move that succeeded. Those of a StatefulSet have one name, so there the order tells.
func turns(s *story, all []*chapter) ([]turn, error) {
	if s.kind.strategy == "" {
		return turnsInOrder(s, all)
	}
	byPod := map[string]*chapter{}
	for _, c := range all {
		byPod[c.pod] = c
	}
	var found []turn
	for i, m := range s.ended {
		if !m.succeeded() {
			continue
		}
		source, target := byPod[m.source], byPod[m.target]
		if source == nil || target == nil {
			return nil, fmt.Errorf("%s: no log of what %s did before move %d, or %s after it", s.name, m.source, i, m.target)
		}
		found = append(found, turnOf(source, target))
	}
	return found, nil
}

func turnsInOrder(s *story, all []*chapter) ([]turn, error) {
	if len(all) != len(s.ended)+1 {
		return nil, fmt.Errorf("%s: logs of %d pods, want those of %d", s.name, len(all), len(s.ended)+1)
	}
	var found []turn
	for i := range s.ended {
		found = append(found, turnOf(all[i], all[i+1]))
	}
	return found, nil
}

// pauses and boths take the turns apart.
func pauses(turns []turn) []time.Duration {
	return collect(turns, func(t turn) time.Duration { return t.pause })
}

func boths(turns []turn) []time.Duration {
	return collect(turns, func(t turn) time.Duration { return t.both })
}

func collect[T any](from []T, value func(T) time.Duration) []time.Duration {
	values := make([]time.Duration, 0, len(from))
	for _, f := range from {
		values = append(values, value(f))
	}
	return values
}

func longest(turns []turn) time.Duration {
	if len(turns) == 0 {
		return 0
	}
	return slices.MaxFunc(turns, func(a, b turn) int { return cmp.Compare(a.pause, b.pause) }).pause
}
