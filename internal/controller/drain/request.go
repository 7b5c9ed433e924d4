package drain

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Request asks that a pod leaves its node.
type Request struct {
	Pod types.NamespacedName
	// UID is the one pod that is meant. Empty: whichever has the name.
	UID types.UID
	// DryRun asks what would be answered, and makes nothing. Where a move would be made or is under way, and nothing is
	// known to be in its way, that is Allowed: whoever only tries must not wait for a move that nobody begins.
	DryRun bool
	// GracePeriodSeconds is how long the pod is to have for its end; nil is as long as it says itself.
	GracePeriodSeconds *int64
	// By is who asks, for events: "eviction" or "eviction request".
	By string
}

// Answer is what the asker is told.
type Answer struct {
	// Allowed lets the pod go now. Otherwise the asker is to ask again.
	Allowed bool
	// Reason is one word, for metrics and causes.
	Reason string
	// Message says how far the move is and what it waits for.
	Message string
	// Causes say the same to programs: the field of each is the name of the ProcessorMigration.
	Causes []metav1.StatusCause
	// Migration is the name of the ProcessorMigration that moves the pod's processor; empty without one.
	Migration string
}

// The reasons of answers that let the pod go.
const (
	// ReasonNotOurs is a pod that is no processor's, or that nobody knows.
	ReasonNotOurs = "NotOurs"
	// ReasonAnotherPod is a pod of the name with another UID than the one asked for.
	ReasonAnotherPod = "AnotherPod"
	// ReasonProcessorGone is a pod whose Processor was deleted, or is being deleted.
	ReasonProcessorGone = "ProcessorGone"
	// ReasonSuspended is a pod whose Processor is to run nothing.
	ReasonSuspended = "Suspended"
	// ReasonFinished is a pod that ended.
	ReasonFinished = "Finished"
	// ReasonTerminating is a pod that somebody deleted already.
	ReasonTerminating = "Terminating"
	// ReasonNotStarted is a pod whose process does not run, so that there is no state in it.
	ReasonNotStarted = "NotStarted"
	// ReasonUndecodable is a pod whose Processor, epoch or move cannot be decoded, so that it is not known what would
	// become of it.
	ReasonUndecodable = "Undecodable"
	// ReasonSurplus is a pod that does not act and has no part in a move.
	ReasonSurplus = "Surplus"
	// ReasonRestartsFromCheckpoint is a pod whose state cannot be captured any more: the processor starts elsewhere from
	// its newest checkpoint.
	ReasonRestartsFromCheckpoint = "RestartsFromCheckpoint"
	// ReasonWouldMove answers a dry run.
	ReasonWouldMove = "WouldMove"
)

// The reasons of answers that let the asker wait.
const (
	// ReasonQueued has a move that has not begun, or is about to be made.
	ReasonQueued = "Queued"
	// ReasonMoving has a move under way.
	ReasonMoving = "Moving"
	// ReasonRollingBack has a move that is being given up. Another attempt follows.
	ReasonRollingBack = "RollingBack"
	// ReasonWaiting has a move that failed, and waits before the next attempt.
	ReasonWaiting = "Waiting"
	// ReasonFallingBack restarts the processor elsewhere from its state, because it cannot be moved while it works.
	ReasonFallingBack = "FallingBack"
	// ReasonRetiring is a pod that has handed over and ends by itself.
	ReasonRetiring = "Retiring"
	// ReasonTarget is a pod that a move leads to.
	ReasonTarget = "Target"
	// ReasonStarting is a pod of which it is not known yet whether it acts.
	ReasonStarting = "Starting"
)

// The types of causes.
const (
	// CausePhase's message is the phase of the ProcessorMigration.
	CausePhase metav1.CauseType = "MigrationPhase"
	// CauseReason's message is its reason.
	CauseReason metav1.CauseType = "MigrationReason"
	// CauseTarget's message is the target pod, and its node once it has one.
	CauseTarget metav1.CauseType = "MigrationTarget"
	// CauseWaitsFor's message is what the move waits for.
	CauseWaitsFor metav1.CauseType = "MigrationWaitsFor"
)
