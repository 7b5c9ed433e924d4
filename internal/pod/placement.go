package pod

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// DefaultResources are the contract's, for a Processor that says nothing.
func DefaultResources() doryv1alpha1.ProcessorResources {
	return doryv1alpha1.ProcessorResources{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("500m"),
			corev1.ResourceMemory: resource.MustParse("512Mi"),
		},
		Limits: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("2"),
			corev1.ResourceMemory: resource.MustParse("2Gi"),
		},
	}
}

func resources(spec *doryv1alpha1.ProcessorResources) corev1.ResourceRequirements {
	if spec == nil {
		defaults := DefaultResources()
		spec = &defaults
	}
	return corev1.ResourceRequirements{Requests: spec.Requests, Limits: spec.Limits}
}

// SchedulerName is the spec.schedulerName of the pods that Dory places itself.
const SchedulerName = "dory-scheduler"

// schedulerName is empty for the cluster's own scheduler.
func schedulerName(p *doryv1alpha1.Processor) string {
	if p.Spec.Placement == nil || p.Spec.Placement.Scheduler != doryv1alpha1.PlacementSchedulerDory {
		return ""
	}
	return SchedulerName
}

func nodeSelector(p *doryv1alpha1.Processor) map[string]string {
	selector := map[string]string{}
	if p.Spec.Placement != nil {
		maps.Copy(selector, p.Spec.Placement.NodeSelector)
	}
	if p.Spec.Location == doryv1alpha1.LocationEdge {
		selector["node-type"] = "edge"
	} else {
		selector["workload-type"] = "application"
	}
	return selector
}

// affinity keeps processors off system nodes and, where an edge node is named, on it. The node is matched by
// its name and not by its hostname label, which need not be the same.
func affinity(edgeNode string) *corev1.Affinity {
	term := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{
		Key: "node-role", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"system"},
	}}}
	if edgeNode != "" {
		term.MatchFields = []corev1.NodeSelectorRequirement{nodeNamed(corev1.NodeSelectorOpIn, edgeNode)}
	}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}},
	}}
}

// tolerations of an edge pod let it outlive any loss of contact: evicting it could only take effect once its
// node is back, when it is wanted again. In the cloud Kubernetes' own default of 300 s applies.
func tolerations(location doryv1alpha1.Location) []corev1.Toleration {
	if location != doryv1alpha1.LocationEdge {
		return nil
	}
	return []corev1.Toleration{
		{Key: edgeTaintKey, Operator: corev1.TolerationOpEqual, Value: "true", Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	}
}

func imagePullSecrets(name string) []corev1.LocalObjectReference {
	if name == "" {
		return nil
	}
	return []corev1.LocalObjectReference{{Name: name}}
}

func locationLabel(location doryv1alpha1.Location) string {
	if location == doryv1alpha1.LocationEdge {
		return "edge"
	}
	return "managed"
}

// avoidNodeWeight outdoes every other preference.
const avoidNodeWeight = 100

// direct sends the target of a move to its node, whatever the overlay says about others.
func direct(pod *corev1.Pod, move *Move) {
	if move == nil || (move.Node == "" && move.AvoidNode == "") {
		return
	}
	affinity := nodeAffinityOf(pod)
	switch {
	case move.Node != "":
		require(affinity, corev1.NodeSelectorOpIn, move.Node)
		return
	case move.Leave:
		require(affinity, corev1.NodeSelectorOpNotIn, move.AvoidNode)
		return
	}
	affinity.PreferredDuringSchedulingIgnoredDuringExecution = append(affinity.PreferredDuringSchedulingIgnoredDuringExecution,
		corev1.PreferredSchedulingTerm{Weight: avoidNodeWeight, Preference: corev1.NodeSelectorTerm{
			MatchFields: []corev1.NodeSelectorRequirement{nodeNamed(corev1.NodeSelectorOpNotIn, move.AvoidNode)},
		}})
}

func nodeAffinityOf(pod *corev1.Pod) *corev1.NodeAffinity {
	if pod.Spec.Affinity == nil {
		pod.Spec.Affinity = &corev1.Affinity{}
	}
	if pod.Spec.Affinity.NodeAffinity == nil {
		pod.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	return pod.Spec.Affinity.NodeAffinity
}

// require adds the node to every term, because the terms are alternatives.
func require(affinity *corev1.NodeAffinity, operator corev1.NodeSelectorOperator, node string) {
	if affinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		affinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}}}
	}
	terms := affinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	for i := range terms {
		terms[i].MatchFields = append(terms[i].MatchFields, nodeNamed(operator, node))
	}
}

func nodeNamed(operator corev1.NodeSelectorOperator, node string) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: operator, Values: []string{node}}
}
