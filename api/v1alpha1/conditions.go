package v1alpha1

// Condition types and reasons of a Processor.
const (
	// ConditionReady is True while exactly one instance is ready to work.
	ConditionReady = "Ready"

	// ReasonRunning: the instance is ready.
	ReasonRunning = "Running"
	// ReasonStarting: the instance was created and is not ready yet.
	ReasonStarting = "Starting"
	// ReasonUnschedulable: no node takes the instance.
	ReasonUnschedulable = "Unschedulable"
	// ReasonContainerWaiting: the kubelet cannot start the container, e.g. its image cannot be pulled.
	ReasonContainerWaiting = "ContainerWaiting"
	// ReasonNotReady: the instance runs and fails its readiness probe.
	ReasonNotReady = "NotReady"
	// ReasonNodeLost: the node of the instance is not ready, so nobody can say how the instance is.
	ReasonNodeLost = "NodeLost"
	// ReasonWaitingForOldInstance: the old instance is not proven gone, so no new one may start.
	ReasonWaitingForOldInstance = "WaitingForOldInstance"
	// ReasonBackingOff: instances failed; the next start is delayed.
	ReasonBackingOff = "BackingOff"
	// ReasonEpochUnavailable: no epoch can be issued, so no instance may start.
	ReasonEpochUnavailable = "EpochUnavailable"
	// ReasonUndecodable: the ProcessorEpoch or a ProcessorMigration of the Processor cannot be decoded. What runs is left
	// alone, and nothing is started, before that is mended or deleted.
	ReasonUndecodable = "Undecodable"
	// ReasonPodRejected: the API server refuses the pod.
	ReasonPodRejected = "PodRejected"
	// ReasonInvalidPodTemplate: spec.podTemplate cannot be merged over the generated pod.
	ReasonInvalidPodTemplate = "InvalidPodTemplate"
	// ReasonEdgeNodeUnknown: spec.placement.edgeNode names no EdgeNode.
	ReasonEdgeNodeUnknown = "EdgeNodeUnknown"
	// ReasonSuspended: spec.suspend is true.
	ReasonSuspended = "Suspended"
	// ReasonIDConflict: an older Processor has the same processorID, in this namespace or, where a database is
	// configured, anywhere in the cluster.
	ReasonIDConflict = "ProcessorIDConflict"

	// ReasonMigrating: a ProcessorMigration is under way, which starts the next instance.
	ReasonMigrating = "Migrating"
	// ReasonStateMissing: the newest recorded state cannot be read, and spec.state.onMissing requires it.
	ReasonStateMissing = "StateMissing"
	// ReasonEpochBehindState: a stored copy of the state was written under a higher epoch than the processor has. It is a reason
	// of Ready where no instance can start from that copy, and of Checkpointed where an instance works in spite of it.
	ReasonEpochBehindState = "EpochBehindState"

	// ConditionUpdated is True while the instance is of the current spec. It is absent without an instance.
	ConditionUpdated = "Updated"

	// ReasonCurrent: the instance is of the current spec.
	ReasonCurrent = "Current"
	// ReasonReplacing: the instance is of an older spec and is being replaced.
	ReasonReplacing = "Replacing"
	// ReasonOnDelete: the instance is of an older spec, and spec.update.strategy leaves it alone.
	ReasonOnDelete = "OnDelete"
	// ReasonUpdateRolledBack: a move to the current spec was given up; the instance works on with the older one.
	ReasonUpdateRolledBack = "UpdateRolledBack"

	// ReasonRevertedToLastGood: an instance of the current spec was started and did not work; the version that worked before is
	// back.
	ReasonRevertedToLastGood = "RevertedToLastGood"

	// ConditionDatabaseSynced says how the Processor and its database row agree. It is absent where no
	// database is configured, and while there is nothing to say.
	ConditionDatabaseSynced = "DatabaseSynced"

	// ReasonRowInvalid: the row cannot be rendered; the Processor keeps its last good spec.
	ReasonRowInvalid = "RowInvalid"
	// ReasonTemplateKeysIgnored: the row's template has keys that nobody knows; all else is applied.
	ReasonTemplateKeysIgnored = "TemplateKeysIgnored"
	// ReasonDeletionHeld: the row is gone, but too many rows went at once to believe it.
	ReasonDeletionHeld = "DeletionHeld"
	// ReasonRowConflict: the database has a row of this id that belongs to somebody else.
	ReasonRowConflict = "RowConflict"
)

// Reasons of a ProcessorMigration that was given up, by which others than the migration controller decide what to do next.
const (
	// MigrationReasonSuperseded: a newer move, or a newer spec, took its place.
	MigrationReasonSuperseded = "Superseded"
	// MigrationReasonTargetNotReady: the target has a node and does not get ready.
	MigrationReasonTargetNotReady = "TargetNotReady"
	// MigrationReasonTargetImage: a container of the target cannot be made on its node, because its image, or what it is
	// configured with, cannot be had there.
	MigrationReasonTargetImage = "TargetImageUnavailable"
	// MigrationReasonTargetInvalid: no pod can be made from the spec.
	MigrationReasonTargetInvalid = "TargetInvalid"
	// MigrationReasonTargetHasNoHandoff: the target's image cannot take part in a live move.
	MigrationReasonTargetHasNoHandoff = "TargetHasNoHandoff"
	// MigrationReasonStateRefused: the target does not take the source's state.
	MigrationReasonStateRefused = "StateRefused"
	// MigrationReasonCancelled: somebody called the move off, by spec.cancel or by deleting it.
	MigrationReasonCancelled = "Cancelled"
	// MigrationReasonDeadlineExceeded: the target had not taken over within spec.activeDeadlineSeconds.
	MigrationReasonDeadlineExceeded = "DeadlineExceeded"
	// MigrationReasonSourceReplaced: another pod acts than the one that spec.sourcePod names.
	MigrationReasonSourceReplaced = "SourceReplaced"
	// MigrationReasonWaitingForInstance: there was no instance that could be moved, for as long as the move had time.
	MigrationReasonWaitingForInstance = "WaitingForInstance"
	// MigrationReasonNothingToMove: there was none for the Processor's spec.migration.startTimeoutSeconds.
	MigrationReasonNothingToMove = "NothingToMove"
	// MigrationReasonTargetUnschedulable: no node took the target in time.
	MigrationReasonTargetUnschedulable = "TargetUnschedulable"
	// MigrationReasonTargetRejected: the API server refuses the target for a reason that may pass, such as a quota.
	MigrationReasonTargetRejected = "TargetRejected"
	// MigrationReasonTargetOverQuota: a ResourceQuota has no room for the target beside the source.
	MigrationReasonTargetOverQuota = "TargetOverQuota"
	// MigrationReasonTargetLost: the target ended, or was deleted, before it had taken over.
	MigrationReasonTargetLost = "TargetLost"
	// MigrationReasonSourceHasNoHandoff: the source's image cannot take part in a live move, and no other was asked for.
	MigrationReasonSourceHasNoHandoff = "SourceHasNoHandoff"
	// MigrationReasonSourceUnavailable: the source does not answer.
	MigrationReasonSourceUnavailable = "SourceUnavailable"
	// MigrationReasonStateUnauthorized: a processor does not accept the operator's token.
	MigrationReasonStateUnauthorized = "StateUnauthorized"
	// MigrationReasonStateInvalid: the source's answer is no state.
	MigrationReasonStateInvalid = "StateInvalid"
	// MigrationReasonStateTooLarge: the state is above the contract's limit.
	MigrationReasonStateTooLarge = "StateTooLarge"
	// MigrationReasonStateNotKept: the state cannot be made durable, so that its instance must not be ended for the move.
	MigrationReasonStateNotKept = "StateNotKept"
)

// The condition type Migratable of a Processor, and its reasons.
const (
	// ConditionMigratable is True while a drain of the instance's node would get through. It is absent until the first
	// instance is ready.
	ConditionMigratable = "Migratable"

	// ReasonLiveMigratable: the processor moves while it works, and nothing is lost or done twice.
	ReasonLiveMigratable = "LiveMigratable"
	// ReasonOverlapMigratable: the processor moves while it works; what it does in between may be lost or done twice.
	ReasonOverlapMigratable = "OverlapMigratable"
	// ReasonRestartOnly: the processor is ended and started elsewhere from its state.
	ReasonRestartOnly = "RestartOnly"
	// ReasonNoOtherNode: no other node takes the processor.
	ReasonNoOtherNode = "NoOtherNode"
	// ReasonPinnedToNode: spec.podTemplate names the one node for every pod of the processor.
	ReasonPinnedToNode = "PinnedToNode"
	// ReasonQuotaExceeded: a ResourceQuota has no room for a second pod beside the one that works. True where a restart helps,
	// for which the old pod makes room, and spec.migration.drainFallback allows it.
	ReasonQuotaExceeded = "QuotaExceeded"
	// ReasonLastMoveFailed: the last move with the spec that the next one would use was given up, and nothing has changed since.
	ReasonLastMoveFailed = "LastMoveFailed"
	// ReasonNotKnown: it could not be found out whether the processor can be moved.
	ReasonNotKnown = "NotKnown"
	// ReasonPinnedToEdgeNode: spec.placement.edgeNode lets the processor run on one node alone.
	ReasonPinnedToEdgeNode = "PinnedToEdgeNode"
	// ReasonFallbackForbidden: the processor cannot move while it works, and spec.migration.drainFallback is Never.
	ReasonFallbackForbidden = "FallbackForbidden"
)

// The condition type Checkpointed of a Processor, and its reasons.
const (
	// ConditionCheckpointed is True while checkpoints of the state succeed. It is absent before the first one, and where
	// spec.state.checkpointInterval is 0.
	ConditionCheckpointed = "Checkpointed"

	// ReasonCheckpointCurrent: the last checkpoints succeeded.
	ReasonCheckpointCurrent = "CheckpointCurrent"
	// ReasonCaptureFailing: the state cannot be captured, several times in a row. A move cannot have it either.
	ReasonCaptureFailing = "CaptureFailing"
	// ReasonCheckpointFailing: the state cannot be stored, several times in a row.
	ReasonCheckpointFailing = "CheckpointFailing"
	// ReasonStateTooLarge: the instance's state is above what can be captured, for a checkpoint as well as for a move.
	ReasonStateTooLarge = "StateTooLarge"
	// ReasonStateNotRestored: the instance started without its state, and that could not be restored. No checkpoint is
	// taken meanwhile, because it would replace the state that was lost.
	ReasonStateNotRestored = "StateNotRestored"
)

// The condition type Progressing of a Processor, and its reasons.
const (
	// ConditionProgressing is False while the processor's iterations fail, and True while they do not. It is absent where the
	// processor's SDK does not tell, and where spec.state.checkpointInterval is 0, so that nobody asks: a sequence that stands still may be one of a processor that has nothing to do.
	ConditionProgressing = "Progressing"

	// ReasonIterating: the last iterations did not fail.
	ReasonIterating = "Iterating"
	// ReasonIterationsFailing: the last iterations failed, several in a row, and what they did to the state was undone.
	ReasonIterationsFailing = "IterationsFailing"
)
