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
	// LabelPlaceholder, with the value true, is for pods that do nothing but keep room for pods of higher priority.
	LabelPlaceholder = "dory.io/placeholder"
	// LabelEpoch carries the epoch under which a pod was started.
	LabelEpoch = "dory.io/epoch"
	// LabelMigration, on the target of a move, is the name of the ProcessorMigration that made the pod. It stays once
	// the target acts.
	LabelMigration = "dory.io/migration"
	// LabelDrainedNode, on a ProcessorMigration, is the node for whose sake it was made. The move is called off when that
	// node is not being left any more.
	LabelDrainedNode = "dory.io/drained-node"
	// LabelLocation carries "managed" or "edge".
	LabelLocation = "workload-location"
	// LabelSource says who owns an object's spec: SourceDatabase, or absent for people.
	LabelSource = "dory.io/source"
	// SourceDatabase is the value of LabelSource on objects that mirror a database row.
	SourceDatabase = "database"

	// AnnotationRevision, on a pod, is the hash of the Processor's fields that the pod was made from.
	AnnotationRevision = "dory.io/revision"
	// AnnotationRestartedAt, on a Processor, asks for a restart with every new value, as kubectl rollout restart writes it
	// on the templates of Kubernetes' own workloads. On a pod, it is the value that the pod was started under.
	AnnotationRestartedAt = "kubectl.kubernetes.io/restartedAt"
	// AnnotationSpecRestartedAt, on a pod, is the spec.restartedAt that the pod was started under.
	AnnotationSpecRestartedAt = "dory.io/restarted-at"
	// AnnotationConfig, on a pod, is what was last seen of the ConfigMaps and Secrets that it refers to when it was made.
	AnnotationConfig = "dory.io/config"
	// AnnotationCause, on a ProcessorMigration with the reason Update, says what is brought to the instance.
	AnnotationCause = "dory.io/cause"
	// AnnotationSpec, on a pod, is the part of the Processor's spec that the pod was made from, so that another one of the
	// same version can be made after the spec has changed. AnnotationSeal proves that the operator wrote it.
	AnnotationSpec = "dory.io/spec"
	// AnnotationSeal belongs to AnnotationSpec.
	AnnotationSeal = "dory.io/seal"
	// AnnotationTrial, on the ControllerRevision of the version that worked last, is the revision that took its place, and
	// AnnotationTrialSince when that was.
	AnnotationTrial = "dory.io/trial"
	// AnnotationTrialSince belongs to AnnotationTrial.
	AnnotationTrialSince = "dory.io/trial-since"
	// AnnotationMoving, on a ControllerRevision, says that it is of a version which only changes its place, while that of the
	// version that worked before it is kept, too. It is not gone back to.
	AnnotationMoving = "dory.io/moving"
	// AnnotationRevertedFrom, on the same as AnnotationTrial, is the revision that was given up for it, and AnnotationRevertedBecause why. That
	// revision is not tried again while the ControllerRevision is there.
	AnnotationRevertedFrom = "dory.io/reverted-from"
	// AnnotationRevertedBecause belongs to AnnotationRevertedFrom.
	AnnotationRevertedBecause = "dory.io/reverted-because"
	// AnnotationRole, on a pod, is RolePrimary or RoleStandby: what a process of the pod is to start as. It reaches the
	// process as DORY_ROLE, resolved anew at every start of the container.
	AnnotationRole = "dory.io/role"
	// RolePrimary acts.
	RolePrimary = "primary"
	// RoleStandby serves HTTP and acts only once it is promoted.
	RoleStandby = "standby"
	// AnnotationDrainSince, on a ProcessorMigration with the reason Drain, is when the first attempt to move its source
	// began. The patience of whoever drains counts from it.
	AnnotationDrainSince = "dory.io/drain-since"
	// AnnotationMisledTo, on a ProcessorMigration that was called off, is the node that its target was on, which is being
	// left itself.
	AnnotationMisledTo = "dory.io/misled-to"
	// AnnotationSupersededBy, on a ProcessorMigration that was called off, is what takes its place: the drain that could not
	// wait for it.
	AnnotationSupersededBy = "dory.io/superseded-by"
	// AnnotationStateKey, on the Secret with a namespace's state token, tells by which key the token was made.
	AnnotationStateKey = "dory.io/state-key"
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
