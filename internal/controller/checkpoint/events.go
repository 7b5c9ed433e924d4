package checkpoint

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/statestore"
)

// narrator is the list of everything this package says in events.
type narrator struct{ recorder record.Recorder }

func (n narrator) failing(o *observation, t *trouble) {
	n.recorder.Eventf(o.processor, o.holder, corev1.EventTypeWarning, t.reason, "Checkpoint", "%s", t.message)
}

func (n narrator) recovered(o *observation) {
	n.recorder.Eventf(o.processor, o.holder, corev1.EventTypeNormal, "CheckpointRecovered", "Checkpoint", "Checkpoints of pod %s succeed again", o.holder.Name)
}

func (n narrator) iterationsFailing(o *observation, message string) {
	n.recorder.Eventf(o.processor, o.holder, corev1.EventTypeWarning, doryv1alpha1.ReasonIterationsFailing, "Iterate", "Pod %s: %s", o.holder.Name, message)
}

func (n narrator) iterating(o *observation) {
	n.recorder.Eventf(o.processor, o.holder, corev1.EventTypeNormal, "IterationsRecovered", "Iterate", "The iterations of pod %s do not fail any more", o.holder.Name)
}

func (n narrator) stateRestored(o *observation, b beginning, from *statestore.Copy) {
	had := "had none of its state"
	if b.state.HasPosition {
		had = "was at " + b.state.Position.String()
	}
	n.recorder.Eventf(o.processor, o.holder, corev1.EventTypeWarning, "StateRestored", "Restore",
		"Pod %s had started without its state and %s: gave it back the checkpoint (%s, from the %s)", o.holder.Name, had, from.Version, from.Storage)
}

func (n narrator) stateOutdated(o *observation, why string) {
	n.recorder.Eventf(o.processor, o.holder, corev1.EventTypeWarning, "StateOutdated", "Restore",
		"Pod %s works without its newest state (%s); spec.state.onMissing is %s", o.holder.Name, why, o.policy())
}

func (n narrator) lateSaveUndone(o *observation, saved statestore.Saved) {
	n.recorder.Eventf(o.processor, o.holder, corev1.EventTypeNormal, "LateSaveUndone", "Checkpoint",
		"Pod %s had saved its older state over that of pod %s, which is stored again (%s)", saved.Undone, o.holder.Name, saved.Version)
}

func (n narrator) revived(o *observation, found *statestore.Inventory) {
	with := "without a state, because none is stored"
	if newest := found.Newest(); newest != nil {
		with = fmt.Sprintf("with the checkpoint (%s, from the %s)", newest.Version, newest.Storage)
	}
	n.recorder.Eventf(o.processor, o.holder, corev1.EventTypeNormal, "InstanceRevived", "Promote",
		"Pod %s had come back as a standby: promoted it under epoch %d %s", o.holder.Name, o.epoch.Spec.Epoch, with)
}

func (n narrator) resumed(o *observation) {
	n.recorder.Eventf(o.processor, o.holder, corev1.EventTypeWarning, "InstanceResumed", "Resume",
		"Pod %s had been quiesced by a migration that is no more: it works on under epoch %d", o.holder.Name, o.epoch.Spec.Epoch)
}

func (n narrator) ended(o *observation) {
	n.recorder.Eventf(o.processor, o.holder, corev1.EventTypeWarning, "InstanceEnded", "Delete",
		"Pod %s had come back as a standby and waits for a state, but none is stored: ended it, so that a new instance starts", o.holder.Name)
}
