package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

// reportDelay is when to try again after the status was written by somebody else.
const reportDelay = 500 * time.Millisecond

// told is what the status says already, also while the cache does not show it yet.
type told struct {
	checkpoint *doryv1alpha1.ProcessorCheckpoint
	// condition is why the condition is as it is: the class of a trouble, or fine. Empty: not known.
	condition string
	// progress is the key of what the condition Progressing says. Empty: not known.
	progress string
}

// generationPatience is for how long a new generation of a Processor waits for the next look before the conditions take it
// up: most looks have something to write anyway.
const generationPatience = time.Minute

// What the condition says where there is no trouble.
const (
	conditionFine   = "fine"
	conditionAbsent = "absent"
)

// statusPatch is a merge patch. Conditions are a list, which it can only replace as a whole: so it carries the
// resourceVersion of the list that it was made from.
type statusPatch struct {
	Metadata *patchMetadata `json:"metadata,omitempty"`
	Status   patchStatus    `json:"status"`
}

type patchMetadata struct {
	ResourceVersion string `json:"resourceVersion"`
}

type patchStatus struct {
	Checkpoint *doryv1alpha1.ProcessorCheckpoint `json:"checkpoint,omitempty"`
	Conditions *[]metav1.Condition               `json:"conditions,omitempty"`
}

// report writes what is new in the status, in one write, and answers when to try again.
func (r *Reconciler) report(ctx context.Context, o *observation, e *entry) (time.Duration, error) {
	var patch statusPatch
	if c := checkpointOf(e.saved); c != nil && !same(c, e.lastTold(o)) {
		patch.Status.Checkpoint = c
	}
	e.recall(o)
	conditions, changed := conditionsOf(o, e)
	if changed {
		patch.Status.Conditions = &conditions
		patch.Metadata = &patchMetadata{o.processor.ResourceVersion}
	}
	if patch.Status == (patchStatus{}) {
		return 0, nil
	}
	err := r.writeStatus(ctx, o.processor, patch)
	switch {
	case apierrors.IsConflict(err):
		return reportDelay, nil
	case apierrors.IsNotFound(err):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("writing the checkpoint into the status of Processor %s/%s: %w", o.processor.Namespace, o.processor.Name, err)
	}
	if patch.Status.Checkpoint != nil {
		e.told.checkpoint = patch.Status.Checkpoint
	}
	if changed {
		r.tell(o, e)
	}
	return 0, nil
}

// recall reads off the status what an operator before this one has told. The class of a trouble is not in there, and neither
// is the key of failing iterations: they are taken for the ones of now.
func (e *entry) recall(o *observation) {
	if e.told.condition == "" {
		e.told.condition = conditionIn(o.processor)
	}
	if e.trouble != nil && e.told.condition == e.trouble.reason {
		e.told.condition = e.condition()
	}
	if e.told.progress != "" {
		return
	}
	key := e.progressKey()
	switch c := meta.FindStatusCondition(o.processor.Status.Conditions, doryv1alpha1.ConditionProgressing); {
	case key == "":
	case c == nil:
		e.told.progress = progressUnknown
	case c.Status == metav1.ConditionTrue:
		e.told.progress = progressFine
	case e.progress.failing && key != progressUnknown:
		e.told.progress = key
	default:
		e.told.progress = c.Reason
	}
}

// tell makes events of what changed in the conditions.
func (r *Reconciler) tell(o *observation, e *entry) {
	if condition := e.condition(); condition != "" && condition != e.told.condition {
		before := e.told.condition
		e.told.condition = condition
		switch {
		case o.holder == nil:
		case e.trouble != nil:
			r.events.failing(o, e.trouble)
		case condition == conditionFine && before != conditionAbsent:
			r.events.recovered(o)
		}
	}
	r.tellProgress(o, e)
}

func (r *Reconciler) tellProgress(o *observation, e *entry) {
	key, before := e.progressKey(), e.told.progress
	if key == "" || key == before {
		return
	}
	e.told.progress = key
	wasFailing := before != progressFine && before != progressUnknown
	switch {
	case o.holder == nil, key == progressUnknown:
	case e.progress.failing && !wasFailing:
		r.events.iterationsFailing(o, e.progress.condition().Message)
	case key == progressFine && wasFailing:
		r.events.iterating(o)
	}
}

// writeStatus asks for no more than metadata in return.
func (r *Reconciler) writeStatus(ctx context.Context, p *doryv1alpha1.Processor, patch statusPatch) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encoding a status patch: %w", err)
	}
	target := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}}
	target.SetGroupVersionKind(doryv1alpha1.GroupVersion.WithKind("Processor"))
	return r.client.Status().Patch(ctx, target, client.RawPatch(types.MergePatchType, body))
}

// lastTold is what the status says of the checkpoint.
func (e *entry) lastTold(o *observation) *doryv1alpha1.ProcessorCheckpoint {
	if e.told.checkpoint != nil {
		return e.told.checkpoint
	}
	return o.processor.Status.Checkpoint
}

// checkpointOf is nil where nothing is known to be stored.
func checkpointOf(c statestore.Copy) *doryv1alpha1.ProcessorCheckpoint {
	if c.Checksum == "" {
		return nil
	}
	seen := &doryv1alpha1.ProcessorCheckpoint{
		Time: metav1.NewTime(c.Version.Time.Truncate(time.Second)), Epoch: c.Version.Epoch,
		Checksum: c.Checksum, SizeBytes: c.Size, Storage: c.Storage,
	}
	if c.Version.Sequence > 0 {
		seen.Sequence = &c.Version.Sequence
	}
	return seen
}

func same(a, b *doryv1alpha1.ProcessorCheckpoint) bool {
	if b == nil {
		return false
	}
	sequences := a.Sequence == b.Sequence || (a.Sequence != nil && b.Sequence != nil && *a.Sequence == *b.Sequence)
	return sequences && a.Time.Equal(&b.Time) && a.Epoch == b.Epoch && a.Checksum == b.Checksum && a.Storage == b.Storage
}

// condition is what the condition should say; empty is: leave it.
func (e *entry) condition() string {
	switch {
	case e.trouble != nil:
		return e.trouble.reason + "/" + e.trouble.class
	case e.interval == 0:
		return conditionAbsent
	case e.current:
		return conditionFine
	}
	return ""
}

// conditionIn reads off the status what it says. The class of a trouble is not in there.
func conditionIn(p *doryv1alpha1.Processor) string {
	condition := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionCheckpointed)
	switch {
	case condition == nil:
		return conditionAbsent
	case condition.Status == metav1.ConditionTrue:
		return conditionFine
	}
	return condition.Reason
}

// conditionsOf are the Processor's conditions as they should be, and says whether that is worth a write.
func conditionsOf(o *observation, e *entry) (conditions []metav1.Condition, changed bool) {
	conditions = o.processor.Status.DeepCopy().Conditions
	if wanted := e.condition(); wanted != "" {
		changed = settle(o, e, &conditions, doryv1alpha1.ConditionCheckpointed, wanted == conditionAbsent, wanted != e.told.condition, e.checkpointed)
	}
	if key := e.progressKey(); key != "" {
		changed = settle(o, e, &conditions, doryv1alpha1.ConditionProgressing, key == progressUnknown, key != e.told.progress, e.progress.condition) || changed
	}
	return conditions, changed
}

// settle makes one condition what it should be: absent, or new, or the same of a newer generation.
func settle(o *observation, e *entry, conditions *[]metav1.Condition, kind string, absent, news bool, build func() metav1.Condition) (changed bool) {
	current := meta.FindStatusCondition(*conditions, kind)
	switch {
	case absent:
		return meta.RemoveStatusCondition(conditions, kind) && news
	case news:
		condition := build()
		condition.ObservedGeneration, condition.LastTransitionTime = o.processor.Generation, metav1.NewTime(o.now)
		return meta.SetStatusCondition(conditions, condition)
	case current == nil, current.ObservedGeneration == o.processor.Generation: // Where it is not there, the cache is late.
		return false
	}
	current.ObservedGeneration = o.processor.Generation
	return e.generation == o.processor.Generation || !o.running() || e.next.Sub(o.now) > generationPatience
}

// checkpointed is the condition where there is one.
func (e *entry) checkpointed() metav1.Condition {
	if e.trouble != nil {
		return metav1.Condition{
			Type: doryv1alpha1.ConditionCheckpointed, Status: metav1.ConditionFalse, Reason: e.trouble.reason, Message: e.trouble.message,
		}
	}
	return metav1.Condition{
		Type: doryv1alpha1.ConditionCheckpointed, Status: metav1.ConditionTrue, Reason: doryv1alpha1.ReasonCheckpointCurrent,
		Message: fmt.Sprintf("the state is copied every %s; status.checkpoint describes the last copy that differed", e.interval),
	}
}

// troubleOf says what is wrong, and of when the newest checkpoint is.
func troubleOf(o *observation, e *entry, out outcome) *trouble {
	t := &trouble{reason: doryv1alpha1.ReasonCheckpointFailing, class: classOf(out.err)}
	switch {
	case out.reason != "":
		t.reason = out.reason
	case out.uncaptured, errors.Is(out.err, statexfer.ErrUnavailable), errors.Is(out.err, statexfer.ErrUnauthorized):
		t.reason = doryv1alpha1.ReasonCaptureFailing
	}
	newest := "there is none yet"
	if c := e.lastTold(o); c != nil {
		newest = "the newest is of " + c.Time.UTC().Format(time.RFC3339)
	}
	t.message = message.Shorten(fmt.Sprintf("no checkpoint since %s (%s): %v", e.since.UTC().Format(time.RFC3339), newest, out.err), message.EventLimit)
	return t
}

// classOf is one word for an error.
func classOf(err error) string {
	for _, class := range []struct {
		of   error
		name string
	}{
		{errOtherPod, "OtherPod"},
		{statexfer.ErrNotState, "NotState"},
		{statexfer.ErrUnauthorized, "Token"},
		{statexfer.ErrTooLarge, "TooLarge"},
		{statexfer.ErrMismatch, "Mismatch"},
		{statexfer.ErrRefused, "Refused"},
		{statexfer.ErrUnavailable, "Unavailable"},
		{statestore.ErrForeign, "Foreign"},
		{statestore.ErrBehind, "Behind"},
	} {
		if errors.Is(err, class.of) {
			return class.name
		}
	}
	if reason := apierrors.ReasonForError(err); reason != "" {
		return string(reason)
	}
	return "Other"
}
