package checkpoint

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

// progress is how a processor's iterations go, as far as its SDK tells.
type progress struct {
	// looked says that the processor was asked, and known that it told.
	looked, known bool
	failing       bool
	// seen is what it said last, at which time.
	seen statexfer.Iterations
	at   time.Time
	// fine counts looks in a row that found no failure, and silent those at which the processor did not tell.
	fine, silent int
}

const (
	// failingAtOnce is how many failures in a row are told at the first look that finds them. Fewer must be found twice, as one
	// may be a processor's way to wait for something.
	failingAtOnce = 3
	// fineAfter is how many looks must find none before that is told.
	fineAfter = 2
	// silentAfter is at how many looks a processor that told must not tell: a process tells once its first iteration has ended.
	silentAfter = 3
)

// learn takes what the processor said. The first time that an instance is looked at, its first iteration may not have ended: that
// another one's failed says nothing about it.
func (p *progress) learn(said statexfer.Iterations, at time.Time, first bool) {
	if !said.Known {
		if first && p.failing {
			*p = progress{looked: true}
		}
		if p.silent++; p.silent >= silentAfter {
			*p = progress{looked: true, silent: p.silent}
		}
		return
	}
	again := p.seen.Failures > 0
	p.looked, p.known, p.silent, p.seen, p.at = true, true, 0, said, at
	switch said.Failures {
	case 0:
		p.fine++
		p.failing = p.failing && p.fine < fineAfter
	default:
		p.fine = 0
		p.failing = p.failing || again || said.Failures >= failingAtOnce
	}
}

// The words in which the status's memory says that there is nothing wrong, and that nothing is known.
const (
	progressFine    = "fine"
	progressUnknown = "unknown"
)

// key is what of it is worth a write: the count rises at every look, so only its magnitude counts, and of the error what is
// no number. Empty: leave the condition alone.
func (p *progress) key() string {
	switch {
	case !p.looked:
		return ""
	case !p.known:
		return progressUnknown
	case !p.failing:
		return progressFine
	case p.seen.Failures == 0:
		return "" // It may be over, which another look must say.
	}
	return fmt.Sprintf("%d/%s", magnitude(p.seen.Failures), strings.Map(withoutDigits, p.seen.Error))
}

// progressKey is the key of what is told: nothing where the instance is not looked at any more.
func (e *entry) progressKey() string {
	if e.interval == 0 {
		return progressUnknown
	}
	return e.progress.key()
}

// magnitude is the largest power of ten that is not above n.
func magnitude(n int64) int64 {
	const base = 10
	power := int64(1)
	for n >= base {
		n /= base
		power *= base
	}
	return power
}

func withoutDigits(r rune) rune {
	if r >= '0' && r <= '9' {
		return -1
	}
	return r
}

// condition is what to tell of it.
func (p *progress) condition() metav1.Condition {
	if !p.failing {
		return metav1.Condition{
			Type: doryv1alpha1.ConditionProgressing, Status: metav1.ConditionTrue, Reason: doryv1alpha1.ReasonIterating,
			Message: "the processor's last iterations did not fail",
		}
	}
	last := "which gives no reason"
	if p.seen.Error != "" {
		last = "the last with: " + p.seen.Error
	}
	return metav1.Condition{
		Type: doryv1alpha1.ConditionProgressing, Status: metav1.ConditionFalse, Reason: doryv1alpha1.ReasonIterationsFailing,
		Message: fmt.Sprintf("at %s, %d iterations in a row had failed and were undone, %s", p.at.UTC().Format(time.RFC3339), p.seen.Failures, last),
	}
}
