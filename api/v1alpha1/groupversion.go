// Package v1alpha1 holds the types of the API group dory.io, version v1alpha1.
// +kubebuilder:object:generate=true
// +groupName=dory.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every type in this package.
var GroupVersion = schema.GroupVersion{Group: "dory.io", Version: "v1alpha1"}

var (
	// SchemeBuilder collects the functions that add this package's types to a scheme.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)
	// AddToScheme adds this package's types to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&Processor{}, &ProcessorList{},
		&ProcessorMigration{}, &ProcessorMigrationList{},
		&ProcessorEpoch{}, &ProcessorEpochList{},
		&EdgeNode{}, &EdgeNodeList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
