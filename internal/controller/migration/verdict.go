package migration

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/rehearsal"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

// verdict is what a trouble means.
type verdict struct {
	outcome
	// final says that trying again does not help.
	final bool
	// source says that it is the source's trouble.
	source bool
}

// judge is nil where there is no trouble.
func judge(t *trouble) *verdict {
	if t == nil {
		return nil
	}
	v := verdict{outcome: outcome{message: t.err.Error()}}
	switch t.step {
	case stepAskSource, stepCapture, stepCheckSource:
		v.reason, v.source = ReasonSourceUnavailable, true
		v.classify(t.err, ReasonSourceUnavailable)
	case stepQuiesce:
		v.reason, v.source = ReasonNotQuiesced, true
		v.classify(t.err, ReasonQuiesceRefused)
	case stepCreateTarget, stepRehearse:
		v.reason = ReasonTargetRejected
		if v.final = apierrors.IsInvalid(t.err) || errors.Is(t.err, errUnbuildable); v.final {
			v.reason = ReasonTargetInvalid
		}
		if rehearsal.OverQuota(t.err) {
			v.reason = ReasonTargetOverQuota
		}
		if rehearsal.Refused(t.err) {
			v.final = true // The source is not ended for it, and who asked may ask again.
		}
		if errors.Is(t.err, errStateMissing) {
			v.reason, v.final = doryv1alpha1.ReasonStateMissing, true
		}
	case stepRecall:
		v.reason, v.final = ReasonTargetInvalid, true
	case stepForesee:
		v.reason, v.source, v.final = doryv1alpha1.ReasonStateMissing, true, errors.Is(t.err, errStateMissing)
	case stepReserve:
		v.reason, v.source, v.final = ReasonStateNotKept, true, permanent(t.err)
		v.message = "a copy of the state cannot be made durable before the source ends: " + v.message
	case stepPromote:
		v.reason = ReasonTargetUnavailable
		v.classify(t.err, ReasonPromotionRefused)
	default:
		v.reason = ReasonTargetUnavailable
		v.classify(t.err, ReasonStateRefused)
	}
	return &v
}

// classify knows the errors of statexfer. What it does not know may pass.
func (v *verdict) classify(err error, refused string) {
	switch {
	case errors.Is(err, errOutrun):
		v.reason, v.final = ReasonSourceRestarted, true
	case errors.Is(err, statexfer.ErrUnauthorized):
		v.reason, v.final = ReasonStateUnauthorized, true
	case errors.Is(err, statexfer.ErrTooLarge):
		v.reason, v.final = ReasonStateTooLarge, true
	case errors.Is(err, statexfer.ErrRefused):
		v.reason, v.final = refused, true
	case errors.Is(err, statexfer.ErrNotState):
		v.reason, v.final = ReasonStateInvalid, true
	case errors.Is(err, statexfer.ErrMismatch):
		// A source whose answer does not match its own checksum was cut short on the way.
		v.final = !v.source
		if v.final {
			v.reason = ReasonStateMismatch
		}
	}
}

// errUnbuildable says that no pod can be made from the Processor's spec.
var errUnbuildable = errors.New("the target cannot be made from the Processor's spec")

// errForgotten says that the version which a move brings is not known any more. The present spec is no stand-in for it: it may be
// what was refused, or what waits for a person.
var errForgotten = errors.New("what the target is to be made from is not known any more")

// errOutrun says that the target holds a newer state than the one that it was to get.
var errOutrun = errors.New("the target holds a newer state of the source, whose process was started anew")

// outrun tells such a refusal from others.
func outrun(err error, state *statexfer.State) error {
	refusal, refused := errors.AsType[*statexfer.Refusal](err)
	if refused && state.HasPosition && refusal.Role == roleStandby && refusal.Position.Compare(state.Position) > 0 {
		return fmt.Errorf("%w: %w", errOutrun, err)
	}
	return err
}

// errStateMissing says that no instance may start without the state that was recorded.
var errStateMissing = errors.New("the newest state cannot be read")

// errUnaddressed says that a pod has no address to reach it at.
var errUnaddressed = errors.New("the pod has no address")

// permanent errors say that a state can never be kept.
func permanent(err error) bool {
	for _, kind := range []error{statexfer.ErrTooLarge, statexfer.ErrMalformed, statexfer.ErrChecksum, statestore.ErrForeign} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
