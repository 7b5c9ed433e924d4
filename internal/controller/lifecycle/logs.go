package lifecycle

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// What the operator did is in its log, a line each, because events last an hour.

func logStarted(ctx context.Context, o *observation, what string, p *corev1.Pod) {
	log.FromContext(ctx).Info(what, "processor", o.key.Name, "pod", p.Name, "node", p.Spec.NodeName, "epoch", o.epoch.Spec.Epoch, "reason", o.epoch.Spec.Reason)
}

func logRemoved(ctx context.Context, o *observation, removed removal) {
	log.FromContext(ctx).Info("Ending an instance", "processor", o.key.Name, "pod", removed.pod.Name, "node", removed.pod.Spec.NodeName,
		"epoch", pod.EpochOf(removed.pod), "reason", removed.reason)
}

// logReady tells when a Processor becomes ready, and when it stops being so for another reason than before.
func logReady(ctx context.Context, before, after *doryv1alpha1.Processor) {
	now := meta.FindStatusCondition(after.Status.Conditions, doryv1alpha1.ConditionReady)
	last := meta.FindStatusCondition(before.Status.Conditions, doryv1alpha1.ConditionReady)
	if now == nil || now.Reason == doryv1alpha1.ReasonStarting || (last != nil && last.Reason == now.Reason) {
		return
	}
	var instance doryv1alpha1.ProcessorInstance
	if after.Status.Instance != nil {
		instance = *after.Status.Instance
	}
	log.FromContext(ctx).Info("A processor's readiness changed", "processor", after.Name, "ready", now.Status, "reason", now.Reason, "message", now.Message,
		"pod", instance.Pod, "node", instance.Node, "epoch", instance.Epoch)
}

// usersMistake says whether all that went wrong is that the API server refuses what the spec, or the namespace, makes of it:
// a ServiceAccount that is missing, a quota, a policy. It is no fault of the operator's, and the condition says it.
func usersMistake(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, each := range joined.Unwrap() {
			if !usersMistake(each) {
				return false
			}
		}
		return true
	}
	if wrapped := errors.Unwrap(err); wrapped != nil {
		return usersMistake(wrapped)
	}
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || noNamespace(err)
}

// noNamespace says that there is none any more.
func noNamespace(err error) bool {
	status, ok := err.(apierrors.APIStatus)
	return ok && apierrors.IsNotFound(err) && status.Status().Details != nil && status.Status().Details.Kind == "namespaces"
}
