package pod

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

// InstanceVariable names the one pod that is meant. A copy of the pod carries it along, while POD_NAME and POD_NAMESPACE tell
// each pod its own name: an instance for which the two differ must not act. config/admission/instances.yaml refuses such pods.
const InstanceVariable = "DORY_INSTANCE"

// maxRestartCount stays below the 3 at which the public SDK starts empty and leaves the state it has unread.
const maxRestartCount = 2

// reservedEnv gives both spellings of the contract, because different parts of the SDK read different ones.
func reservedEnv(in Input) []corev1.EnvVar {
	p := in.Processor
	env := []corev1.EnvVar{
		fieldEnv("POD_NAME", "metadata.name"),
		fieldEnv("POD_NAMESPACE", "metadata.namespace"),
		fieldEnv("DORY_POD_NAME", "metadata.name"),
		fieldEnv("DORY_POD_NAMESPACE", "metadata.namespace"),
		{Name: InstanceVariable, Value: p.Namespace + "/" + in.Name},
		fieldEnv("POD_IP", "status.podIP"),
		fieldEnv("NODE_NAME", "spec.nodeName"),
		{Name: "PROCESSOR_ID", Value: Verbatim(p.ID())},
		{Name: "DORY_PROCESSOR_ID", Value: Verbatim(p.ID())},
		appName(p),
		{Name: "RESTART_COUNT", Value: strconv.Itoa(int(min(in.Restarts, maxRestartCount)))},
		// From the pod's metadata, because a container that restarts must know what became of it meanwhile.
		fieldEnv("DORY_EPOCH", "metadata.labels['"+doryv1alpha1.LabelEpoch+"']"),
		fieldEnv("DORY_ROLE", "metadata.annotations['"+doryv1alpha1.AnnotationRole+"']"),
		{Name: healthPort, Value: strconv.Itoa(int(p.Spec.Port))},
		{Name: stateConfigMap, Value: StateConfigMapName(p)},
		{Name: "DORY_STATE_TOKEN", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: TokenSecret}, Key: TokenKey,
		}}},
	}
	if in.Move != nil {
		env = append(env, corev1.EnvVar{Name: "DORY_IS_MIGRATING", Value: "true"}, corev1.EnvVar{Name: "DORY_MIGRATED_FROM", Value: in.Move.From})
	}
	return env
}

func fieldEnv(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path},
	}}
}

// appName is what the spec sets, so that rows can name the application; otherwise the processor itself.
func appName(p *doryv1alpha1.Processor) corev1.EnvVar {
	const name = "APP_NAME"
	for _, env := range p.Spec.Env {
		if env.Name == name && (env.Value != "" || env.ValueFrom != nil) {
			return env
		}
	}
	return corev1.EnvVar{Name: name, Value: p.Name}
}

// onlyOnMoves are reserved, too, where they are not set: an instance that believed in a move that is not would save nothing.
var onlyOnMoves = []string{"DORY_IS_MIGRATING", "DORY_MIGRATED_FROM"}

// mergeEnv puts reserved variables first, so that the spec's may refer to them as $(NAME), and drops the
// spec's own of the same name: a wrong PROCESSOR_ID or epoch would write over another processor's state.
func mergeEnv(spec, reserved []corev1.EnvVar) []corev1.EnvVar {
	merged := make([]corev1.EnvVar, 0, len(spec)+len(reserved))
	taken := make(map[string]bool, len(reserved)+len(onlyOnMoves))
	for _, name := range onlyOnMoves {
		taken[name] = true
	}
	for _, env := range reserved {
		taken[env.Name] = true
	}
	merged = append(merged, reserved...)
	for _, env := range spec {
		if !taken[env.Name] {
			merged = append(merged, env)
		}
	}
	return merged
}

// stateConfigMap tells the SDK where the processor's state is.
const stateConfigMap = "DORY_STATE_CONFIGMAP"

// healthPort tells the processor where to listen.
const healthPort = "DORY_HEALTH_PORT"

// stateBackend tells the SDK how to keep the processor's state.
const stateBackend = "DORY_STATE_BACKEND"

// StateConfigMapName is where the SDK keeps the processor's state. It depends on nothing but the id, and belongs to no other.
func StateConfigMapName(p *doryv1alpha1.Processor) string { return statexfer.ConfigMapName(p.ID()) }

// FormerStateConfigMapName is where operators of before kept the state of an id that cannot stand in a name, as if its object's
// name was the id. That may be the id of another processor. Empty where it is the same as today.
func FormerStateConfigMapName(p *doryv1alpha1.Processor) string {
	name := statexfer.ConfigMapPrefix + p.ID()
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		name = statexfer.ConfigMapPrefix + p.Name
	}
	if name == StateConfigMapName(p) {
		return ""
	}
	return name
}

// StateConfigMapOf is where the pod was told to keep the state; empty where it was not told.
func StateConfigMapOf(p *corev1.Pod) string {
	if container := processorOf(p); container != nil {
		for _, env := range container.Env {
			if env.Name == stateConfigMap {
				return env.Value
			}
		}
	}
	return ""
}
