package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FailoverPolicy says what happens to an edge node's processors when the node is lost.
// +kubebuilder:validation:Enum=Enabled;Disabled
type FailoverPolicy string

const (
	// FailoverEnabled moves the processors to the failover target, or to the cloud.
	FailoverEnabled FailoverPolicy = "Enabled"
	// FailoverDisabled leaves the processors where they are.
	FailoverDisabled FailoverPolicy = "Disabled"
)

// EdgeNodeSpec describes a node at the edge.
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.edgeNodeID) || (has(self.edgeNodeID) && self.edgeNodeID == oldSelf.edgeNodeID)",message="spec.edgeNodeID is immutable once set"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.organizationID) || (has(self.organizationID) && self.organizationID == oldSelf.organizationID)",message="spec.organizationID is immutable once set"
type EdgeNodeSpec struct {
	// edgeNodeID is the node's UUID in the database, of 36 characters. There is none by default. Immutable once set.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$`
	// +kubebuilder:validation:MaxLength=36
	EdgeNodeID string `json:"edgeNodeID,omitempty"`
	// organizationID is the UUID of the organization that owns the node, of 36 characters. There is none by default.
	// Immutable once set.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$`
	// +kubebuilder:validation:MaxLength=36
	OrganizationID string `json:"organizationID,omitempty"`
	// nodeName is the Kubernetes node. From 1 to 253 characters; the default is the name of this object. It can change at any
	// time: processors that belong to the EdgeNode then move there.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName,omitempty"`
	// failoverPolicy says what happens to the processors when the node is lost. The default is Disabled. It can change at any
	// time.
	//   - Enabled: they move to the failover target, or to the cloud.
	//   - Disabled: they stay where they are until the node is back.
	// +optional
	// +default="Disabled"
	FailoverPolicy FailoverPolicy `json:"failoverPolicy,omitempty"`
	// failoverTarget is another EdgeNode, which takes the processors over. From 1 to 253 characters; unset, the cloud does. It
	// can change at any time.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	FailoverTarget string `json:"failoverTarget,omitempty"`
}

// EdgeNode is a node at the edge.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=edgenode,categories=dory
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.nodeName`
// +kubebuilder:printcolumn:name="Failover",type=string,JSONPath=`.spec.failoverPolicy`
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.failoverTarget`
// +kubebuilder:printcolumn:name="Organization",type=string,priority=1,JSONPath=`.spec.organizationID`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="!has(self.spec) || !has(self.spec.failoverTarget) || self.spec.failoverTarget != self.metadata.name",message="spec.failoverTarget must be another EdgeNode"
type EdgeNode struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec describes the node.
	// +optional
	Spec EdgeNodeSpec `json:"spec,omitempty,omitzero"`
}

// EdgeNodeList is a list of EdgeNodes.
// +kubebuilder:object:root=true
type EdgeNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EdgeNode `json:"items"`
}

// KubernetesNode is the name of the Kubernetes node.
func (e *EdgeNode) KubernetesNode() string {
	if e.Spec.NodeName != "" {
		return e.Spec.NodeName
	}
	return e.Name
}
