package lifecycle

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// plan is what a pass will do, in the order of the fields.
type plan struct {
	// remove deletes pods, gracefully: the kubelet calls /prestop, which saves the state.
	remove []removal
	// lift takes our finalizer off pods that ended and hold no epoch.
	lift []*corev1.Pod
	// release clears the epoch's holder, and then lifts its pod, where no successor is wanted.
	release bool
	// doubt is a holder that ends again and again. It may be that its epoch is behind the stored state's.
	doubt *corev1.Pod
	// behind says why the holder cannot come up, where it was found that its epoch is.
	behind *hindrance
	// stamp is an instance that does not say what it was made from, which is still known: the present spec.
	stamp *corev1.Pod
	// adopt takes over a pod that runs already.
	adopt *corev1.Pod
	// update is the name of a ProcessorMigration to create that brings the current spec.
	update string
	// start creates the instance.
	start *start
	// revert is why the present spec is given up for the version that worked before it.
	revert string
	// forget removes the record of the version that worked before, because the present one does.
	forget bool
	// backoff is what the status is to say about failures.
	backoff *doryv1alpha1.ProcessorBackoff
	// hindrance says why there is no instance and none is started, or why the spec is not applied.
	hindrance *hindrance
	// requeueAfter is when to look again although nothing happened; zero is never.
	requeueAfter time.Duration
	// await says that the pod was created just now and the cache must be given time to see it.
	await bool
	// started says that act created the instance.
	started bool
}

type removal struct {
	pod    *corev1.Pod
	reason removalReason
}

type removalReason string

const (
	removeOutdated  removalReason = "Outdated"
	removeSurplus   removalReason = "Surplus"
	removeSuspended removalReason = "Suspended"
	removeDeleted   removalReason = "Deleted"
	removeTwin      removalReason = "ProcessorIDConflict"
	removeFailed    removalReason = "RevertedToLastGood"
	removeRestarted removalReason = "RestartOfLastGood"
	removeOrphaned  removalReason = "PreviousProcessor"
	removeBehind    removalReason = "EpochBehindState"
)

// start creates the pod of an instance.
type start struct {
	// name of a pod that an epoch was issued for and that was never created, because the operator died in
	// between. Empty: issue the next epoch.
	name string
	// reason for the next epoch.
	reason doryv1alpha1.EpochReason
	// confirmGone is a pod to look for at the API server itself before an epoch is issued: the cache does not
	// have it, and a cache may be late.
	confirmGone string
	// record is a pod whose version must be kept before another one is started.
	record *corev1.Pod
	// anew says that the last instance was of another version, so that this one is only now tried.
	anew bool
	// lastGood starts the version that worked last, if it is known, because the present one is known not to.
	lastGood bool
	// blocked is what keeps a pod of the present spec from being made.
	blocked *hindrance
	// origin is what act found to make the instance from; nil is the present spec.
	origin *pod.Origin
}

// hindrance is a reason and a message for people.
type hindrance struct{ reason, message string }

// decide is the whole policy of this package.
func decide(o *observation) plan {
	p := plan{}
	if o.processor != nil {
		p.backoff = o.processor.Status.Backoff
	}
	if o.aside != "" {
		leaveAside(o, &p)
		return p
	}
	name, holder := o.holder()
	candidate := adoptable(o, holder)
	blocking := retire(o, &p, holder, candidate)
	switch {
	case !o.wanted():
		stop(o, &p, holder)
	case holder != nil && alive(holder):
		keep(o, &p, holder)
	case o.move() != nil:
		p.hindrance = underWay(o.move())
	case blocking != nil:
		p.hindrance = waitingFor(o, blocking)
	case len(o.others) > 0:
		p.hindrance = waitingForOther(o, o.others[0])
	case o.namesake != "":
		p.hindrance = sameName(o)
	case candidate != nil:
		p.adopt = candidate
	default:
		next(o, &p, name, holder)
	}
	return p
}

// leaveAside starts, replaces and releases nothing, because it is not known who may act. Where nothing is to run, all pods
// may end; their objects stay, so that a later pass finds the holder of the epoch among them.
func leaveAside(o *observation, p *plan) {
	p.hindrance = &hindrance{doryv1alpha1.ReasonUndecodable, o.aside}
	if o.wanted() || o.twin != "" {
		return
	}
	for _, pod := range o.pods {
		if alive(pod) && pod.DeletionTimestamp == nil {
			p.remove = append(p.remove, removal{pod, stopReason(o)})
		}
	}
}

// adoptable is the pod to take over: one that carries the identity and no epoch, so that it was made by the
// original orchestrator or by hand. A ready one goes first, then the oldest.
func adoptable(o *observation, holder *corev1.Pod) *corev1.Pod {
	if !o.wanted() || (holder != nil && alive(holder)) {
		return nil
	}
	var best *corev1.Pod
	for _, pod := range o.pods {
		_, hasEpoch := pod.Labels[doryv1alpha1.LabelEpoch]
		if hasEpoch || pod.Labels[doryv1alpha1.LabelMigration] != "" || !alive(pod) || pod.DeletionTimestamp != nil {
			continue
		}
		if best == nil || preferred(pod, best) {
			best = pod
		}
	}
	return best
}

func preferred(a, b *corev1.Pod) bool {
	if pod.Ready(a) != pod.Ready(b) {
		return pod.Ready(a)
	}
	return a.CreationTimestamp.Before(&b.CreationTimestamp)
}

// retire ends every pod that is neither the holder nor to be adopted, and returns one that still lives.
func retire(o *observation, p *plan, holder, candidate *corev1.Pod) *corev1.Pod {
	var blocking *corev1.Pod
	for _, pod := range o.pods {
		if pod == holder || pod == candidate {
			continue
		}
		if !alive(pod) {
			p.lift = append(p.lift, pod)
			continue
		}
		blocking = pod
		if o.moving(pod) {
			continue
		}
		if pod.DeletionTimestamp == nil {
			p.remove = append(p.remove, removal{pod, surplusReason(o)})
		}
	}
	return blocking
}

func surplusReason(o *observation) removalReason {
	if o.wanted() {
		return removeSurplus
	}
	return stopReason(o)
}

func stopReason(o *observation) removalReason {
	switch {
	case o.processor == nil || o.processor.DeletionTimestamp != nil:
		return removeDeleted
	case o.twin != "":
		return removeTwin
	default:
		return removeSuspended
	}
}

// stop ends the instance and frees the epoch once it is proven gone.
func stop(o *observation, p *plan, holder *corev1.Pod) {
	p.backoff = nil
	if o.twin != "" {
		p.hindrance = &hindrance{doryv1alpha1.ReasonIDConflict, fmt.Sprintf(
			"Processor %s has the same processorID %q and is older; one id is one instance: delete one of the two, or give this one an id of its own by creating it anew",
			o.twin, o.processor.ID())}
	}
	switch {
	case holder != nil && alive(holder):
		if holder.DeletionTimestamp == nil {
			p.remove = append(p.remove, removal{holder, stopReason(o)})
		}
	case holder != nil:
		p.release = true
	default:
		// An epoch that names a pod which nobody sees is ours to free, unless another Processor of the id may
		// hold it.
		p.release = o.epoch != nil && o.epoch.Spec.Holder != "" && o.twin == "" && len(o.others) == 0
	}
}

// keep leaves the instance alone, unless it is not what the spec asks for.
func keep(o *observation, p *plan, holder *corev1.Pod) {
	if o.reverted() {
		p.hindrance = backToLastGood(o, holder)
	}
	if holder.DeletionTimestamp != nil || o.handedTo(holder) {
		return
	}
	if !ownedBy(holder, o.processor) && hasEpoch(holder, o) {
		p.remove = append(p.remove, removal{holder, removeOrphaned})
		return
	}
	if !hasEpoch(holder, o) || !fenced(holder) {
		p.adopt = holder
		return
	}
	if unsaid(o, holder) {
		p.stamp = holder
	}
	if judgeTrial(o, p, holder) {
		return
	}
	replaceIfOutdated(o, p, holder)
	forgetFailures(o, p, holder)
	silent := o.nodes[holder.Spec.NodeName] != nodeReady // What its kubelet said last may be long past.
	if pod.CrashLooping(holder) && !silent && o.move() == nil && len(p.remove) == 0 {
		p.doubt = holder
	}
}

// replaceIfOutdated brings an instance of another spec to the current one, but not before that is known to make a pod.
func replaceIfOutdated(o *observation, p *plan, holder *corev1.Pod) {
	if p.hindrance = obstacle(o); p.hindrance != nil {
		return
	}
	if pod.Outdated(holder, o.processor, o.edgeNode) {
		update(o, p, holder)
	}
}

func hasEpoch(holder *corev1.Pod, o *observation) bool {
	return holder.Labels[doryv1alpha1.LabelEpoch] == strconv.FormatInt(o.epoch.Spec.Epoch, 10)
}

func ownedBy(pod *corev1.Pod, p *doryv1alpha1.Processor) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.UID == p.UID
}

// cacheLag is how long the cache may take to see a pod that was created, before the API server is asked for it.
const cacheLag = time.Second

// next starts an instance where none lives.
func next(o *observation, p *plan, name string, holder *corev1.Pod) {
	if lag := o.now.Sub(o.createdAt); holder == nil && !o.createdAt.IsZero() && lag < cacheLag {
		p.await, p.requeueAfter = true, cacheLag-lag
		return
	}
	p.backoff = countFailure(o.processor.Status.Backoff, holder, o.now)
	if p.revert = failingUnborn(o, p, holder); p.revert != "" {
		p.backoff = nil // These failures are not those of the version that comes back.
	}
	if wait := remaining(p.backoff, o.now); wait > 0 {
		p.requeueAfter = wait
		p.hindrance = &hindrance{doryv1alpha1.ReasonBackingOff, fmt.Sprintf(
			"%d instances failed in a row, the last one %s; the next start is at %s",
			p.backoff.Failures, failure(holder), o.now.Add(wait).UTC().Format(time.RFC3339))}
		return
	}
	begin(o, p, name, holder)
}

// begin plans the start, of the version that worked last where the present one is known not to work.
func begin(o *observation, p *plan, name string, holder *corev1.Pod) {
	blocked := obstacle(o)
	other := holder != nil && !o.edgeNodeUnknown && pod.RevisionOf(holder) != "" && pod.RevisionOf(holder) != o.present()
	if blocked != nil && o.record == nil && !other {
		p.hindrance, p.release = blocked, awaited(holder)
		return
	}
	p.start = startOf(o, name, holder)
	p.start.blocked, p.start.anew = blocked, other
	p.start.lastGood = blocked != nil || o.reverted() || p.revert != "" || o.failedUpdate() != nil
	if other && (p.start.lastGood || worked(o, holder)) {
		p.start.record = holder
	}
}

// awaited says whether the pod was deleted, so that somebody waits for its object to go.
func awaited(pod *corev1.Pod) bool { return pod != nil && pod.DeletionTimestamp != nil }

// startOf goes on with an epoch whose pod was never created. The status remembers that a pod was there, and until it is
// written the reconciler does; without their word the name would be used a second time.
func startOf(o *observation, name string, holder *corev1.Pod) *start {
	switch {
	case name == "":
		return &start{reason: doryv1alpha1.EpochStart}
	case holder != nil:
		return &start{reason: doryv1alpha1.EpochReplace}
	case !o.createdAt.IsZero() || existed(o.processor, name):
		return &start{reason: doryv1alpha1.EpochReplace, confirmGone: name}
	default:
		return &start{name: name}
	}
}

func existed(p *doryv1alpha1.Processor, name string) bool {
	return p.Status.Instance != nil && p.Status.Instance.Pod == name && p.Status.Instance.UID != ""
}

// obstacle is what in the spec keeps a pod from being made.
func obstacle(o *observation) *hindrance {
	if o.edgeNodeAside != "" {
		return &hindrance{doryv1alpha1.ReasonEdgeNodeUnknown, "spec.placement.edgeNode: " + o.edgeNodeAside}
	}
	if o.edgeNodeUnknown {
		return &hindrance{doryv1alpha1.ReasonEdgeNodeUnknown, fmt.Sprintf(
			"spec.placement.edgeNode names EdgeNode %q, which does not exist: create it, or correct the name",
			o.processor.Spec.Placement.EdgeNode)}
	}
	if _, err := pod.Build(pod.Input{Processor: o.processor, EdgeNode: o.edgeNode}); err != nil {
		return &hindrance{doryv1alpha1.ReasonInvalidPodTemplate, err.Error()}
	}
	return nil
}

// waitingFor explains why no new instance may start while the pod lives.
func waitingFor(o *observation, pod *corev1.Pod) *hindrance {
	message := fmt.Sprintf("pod %s is ending on node %s; a new instance starts once its kubelet confirms the end", pod.Name, pod.Spec.NodeName)
	if o.nodes[pod.Spec.NodeName] != nodeReady {
		message = fmt.Sprintf("node %s is not ready, so nobody can confirm that pod %s ended; a new instance starts once the node is back or, "+
			"if the machine is certainly off, once the node is deleted or has the taint node.kubernetes.io/out-of-service", pod.Spec.NodeName, pod.Name)
	}
	return &hindrance{doryv1alpha1.ReasonWaitingForOldInstance, message}
}

// sameName explains why there can be no epoch for this id.
func sameName(o *observation) *hindrance {
	return &hindrance{doryv1alpha1.ReasonIDConflict, fmt.Sprintf(
		"the ids %q and %q make the same object name, and ProcessorEpoch %s belongs to the latter: give this Processor another processorID by creating it anew",
		o.id, o.namesake, doryv1alpha1.ObjectName(o.id))}
}

// waitingForOther explains why a pod of another Processor is in the way.
func waitingForOther(o *observation, other *corev1.Pod) *hindrance {
	return &hindrance{doryv1alpha1.ReasonWaitingForOldInstance, fmt.Sprintf(
		"pod %s/%s of Processor %q has the same processorID %q; a new instance starts once it is gone",
		other.Namespace, other.Name, processorOf(other), o.id)}
}
