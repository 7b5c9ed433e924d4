package lifecycle

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// The words in which the tests of the pure functions describe what was observed.

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func given(changes ...func(*observation)) *observation {
	o := &observation{
		key:   types.NamespacedName{Namespace: "vision", Name: "cam"},
		nodes: map[string]nodeState{"n1": nodeReady},
		now:   now,
	}
	withProcessor()(o)
	for _, change := range changes {
		change(o)
	}
	o.id = "cam"
	return o
}

func withProcessor(changes ...func(*doryv1alpha1.Processor)) func(*observation) {
	return func(o *observation) {
		if o.processor == nil {
			delay := int32(60)
			o.processor = &doryv1alpha1.Processor{
				ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "cam", UID: "processor-uid", Generation: 3},
				Spec: doryv1alpha1.ProcessorSpec{
					Image: "counter:1", Port: 8080, Location: doryv1alpha1.LocationManaged,
					ServiceAccountName: "dory-processor", TerminationGracePeriodSeconds: 35,
					Probes: doryv1alpha1.ProcessorProbes{LivenessPath: "Auto", InitialDelaySeconds: &delay, PeriodSeconds: 10, TimeoutSeconds: 3, FailureThreshold: 3},
				},
			}
		}
		for _, change := range changes {
			change(o.processor)
		}
	}
}

func noProcessor(o *observation) { o.processor = nil }

func suspended(p *doryv1alpha1.Processor) { yes := true; p.Spec.Suspend = &yes }

func deleting(p *doryv1alpha1.Processor) { t := metav1.NewTime(now); p.DeletionTimestamp = &t }

func remembers(podName string) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) {
		p.Status.Instance = &doryv1alpha1.ProcessorInstance{Pod: podName, UID: "uid-" + podName, Epoch: 7}
	}
}

func failedBefore(times int32, ago time.Duration, lastPod string) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) {
		p.Status.Backoff = &doryv1alpha1.ProcessorBackoff{Failures: times, LastFailureTime: metav1.NewTime(now.Add(-ago)), LastPod: lastPod}
	}
}

func epoch(number int64, holder string) func(*observation) {
	return func(o *observation) {
		o.epoch = &doryv1alpha1.ProcessorEpoch{Spec: doryv1alpha1.ProcessorEpochSpec{Epoch: number, Holder: holder}}
	}
}

// instancePod is one that this Processor made, running and ready on n1.
func instancePod(name string, epoch int64, changes ...func(*corev1.Pod)) func(*observation) {
	return func(o *observation) {
		p := o.processor
		if p == nil {
			p = given().processor
		}
		built, err := pod.Build(pod.Input{Processor: p, Name: name, Epoch: epoch})
		if err != nil {
			panic(err)
		}
		built.UID = types.UID("uid-" + name)
		built.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
		built.Spec.NodeName = "n1"
		built.Status.Phase = corev1.PodRunning
		isReady(built)
		for _, change := range changes {
			change(built)
		}
		o.pods = append(o.pods, built)
	}
}

// otherPod belongs to another Processor with the same id.
func otherPod(name string, changes ...func(*corev1.Pod)) func(*observation) {
	return func(o *observation) {
		elsewhere := given()
		instancePod(name, 7, changes...)(elsewhere)
		elsewhere.pods[0].Labels[doryv1alpha1.LabelProcessor] = "another"
		elsewhere.pods[0].OwnerReferences[0].Name = "another"
		o.others = append(o.others, elsewhere.pods[0])
	}
}

// legacyPod has the contract's labels and no owner.
func legacyPod(name string, changes ...func(*corev1.Pod)) func(*observation) {
	return instancePod(name, 0, append([]func(*corev1.Pod){func(p *corev1.Pod) {
		p.Labels = map[string]string{doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy, doryv1alpha1.LabelProcessorID: "cam"}
		p.Annotations, p.OwnerReferences, p.Finalizers = nil, nil, nil
	}}, changes...)...)
}

func isReady(p *corev1.Pod) { setReady(p, corev1.ConditionTrue, now.Add(-30*time.Minute)) }

func notReady(since time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { setReady(p, corev1.ConditionFalse, now.Add(-since)) }
}

func setReady(p *corev1.Pod, status corev1.ConditionStatus, at time.Time) {
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(at)}}
}

func terminating(p *corev1.Pod) { t := metav1.NewTime(now.Add(-time.Minute)); p.DeletionTimestamp = &t }

func failed(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed; notReady(0)(p) }

func ranFor(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { t := metav1.NewTime(now.Add(-d)); p.Status.StartTime = &t }
}

func unscheduled(p *corev1.Pod) {
	p.Spec.NodeName = ""
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
}

func unfenced(p *corev1.Pod) { p.Finalizers = nil }

func otherSpec(p *corev1.Pod) { p.Annotations[doryv1alpha1.AnnotationRevision] = "another" }

func otherOwner(p *corev1.Pod) { p.OwnerReferences[0].UID = "a-previous-processor" }

func container(status corev1.ContainerStatus) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		status.Name = pod.ContainerName
		p.Status.ContainerStatuses = []corev1.ContainerStatus{status}
	}
}

func updates(strategy doryv1alpha1.UpdateStrategy) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) { p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: strategy} }
}

func learned(path doryv1alpha1.LivenessPath) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) { p.Status.LivenessPath = path }
}

func createdAgo(d time.Duration) func(*observation) {
	return func(o *observation) { o.createdAt = now.Add(-d) }
}

// moveOf is a migration from one pod to another.
func moveOf(name, source, target string, phase doryv1alpha1.MigrationPhase) func(*observation) {
	return func(o *observation) {
		o.migrations = append(o.migrations, &doryv1alpha1.ProcessorMigration{
			ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: name},
			Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: "cam", Reason: doryv1alpha1.MigrationManual},
			Status:     doryv1alpha1.ProcessorMigrationStatus{Phase: phase, SourcePod: source, TargetPod: target},
		})
	}
}

// updateOf is an Update to the current spec that ended some time ago, or has not if there is no reason.
func updateOf(name, reason string, ago time.Duration) func(*observation) {
	return func(o *observation) {
		m := &doryv1alpha1.ProcessorMigration{
			ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: name},
			Spec: doryv1alpha1.ProcessorMigrationSpec{
				Processor: "cam", Reason: doryv1alpha1.MigrationUpdate, TargetRevision: pod.Revision(o.processor, o.edgeNode),
			},
		}
		if reason != "" {
			ended := metav1.NewTime(now.Add(-ago))
			m.Status = doryv1alpha1.ProcessorMigrationStatus{Phase: doryv1alpha1.MigrationRolledBack, Reason: reason, CompletionTime: &ended}
		}
		o.migrations = append(o.migrations, m)
	}
}

// ofMove makes a pod the target of a move.
func ofMove(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels[doryv1alpha1.LabelMigration] = name }
}

func node(name string, state nodeState) func(*observation) {
	return func(o *observation) { o.nodes[name] = state }
}

// readyNode has been ready for a time.
func readyNode(name string, d time.Duration) func(*observation) {
	return func(o *observation) {
		o.nodes[name], o.readySince = nodeReady, map[string]time.Time{name: now.Add(-d)}
	}
}

// String says in one line what the plan would do.
func (p plan) String() string {
	var s strings.Builder
	if p.forget {
		s.WriteString("forget; ")
	}
	if p.revert != "" {
		s.WriteString("revert; ")
	}
	for _, removal := range p.remove {
		fmt.Fprintf(&s, "remove %s (%s); ", removal.pod.Name, removal.reason)
	}
	for _, ended := range p.lift {
		fmt.Fprintf(&s, "lift %s; ", ended.Name)
	}
	if p.release {
		s.WriteString("release; ")
	}
	if p.doubt != nil {
		fmt.Fprintf(&s, "doubt %s; ", p.doubt.Name)
	}
	if p.adopt != nil {
		fmt.Fprintf(&s, "adopt %s; ", p.adopt.Name)
	}
	if p.update != "" {
		fmt.Fprintf(&s, "update by %s; ", p.update)
	}
	if p.await {
		fmt.Fprintf(&s, "await; again in %s; ", p.requeueAfter)
	}
	if p.start != nil && p.start.record != nil {
		fmt.Fprintf(&s, "keep %s; ", p.start.record.Name)
	}
	if p.start != nil && p.start.lastGood {
		s.WriteString("as before: ")
	}
	switch {
	case p.start == nil:
	case p.start.name != "":
		fmt.Fprintf(&s, "create %s; ", p.start.name)
	case p.start.confirmGone != "":
		fmt.Fprintf(&s, "issue (%s) if %s is gone; ", p.start.reason, p.start.confirmGone)
	default:
		fmt.Fprintf(&s, "issue (%s); ", p.start.reason)
	}
	if p.hindrance != nil {
		s.WriteString(p.hindrance.reason + "; ")
	}
	return s.String()
}
