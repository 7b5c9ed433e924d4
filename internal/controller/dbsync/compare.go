package dbsync

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// owned says whether an object mirrors a database row.
func owned(o client.Object) bool {
	return o.GetLabels()[doryv1alpha1.LabelSource] == doryv1alpha1.SourceDatabase
}

// onceOwned says whether an object was made from a database row, also if somebody took its label away.
func onceOwned(o client.Object) bool {
	return owned(o) || o.GetAnnotations()[doryv1alpha1.AnnotationRowRevision] != ""
}

// sameMeta compares the marks that are ours. The row's revision only has to be there: it says from which one the
// object was last written, and a revision that rises without changing the object is no reason to write.
func sameMeta(want, have client.Object) bool {
	return owned(have) && have.GetAnnotations()[doryv1alpha1.AnnotationRowRevision] != "" &&
		sameAnnotation(want, have, doryv1alpha1.AnnotationProcessorID) &&
		sameAnnotation(want, have, doryv1alpha1.AnnotationTemplateWarnings)
}

func sameAnnotation(want, have client.Object, key string) bool {
	wanted, wants := want.GetAnnotations()[key]
	value, has := have.GetAnnotations()[key]
	return wants == has && wanted == value
}

// sameProcessor says whether writing want would leave have as it is.
func sameProcessor(want, have *doryv1alpha1.Processor) bool {
	return sameMeta(want, have) && sameProcessorSpec(&want.Spec, &have.Spec)
}

// sameProcessorSpec compares field by field, because reflection over 10,000 specs would be most of what a full
// pass costs. A test changes every field there is, and sees that the change is found.
func sameProcessorSpec(want, have *doryv1alpha1.ProcessorSpec) bool {
	return sameContainer(want, have) && sameExecution(want, have) &&
		sameResources(want.Resources, have.Resources) && sameProbes(want.Probes, have.Probes) && samePlacement(want.Placement, have.Placement) &&
		samePolicies(want, have)
}

func samePolicies(want, have *doryv1alpha1.ProcessorSpec) bool {
	return equality.Semantic.DeepEqual(want.State, have.State) && equality.Semantic.DeepEqual(want.Update, have.Update) &&
		equality.Semantic.DeepEqual(want.Migration, have.Migration)
}

func sameContainer(want, have *doryv1alpha1.ProcessorSpec) bool {
	return want.Image == have.Image && want.ImagePullPolicy == have.ImagePullPolicy && want.Port == have.Port &&
		slices.Equal(want.Command, have.Command) && slices.Equal(want.Args, have.Args) && slices.EqualFunc(want.Env, have.Env, sameEnv)
}

func sameExecution(want, have *doryv1alpha1.ProcessorSpec) bool {
	return want.ProcessorID == have.ProcessorID && want.RestartedAt == have.RestartedAt && want.Location == have.Location && ptr.Equal(want.Suspend, have.Suspend) &&
		want.ServiceAccountName == have.ServiceAccountName &&
		want.TerminationGracePeriodSeconds == have.TerminationGracePeriodSeconds &&
		equality.Semantic.DeepEqual(want.PodTemplate, have.PodTemplate)
}

// sameEnv knows that a rendered variable has a value and no source.
func sameEnv(want, have corev1.EnvVar) bool {
	return want.Name == have.Name && want.Value == have.Value && have.ValueFrom == nil
}

func sameResources(want, have *doryv1alpha1.ProcessorResources) bool {
	if want == nil || have == nil {
		return want == have
	}
	return maps.EqualFunc(want.Requests, have.Requests, sameQuantity) && maps.EqualFunc(want.Limits, have.Limits, sameQuantity)
}

func sameQuantity(want, have resource.Quantity) bool { return want.Cmp(have) == 0 }

func sameProbes(want, have doryv1alpha1.ProcessorProbes) bool {
	if !ptr.Equal(want.InitialDelaySeconds, have.InitialDelaySeconds) {
		return false
	}
	want.InitialDelaySeconds = have.InitialDelaySeconds
	return want == have
}

func samePlacement(want, have *doryv1alpha1.ProcessorPlacement) bool {
	if want == nil || have == nil {
		return want == have
	}
	return want.EdgeNode == have.EdgeNode && maps.Equal(want.NodeSelector, have.NodeSelector)
}

// sameEdgeNode says whether writing want would leave have as it is.
func sameEdgeNode(want, have *doryv1alpha1.EdgeNode) bool {
	return sameMeta(want, have) && want.Spec == have.Spec
}
