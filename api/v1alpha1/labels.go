package v1alpha1

// Labels, annotations and finalizers. The ones without our prefix belong to the contract with processors
// that are already deployed and keep their spelling.
const (
	// LabelManagedBy marks every pod of a processor, with the value ManagedBy.
	LabelManagedBy = "managed-by"
	// ManagedBy is the value of LabelManagedBy.
	ManagedBy = "dory-orchestrator"
	// LabelProcessorID carries the processor's id, where the id is a legal label value.
	LabelProcessorID = "processor-id"
	// LabelProcessor carries the name of the Processor object.
	LabelProcessor = "dory.io/processor"
	// LabelEpoch carries the epoch under which a pod was started.
	LabelEpoch = "dory.io/epoch"
	// LabelLocation carries "managed" or "edge".
	LabelLocation = "workload-location"
	// LabelSource says who owns an object's spec: SourceDatabase, or absent for people.
	LabelSource = "dory.io/source"
	// SourceDatabase is the value of LabelSource on objects that mirror a database row.
	SourceDatabase = "database"

	// AnnotationRevision, on a pod, is the hash of the Processor's fields that the pod was made from.
	AnnotationRevision = "dory.io/revision"
	// AnnotationProcessorID carries the processor's id on objects whose label cannot hold it.
	AnnotationProcessorID = "dory.io/processor-id"
	// AnnotationRowRevision, on a database-owned object, is the revision of the row that it was rendered from.
	AnnotationRowRevision = "dory.io/row-revision"
	// AnnotationTemplateWarnings lists what of the row's template was ignored.
	AnnotationTemplateWarnings = "dory.io/template-warnings"
	// AnnotationDeletionApproved, set to "true" by a person, exempts a database-owned object from the guard
	// against mass deletion.
	AnnotationDeletionApproved = "dory.io/deletion-approved"

	// FinalizerFence keeps a pod's object until its kubelet has confirmed that its containers ended, so that
	// "the old instance is gone" can be proven before a new epoch is issued. Removing it by hand says: this
	// pod is certainly not running.
	FinalizerFence = "dory.io/fence"
)
