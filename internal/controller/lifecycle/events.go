package lifecycle

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	podbuilder "github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/record"
)

// narrator is the list of everything this package says in events.
type narrator struct{ recorder record.Recorder }

func (n narrator) created(p *doryv1alpha1.Processor, pod *corev1.Pod, epoch int64) {
	n.recorder.Eventf(p, pod, corev1.EventTypeNormal, "InstanceCreated", "Create", "Created pod %s under epoch %d", pod.Name, epoch)
}

func (n narrator) adopted(p *doryv1alpha1.Processor, pod *corev1.Pod, epoch int64) {
	n.recorder.Eventf(p, pod, corev1.EventTypeNormal, "InstanceAdopted", "Adopt", "Took over the running pod %s under epoch %d", pod.Name, epoch)
}

func (n narrator) removing(o *observation, removal removal) {
	p, pod := o.processor, removal.pod
	if p == nil {
		return
	}
	switch removal.reason {
	case removeOutdated:
		n.recorder.Eventf(p, pod, corev1.EventTypeNormal, "InstanceReplacing", "Delete", "Ending pod %s because %s", pod.Name, podbuilder.Cause(pod, p, o.edgeNode))
	case removeSurplus:
		n.recorder.Eventf(p, pod, corev1.EventTypeWarning, "SurplusInstance", "Delete", "Ending pod %s: it has the identity of this Processor and does not hold its epoch", pod.Name)
	case removeSuspended:
		n.recorder.Eventf(p, pod, corev1.EventTypeNormal, "InstanceSuspended", "Delete", "Ending pod %s because spec.suspend is true", pod.Name)
	case removeTwin:
		n.recorder.Eventf(p, pod, corev1.EventTypeWarning, "ProcessorIDConflict", "Delete", "Ending pod %s: an older Processor has the same processorID", pod.Name)
	case removeFailed:
		n.recorder.Eventf(p, pod, corev1.EventTypeWarning, "InstanceReplacing", "Delete", "Ending pod %s, which did not work, for one of the version that did", pod.Name)
	case removeRestarted:
		n.recorder.Eventf(p, pod, corev1.EventTypeNormal, "InstanceReplacing", "Delete",
			"Ending pod %s for the restart that was asked for: the next one is of the same version, because revision %s of the spec did not work", pod.Name, o.record.Reverted)
	case removeOrphaned:
		n.recorder.Eventf(p, pod, corev1.EventTypeNormal, "InstanceReplacing", "Delete", "Ending pod %s of the previous Processor of this name", pod.Name)
	case removeBehind:
		n.recorder.Eventf(p, pod, corev1.EventTypeWarning, doryv1alpha1.ReasonEpochBehindState, "Delete",
			"Ending pod %s, which cannot start from a state that was written under a higher epoch than its own: the next one gets an epoch above it", pod.Name)
	case removeDeleted:
		n.recorder.Eventf(p, pod, corev1.EventTypeNormal, "InstanceEnding", "Delete", "Ending pod %s because the Processor is deleted", pod.Name)
	}
}

func (n narrator) unrecorded(o *observation, ended *corev1.Pod) {
	n.recorder.Eventf(o.processor, ended, corev1.EventTypeWarning, "NoWayBack", "Keep",
		"Pod %s gives way to another version, and does not come back if that one does not work: it does not say what it was made from", ended.Name)
}

func (n narrator) reverted(o *observation) {
	n.recorder.Eventf(o.processor, nil, corev1.EventTypeWarning, doryv1alpha1.ReasonRevertedToLastGood, "Revert", "%s", backToLastGood(o, nil).message)
}

// statusChanged tells of every new reason of the Ready condition that a person would want to read about.
func (n narrator) statusChanged(before, after *doryv1alpha1.Processor) {
	n.extraContainers(before, after)
	now := meta.FindStatusCondition(after.Status.Conditions, doryv1alpha1.ConditionReady)
	last := meta.FindStatusCondition(before.Status.Conditions, doryv1alpha1.ConditionReady)
	if now == nil || (last != nil && last.Reason == now.Reason) {
		return
	}
	switch now.Reason {
	case doryv1alpha1.ReasonStarting:
		return
	case doryv1alpha1.ReasonRunning:
		// After a plain start InstanceCreated says it all; what a person looks for is that a trouble is over.
		if last != nil && last.Reason != doryv1alpha1.ReasonStarting {
			n.recorder.Eventf(after, nil, corev1.EventTypeNormal, now.Reason, "Observe", "%s", now.Message)
		}
	case doryv1alpha1.ReasonSuspended, doryv1alpha1.ReasonWaitingForOldInstance:
		n.recorder.Eventf(after, nil, corev1.EventTypeNormal, now.Reason, "Observe", "%s", now.Message)
	default:
		n.recorder.Eventf(after, nil, corev1.EventTypeWarning, now.Reason, "Observe", "%s", now.Message)
	}
}

// extraContainers tells once that there are others beside the processor's own.
func (n narrator) extraContainers(before, after *doryv1alpha1.Processor) {
	said := func(p *doryv1alpha1.Processor) string {
		if c := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionUpdated); c != nil {
			_, said, _ := strings.Cut(c.Message, extraContainersSep)
			return said
		}
		return ""
	}
	if now := said(after); now != "" && now != said(before) {
		n.recorder.Eventf(after, nil, corev1.EventTypeWarning, "ExtraContainers", "Observe", "%s", now)
	}
}
