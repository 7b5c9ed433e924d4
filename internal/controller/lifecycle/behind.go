package lifecycle

import (
	"context"
	"slices"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// learnStored finds out the epochs of the stored copies. One that is not believed keeps no pod from being adopted that runs
// already; the condition Checkpointed tells of it.
func (r *Reconciler) learnStored(ctx context.Context, o *observation) error {
	if r.states == nil {
		return nil
	}
	result, err := r.states.Epochs(ctx, o.processor)
	o.stored, o.unbelieved = result.Epoch, result.Message
	return err
}

// settleDoubt finds out whether an instance ends again and again because its state was written under a higher epoch than its own, as
// after a restore from a backup. A next instance gets an epoch above that, and ends this one's trouble.
func (r *Reconciler) settleDoubt(ctx context.Context, o *observation, p *plan) error {
	if err := r.learnStored(ctx, o); err != nil {
		p.acquit() // It is not known yet what it fails for.
		return err
	}
	if o.stored <= o.epoch.Spec.Epoch && o.unbelieved == "" {
		return nil
	}
	if o.unbelieved != "" {
		p.acquit()
		p.behind = &hindrance{doryv1alpha1.ReasonEpochBehindState, o.unbelieved}
		return nil
	}
	p.acquit()
	p.remove = append(p.remove, removal{p.doubt, removeBehind})
	return nil
}

// acquit does not give a version up for a pod that may fail for its epoch: no version works with one behind the state's.
func (p *plan) acquit() {
	if p.revert != "" {
		p.revert, p.remove = "", slices.DeleteFunc(p.remove, func(r removal) bool { return r.pod == p.doubt })
	}
}
