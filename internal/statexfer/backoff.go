package statexfer

import "time"

const (
	// baseWait, doubled with each failure up to maxWait, is the contract's.
	baseWait = time.Second
	maxWait  = 30 * time.Second
	// soonWait is before the first repetition where a connection could not be had or broke: a pod that is just
	// about to listen does so within milliseconds, and a handoff has no second to wait.
	soonWait = 50 * time.Millisecond
	// maxTries of one request. Their pauses alone add up to 45 to 90 seconds.
	maxTries = 8
)

// failure is why a try came to nothing.
type failure struct {
	err error
	// final says that another try would end the same.
	final bool
	// soon says that another try may succeed at once.
	soon bool
	// unsent says that the request took no effect for certain.
	unsent bool
	// after is how long the processor asks to wait at least.
	after time.Duration
}

// waits are the pauses between the tries of one request.
type waits struct {
	tries int
	grown time.Duration
}

// next is how long to wait after a failure, less a random part of up to a half, so that many clients do not come back
// at the same moment. It is false when enough was tried, or the processor asks for more patience than there is.
func (w *waits) next(failed *failure, random float64) (time.Duration, bool) {
	w.tries++
	if w.tries >= maxTries || failed.after > maxWait {
		return 0, false
	}
	if w.tries == 1 && failed.soon {
		return soonWait, true
	}
	w.grown = min(max(baseWait, 2*w.grown), maxWait)
	wait := w.grown - time.Duration(random*float64(w.grown)/2)
	return max(wait, failed.after), true
}
