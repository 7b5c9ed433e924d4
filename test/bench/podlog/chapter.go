package podlog

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Chapter is the work of one pod.
type Chapter struct {
	Pod, UID string
	files    []File
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

func (c *Chapter) add(i iteration) {
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

// Chapters are the pods of a story in the order in which they began to work. One that never worked has none.
func Chapters(files []File) ([]*Chapter, error) {
	byUID := map[string]*Chapter{}
	var all []*Chapter
	for _, f := range files {
		c := byUID[f.UID]
		if c == nil {
			c = &Chapter{Pod: f.Pod, UID: f.UID}
			byUID[f.UID] = c
			all = append(all, c)
		}
		c.files = append(c.files, f)
		if err := f.lines(c.read); err != nil {
			return nil, err
		}
	}
	all = slices.DeleteFunc(all, func(c *Chapter) bool { return c.iterations == 0 })
	slices.SortFunc(all, func(a, b *Chapter) int { return a.first.Compare(b.first) })
	return all, nil
}

// read ignores what is no line of the counter, such as the SDK's log.
func (c *Chapter) read(line []byte) error {
	var i iteration
	if json.Unmarshal(line, &i) != nil || i.N < 1 || i.Hash == "" {
		return nil //nolint:nilerr // see above
	}
	if i.Nanos == 0 {
		return fmt.Errorf("pod %s prints no time in nanoseconds: %s", c.Pod, line)
	}
	c.add(i)
	return nil
}

// Turn is how the work went from one pod to the next.
type Turn struct {
	// Pause is how long nobody worked, Both how long both did.
	Pause, Both time.Duration
}

// TurnOf looks at two pods that worked one after the other.
func TurnOf(source, target *Chapter) Turn {
	between := target.caughtUp.Sub(source.last)
	return Turn{Pause: max(0, between), Both: max(0, -between)}
}

// Pauses are those of all turns.
func Pauses(turns []Turn) []time.Duration {
	pauses := make([]time.Duration, 0, len(turns))
	for _, t := range turns {
		pauses = append(pauses, t.Pause)
	}
	return pauses
}

// Boths are for how long two worked at once, of all turns.
func Boths(turns []Turn) []time.Duration {
	boths := make([]time.Duration, 0, len(turns))
	for _, t := range turns {
		boths = append(boths, t.Both)
	}
	return boths
}
