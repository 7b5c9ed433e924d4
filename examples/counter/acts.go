package main

import (
	"cmp"
	"math"
	"slices"
)

// act is what one pod did under one epoch.
type act struct {
	epoch       int64
	pod         string
	first, last int64 // In nanoseconds since 1970.
}

// acts are all that the lines tell about who acted when.
type acts struct{ list []*act }

// add takes a line with a time. Mostly it belongs to the act of the line before it.
func (a *acts) add(l line) {
	if l.Nanos == 0 {
		return
	}
	for _, known := range slices.Backward(a.list) {
		if known.epoch == l.Epoch && known.pod == l.Pod {
			known.first, known.last = min(known.first, l.Nanos), max(known.last, l.Nanos)
			return
		}
	}
	a.list = append(a.list, &act{l.Epoch, l.Pod, l.Nanos, l.Nanos})
}

// judge completes a report.
func (a *acts) judge(r *report) {
	slices.SortStableFunc(a.list, func(x, y *act) int {
		return cmp.Or(cmp.Compare(x.epoch, y.epoch), cmp.Compare(x.first, y.first))
	})
	var pauses []float64
	for i := 1; i < len(a.list); i++ {
		before, after := a.list[i-1], a.list[i]
		switch {
		case before.epoch == after.epoch:
			r.SharedEpochs++
			continue
		case before.pod != after.pod:
			pauses = append(pauses, float64(after.first-before.last)/1e6)
		}
	}
	r.Overlaps = a.overlaps()
	r.Moves = len(pauses)
	slices.Sort(pauses)
	r.PauseP50MS, r.PauseP99MS, r.PauseMaxMS = percentile(pauses, 50), percentile(pauses, 99), percentile(pauses, 100)
}

// overlaps looks from each act at the earliest beginning of any later epoch, not only of the next.
func (a *acts) overlaps() (found int64) {
	earliest := int64(math.MaxInt64)
	for i, later := len(a.list)-1, int64(math.MaxInt64); i >= 0; i-- {
		this := a.list[i]
		if i+1 < len(a.list) && a.list[i+1].epoch > this.epoch {
			earliest = min(earliest, later)
		}
		if this.last >= earliest {
			found++
		}
		later = min(later, this.first)
	}
	return found
}

// percentile is by nearest rank, in a sorted list; 0 where that is empty.
func percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}
