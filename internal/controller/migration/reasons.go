package migration

import doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"

// Reasons of a migration's status: one word each for why it is where it is.
const (
	// ReasonQueued waits for another migration of the processor, or until fewer processors move.
	ReasonQueued = "Queued"
	// ReasonWaitingForInstance waits until there is an instance that can be moved.
	ReasonWaitingForInstance = doryv1alpha1.MigrationReasonWaitingForInstance
	// ReasonMoving is under way.
	ReasonMoving = "Moving"
	// ReasonMoved ended well.
	ReasonMoved = "Moved"

	// ReasonSuperseded gave way to a newer migration or a newer spec.
	ReasonSuperseded = doryv1alpha1.MigrationReasonSuperseded
	// ReasonCancelled was called off before the handoff was committed: by spec.cancel, or by being deleted.
	ReasonCancelled = doryv1alpha1.MigrationReasonCancelled
	// ReasonDeadlineExceeded was not committed within spec.activeDeadlineSeconds.
	ReasonDeadlineExceeded = doryv1alpha1.MigrationReasonDeadlineExceeded
	// ReasonSourceReplaced found another pod acting than the one that spec.sourcePod names.
	ReasonSourceReplaced = doryv1alpha1.MigrationReasonSourceReplaced
	// ReasonProcessorNotFound names a Processor that does not exist.
	ReasonProcessorNotFound = "ProcessorNotFound"
	// ReasonProcessorDeleted lost its Processor.
	ReasonProcessorDeleted = "ProcessorDeleted"
	// ReasonProcessorSuspended has a Processor that is to run nothing.
	ReasonProcessorSuspended = "ProcessorSuspended"
	// ReasonProcessorUndecodable has a Processor that cannot be decoded.
	ReasonProcessorUndecodable = "ProcessorUndecodable"
	// ReasonNothingToMove found no instance that is ready.
	ReasonNothingToMove = doryv1alpha1.MigrationReasonNothingToMove
	// ReasonAlreadyCurrent is an Update whose instance is of the wanted revision.
	ReasonAlreadyCurrent = "AlreadyCurrent"
	// ReasonNameTooLong has a name that no pod's label can hold.
	ReasonNameTooLong = "NameTooLong"
	// ReasonEdgeNodeUnknown has a Processor that names an EdgeNode which does not exist.
	ReasonEdgeNodeUnknown = "EdgeNodeUnknown"

	// ReasonTargetNodeNotFound names a node that does not exist.
	ReasonTargetNodeNotFound = "TargetNodeNotFound"
	// ReasonTargetNodeExcluded names a node that the pod's own selector, affinity or tolerations exclude.
	ReasonTargetNodeExcluded = "TargetNodeExcluded"
	// ReasonTargetInvalid has a target that cannot be made from the Processor's spec.
	ReasonTargetInvalid = doryv1alpha1.MigrationReasonTargetInvalid
	// ReasonTargetRejected has a target that the API server refuses for a reason that may pass, such as a quota.
	ReasonTargetRejected = doryv1alpha1.MigrationReasonTargetRejected
	// ReasonTargetOverQuota has a target for which a ResourceQuota has no room beside the source.
	ReasonTargetOverQuota = doryv1alpha1.MigrationReasonTargetOverQuota
	// ReasonTargetUnschedulable has a target that no node took in time.
	ReasonTargetUnschedulable = doryv1alpha1.MigrationReasonTargetUnschedulable
	// ReasonTargetNotReady has a target that did not become ready in time, or cannot.
	ReasonTargetNotReady = doryv1alpha1.MigrationReasonTargetNotReady
	// ReasonTargetImage has a target whose image cannot be pulled. The registry may be to blame, or its node, as well as the spec.
	ReasonTargetImage = doryv1alpha1.MigrationReasonTargetImage
	// ReasonTargetHasNoHandoff has a target that does not support the handoff that its source does.
	ReasonTargetHasNoHandoff = doryv1alpha1.MigrationReasonTargetHasNoHandoff
	// ReasonTargetLost has a target that ended, or is being deleted.
	ReasonTargetLost = doryv1alpha1.MigrationReasonTargetLost
	// ReasonTargetUnavailable has a target that does not answer.
	ReasonTargetUnavailable = "TargetUnavailable"

	// ReasonSourceHasNoHandoff is to be Live for a processor that cannot.
	ReasonSourceHasNoHandoff = doryv1alpha1.MigrationReasonSourceHasNoHandoff
	// ReasonSourceUnavailable has a source that does not answer.
	ReasonSourceUnavailable = doryv1alpha1.MigrationReasonSourceUnavailable
	// ReasonSourceLost has a source that ended before the target took over.
	ReasonSourceLost = "SourceLost"
	// ReasonSourceRestarted has a source that went back to an older state than the one that the target holds already.
	ReasonSourceRestarted = "SourceRestarted"
	// ReasonHolderChanged found another pod with the epoch than the one it moves.
	ReasonHolderChanged = "HolderChanged"

	// ReasonStateUnauthorized met a processor that does not accept the operator's token.
	ReasonStateUnauthorized = doryv1alpha1.MigrationReasonStateUnauthorized
	// ReasonStateInvalid got an answer that is no state.
	ReasonStateInvalid = doryv1alpha1.MigrationReasonStateInvalid
	// ReasonStateTooLarge has a state above the contract's limit.
	ReasonStateTooLarge = doryv1alpha1.MigrationReasonStateTooLarge
	// ReasonStateNotKept has a state that cannot be made durable before its source is ended: there is no room for it, or it is
	// too large for where states are kept.
	ReasonStateNotKept = doryv1alpha1.MigrationReasonStateNotKept
	// ReasonStateNotCopied did not get a first copy of the state in time.
	ReasonStateNotCopied = "StateNotCopied"
	// ReasonStateRefused has a target that does not take the state.
	ReasonStateRefused = doryv1alpha1.MigrationReasonStateRefused
	// ReasonStateMismatch has a target that took the state and holds another one.
	ReasonStateMismatch = "StateMismatch"
	// ReasonNotQuiesced has a source that did not come to the end of an iteration in time.
	ReasonNotQuiesced = "NotQuiesced"
	// ReasonQuiesceRefused has a source that refuses to quiesce.
	ReasonQuiesceRefused = "QuiesceRefused"
	// ReasonPromotionRefused has a target that refuses to act.
	ReasonPromotionRefused = "PromotionRefused"
)

// Finalizer keeps a migration that began until nothing of it is left to undo: a quiesced source must never be forgotten.
const Finalizer = "dory.io/migration"

// ConditionSucceeded is True on a migration that ended with the target as PRIMARY, and False on one that did not. It is
// absent until the end.
const ConditionSucceeded = "Succeeded"

// outcome is a reason and what it means to people.
type outcome struct{ reason, message string }
