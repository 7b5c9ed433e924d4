package fence

import corev1 "k8s.io/api/core/v1"

// Ended says whether no container of the pod runs any more, or ever will, on somebody's word who can know: its
// kubelet, which reports a terminal phase only after the containers stopped; pod garbage collection, which sets
// it when the node is gone or fenced by the out-of-service taint; or the API server, which lets nobody bind a
// pod that is being deleted. A missing answer is no answer: a pod on a silent node has not ended.
func Ended(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	return pod.DeletionTimestamp != nil && pod.Spec.NodeName == ""
}
