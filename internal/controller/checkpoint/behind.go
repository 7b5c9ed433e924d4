package checkpoint

import (
	"context"
	"fmt"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statestore"
)

// behind: what is stored was written under a higher epoch than the instance has, so nothing that it does can be stored. The
// cache may be late with the epoch, so the API server is asked before anything is said.
func (r *Reconciler) behind(ctx context.Context, o *observation, e *entry) outcome {
	epoch, _, err := readHolder(ctx, r.apiReader, o.processor)
	if err != nil {
		return r.orSafe(e, err, resultSuperseded)
	}
	if epoch != nil && epoch.Spec.Epoch >= e.saved.Version.Epoch {
		return r.safe(e, resultSuperseded)
	}
	r.metrics.result(resultBehind)
	return outcome{reason: doryv1alpha1.ReasonEpochBehindState, err: fmt.Errorf(
		"%w: the state in the %s is of %s, and pod %s has epoch %d, so nothing that it does can be stored. Delete the pod to go on from the stored state, "+
			"or move the processor to go on from what the pod has: both get an epoch above it",
		statestore.ErrBehind, e.saved.Storage, e.saved.Version, o.holder.Name, o.epoch.Spec.Epoch)}
}

// seenBy is the highest epoch that the process or, from another life of the processor, the stored state has seen.
func seenBy(process int64, o *observation, found *statestore.Inventory) int64 {
	if stored := found.Epoch(o.epoch.Spec.Epoch); stored > o.epoch.Spec.Epoch {
		return max(process, stored)
	}
	return process
}
