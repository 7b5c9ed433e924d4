package v1alpha1

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Location says in which part of the fleet a processor runs.
// +kubebuilder:validation:Enum=Managed;Edge
type Location string

const (
	// LocationManaged is the cloud: nodes labelled workload-type=application.
	LocationManaged Location = "Managed"
	// LocationEdge is a node at the edge: labelled node-type=edge and tainted edge-node=true:NoSchedule.
	LocationEdge Location = "Edge"
)

// ProcessorSpec is the desired state of one stateful singleton. Only image is required.
// +kubebuilder:validation:XValidation:rule="(has(self.processorID) ? self.processorID : \"\") == (has(oldSelf.processorID) ? oldSelf.processorID : \"\")",message="spec.processorID is immutable: state and epochs belong to it; create another Processor instead"
// +kubebuilder:validation:XValidation:rule="self.location != 'Edge' || (has(self.placement) && (has(self.placement.edgeNode) || has(self.placement.nodeSelector)))",message="location Edge needs spec.placement.edgeNode or spec.placement.nodeSelector: say at which edge node the processor belongs"
// +kubebuilder:validation:XValidation:rule="self.location == 'Edge' || !has(self.placement) || !has(self.placement.edgeNode)",message="spec.placement.edgeNode needs location Edge"
type ProcessorSpec struct {
	// processorID is the identity of the processor on the wire and in the database: state and epochs belong to it. It may
	// hold what no object name can, such as "Proc_6". From 1 to 512 characters; the default is the name of the object.
	// Immutable: for another id, create another Processor.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	ProcessorID string `json:"processorID,omitempty"`

	// image is the container image that is the processor. From 1 to 1024 characters; there is no default.
	// A change moves the processor to a new pod, as spec.update says.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:[.][A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|[[][0-9a-fA-F:]+[]])(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$') && !self.matches('^[a-f0-9]{64}$') && (!self.contains('@sha256:') || self.matches('@sha256:[a-f0-9]{64}$'))",message="spec.image must be the reference of an image, such as registry.example/team/app:1.0 or registry.example/app@sha256:…: no spaces, and no capitals but in the registry and the tag"
	Image string `json:"image,omitempty"`

	// imagePullPolicy says when the kubelet pulls the image. Unset, Kubernetes' default for the image's tag applies: Always
	// for :latest and no tag, else IfNotPresent. A change moves the processor to a new pod, as spec.update says.
	//   - Always: at every start of the container.
	//   - IfNotPresent: if the node does not have the image.
	//   - Never: the node must have the image already.
	// +optional
	// +kubebuilder:validation:Enum=Always;IfNotPresent;Never
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`

	// command replaces the image's entrypoint. At most 256 items; the default is the image's own. A change moves the processor to a new pod, as spec.update says.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Command []string `json:"command,omitempty"`

	// args replaces the image's arguments. At most 256 items; the default is the image's own. A change moves the processor to a new pod, as spec.update says.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Args []string `json:"args,omitempty"`

	// env is what a pod's would be: in a value, $(NAME) is the variable NAME and $$ a $. Names that the contract
	// reserves for the operator, such as PROCESSOR_ID or DORY_EPOCH, are overridden by the operator's value. At most 1024 variables; there are none by default.
	// A change moves the processor to a new pod, as spec.update says.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=1024
	Env []corev1.EnvVar `json:"env,omitempty"`

	// port is where the processor serves the contract's HTTP endpoints. From 1 to 65535; the default is 8080.
	// A change moves the processor to a new pod, as spec.update says.
	// +optional
	// +default=8080
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// resources are the requests and limits of the processor's container. Unset, the contract's defaults
	// apply: requests 500m of cpu and 512Mi of memory, limits 2 and 2Gi. A change moves the processor to a new pod, as spec.update says.
	// +optional
	Resources *ProcessorResources `json:"resources,omitempty"`

	// probes tune liveness and readiness. A change moves the processor to a new pod, as spec.update says.
	// The default of each field is shown with it.
	// +optional
	// +default={}
	Probes ProcessorProbes `json:"probes,omitempty,omitzero"`

	// location says in which part of the fleet the processor runs. The default is Managed. A change moves the processor to a new pod, as spec.update says.
	//   - Managed: in the cloud, on nodes labelled workload-type=application.
	//   - Edge: on nodes labelled node-type=edge; needs placement.edgeNode or placement.nodeSelector.
	// +optional
	// +default="Managed"
	Location Location `json:"location,omitempty"`

	// placement narrows on which nodes the processor may run. Unset, every node of the location is as good.
	// It can change at any time; see its fields for what that moves.
	// +optional
	Placement *ProcessorPlacement `json:"placement,omitempty"`

	// suspend stops the instance, after it saved its state, and starts none until it is false again. The default is false.
	// It can change at any time.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`

	// serviceAccountName is the account the processor runs as. The operator creates and binds the default,
	// dory-processor, in every namespace that has a Processor; it creates no other. From 1 to 253 characters.
	// A change moves the processor to a new pod, as spec.update says.
	// +optional
	// +default="dory-processor"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ServiceAccountName string `json:"serviceAccountName,omitempty"`

	// terminationGracePeriodSeconds bounds the time from /prestop to SIGKILL, in seconds. From 1 to 3600; the default is 35.
	// A change moves the processor to a new pod, as spec.update says.
	// +optional
	// +default=35
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	TerminationGracePeriodSeconds int64 `json:"terminationGracePeriodSeconds,omitempty"`

	// restartedAt restarts the processor with every new value, as spec.update says: a time such as 2026-01-31T12:00:00Z
	// (RFC 3339), in the past or not. Removing it restarts nothing. The annotation kubectl.kubernetes.io/restartedAt on the
	// Processor does the same. Unset by default; at most 64 characters. It can change at any time.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$')",message="must be an RFC 3339 time such as 2026-01-31T12:00:00Z"
	RestartedAt string `json:"restartedAt,omitempty"`

	// state says how the processor's state is kept safe. Unset, these apply: checkpointInterval 30s, onMissing PreferLatest.
	// It can change at any time and moves nothing by itself.
	// +optional
	State *ProcessorState `json:"state,omitempty"`

	// update says how a changed spec reaches the running instance. Unset, these apply: strategy Live,
	// onConfigChange Ignore. It can change at any time and moves nothing by itself.
	// +optional
	Update *ProcessorUpdate `json:"update,omitempty"`

	// migration says how the processor moves from one pod to another. Unset, these apply: strategy Auto, startTimeoutSeconds
	// 300, handoffTimeoutSeconds 60, historyLimit 5, drainFallback Restart. It can change at any time and moves nothing by itself.
	// +optional
	Migration *ProcessorMigrationPolicy `json:"migration,omitempty"`

	// podTemplate overlays any field of the generated pod by strategic merge, as kubectl patch does. The
	// processor's container is called "processor", and stays the first. What identifies the instance (the contract's
	// labels and variables, the epoch, the owner) cannot be overlaid, and neither can what Dory asks it: spec.port,
	// GET /ready for its readiness, GET /prestop before its end. There is none by default. A change moves the processor to a new pod, as spec.update says.
	// +optional
	PodTemplate *PodTemplateOverlay `json:"podTemplate,omitempty"`
}

// More than 7 requests or limits would make the rules below dearer than the API server allows: it reckons with
// quantities as long as a whole request. A quantity that cannot be parsed must not get in, or it breaks typed lists. The text is
// bounded before it is parsed, in each rule: the API server would compute on 1e-999999999 for hours, as the operator would.

// ProcessorResources are the compute resources of the processor's container.
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || self.requests.all(k, [string(self.requests[k])].all(q, q.size() <= 32 && !q.matches('[eE][+-]?[0-9]{3}') && isQuantity(q) && !q.startsWith('-')))",message="requests must be quantities of zero or more, such as 500m or 2Gi, in at most 32 characters and with at most 2 digits of exponent"
// +kubebuilder:validation:XValidation:rule="!has(self.limits) || self.limits.all(k, [string(self.limits[k])].all(q, q.size() <= 32 && !q.matches('[eE][+-]?[0-9]{3}') && isQuantity(q) && !q.startsWith('-')))",message="limits must be quantities of zero or more, such as 500m or 2Gi, in at most 32 characters and with at most 2 digits of exponent"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || ![self.requests[k], self.limits[k]].all(q, string(q).size() <= 32 && !string(q).matches('[eE][+-]?[0-9]{3}')) || !quantity(string(self.requests[k])).isGreaterThan(quantity(string(self.limits[k]))))",message="a request must not exceed its limit"
type ProcessorResources struct {
	// requests are what the scheduler reserves, by resource name: at most 7 quantities of zero or more, such as cpu: 500m or
	// memory: 2Gi, none above its limit. If resources is set, what is not named here is not reserved.
	// +optional
	// +kubebuilder:validation:MaxProperties=7
	Requests corev1.ResourceList `json:"requests,omitempty"`
	// limits are what the container may not exceed, by resource name: at most 7 quantities of zero or more. If resources is
	// set, what is not named here is not limited.
	// +optional
	// +kubebuilder:validation:MaxProperties=7
	Limits corev1.ResourceList `json:"limits,omitempty"`
}

// LivenessPath says at which path the processor answers liveness probes.
// +kubebuilder:validation:Enum=Auto;/health;/healthz
type LivenessPath string

const (
	// LivenessPathAuto starts with /health and falls back to /healthz, for good, if an instance answers 404
	// there, as those on SDK 2.1 do. The fall-back restarts the instance once.
	LivenessPathAuto LivenessPath = "Auto"
	// LivenessPathHealth is the path of newer SDKs.
	LivenessPathHealth LivenessPath = "/health"
	// LivenessPathHealthz is the path of SDK 2.1.
	LivenessPathHealthz LivenessPath = "/healthz"
)

// ProcessorProbes tune how the kubelet probes the processor. The defaults are the original orchestrator's.
type ProcessorProbes struct {
	// livenessPath is where the kubelet asks whether the processor is alive. The default is Auto.
	//   - Auto: /health, and /healthz for good once an instance answered 404 there, as those on SDK 2.1 do.
	//   - /health: the path of newer SDKs.
	//   - /healthz: the path of SDK 2.1.
	// +optional
	// +default="Auto"
	LivenessPath LivenessPath `json:"livenessPath,omitempty"`
	// initialDelaySeconds before the first liveness probe. Readiness is probed from the start. From 0 to 86400; the default
	// is 60.
	// +optional
	// +default=60
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=86400
	InitialDelaySeconds *int32 `json:"initialDelaySeconds,omitempty"`
	// periodSeconds between probes. From 1 to 3600; the default is 10. Readiness is probed at least every 2 seconds.
	// +optional
	// +default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	PeriodSeconds int32 `json:"periodSeconds,omitempty"`
	// timeoutSeconds of one probe. From 1 to 600; the default is 3.
	// +optional
	// +default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=600
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
	// failureThreshold is after how many failures in a row the container is restarted or unready. From 1 to 100; the default
	// is 3.
	// +optional
	// +default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	FailureThreshold int32 `json:"failureThreshold,omitempty"`
}

// ProcessorPlacement narrows on which nodes a processor may run.
// +kubebuilder:validation:MinProperties=1
type ProcessorPlacement struct {
	// edgeNode is the name of the EdgeNode where the processor belongs. It needs location Edge. From 1 to 253 characters.
	// A change moves the processor to a new pod, as spec.update says.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	EdgeNode string `json:"edgeNode,omitempty"`
	// nodeSelector are labels that a node must have, besides those of the location. From 1 to 32 labels.
	// A change moves the processor to a new pod, as spec.update says.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// scheduler is who finds the node. The default is default. It can change; the running instance stays where it is.
	//   - dory: packs nodes full and keeps a buffer on each.
	//   - default: the cluster's own scheduler.
	// +optional
	Scheduler PlacementScheduler `json:"scheduler,omitempty"`
}

// PlacementScheduler is who finds the node of a processor.
// +kubebuilder:validation:Enum=dory;default
type PlacementScheduler string

const (
	// PlacementSchedulerDory packs nodes full and keeps a buffer on each.
	PlacementSchedulerDory PlacementScheduler = "dory"
	// PlacementSchedulerDefault is the cluster's own.
	PlacementSchedulerDefault PlacementScheduler = "default"
)

// OnMissing says what a start means for which the processor's state cannot be had.
// +kubebuilder:validation:Enum=Require;PreferLatest;Discard
type OnMissing string

const (
	// OnMissingRequire starts no instance while the newest state that was ever recorded cannot be read.
	OnMissingRequire OnMissing = "Require"
	// OnMissingPreferLatest starts with the newest state that can be read, and says so where that is not the
	// newest that was recorded.
	OnMissingPreferLatest OnMissing = "PreferLatest"
	// OnMissingDiscard starts with whatever the processor finds by itself: its state is not worth waiting for.
	OnMissingDiscard OnMissing = "Discard"
)

// ProcessorState says how a processor's state is kept safe.
// +kubebuilder:validation:MinProperties=1
type ProcessorState struct {
	// checkpointInterval is how often the operator copies the running instance's state to where it survives the
	// instance: what a crash can lose at most. From 1s to 24h, such as 30s or 1h30m, in at most 64 characters; 0s takes no
	// checkpoints. The default is 30s.
	// +optional
	// +default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self != '' && self.matches('^([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,6}([.][0-9]{1,9})?m)?([0-9]{1,6}([.][0-9]{1,9})?s)?([0-9]{1,6}([.][0-9]{1,9})?ms)?([0-9]{1,6}([.][0-9]{1,9})?(us|µs))?([0-9]{1,6}([.][0-9]{1,9})?ns)?$') && (duration(self) == duration('0s') || (duration(self) >= duration('1s') && duration(self) <= duration('24h')))",message="must be a Go duration such as 30s or 24h, and 0s, for no checkpoints, or from 1s to 24h"
	CheckpointInterval *metav1.Duration `json:"checkpointInterval,omitempty"`
	// onMissing says what a start means for which the newest state cannot be had. The default is PreferLatest.
	//   - Require: starts no instance while the newest state that was ever recorded cannot be read.
	//   - PreferLatest: starts with the newest state that can be read, and says so where a newer one was recorded.
	//   - Discard: starts with whatever the processor finds by itself; its state is not worth waiting for.
	// +optional
	// +default="PreferLatest"
	OnMissing OnMissing `json:"onMissing,omitempty"`
}

// UpdateStrategy says how a changed spec reaches the running instance.
// +kubebuilder:validation:Enum=Live;Recreate;OnDelete
type UpdateStrategy string

const (
	// UpdateLive moves the processor to a new instance of the changed spec, by a ProcessorMigration that is rolled
	// back if the new instance does not come up or refuses the state.
	UpdateLive UpdateStrategy = "Live"
	// UpdateRecreate ends the instance, which saves its state, and then starts the new one.
	UpdateRecreate UpdateStrategy = "Recreate"
	// UpdateOnDelete changes nothing until somebody deletes the pod or moves the processor.
	UpdateOnDelete UpdateStrategy = "OnDelete"
)

// ProcessorUpdate says how a changed spec reaches the running instance.
// +kubebuilder:validation:MinProperties=1
type ProcessorUpdate struct {
	// strategy is the way of a changed spec, or of a restart, to the running instance. The default is Live.
	//   - Live: a ProcessorMigration to a new instance, rolled back if that does not come up or refuses the state.
	//   - Recreate: the instance ends, which saves its state, and the new one starts from that; there is a pause.
	//   - OnDelete: nothing, until the pod is deleted or the processor moves for another reason.
	// +optional
	// +default="Live"
	Strategy UpdateStrategy `json:"strategy,omitempty"`
	// onConfigChange says what a change in a ConfigMap or Secret leads to that the pod refers to, in spec.env or
	// spec.podTemplate. The default is Ignore.
	//   - Ignore: nothing; the next instance sees it.
	//   - Restart: an update to the same spec, by the strategy above. docs/moves.md says what counts as a change.
	// +optional
	// +default="Ignore"
	OnConfigChange ConfigChangePolicy `json:"onConfigChange,omitempty"`
}

// ConfigChangePolicy says what a change in a referenced ConfigMap or Secret leads to.
// +kubebuilder:validation:Enum=Ignore;Restart
type ConfigChangePolicy string

const (
	// ConfigChangeIgnore leaves the running instance alone.
	ConfigChangeIgnore ConfigChangePolicy = "Ignore"
	// ConfigChangeRestart brings the instance to the changed content, as to a changed spec.
	ConfigChangeRestart ConfigChangePolicy = "Restart"
)

// MigrationStrategy says how state gets from the source to the target of a move.
// +kubebuilder:validation:Enum=Auto;Live;Overlap;StopAndCopy
type MigrationStrategy string

const (
	// MigrationAuto is Live where the processor supports the handoff, and Overlap elsewhere.
	MigrationAuto MigrationStrategy = "Auto"
	// MigrationLive hands over between two iterations: nothing is lost, nothing is done twice.
	MigrationLive MigrationStrategy = "Live"
	// MigrationOverlap starts the target while the source works, copies the state, and ends the source: no pause, and
	// what the source does between the copy and its end is lost to the target or done twice.
	MigrationOverlap MigrationStrategy = "Overlap"
	// MigrationStopAndCopy ends the source, which saves its state, and starts the target from it: nothing is lost and
	// nothing is done twice, for the price of a pause.
	MigrationStopAndCopy MigrationStrategy = "StopAndCopy"
)

// DrainFallback says what becomes of a processor that cannot be moved while it works off a node that is being drained.
// +kubebuilder:validation:Enum=Restart;Never
type DrainFallback string

const (
	// DrainFallbackRestart ends the instance, which saves its state, and starts it elsewhere from that.
	DrainFallbackRestart DrainFallback = "Restart"
	// DrainFallbackNever lets the instance work on and the drain wait, while the move is tried again and again.
	DrainFallbackNever DrainFallback = "Never"
)

// ProcessorMigrationPolicy says how a processor moves.
// +kubebuilder:validation:MinProperties=1
type ProcessorMigrationPolicy struct {
	// strategy is how the state gets from the old pod to the new one. The default is Auto.
	//   - Auto: Live where the processor supports the handoff, and Overlap elsewhere.
	//   - Live: hands over between two iterations; nothing is lost, nothing is done twice, for a pause of milliseconds.
	//   - Overlap: the new pod works before the old one ends; no pause, and what the old one does meanwhile is lost or done twice.
	//   - StopAndCopy: the old pod saves and ends, then the new one starts; nothing is lost, for a pause as long as a start.
	// +optional
	// +default="Auto"
	Strategy MigrationStrategy `json:"strategy,omitempty"`
	// startTimeoutSeconds bounds the time until the new pod has a node and is ready, in seconds. Then the move is
	// rolled back. From 1 to 86400; the default is 300.
	// +optional
	// +default=300
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	StartTimeoutSeconds int32 `json:"startTimeoutSeconds,omitempty"`
	// handoffTimeoutSeconds bounds the time from asking the old pod to quiesce until its state is verified in the
	// new one, in seconds. Then the old pod goes on. From 1 to 3600; the default is 60.
	// +optional
	// +default=60
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	HandoffTimeoutSeconds int32 `json:"handoffTimeoutSeconds,omitempty"`
	// historyLimit is how many ended ProcessorMigrations are kept, beside those that something still goes by. From 0 to 100;
	// the default is 5.
	// +optional
	// +default=5
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	HistoryLimit *int32 `json:"historyLimit,omitempty"`
	// drainFallback says what a drain does that cannot move the processor while it works. It is never asked while no node has
	// room. The default is Restart.
	//   - Restart: ends the instance, which saves its state, and starts it elsewhere from that.
	//   - Never: lets the instance work on and the drain wait, while the move is tried again and again.
	// +optional
	// +default="Restart"
	DrainFallback DrainFallback `json:"drainFallback,omitempty"`
}

// PodTemplateOverlay is merged over the generated pod.
type PodTemplateOverlay struct {
	// metadata adds labels and annotations to the pod.
	// +optional
	Metadata PodTemplateMetadata `json:"metadata,omitempty,omitzero"`
	// spec is a strategic merge patch for the pod's spec; see kubectl explain pod.spec. Lists of named items, such as
	// containers and volumes, are merged by name. A field that does not exist is refused when the pod is made: condition
	// Updated or Ready, reason InvalidPodTemplate.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	// +kubebuilder:validation:Schemaless
	Spec *runtime.RawExtension `json:"spec,omitempty"`
}

// PodTemplateMetadata is the part of a pod's metadata that may be added to.
type PodTemplateMetadata struct {
	// labels are added to the pod's. At most 64.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	Labels map[string]string `json:"labels,omitempty"`
	// annotations are added to the pod's. At most 64.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ProcessorPhase summarises the conditions for people.
// +kubebuilder:validation:Enum=Pending;Starting;Running;Unhealthy;Stopping;BackingOff;Suspended
type ProcessorPhase string

const (
	// ProcessorPending has no instance on a node yet.
	ProcessorPending ProcessorPhase = "Pending"
	// ProcessorStarting has an instance on a node that has not been ready yet.
	ProcessorStarting ProcessorPhase = "Starting"
	// ProcessorRunning has a ready instance.
	ProcessorRunning ProcessorPhase = "Running"
	// ProcessorUnhealthy has an instance that fails, or that its node no longer vouches for.
	ProcessorUnhealthy ProcessorPhase = "Unhealthy"
	// ProcessorStopping waits until the end of the old instance is proven.
	ProcessorStopping ProcessorPhase = "Stopping"
	// ProcessorBackingOff waits before the next start because earlier ones failed.
	ProcessorBackingOff ProcessorPhase = "BackingOff"
	// ProcessorSuspended runs nothing because its spec says so.
	ProcessorSuspended ProcessorPhase = "Suspended"
)

// ProcessorStatus is the observed state of a Processor.
type ProcessorStatus struct {
	// conditions say how the processor is. kubectl describe shows the reason and the message of each.
	//   - Ready: True while exactly one instance is ready to work.
	//   - Updated: True while the instance is of the current spec; absent without an instance.
	//   - Migratable: True while a drain of the node would get through; absent until an instance was ready.
	//   - Checkpointed: True while copies of the state succeed; absent before the first, and if none are taken.
	//   - Progressing: False while its iterations fail; absent where its SDK does not tell.
	//   - DatabaseSynced: how the Processor and its row agree; absent without a database, and with nothing to say.
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
	// phase sums up the conditions for people.
	//   - Pending: has no instance on a node yet.
	//   - Starting: has an instance on a node that has not been ready yet.
	//   - Running: has a ready instance.
	//   - Unhealthy: has an instance that fails, or that its node no longer vouches for.
	//   - Stopping: waits until the end of the old instance is proven.
	//   - BackingOff: waits before the next start because earlier ones failed.
	//   - Suspended: runs nothing because spec.suspend is true.
	// +optional
	Phase ProcessorPhase `json:"phase,omitempty"`
	// instance is the pod that is, or is about to be, the one PRIMARY.
	// +optional
	Instance *ProcessorInstance `json:"instance,omitempty"`
	// lastEpoch is the highest epoch that this Processor has held, also when it holds none now.
	// +optional
	// +kubebuilder:validation:Minimum=0
	LastEpoch int64 `json:"lastEpoch,omitempty"`
	// backoff is set after instances failed, until one has run well.
	// +optional
	Backoff *ProcessorBackoff `json:"backoff,omitempty"`
	// livenessPath is what was found where spec.probes.livenessPath is Auto.
	//   - Auto: is never written here; absent means that nothing was found yet.
	//   - /health: an instance answers there.
	//   - /healthz: an instance answered 404 on /health.
	// +optional
	LivenessPath LivenessPath `json:"livenessPath,omitempty"`
	// handoff says that the last instance that was asked supports the live handoff: it can wait for its state before
	// it acts.
	// +optional
	Handoff *bool `json:"handoff,omitempty"`
	// checkpoint is the newest durable copy of the state.
	// +optional
	Checkpoint *ProcessorCheckpoint `json:"checkpoint,omitempty"`
	// config is what was last seen of the ConfigMaps and Secrets that the pod refers to, where
	// spec.update.onConfigChange is Restart.
	// +optional
	Config *ProcessorConfig `json:"config,omitempty"`
}

// ProcessorConfig is what was last seen of the objects that a pod refers to.
type ProcessorConfig struct {
	// revision is another with every change that restarts; absent before the first.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Revision string `json:"revision,omitempty"`
	// message says what is not watched, or what a restart waits for; empty if there is nothing of the kind.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
	// objects are the ConfigMaps and Secrets.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Objects []ConfigObject `json:"objects,omitempty"`
}

// ConfigObject is what was last seen of one ConfigMap or Secret.
type ConfigObject struct {
	// kind is that of the object.
	//   - ConfigMap: is a ConfigMap of the Processor's namespace.
	//   - Secret: is a Secret of the Processor's namespace.
	// +required
	Kind ConfigKind `json:"kind,omitempty"`
	// name is that of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
	// hash tells one content from another; that of a Secret gives nothing of it away. Absent while an object does not
	// exist that the pod can do without.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Hash string `json:"hash,omitempty"`
}

// ConfigKind is a kind of object that a pod can be configured by.
// +kubebuilder:validation:Enum=ConfigMap;Secret
type ConfigKind string

const (
	// ConfigKindConfigMap is a ConfigMap.
	ConfigKindConfigMap ConfigKind = "ConfigMap"
	// ConfigKindSecret is a Secret.
	ConfigKindSecret ConfigKind = "Secret"
)

// CheckpointStorage says where a checkpoint is.
// +kubebuilder:validation:Enum=ConfigMap;Database;Chunks
type CheckpointStorage string

const (
	// CheckpointConfigMap is the state ConfigMap that the SDKs read when they start: up to 1 MiB.
	CheckpointConfigMap CheckpointStorage = "ConfigMap"
	// CheckpointDatabase is PostgreSQL: for what is larger.
	CheckpointDatabase CheckpointStorage = "Database"
	// CheckpointChunks is a row of ConfigMaps: for what is larger, where there is no database.
	CheckpointChunks CheckpointStorage = "Chunks"
)

// ProcessorCheckpoint describes a durable copy of a processor's state.
type ProcessorCheckpoint struct {
	// time is when the state was captured.
	// +required
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T03:04:05Z"
	Time metav1.Time `json:"time,omitempty,omitzero"`
	// epoch is that of the instance whose state it is.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Epoch int64 `json:"epoch,omitempty"`
	// sequence is the number of iterations that were ever committed to the state. Absent where the processor's SDK
	// does not say.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Sequence *int64 `json:"sequence,omitempty"`
	// checksum is the contract's SHA-256 of the state, in hex.
	// +required
	// +kubebuilder:validation:MinLength=64
	// +kubebuilder:validation:MaxLength=64
	Checksum string `json:"checksum,omitempty"`
	// sizeBytes is the length of the state as canonical JSON.
	// +optional
	// +kubebuilder:validation:Minimum=0
	SizeBytes int64 `json:"sizeBytes,omitempty"`
	// storage says where the copy is.
	//   - ConfigMap: in the state ConfigMap that the SDKs read when they start; up to 1 MiB.
	//   - Database: in PostgreSQL, because it is larger.
	//   - Chunks: in several ConfigMaps, because it is larger and there is no database.
	// +required
	Storage CheckpointStorage `json:"storage,omitempty"`
}

// ProcessorInstance is one pod that runs, or ran, a processor.
type ProcessorInstance struct {
	// pod is the pod's name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Pod string `json:"pod,omitempty"`
	// uid is the pod's UID.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
	// node is the Kubernetes node that the pod is bound to.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`
	// ip is the pod's address.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	IP string `json:"ip,omitempty"`
	// image is what the instance runs, which differs from the spec's until an update has got through.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Image string `json:"image,omitempty"`
	// location is where the instance runs, which differs from the spec's while a failover lasts.
	//   - Managed: in the cloud.
	//   - Edge: at the edge.
	// +optional
	Location Location `json:"location,omitempty"`
	// epoch is the fencing epoch that the instance holds.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Epoch int64 `json:"epoch,omitempty"`
	// restarts counts restarts of the processor's container within this pod.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Restarts int32 `json:"restarts,omitempty"`
	// sdkVersion is what the instance says in its X-Dory-SDK-Version header, or "unknown" if it says nothing.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SDKVersion string `json:"sdkVersion,omitempty"`
	// since is when the instance last became ready or, before that, when its pod was created.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T03:04:05Z"
	Since *metav1.Time `json:"since,omitempty"`
}

// ProcessorBackoff delays the next start of a processor whose instances fail.
type ProcessorBackoff struct {
	// failures counts instances that failed in a row.
	// +required
	// +kubebuilder:validation:Minimum=1
	Failures int32 `json:"failures,omitempty"`
	// lastFailureTime is when the last of them was seen.
	// +required
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T03:04:05Z"
	LastFailureTime metav1.Time `json:"lastFailureTime,omitempty,omitzero"`
	// lastPod is the pod of the last failure, so that it counts once.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	LastPod string `json:"lastPod,omitempty"`
}

// Processor is one stateful singleton: exactly one instance of it is active at any time.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=proc,categories=dory
// +kubebuilder:selectablefield:JSONPath=".spec.processorID"
// +kubebuilder:selectablefield:JSONPath=".status.phase"
// +kubebuilder:selectablefield:JSONPath=".status.instance.node"
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Updated",type=string,JSONPath=`.status.conditions[?(@.type=="Updated")].status`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.status.instance.node`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Epoch",type=integer,priority=1,JSONPath=`.status.instance.epoch`
// +kubebuilder:printcolumn:name="Restarts",type=integer,priority=1,JSONPath=`.status.instance.restarts`
// +kubebuilder:printcolumn:name="Since",type=date,priority=1,JSONPath=`.status.instance.since`
// +kubebuilder:printcolumn:name="Checkpoint",type=date,priority=1,JSONPath=`.status.checkpoint.time`
// +kubebuilder:printcolumn:name="Image",type=string,priority=1,JSONPath=`.status.instance.image`
// +kubebuilder:printcolumn:name="Pod",type=string,priority=1,JSONPath=`.status.instance.pod`
// +kubebuilder:printcolumn:name="Location",type=string,priority=1,JSONPath=`.spec.location`
// +kubebuilder:printcolumn:name="SDK",type=string,priority=1,JSONPath=`.status.instance.sdkVersion`
// +kubebuilder:printcolumn:name="Source",type=string,priority=1,JSONPath=`.metadata.labels.dory\.io/source`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 45",message="metadata.name must be a DNS label of at most 45 characters, because pod names and labels are made from it; put a longer or other id into spec.processorID"
type Processor struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the desired state.
	// +required
	Spec ProcessorSpec `json:"spec,omitzero"`
	// status is the observed state.
	// +optional
	Status ProcessorStatus `json:"status,omitempty,omitzero"`
}

// ProcessorList is a list of Processors.
// +kubebuilder:object:root=true
type ProcessorList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Processor `json:"items"`
}

// ID is the processor's identity on the wire: spec.processorID, or the object's name.
func (p *Processor) ID() string {
	if p.Spec.ProcessorID != "" {
		return p.Spec.ProcessorID
	}
	return p.Name
}

// Suspended says whether no instance is wanted.
func (p *Processor) Suspended() bool { return p.Spec.Suspend != nil && *p.Spec.Suspend }

// DatabaseOwned says whether a database row, and nobody else, writes the spec.
func (p *Processor) DatabaseOwned() bool { return p.Labels[LabelSource] == SourceDatabase }

// The defaults of spec.state and spec.migration, for Processors that leave them out.
const (
	defaultCheckpointInterval = 30 * time.Second
	defaultStartTimeout       = 300 * time.Second
	defaultHandoffTimeout     = 60 * time.Second
	defaultHistoryLimit       = 5
)

// CheckpointInterval is how often the state is checkpointed; 0 is never. The default is 30 s.
func (p *Processor) CheckpointInterval() time.Duration {
	if p.Spec.State == nil || p.Spec.State.CheckpointInterval == nil {
		return defaultCheckpointInterval
	}
	return p.Spec.State.CheckpointInterval.Duration
}

// OnMissing says what a start without the state means. The default is PreferLatest.
func (p *Processor) OnMissing() OnMissing {
	if p.Spec.State == nil || p.Spec.State.OnMissing == "" {
		return OnMissingPreferLatest
	}
	return p.Spec.State.OnMissing
}

// UpdateStrategy says how a changed spec reaches the instance. The default is Live.
func (p *Processor) UpdateStrategy() UpdateStrategy {
	if p.Spec.Update == nil || p.Spec.Update.Strategy == "" {
		return UpdateLive
	}
	return p.Spec.Update.Strategy
}

// RestartsOnConfigChange says whether a change in a referenced ConfigMap or Secret restarts. The default is no.
func (p *Processor) RestartsOnConfigChange() bool {
	return p.Spec.Update != nil && p.Spec.Update.OnConfigChange == ConfigChangeRestart
}

// MigrationStrategy says how the processor moves. The default is Auto.
func (p *Processor) MigrationStrategy() MigrationStrategy {
	if p.Spec.Migration == nil || p.Spec.Migration.Strategy == "" {
		return MigrationAuto
	}
	return p.Spec.Migration.Strategy
}

// StartTimeout bounds the time until the target of a move is ready. The default is 300 s.
func (p *Processor) StartTimeout() time.Duration {
	if p.Spec.Migration == nil || p.Spec.Migration.StartTimeoutSeconds == 0 {
		return defaultStartTimeout
	}
	return time.Duration(p.Spec.Migration.StartTimeoutSeconds) * time.Second
}

// HandoffTimeout bounds the time in which the processor may stand still. The default is 60 s.
func (p *Processor) HandoffTimeout() time.Duration {
	if p.Spec.Migration == nil || p.Spec.Migration.HandoffTimeoutSeconds == 0 {
		return defaultHandoffTimeout
	}
	return time.Duration(p.Spec.Migration.HandoffTimeoutSeconds) * time.Second
}

// HistoryLimit is how many ended ProcessorMigrations are kept. The default is 5.
func (p *Processor) HistoryLimit() int {
	if p.Spec.Migration == nil || p.Spec.Migration.HistoryLimit == nil {
		return defaultHistoryLimit
	}
	return int(*p.Spec.Migration.HistoryLimit)
}

// DrainFallback says what a drain does that cannot move the processor while it works. The default is Restart.
func (p *Processor) DrainFallback() DrainFallback {
	if p.Spec.Migration == nil || p.Spec.Migration.DrainFallback == "" {
		return DrainFallbackRestart
	}
	return p.Spec.Migration.DrainFallback
}
