package statestore

import (
	"context"
	"errors"
	"fmt"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// MaxCredibleEpoch is the highest epoch that is believed on the word of a stored copy alone. Epochs rise by one with each start
// and each move, and at one a second it takes 136 years to get there; above it there are 2^31 times as many numbers left, so
// that no copy can use the epochs up, wherever it comes from.
const MaxCredibleEpoch = int64(1) << 32

// ErrBehind says that what is stored was written under a higher epoch than the state in hand, which therefore counts for older.
var ErrBehind = errors.New("the epoch is behind the stored state's")

// Epoch is the highest that a stored copy names and that is believed. Epochs up to known need no belief. Of a damaged copy, too:
// its number was used once. Another processor's says nothing.
func (i *Inventory) Epoch(known int64) int64 {
	var highest int64
	count := func(v Version) {
		if credible(v.Epoch, known) {
			highest = max(highest, v.Epoch)
		}
	}
	for _, c := range i.Copies {
		count(c.Version)
	}
	for _, problem := range i.Problems {
		if problem.Known && !errors.Is(problem.Err, ErrForeign) {
			count(problem.Version)
		}
	}
	return highest
}

func credible(epoch, known int64) bool { return epoch <= max(MaxCredibleEpoch, known) }

// incredible is a copy that can be read and whose epoch is not believed, or nil.
func (i *Inventory) incredible(known int64) *Copy {
	for _, c := range i.Copies {
		if !credible(c.Version.Epoch, known) {
			return c
		}
	}
	return nil
}

// Epochs says what the stored copies mean for the next epoch, and reads none that is large. Of its Result, only the epoch and the
// refusal are set.
func (p *Preparer) Epochs(ctx context.Context, processor *doryv1alpha1.Processor) (Result, error) {
	epoch, err := p.epoch(ctx, processor)
	if err != nil {
		return Result{}, err
	}
	found, err := p.store.Look(ctx, KeyOf(processor), LineageOf(processor, epoch))
	if err != nil {
		return Result{}, fmt.Errorf("looking for the epochs of what is stored of Processor %s/%s: %w", processor.Namespace, processor.Name, err)
	}
	return epochs(processor, epoch, found), nil
}

// epochs refuses a start where a copy would be found that is newer than any instance can be.
func epochs(processor *doryv1alpha1.Processor, epoch *doryv1alpha1.ProcessorEpoch, found *Inventory) Result {
	known := processor.Status.LastEpoch
	if epoch != nil {
		known = max(known, epoch.Spec.Epoch)
	}
	result := Result{Epoch: found.Epoch(known)}
	if c := found.incredible(known); c != nil {
		result.Reason = doryv1alpha1.ReasonEpochBehindState
		result.Message = fmt.Sprintf("The state in %s says that it was written under epoch %d, which is not believed: the highest epoch that is known is %d, "+
			"and on the word of a stored copy alone none above %d is. Every instance would count for older than that copy, so none starts. "+
			"Correct the copy from a backup, or remove it", where(KeyOf(processor), c.Storage), c.Version.Epoch, known, MaxCredibleEpoch)
	}
	return result
}
