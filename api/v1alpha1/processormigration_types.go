package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MigrationReason says why a processor moves.
// +kubebuilder:validation:Enum=Drain;Update;Consolidation;Preemption;Failover;Failback;Manual
type MigrationReason string

const (
	// MigrationDrain moves off a node that is being drained.
	MigrationDrain MigrationReason = "Drain"
	// MigrationUpdate moves to an instance of a changed spec.
	MigrationUpdate MigrationReason = "Update"
	// MigrationConsolidation moves to empty a node.
	MigrationConsolidation MigrationReason = "Consolidation"
	// MigrationPreemption makes room for a pod of higher priority.
	MigrationPreemption MigrationReason = "Preemption"
	// MigrationFailover moves from a silent edge node to the cloud.
	MigrationFailover MigrationReason = "Failover"
	// MigrationFailback moves back to an edge node that has returned.
	MigrationFailback MigrationReason = "Failback"
	// MigrationManual moves because a person said so.
	MigrationManual MigrationReason = "Manual"
)

// MigrationPhase is the step that a migration has reached.
// +kubebuilder:validation:Enum=Pending;Placing;Starting;Warming;HandingOff;Retiring;Succeeded;RollingBack;RolledBack;Failed
type MigrationPhase string

const (
	// MigrationPending waits its turn.
	MigrationPending MigrationPhase = "Pending"
	// MigrationPlacing seeks a node for the target.
	MigrationPlacing MigrationPhase = "Placing"
	// MigrationStarting waits until the target is ready.
	MigrationStarting MigrationPhase = "Starting"
	// MigrationWarming copies state while the source works.
	MigrationWarming MigrationPhase = "Warming"
	// MigrationHandingOff quiesces the source, copies the rest, and promotes the target.
	MigrationHandingOff MigrationPhase = "HandingOff"
	// MigrationRetiring ends the source.
	MigrationRetiring MigrationPhase = "Retiring"
	// MigrationSucceeded ended with the target as PRIMARY.
	MigrationSucceeded MigrationPhase = "Succeeded"
	// MigrationRollingBack returns to the source.
	MigrationRollingBack MigrationPhase = "RollingBack"
	// MigrationRolledBack ended with the source as PRIMARY.
	MigrationRolledBack MigrationPhase = "RolledBack"
	// MigrationFailed ended without a PRIMARY; lifecycle starts one.
	MigrationFailed MigrationPhase = "Failed"
)

// ProcessorMigrationSpec asks for one move of one processor.
// +kubebuilder:validation:XValidation:rule="self.processor == oldSelf.processor && (has(self.reason) ? self.reason : \"\") == (has(oldSelf.reason) ? oldSelf.reason : \"\") && (has(self.targetNode) ? self.targetNode : \"\") == (has(oldSelf.targetNode) ? oldSelf.targetNode : \"\") && (has(self.strategy) ? self.strategy : \"\") == (has(oldSelf.strategy) ? oldSelf.strategy : \"\") && (has(self.targetRevision) ? self.targetRevision : \"\") == (has(oldSelf.targetRevision) ? oldSelf.targetRevision : \"\") && (has(self.sourcePod) ? self.sourcePod : \"\") == (has(oldSelf.sourcePod) ? oldSelf.sourcePod : \"\") && (has(self.activeDeadlineSeconds) ? self.activeDeadlineSeconds : 0) == (has(oldSelf.activeDeadlineSeconds) ? oldSelf.activeDeadlineSeconds : 0)",message="spec is immutable but for spec.cancel: a migration is one move; create another"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="spec.cancel cannot be taken back: create another ProcessorMigration"
type ProcessorMigrationSpec struct {
	// processor is the name of the Processor in this namespace that moves. From 1 to 253 characters. Immutable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Processor string `json:"processor,omitempty"`
	// reason says why the processor moves. People leave it at the default, which is Manual; the others are the operator's.
	// Immutable.
	//   - Drain: off a node that is being drained; no other pod of the node's will do.
	//   - Update: to an instance of a changed spec, or a restart.
	//   - Consolidation: to empty a node.
	//   - Preemption: to make room for a pod of higher priority.
	//   - Failover: from a silent edge node to the cloud.
	//   - Failback: back to an edge node that has returned.
	//   - Manual: because a person said so.
	// +optional
	// +default="Manual"
	Reason MigrationReason `json:"reason,omitempty"`
	// targetNode names the node to move to. Unset, the scheduler chooses, another node than the present one if there is room.
	// From 1 to 253 characters. Immutable.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	TargetNode string `json:"targetNode,omitempty"`
	// strategy overrides the Processor's spec.migration.strategy for this move. The default is that one. Immutable.
	//   - Auto: Live where the processor supports the handoff, and Overlap elsewhere.
	//   - Live: hands over between two iterations; nothing is lost, nothing is done twice, for a pause of milliseconds.
	//   - Overlap: the new pod works before the old one ends; no pause, and what the old one does meanwhile is lost or done twice.
	//   - StopAndCopy: the old pod saves and ends, then the new one starts; nothing is lost, for a pause as long as a start.
	// +optional
	Strategy MigrationStrategy `json:"strategy,omitempty"`
	// targetRevision is what of the Processor an Update brings about. The move is given up (Superseded) when the Processor
	// changes again before the handoff. Unset, any will do. From 1 to 64 characters. Immutable.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	TargetRevision string `json:"targetRevision,omitempty"`
	// sourcePod is the pod to leave. The move is given up (SourceReplaced) when another pod acts by the time it would begin.
	// Unset, it is whichever pod acts then. From 1 to 253 characters. Immutable.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SourcePod string `json:"sourcePod,omitempty"`
	// activeDeadlineSeconds is how long after its creation the move is given up, in seconds, unless the target has taken
	// over by then. The time for which it waits for its turn counts. At least 1. Unset, the timeouts of the Processor's
	// spec.migration are all that bounds it. Immutable.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds,omitempty"`
	// cancel calls the move off: it is rolled back, unless the target has taken over already. The default is false. It can
	// change to true at any time, and not back.
	// +optional
	Cancel *bool `json:"cancel,omitempty"`
}

// ProcessorMigrationStatus is how far the move is.
type ProcessorMigrationStatus struct {
	// conditions: Succeeded, once the move has ended: True if the new pod acts, False if the move was rolled back or failed.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time such as 2026-01-02T03:04:05Z"
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// observedGeneration is the generation of the spec that this status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// phase is the step that the move has reached.
	//   - Pending: waits for its turn, or for an instance that is ready.
	//   - Placing: the new pod gets a node.
	//   - Starting: the new pod becomes ready.
	//   - Warming: the new pod gets a first copy of the state while the old one works.
	//   - HandingOff: the old pod stops between two iterations, and the new one takes over.
	//   - Retiring: the old pod ends; there is no way back.
	//   - Succeeded: ended, and the new pod acts.
	//   - RollingBack: the old pod works on and the new one ends.
	//   - RolledBack: ended, and the old pod acts as before.
	//   - Failed: ended without an instance; if one is wanted, it is started from the newest state.
	// +optional
	Phase MigrationPhase `json:"phase,omitempty"`
	// sourcePod is the pod that is left.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	SourcePod string `json:"sourcePod,omitempty"`
	// targetPod is the pod that takes over.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	TargetPod string `json:"targetPod,omitempty"`
	// sourceNode is the node of the source.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	SourceNode string `json:"sourceNode,omitempty"`
	// targetNode is the node of the target, once it has one.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	TargetNode string `json:"targetNode,omitempty"`
	// sourceEpoch is the epoch under which the source acts.
	// +optional
	// +kubebuilder:validation:Minimum=0
	SourceEpoch int64 `json:"sourceEpoch,omitempty"`
	// targetEpoch is the epoch that the target was promoted to.
	// +optional
	// +kubebuilder:validation:Minimum=0
	TargetEpoch int64 `json:"targetEpoch,omitempty"`
	// strategy is how the state is moved.
	//   - Auto: is never written here; it has become one of the others.
	//   - Live: by a handoff between two iterations.
	//   - Overlap: by a copy while both pods work.
	//   - StopAndCopy: by ending the old pod first.
	// +optional
	Strategy MigrationStrategy `json:"strategy,omitempty"`
	// revision is that of the Processor that the target was made from.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Revision string `json:"revision,omitempty"`
	// reason is one word for why the move is where it is, such as TargetUnschedulable or Superseded.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// message says the same to people.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Message string `json:"message,omitempty"`
	// phaseTime is when the phase was reached. The deadlines of the steps count from it.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T03:04:05Z"
	PhaseTime *metav1.Time `json:"phaseTime,omitempty"`
	// pause is for how long the processor stood still, from asking the source to quiesce until the target was
	// promoted, as the operator saw it.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^-?([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,6}([.][0-9]{1,9})?m)?([0-9]{1,6}([.][0-9]{1,9})?s)?([0-9]{1,6}([.][0-9]{1,9})?ms)?([0-9]{1,6}([.][0-9]{1,9})?(us|µs))?([0-9]{1,6}([.][0-9]{1,9})?ns)?$`
	Pause *metav1.Duration `json:"pause,omitempty"`
	// duration is the time from startTime to completionTime.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^-?([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,6}([.][0-9]{1,9})?m)?([0-9]{1,6}([.][0-9]{1,9})?s)?([0-9]{1,6}([.][0-9]{1,9})?ms)?([0-9]{1,6}([.][0-9]{1,9})?(us|µs))?([0-9]{1,6}([.][0-9]{1,9})?ns)?$`
	Duration *metav1.Duration `json:"duration,omitempty"`
	// stateBytes is the size of the state that was moved.
	// +optional
	// +kubebuilder:validation:Minimum=0
	StateBytes int64 `json:"stateBytes,omitempty"`
	// sequence is the last iteration of the source that the target goes on from. Absent where the processor's SDK
	// does not say.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Sequence *int64 `json:"sequence,omitempty"`
	// startTime is when the move left Pending.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T03:04:05Z"
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// completionTime is when the move ended, well or not.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T03:04:05Z"
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
}

// ProcessorMigration is one move of one processor from a pod to another.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=procmig,categories=dory
// +kubebuilder:printcolumn:name="Processor",type=string,JSONPath=`.spec.processor`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Pause",type=string,JSONPath=`.status.pause`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="From",type=string,priority=1,JSONPath=`.status.sourceNode`
// +kubebuilder:printcolumn:name="To",type=string,priority=1,JSONPath=`.status.targetNode`
// +kubebuilder:printcolumn:name="Strategy",type=string,priority=1,JSONPath=`.status.strategy`
// +kubebuilder:printcolumn:name="Duration",type=string,priority=1,JSONPath=`.status.duration`
// +kubebuilder:printcolumn:name="Why",type=string,priority=1,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
type ProcessorMigration struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec asks for the move.
	// +required
	Spec ProcessorMigrationSpec `json:"spec,omitzero"`
	// status is how far it is.
	// +optional
	Status ProcessorMigrationStatus `json:"status,omitempty,omitzero"`
}

// ProcessorMigrationList is a list of ProcessorMigrations.
// +kubebuilder:object:root=true
type ProcessorMigrationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ProcessorMigration `json:"items"`
}

// Ended says whether the move is over, well or not.
func (m *ProcessorMigration) Ended() bool {
	switch m.Status.Phase {
	case MigrationSucceeded, MigrationRolledBack, MigrationFailed:
		return true
	case MigrationPending, MigrationPlacing, MigrationStarting, MigrationWarming, MigrationHandingOff, MigrationRetiring, MigrationRollingBack:
	}
	return false
}

// Active says whether the move has begun and is not over: its pods are its own to make and to end.
func (m *ProcessorMigration) Active() bool {
	return m.Status.Phase != "" && m.Status.Phase != MigrationPending && !m.Ended()
}

// Cancelled says whether somebody called the move off.
func (m *ProcessorMigration) Cancelled() bool { return m.Spec.Cancel != nil && *m.Spec.Cancel }

// Brings says whether the move is to bring the Processor's present spec. All others keep the version that runs.
func (m *ProcessorMigration) Brings() bool {
	return m.Spec.Reason == MigrationUpdate || m.Spec.TargetRevision != ""
}

// Faulty says that the move was given up for what is wrong with its version: another attempt would end the same way.
func (m *ProcessorMigration) Faulty() bool {
	switch m.Status.Reason {
	case MigrationReasonTargetNotReady, MigrationReasonStateRefused, MigrationReasonTargetHasNoHandoff, MigrationReasonTargetInvalid:
		return m.Ended()
	}
	return false
}

// Deadline is when the move is given up that the target has not taken over in; ok is false without one.
func (m *ProcessorMigration) Deadline() (at time.Time, ok bool) {
	if m.Spec.ActiveDeadlineSeconds == nil {
		return time.Time{}, false
	}
	return m.CreationTimestamp.Add(time.Duration(*m.Spec.ActiveDeadlineSeconds) * time.Second), true
}
