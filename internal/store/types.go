package store

import (
	"encoding/json"
	"time"
)

// The values of processors.source: who owns a row's desired state.
const (
	// SourceDatabase rows are written by people and programs in SQL, and mirrored into Processors.
	SourceDatabase = "database"
	// SourceKubernetes rows are written by the operator for Processors that were applied to Kubernetes.
	SourceKubernetes = "kubernetes"
)

// The values of processors.node_type.
const (
	// NodeTypeManaged processors run on the cluster's own nodes.
	NodeTypeManaged = "managed"
	// NodeTypeEdge processors run on edge nodes.
	NodeTypeEdge = "edge"
)

// The values of processors.status. A row is desired unless it is terminated or failed.
const (
	// StatusPending is desired; kept for databases whose writers use it.
	StatusPending = "pending"
	// StatusActive is desired, and the column's default.
	StatusActive = "active"
	// StatusRunning is desired; kept for databases whose writers use it.
	StatusRunning = "running"
	// StatusSuspended is desired, with no pod: it becomes spec.suspend.
	StatusSuspended = "suspended"
	// StatusTerminated is not desired: the Processor is to be deleted.
	StatusTerminated = "terminated"
	// StatusFailed is not desired: the Processor is to be deleted.
	StatusFailed = "failed"
)

// The values of edge_nodes.status.
const (
	// EdgeNodeOnline is the column's default.
	EdgeNodeOnline = "online"
	// EdgeNodeOffline says that heartbeats have stopped.
	EdgeNodeOffline = "offline"
	// EdgeNodeDecommissioned is not desired: the EdgeNode is to be deleted.
	EdgeNodeDecommissioned = "decommissioned"
)

// ProcessorRow is one row of the desired set: a processor joined with its template, the template's active
// version, its sensor and its edge node. Every join is a left join, so that a row with something missing is
// seen and can be answered with a sync_error instead of vanishing. Rows of one listing share the memory of
// RuntimeConfig, Sensor and EdgeNode where they come from the same row: treat them as read-only.
type ProcessorRow struct {
	// ID is processors.id: any text of 1 to 512 characters.
	ID string
	// Namespace is the Kubernetes namespace, always a DNS label.
	Namespace string
	// NodeType is NodeTypeManaged or NodeTypeEdge.
	NodeType string
	// Status is one of the desired statuses.
	Status string
	// Source is SourceDatabase or SourceKubernetes.
	Source string
	// Revision is the greatest revision of the joined rows. It rises with every change of them.
	Revision int64

	// TemplateID is empty for rows with SourceKubernetes.
	TemplateID string
	// TemplateSlug is empty if there is no template row.
	TemplateSlug string
	// VersionID is empty if the template has no active version.
	VersionID string
	// ImageURI is the active version's image, or the image of a Processor with SourceKubernetes.
	ImageURI string
	// Digest is "sha256:<hex>", "sha512:<hex>" or empty.
	Digest string
	// Version is the active version's name.
	Version string
	// RuntimeConfig is the active version's runtime_config_template as PostgreSQL prints it: valid JSON of
	// any type, or nil without an active version.
	RuntimeConfig json.RawMessage

	// SensorID is set even if Sensor is nil because its row is missing.
	SensorID string
	// Sensor is nil if the processor has none, or if its row is missing.
	Sensor *Sensor
	// EdgeNode is nil if the processor is not bound to an edge node.
	EdgeNode *EdgeNodeRef
	// NodeSelector is a JSON object, or nil.
	NodeSelector json.RawMessage

	// SyncError is what SetSyncErrors wrote last.
	SyncError string
	// K8sName is the object's name as written back by UpdateStatuses, empty before that.
	K8sName string

	// Err says which values of the row cannot be read. Their fields are empty, but ID never is: the row exists.
	Err error
}

// Sensor is a row of sensors.
type Sensor struct {
	// ID is sensors.id.
	ID string
	// Name, Type and Location are free text, possibly empty.
	Name, Type, Location string
	// Config is a JSON object.
	Config json.RawMessage
}

// EdgeNodeRef is the part of an edge node that its processors need.
type EdgeNodeRef struct {
	// ID is edge_nodes.id, a UUID in its usual spelling.
	ID string
	// Name is unique among the nodes of the organization that are not decommissioned.
	Name string
	// KubernetesNode is the name of the Kubernetes node, empty until it is known.
	KubernetesNode string
}

// EdgeNodeRow is a row of edge_nodes.
type EdgeNodeRow struct {
	EdgeNodeRef
	// OrganizationID is a UUID.
	OrganizationID string
	// Status is EdgeNodeOnline, EdgeNodeOffline or EdgeNodeDecommissioned.
	Status string
	// FailoverEnabled says whether processors leave the node when it is lost.
	FailoverEnabled bool
	// FailoverTargetID is the id of the edge node to fail over to; empty means the cloud.
	FailoverTargetID string
	// LastHeartbeatAt is zero if the node was never heard of, and where the column holds no date of our calendar.
	LastHeartbeatAt time.Time
	// SyncError is what SetEdgeNodeSyncErrors wrote last.
	SyncError string
	// Revision rises with every change of the node's desired state.
	Revision int64
	// Err says which values of the row cannot be read. Their fields are empty, but ID never is: the row exists.
	Err error
}

// Desired says whether the row is to have an EdgeNode object.
func (r EdgeNodeRow) Desired() bool { return r.Status != EdgeNodeDecommissioned }

// ProcessorCounts tells an emptied database from one whose processors were all terminated. Rows that the
// operator writes itself are counted apart: they say nothing about the health of the data.
type ProcessorCounts struct {
	// Database counts the rows with SourceDatabase, in any status.
	Database int
	// DatabaseDesired counts those of Database that are in the desired set.
	DatabaseDesired int
	// Kubernetes counts the rows with SourceKubernetes, in any status.
	Kubernetes int
}

// ProcessorStatus is what the operator writes back about one processor.
type ProcessorStatus struct {
	// ID is processors.id. Ids without a row are ignored.
	ID string
	// HealthStatus goes to health_status.
	HealthStatus string
	// CheckedAt goes to last_health_check_at, but alone is no reason to write. Zero leaves it as it is.
	CheckedAt time.Time
	// Pod, PodIP, Node and Phase go to pod_name, pod_ip, node_name and phase; empty becomes NULL.
	Pod, PodIP, Node, Phase string
	// Epoch goes to epoch, the copy for readers; the fence itself is processor_epochs.
	Epoch int64
	// K8sName goes to k8s_name. Empty leaves it as it is.
	K8sName string
}

// KubernetesProcessor is a Processor that was applied to Kubernetes, as the database lists it.
type KubernetesProcessor struct {
	// ID is the processor's id.
	ID string
	// Namespace and Name are those of the object.
	Namespace, Name string
	// Image is the image of the processor's container.
	Image string
	// NodeType is NodeTypeManaged or NodeTypeEdge.
	NodeType string
}

// Conflict is a Processor whose id belongs to another.
type Conflict struct {
	KubernetesProcessor
	// HeldBy says who has the id: "a database row", or "namespace/name" of another Processor.
	HeldBy string
}

// Change is a hint that something which can alter a pod was committed. It may be late, doubled, or about
// something that is gone by now; the tables are the truth.
type Change struct {
	// Processors are ids of processors to read again.
	Processors []string
	// EdgeNodes are ids of edge nodes to read again.
	EdgeNodes []string
	// Resync says to read everything again: changes were lost, or too many to list.
	Resync bool
}
