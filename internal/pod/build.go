package pod

import (
	"fmt"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const (
	// ContainerName is the name of the processor's container, for overlays and kubectl logs.
	ContainerName = "processor"
	// portName is the name of the port that the processor serves the contract's HTTP on.
	portName = "http"

	// readinessPeriodSeconds bounds how late a pod that became ready is noticed. The contract's 10 s would
	// leave a recovered processor unseen for that long; readiness kills nothing, so probing often is cheap.
	readinessPeriodSeconds = 2

	edgeTaintKey = "edge-node"
)

// Input is all that a pod is made from.
type Input struct {
	// Processor is the desired state, with the API server's defaults applied.
	Processor *doryv1alpha1.Processor
	// Name of the pod. Never used before.
	Name string
	// Epoch that the pod holds; 0 on the target of a move, which holds none yet.
	Epoch int64
	// Standby lets the instance wait until it is promoted, instead of acting at once.
	Standby bool
	// Move makes the pod the target of a move. Nil: it is started in its own right.
	Move *Move
	// Restarts is how many instances failed in a row before this one.
	Restarts int32
	// EdgeNode is the Kubernetes node that spec.placement.edgeNode stands for, or empty.
	EdgeNode string
	// ImagePullSecret is the name of a Secret that exists in the namespace, or empty.
	ImagePullSecret string
	// EvictionResponders are asked before the pod is evicted, where the cluster knows them.
	EvictionResponders []corev1.EvictionResponder
	// Origin is what an earlier pod was made from, and this one is, too. Nil: the Processor's present spec.
	Origin *Origin
	// Tokens seal what the pod is made from.
	Tokens Tokens
}

// Move is what a target knows of the move that it is made for.
type Move struct {
	// Migration is the name of the ProcessorMigration.
	Migration string
	// From is the name of the pod that is left.
	From string
	// Node to run on; empty for any.
	Node string
	// AvoidNode is where to run only if there is no other place.
	AvoidNode string
	// Leave says that AvoidNode is no place at all.
	Leave bool
}

// Build makes the pod. Its error is about spec.podTemplate, the only part of a valid Processor that can be wrong.
func Build(in Input) (*corev1.Pod, error) {
	in = in.from()
	p := in.Processor
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: in.Name, Namespace: p.Namespace},
		Spec:       generatedSpec(in),
	}
	if err := overlay(pod, p.Spec.PodTemplate); err != nil {
		return nil, err
	}
	if err := keepWhatDoryNeeds(pod, in); err != nil {
		return nil, err
	}
	identify(pod, in)
	direct(pod, in.Move)
	return pod, nil
}

func generatedSpec(in Input) corev1.PodSpec {
	p := in.Processor
	grace := p.Spec.TerminationGracePeriodSeconds
	return corev1.PodSpec{
		Containers:                    []corev1.Container{processorContainer(in)},
		RestartPolicy:                 corev1.RestartPolicyAlways,
		SchedulerName:                 schedulerName(p),
		ServiceAccountName:            p.Spec.ServiceAccountName,
		TerminationGracePeriodSeconds: &grace,
		NodeSelector:                  nodeSelector(p),
		Affinity:                      affinity(in.EdgeNode),
		Tolerations:                   tolerations(p.Spec.Location),
		ImagePullSecrets:              imagePullSecrets(in.ImagePullSecret),
		EvictionResponders:            in.EvictionResponders,
	}
}

func processorContainer(in Input) corev1.Container {
	p := in.Processor
	return corev1.Container{
		Name:            ContainerName,
		Image:           p.Spec.Image,
		ImagePullPolicy: p.Spec.ImagePullPolicy,
		Command:         p.Spec.Command,
		Args:            p.Spec.Args,
		Env:             p.Spec.Env,
		Ports:           []corev1.ContainerPort{processorPort(p)},
		Resources:       resources(p.Spec.Resources),
		LivenessProbe:   livenessProbe(p),
		ReadinessProbe:  readinessProbe(p),
		Lifecycle:       &corev1.Lifecycle{PreStop: preStop(p)},
	}
}

func processorPort(p *doryv1alpha1.Processor) corev1.ContainerPort {
	return corev1.ContainerPort{Name: portName, ContainerPort: p.Spec.Port, Protocol: corev1.ProtocolTCP}
}

func preStop(p *doryv1alpha1.Processor) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{HTTPGet: httpGet("/prestop", p.Spec.Port)}
}

func httpGet(path string, port int32) *corev1.HTTPGetAction {
	return &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(port)}
}

func livenessProbe(p *doryv1alpha1.Processor) *corev1.Probe {
	probe := p.Spec.Probes
	var initialDelay int32
	if probe.InitialDelaySeconds != nil {
		initialDelay = *probe.InitialDelaySeconds
	}
	return &corev1.Probe{
		ProbeHandler:        corev1.ProbeHandler{HTTPGet: httpGet(string(LivenessPath(p)), p.Spec.Port)},
		InitialDelaySeconds: initialDelay,
		PeriodSeconds:       probe.PeriodSeconds,
		TimeoutSeconds:      probe.TimeoutSeconds,
		FailureThreshold:    probe.FailureThreshold,
	}
}

// readinessProbe probes often, and gives up after as many seconds as the spec's period and threshold say.
func readinessProbe(p *doryv1alpha1.Processor) *corev1.Probe {
	probe := p.Spec.Probes
	period := min(probe.PeriodSeconds, readinessPeriodSeconds)
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: httpGet("/ready", p.Spec.Port)},
		PeriodSeconds:    period,
		TimeoutSeconds:   probe.TimeoutSeconds,
		FailureThreshold: (probe.PeriodSeconds*probe.FailureThreshold + period - 1) / period,
	}
}

// LivenessPath is the path to probe: the spec's, or what was found out where the spec says Auto.
func LivenessPath(p *doryv1alpha1.Processor) doryv1alpha1.LivenessPath {
	if path := p.Spec.Probes.LivenessPath; path != "" && path != doryv1alpha1.LivenessPathAuto {
		return path
	}
	if p.Status.LivenessPath != "" {
		return p.Status.LivenessPath
	}
	return doryv1alpha1.LivenessPathHealth
}

// identify sets what makes the pod the instance that it is; no overlay may change it.
func identify(pod *corev1.Pod, in Input) {
	p := in.Processor
	pod.Name, pod.Namespace, pod.GenerateName = in.Name, p.Namespace, ""
	pod.Labels = with(pod.Labels, map[string]string{
		doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy,
		doryv1alpha1.LabelProcessor: p.Name,
		doryv1alpha1.LabelLocation:  locationLabel(p.Spec.Location),
	})
	setOrDrop(pod.Labels, doryv1alpha1.LabelEpoch, epochText(in.Epoch))
	setOrDrop(pod.Labels, doryv1alpha1.LabelMigration, migrationOf(in))
	if len(validation.IsValidLabelValue(p.ID())) == 0 {
		pod.Labels[doryv1alpha1.LabelProcessorID] = p.ID()
	} else {
		delete(pod.Labels, doryv1alpha1.LabelProcessorID)
	}
	pod.Annotations = with(pod.Annotations, map[string]string{
		doryv1alpha1.AnnotationProcessorID: p.ID(),
		doryv1alpha1.AnnotationRole:        role(in),
	})
	StampRestarts(pod, p)
	stampOrigin(pod, in)
	pod.Finalizers = []string{doryv1alpha1.FinalizerFence}
	pod.OwnerReferences = []metav1.OwnerReference{OwnerReference(p)}
}

func epochText(epoch int64) string {
	if epoch == 0 {
		return ""
	}
	return strconv.FormatInt(epoch, 10)
}

func migrationOf(in Input) string {
	if in.Move == nil {
		return ""
	}
	return in.Move.Migration
}

func role(in Input) string {
	if in.Standby {
		return doryv1alpha1.RoleStandby
	}
	return doryv1alpha1.RolePrimary
}

// setOrDrop leaves no room for an overlay's value.
func setOrDrop(m map[string]string, key, value string) {
	if value == "" {
		delete(m, key)
		return
	}
	m[key] = value
}

// OwnerReference makes the Processor the controller of a pod, which is also what lets kubectl drain evict it
// without --force.
func OwnerReference(p *doryv1alpha1.Processor) metav1.OwnerReference {
	return *metav1.NewControllerRef(p, doryv1alpha1.GroupVersion.WithKind("Processor"))
}

// Name is the name of a processor's pod: a reserved prefix, the processor, and a part that is never used twice.
func Name(processor, unique string) string {
	return fmt.Sprintf("%s%s-%s", NamePrefix, processor, unique)
}

// NamePrefix starts the name of every pod that Dory makes, so that admission rules can tell them by name.
const NamePrefix = "dory-"

func with(base, more map[string]string) map[string]string {
	merged := make(map[string]string, len(base)+len(more))
	maps.Copy(merged, base)
	maps.Copy(merged, more)
	return merged
}
