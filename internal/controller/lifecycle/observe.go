package lifecycle

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/lastgood"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/undecodable"
)

// observation is all that a pass knows. Everything in it comes from informer caches and is read-only.
type observation struct {
	// key names the Processor, also when it is gone.
	key types.NamespacedName
	// processor is nil once it is gone.
	processor *doryv1alpha1.Processor
	// id is the processor's identity, read off its pods once it is gone; empty if they are gone, too.
	id string
	// epoch is that of the id, or nil before the first one was issued.
	epoch *doryv1alpha1.ProcessorEpoch
	// namesake is another id that the ProcessorEpoch of our id's name belongs to, because both make the same name.
	namesake string
	// pods are all that are this Processor's, or may become so, ordered by name.
	pods []*corev1.Pod
	// others are pods of other Processors with the same id: not ours to touch, and in the way while they exist.
	others []*corev1.Pod
	// nodes holds the state of every node that one of the pods is bound to.
	nodes map[string]nodeState
	// readySince is since when those of them are ready that are.
	readySince map[string]time.Time
	// migrations are all of this Processor, also those that are over.
	migrations []*doryv1alpha1.ProcessorMigration
	// record is the version that worked last, while another one has yet to show that it works.
	record *lastgood.Record
	// edgeNode is the Kubernetes node of spec.placement.edgeNode; edgeNodeUnknown says that there is no such
	// EdgeNode, and edgeNodeAside why one that is there cannot be decoded.
	edgeNode        string
	edgeNodeUnknown bool
	edgeNodeAside   string
	// aside says why the epoch or a move cannot be decoded. What an instance is then is not known, and it is left alone.
	aside string
	// twin is an older Processor with the same id, which goes first.
	twin string
	// stored is the highest epoch of the stored copies of the state; 0 before it was looked for.
	stored int64
	// unbelieved says of which copy the epoch is not believed; empty if there is none.
	unbelieved string
	// createdAt is when an earlier pass created the holder's pod, if no status tells of it yet.
	createdAt time.Time
	// explanation is why the holder is not ready that has had time for it, as far as that was found out.
	explanation string
	now         time.Time
}

type nodeState int

const (
	nodeReady nodeState = iota
	nodeNotReady
	nodeGone
)

func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*observation, error) {
	o := &observation{key: key, now: r.clock.Now()}
	var err error
	if o.processor, err = r.observeProcessor(ctx, key); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context, *observation) error{r.observePods, r.observeEpoch, r.observeMigrations, r.observeRecord, r.observeEdgeNode, r.observeTwin} {
		if err := part(ctx, o); err != nil {
			return nil, err
		}
	}
	name, holder := o.holder()
	o.createdAt = r.unreported.createdAt(key, name)
	o.explanation = r.explanations.of(key, holder)
	return o, nil
}

// observeProcessor takes one that is being deleted and cannot be decoded for gone: what ends its pods needs no spec.
func (r *Reconciler) observeProcessor(ctx context.Context, key types.NamespacedName) (*doryv1alpha1.Processor, error) {
	processor, err := lookup.Get[doryv1alpha1.Processor](ctx, r.client, key)
	if aside, yes := undecodable.As(err); yes && aside.Object.GetDeletionTimestamp() != nil {
		return nil, nil //nolint:nilnil // absence is an answer here
	}
	return processor, err
}

func (r *Reconciler) observeEpoch(ctx context.Context, o *observation) error {
	if o.id == "" {
		return nil
	}
	epoch, err := lookup.Get[doryv1alpha1.ProcessorEpoch](ctx, r.client, o.epochKey())
	aside, isAside := undecodable.As(err)
	switch {
	case isAside:
		o.aside = aside.Error()
	case err != nil:
		return err
	case epoch != nil && epoch.Spec.ProcessorID != o.id:
		o.namesake = epoch.Spec.ProcessorID
	default:
		o.epoch = epoch
	}
	return nil
}

func (o *observation) epochKey() types.NamespacedName {
	return types.NamespacedName{Namespace: o.key.Namespace, Name: doryv1alpha1.ObjectName(o.id)}
}

func (r *Reconciler) observePods(ctx context.Context, o *observation) error {
	found := map[types.UID]*corev1.Pod{}
	if err := r.collectPods(ctx, found, client.InNamespace(o.key.Namespace), client.MatchingFields{indexPodProcessor: o.key.Name}); err != nil {
		return err
	}
	if o.processor != nil {
		if err := r.collectPods(ctx, found, r.scope(o.key.Namespace), client.MatchingFields{indexPodID: o.processor.ID()}); err != nil {
			return err
		}
	}
	for _, pod := range found {
		o.sort(pod)
	}
	o.id = o.identity()
	slices.SortFunc(o.pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return r.observeNodes(ctx, o)
}

func (r *Reconciler) collectPods(ctx context.Context, into map[types.UID]*corev1.Pod, options ...client.ListOption) error {
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, options...); err != nil {
		return fmt.Errorf("listing the pods of a Processor: %w", err)
	}
	for i := range pods.Items {
		into[pods.Items[i].UID] = &pods.Items[i]
	}
	return nil
}

// scope is within what an id names one instance: the cluster, where a database holds every id once, else the
// namespace.
func (r *Reconciler) scope(namespace string) client.ListOption {
	if r.options.ClusterWideIDs {
		return client.InNamespace(metav1.NamespaceAll)
	}
	return client.InNamespace(namespace)
}

// sort tells our pods from those of other Processors, and leaves out the ones that another controller answers
// for and, once the Processor is gone, those that were never taken over by it.
func (o *observation) sort(pod *corev1.Pod) {
	name := processorOf(pod)
	owner := metav1.GetControllerOf(pod)
	switch {
	case owner != nil && !ownedByProcessor(owner) && !isSentinel(owner):
	case name != "" && (name != o.key.Name || pod.Namespace != o.key.Namespace):
		o.others = append(o.others, pod)
	case pod.Namespace != o.key.Namespace, o.processor == nil && !fenced(pod):
	default:
		o.pods = append(o.pods, pod)
	}
}

func (o *observation) identity() string {
	if o.processor != nil {
		return o.processor.ID()
	}
	for _, pod := range o.pods {
		if id := idOf(pod); id != "" {
			return id
		}
	}
	return ""
}

func ownedByProcessor(owner *metav1.OwnerReference) bool {
	return owner.Kind == "Processor" && owner.APIVersion == doryv1alpha1.GroupVersion.String()
}

// isSentinel recognises the ConfigMap that owned the pods of the original orchestrator.
func isSentinel(owner *metav1.OwnerReference) bool {
	return owner.Kind == "ConfigMap" && owner.Name == "dory-controller-ref"
}

func (r *Reconciler) observeNodes(ctx context.Context, o *observation) error {
	o.nodes, o.readySince = map[string]nodeState{}, map[string]time.Time{}
	for _, pod := range slices.Concat(o.pods, o.others) {
		name := pod.Spec.NodeName
		if _, known := o.nodes[name]; known || name == "" {
			continue
		}
		node, err := lookup.Get[corev1.Node](ctx, r.client, types.NamespacedName{Name: name})
		if err != nil {
			return err
		}
		o.nodes[name], o.readySince[name] = stateOf(node), readySinceOf(node)
	}
	return nil
}

func stateOf(node *corev1.Node) nodeState {
	if node == nil {
		return nodeGone
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return nodeReady
		}
	}
	return nodeNotReady
}

// readySinceOf says nothing about a node that is not ready.
func readySinceOf(node *corev1.Node) time.Time {
	if stateOf(node) != nodeReady {
		return time.Time{}
	}
	ready := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
	return node.Status.Conditions[ready].LastTransitionTime.Time
}

func (r *Reconciler) observeEdgeNode(ctx context.Context, o *observation) error {
	if o.processor == nil || o.processor.Spec.Placement == nil || o.processor.Spec.Placement.EdgeNode == "" {
		return nil
	}
	edgeNode, err := lookup.Get[doryv1alpha1.EdgeNode](ctx, r.client, types.NamespacedName{Name: o.processor.Spec.Placement.EdgeNode})
	if aside, yes := undecodable.As(err); yes {
		o.edgeNodeUnknown, o.edgeNodeAside = true, aside.Error()
		return nil
	}
	if err != nil {
		return err
	}
	if edgeNode == nil {
		o.edgeNodeUnknown = true
		return nil
	}
	o.edgeNode = edgeNode.KubernetesNode()
	return nil
}

func (r *Reconciler) observeTwin(ctx context.Context, o *observation) error {
	if o.processor == nil {
		return nil
	}
	var same doryv1alpha1.ProcessorList
	err := r.client.List(ctx, &same, r.scope(o.key.Namespace), client.MatchingFields{indexProcessorID: o.processor.ID()}, undecodable.Tolerate)
	if err != nil {
		return fmt.Errorf("listing the Processors with id %q: %w", o.processor.ID(), err)
	}
	for i := range same.Items {
		if other := &same.Items[i]; other.UID != o.processor.UID && older(other, o.processor) {
			o.twin = client.ObjectKeyFromObject(other).String()
		}
	}
	return nil
}

func older(a, b *doryv1alpha1.Processor) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return client.ObjectKeyFromObject(a).String() < client.ObjectKeyFromObject(b).String()
}

// holder is our pod that the current epoch names, and its name even if there is no such pod. The pod of another
// Processor is not our holder.
func (o *observation) holder() (string, *corev1.Pod) {
	name := o.holderName()
	for _, pod := range o.pods {
		if pod.Name == name {
			return name, pod
		}
	}
	return name, nil
}

// holderName is the epoch's word or, where that cannot be decoded, the last that the status had.
func (o *observation) holderName() string {
	switch {
	case o.epoch != nil:
		return o.epoch.Spec.Holder
	case o.aside != "" && o.processor != nil && o.processor.Status.Instance != nil:
		return o.processor.Status.Instance.Pod
	}
	return ""
}

// floor is the highest epoch seen on pods, in the status and in the stored copies, for the day the ProcessorEpoch was deleted, or
// is older than the state that was restored.
func (o *observation) floor() int64 {
	highest := o.stored
	if o.processor != nil {
		highest = max(highest, o.processor.Status.LastEpoch)
	}
	for _, pod := range slices.Concat(o.pods, o.others) {
		if epoch, err := strconv.ParseInt(pod.Labels[doryv1alpha1.LabelEpoch], 10, 64); err == nil {
			highest = max(highest, epoch)
		}
	}
	return highest
}

// wanted says whether an instance should run.
func (o *observation) wanted() bool {
	return o.processor != nil && o.processor.DeletionTimestamp == nil && !o.processor.Suspended() && o.twin == ""
}

func alive(pod *corev1.Pod) bool { return !fence.Ended(pod) }

func fenced(pod *corev1.Pod) bool {
	return slices.Contains(pod.Finalizers, doryv1alpha1.FinalizerFence)
}
