package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EpochReason says why an epoch was issued.
// +kubebuilder:validation:Enum=Start;Replace;Adopt;Promote
type EpochReason string

const (
	// EpochStart is the first instance, or one after the processor was suspended.
	EpochStart EpochReason = "Start"
	// EpochReplace is an instance in the place of one that is proven gone.
	EpochReplace EpochReason = "Replace"
	// EpochAdopt is a pod that ran before this operator knew it.
	EpochAdopt EpochReason = "Adopt"
	// EpochPromote is the target of a migration, after its source has quiesced.
	EpochPromote EpochReason = "Promote"
)

// ProcessorEpochSpec is the fence of one processor.
// +kubebuilder:validation:XValidation:rule="self.epoch >= oldSelf.epoch",message="epoch never falls: an older instance would pass for the newer one"
// +kubebuilder:validation:XValidation:rule="self.epoch > oldSelf.epoch || (has(self.holder) ? self.holder : \"\") == (has(oldSelf.holder) ? oldSelf.holder : \"\") || !has(self.holder)",message="another holder needs a higher epoch"
type ProcessorEpochSpec struct {
	// processorID is the identity that the epoch belongs to. From 1 to 512 characters. Immutable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.processorID is immutable"
	ProcessorID string `json:"processorID,omitempty"`
	// epoch rises by one or more with every issue, and never falls. At least 1. Only the operator can change it.
	// +required
	// +kubebuilder:validation:Minimum=1
	Epoch int64 `json:"epoch,omitempty"`
	// holder is the one pod that may act under this epoch. Empty once that pod is proven gone. From 1 to 253 characters. Only
	// the operator can change it, under a higher epoch.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Holder string `json:"holder,omitempty"`
	// reason says why the epoch was issued. Only the operator can change it.
	//   - Start: for the first instance, or one after the processor was suspended.
	//   - Replace: for an instance in the place of one that is proven gone.
	//   - Adopt: for a pod that ran before this operator knew it.
	//   - Promote: for the target of a migration, after its source has quiesced.
	// +required
	Reason EpochReason `json:"reason,omitempty"`
	// issuedAt is when, by the operator's clock. For people; nothing is decided by it. Only the operator can change it.
	// +required
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T03:04:05Z"
	IssuedAt metav1.Time `json:"issuedAt,omitempty,omitzero"`
}

// ProcessorEpoch is the fence of one processor id. It is named after the id, not after a Processor, so that all
// that claim the id meet here. It has no owner on purpose: it outlives the Processor, so that one made again goes
// on from the epoch where the last one ended.
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=processorepochs,shortName=procepoch,categories=dory
// +kubebuilder:printcolumn:name="Epoch",type=integer,JSONPath=`.spec.epoch`
// +kubebuilder:printcolumn:name="Holder",type=string,JSONPath=`.spec.holder`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`
// +kubebuilder:printcolumn:name="Issued",type=date,JSONPath=`.spec.issuedAt`
// +kubebuilder:printcolumn:name="ID",type=string,priority=1,JSONPath=`.spec.processorID`
type ProcessorEpoch struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the fence.
	// +required
	Spec ProcessorEpochSpec `json:"spec,omitzero"`
}

// ProcessorEpochList is a list of ProcessorEpochs.
// +kubebuilder:object:root=true
type ProcessorEpochList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ProcessorEpoch `json:"items"`
}
