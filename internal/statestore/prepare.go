package statestore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/statexfer"
)

// Preparer makes sure, before an instance starts, that it will find the newest state that can be read, and says what it
// means where that is not the newest there was. Prepare is asked after the last instance is proven gone, Foresee before it ends.
type Preparer struct {
	store    *Store
	epochs   client.Reader
	recorder record.Recorder
}

// NewPreparer makes a Preparer. epochs reads ProcessorEpochs, and may be a cache.
func NewPreparer(store *Store, epochs client.Reader, recorder events.EventRecorder) *Preparer {
	return &Preparer{store: store, epochs: epochs, recorder: record.New(recorder)}
}

// Result says whether an instance may start, and with what.
type Result struct {
	// Reason and Message are for the condition where no instance may start. Empty: it may.
	Reason, Message string
	// Found is the newest copy that can be read, or nil.
	Found *Copy
	// Epoch is the highest under which a stored copy was written. The instance needs a higher one, or it counts for older than
	// its own state.
	Epoch int64
	// Elsewhere says that Found is too large for where the SDK looks. The checkpoint controller restores it once the
	// instance is ready. An instance that supports the handoff is better started as a standby: it then does nothing
	// before it has its state, and the checkpoint controller promotes it.
	Elsewhere bool
}

// Refused says that no instance may start.
func (r Result) Refused() bool { return r.Reason != "" }

// Foresee is what Prepare would say now, and changes nothing. It is asked while an instance still works, which is not to end
// for a successor that would not be started.
func (p *Preparer) Foresee(ctx context.Context, processor *doryv1alpha1.Processor) (Result, error) {
	if processor.OnMissing() == doryv1alpha1.OnMissingDiscard {
		return p.Epochs(ctx, processor)
	}
	found, err := p.look(ctx, processor)
	return found.result, err
}

// Prepare puts the newest state where the next instance of the Processor will look for it. An error says that this could
// not be done, or not be known, now: start nothing and try again.
func (p *Preparer) Prepare(ctx context.Context, processor *doryv1alpha1.Processor) (Result, error) {
	if processor.OnMissing() == doryv1alpha1.OnMissingDiscard {
		return p.Epochs(ctx, processor) // The SDK may find a copy all the same.
	}
	found, err := p.look(ctx, processor)
	result := found.result
	if err != nil || result.Refused() {
		return result, err
	}
	if found.missing != "" {
		p.event(processor, corev1.EventTypeWarning, "StateOutdated", "%s; starting with that, because spec.state.onMissing is PreferLatest", found.missing)
	}
	if found.document == nil || (result.Found.Storage == doryv1alpha1.CheckpointConfigMap && !result.Found.former) {
		return result, nil
	}
	result.Elsewhere, err = p.place(ctx, processor, found)
	return result, err
}

// findings are what a look found.
type findings struct {
	result    Result
	inventory *Inventory
	// document is the newest that can be read, or nil.
	document *statexfer.Document
	// missing is what Missing says.
	missing string
}

// look reads what is stored, and judges whether an instance may start from that.
func (p *Preparer) look(ctx context.Context, processor *doryv1alpha1.Processor) (findings, error) {
	epoch, err := p.epoch(ctx, processor)
	if err != nil {
		return findings{}, err
	}
	// Also where nothing tells that anything ever ran: the states may be all that a backup brought back.
	inventory, document, err := p.store.Newest(ctx, KeyOf(processor), LineageOf(processor, epoch))
	if err != nil {
		return findings{}, fmt.Errorf("looking for the state of Processor %s/%s: %w", processor.Namespace, processor.Name, err)
	}
	if err := Awaited(processor, inventory); err != nil {
		return findings{}, err
	}
	found := findings{result: epochs(processor, epoch, inventory), inventory: inventory, document: document}
	if found.result.Refused() {
		return found, nil
	}
	found.result.Found, found.missing = inventory.Newest(), Missing(processor, inventory)
	if found.missing != "" && processor.OnMissing() == doryv1alpha1.OnMissingRequire {
		found.result.Reason, found.result.Message = doryv1alpha1.ReasonStateMissing, found.missing+". "+remedy
	}
	return found, nil
}

// remedy says what to do about a start that is refused.
const remedy = "No instance starts, because spec.state.onMissing is Require. Make that state readable again or, to give it up, " +
	"set spec.state.onMissing to PreferLatest (start with the newest that can be read) or Discard"

func (p *Preparer) epoch(ctx context.Context, processor *doryv1alpha1.Processor) (*doryv1alpha1.ProcessorEpoch, error) {
	epoch := &doryv1alpha1.ProcessorEpoch{}
	key := client.ObjectKey{Namespace: processor.Namespace, Name: doryv1alpha1.ObjectName(processor.ID())}
	if err := p.epochs.Get(ctx, key, epoch); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil //nolint:nilnil // absence is an answer here, and the caller checks for it
		}
		return nil, fmt.Errorf("reading ProcessorEpoch %s: %w", key, err)
	}
	return epoch, nil
}

// place puts the newest state into the ConfigMap, unless it is too large for that.
func (p *Preparer) place(ctx context.Context, processor *doryv1alpha1.Processor, found findings) (elsewhere bool, err error) {
	key, stored := KeyOf(processor), found.inventory
	_, fits, err := p.store.saveInConfigMap(ctx, SaveRequest{Key: key, Document: *found.document, Lineage: stored.lineage, Slot: &stored.Slot})
	if err != nil {
		return false, fmt.Errorf("putting the state of Processor %s/%s where it will look for it: %w", processor.Namespace, processor.Name, err)
	}
	newest := stored.Newest()
	if fits {
		p.event(processor, corev1.EventTypeNormal, "StatePlaced", "Copied the state (%s) from %s into ConfigMap %s for the next instance",
			newest.Version, newest.where(key), key.ConfigMap)
	}
	return !fits, nil
}

func (p *Preparer) event(processor *doryv1alpha1.Processor, kind, reason, format string, args ...any) {
	p.recorder.Eventf(processor, nil, kind, reason, "Start", format, args...)
}

// Missing says what is wrong where the newest state that can be read is not the newest that there was; empty if it is.
// What the status records counts as having been there, and so does a copy that is damaged: unless it tells that it is
// older, it may be the newest.
func Missing(processor *doryv1alpha1.Processor, found *Inventory) string {
	newest := found.Newest()
	var lacks []string
	for _, problem := range found.Problems {
		older := problem.Known && newest != nil && problem.Version.Compare(newest.Version) < 0 && !errors.Is(problem.Err, ErrForeign)
		if !problem.Away && !older {
			lacks = append(lacks, problem.Err.Error())
		}
	}
	if recorded, ok := Recorded(processor); ok && outdated(newest, recorded, processor.Status.Checkpoint.Checksum, found.lineage) {
		lacks = append([]string{fmt.Sprintf("the state that was recorded (%s, in %s) is not there", recorded, where(KeyOf(processor), processor.Status.Checkpoint.Storage))}, lacks...)
		for _, problem := range found.Problems {
			if problem.Away {
				lacks = append(lacks, problem.Err.Error())
			}
		}
	}
	if len(lacks) == 0 {
		return ""
	}
	return fmt.Sprintf("The newest state cannot be read: %s. The newest that can be read is %s", strings.Join(lacks, "; "), describe(newest, KeyOf(processor)))
}

// Awaited is an error while the newest state that there was is known to be in a place that does not answer. That is no reason
// to go on without it, whatever the spec says of a state that is missing: under a new epoch, everything would count for
// more than that state once the place is back.
func Awaited(processor *doryv1alpha1.Processor, found *Inventory) error {
	newest := found.Newest()
	for _, problem := range found.Problems {
		if problem.Away && (holdsNewer(problem, newest) || holdsRecorded(processor, found, problem.Storage)) {
			return fmt.Errorf("the newest state of Processor %s/%s is in %s, which does not answer; it is waited for, unless spec.state.onMissing is Discard: %w",
				processor.Namespace, processor.Name, where(KeyOf(processor), problem.Storage), problem.Err)
		}
	}
	return nil
}

func holdsNewer(problem Problem, newest *Copy) bool {
	return problem.Known && (newest == nil || newest.Version.Compare(problem.Version) < 0)
}

func holdsRecorded(processor *doryv1alpha1.Processor, found *Inventory, storage doryv1alpha1.CheckpointStorage) bool {
	recorded, ok := Recorded(processor)
	return ok && processor.Status.Checkpoint.Storage == storage && outdated(found.Newest(), recorded, processor.Status.Checkpoint.Checksum, found.lineage)
}

// outdated compares as exactly as the status is, which knows whole seconds. The status does not know whose the state was:
// what a pod saved later that nobody knows any more is taken for the same one's, unless that is known to be another pod.
func outdated(newest *Copy, recorded Version, checksum string, lineage Lineage) bool {
	if newest == nil {
		return true
	}
	if newest.Checksum == checksum {
		return false
	}
	v := newest.Version
	v.Time, recorded.Time = v.Time.Truncate(time.Second), recorded.Time.Truncate(time.Second)
	if v.uncounted && v.Epoch == 0 && !lineage.knows(recorded.Epoch) {
		return v.Time.Before(recorded.Time)
	}
	return v.Compare(recorded) < 0
}

func describe(c *Copy, key Key) string {
	if c == nil {
		return "none"
	}
	return fmt.Sprintf("%s, in %s", c.Version, where(key, c.Storage))
}
