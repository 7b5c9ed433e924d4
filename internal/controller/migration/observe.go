package migration

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/internal/undecodable"
)

// observation is all that a pass knows. Its objects come from caches, but for what stepLook reads anew, and are read-only.
type observation struct {
	// key names the Processor, also when it is gone.
	key types.NamespacedName
	// processor is nil once it is gone.
	processor *doryv1alpha1.Processor
	// migrations are all of this Processor, the oldest first.
	migrations []*doryv1alpha1.ProcessorMigration
	// epoch is that of the processor's id, or nil before the first one was issued.
	epoch *doryv1alpha1.ProcessorEpoch
	// live says that epoch and migrations were read past the cache in this pass.
	live bool
	// holder is the pod that the epoch names, source and target those of the active migration; nil where there is none.
	// That a pod is not there was asked past the cache.
	holder, source, target *corev1.Pod
	// edgeNode is the Kubernetes node of spec.placement.edgeNode; edgeNodeUnknown says that there is no such EdgeNode.
	edgeNode        string
	edgeNodeUnknown bool
	// revision is what the Processor asks for, restarts included; empty once it is gone.
	revision string
	// present is the revision of its spec alone, without the restarts that were asked for.
	present string
	// targetNodes are the nodes that migrations name which have not begun; nil those that do not exist.
	targetNodes map[string]*corev1.Node
	// suffix makes the name of the next target.
	suffix string
	// turns says that a migration has to ask for its turn before it begins.
	turns bool
	now   time.Time
	know  knowledge
}

// knowledge is what a pass learned from its own steps. It is lost with the pass, on purpose: the next one asks anew.
type knowledge struct {
	// trouble is why the last step did not do what it should.
	trouble *trouble
	// said says that this pass has noted what the move waits for: what comes in other words each time must not keep it busy.
	said bool
	// turnAsked says that it was asked whether the next migration may begin, and waitsFor what it has to wait for.
	turnAsked bool
	waitsFor  string
	// sourceCan and targetCan are their capabilities.
	sourceCan, targetCan *statexfer.Capabilities
	// sourceIs and targetIs are which process each of them is, and its role.
	sourceIs, targetIs *statexfer.HandoffStatus
	// copy is the state of the source while it works, warmed says that the target took it, and reserved that it is durable.
	copy             *statexfer.State
	warmed, reserved bool
	// rehearsed says that the target's pod would be taken, and foreseen that it would find its state.
	rehearsed, foreseen bool
	// storedEpoch is that of the newest stored copy; 0 before it was looked for.
	storedEpoch int64
	// recalled says that origin is what the source was made from; nil where that is unknown. kept says that this is durable.
	recalled bool
	origin   *pod.Origin
	kept     bool
	// drawn is the number that the target's epoch is to get; 0 before it was drawn.
	drawn int64
	// final is the state to go on from; restored is what the target said to it, and held says that this process of the
	// target holds it for certain.
	final     *statexfer.State
	restored  *statexfer.Restored
	delivered bool
	held      bool
	// quiesced says that the final state is what the source answered when it was asked to quiesce.
	quiesced bool
	// confirmed says that nothing has changed since that.
	confirmed bool
	promoted  bool
	// pauseFrom is when the source was asked to quiesce, and pause for how long the processor stood still.
	pauseFrom time.Time
	pause     time.Duration
	// gathered says that newest is the newest state that could be had, and newestIn in which pod it is; empty: in none.
	gathered bool
	newest   *statexfer.State
	newestIn string
	saved    bool
	// awake says that the source acts, forsaken that it cannot be made to.
	awake, revived, forsaken bool
	// back says that the source's pod was told in this pass that it acts.
	back bool
	// missedSource and missedTarget say that they did not answer when the newest state was gathered.
	missedSource, missedTarget bool
	// ended says that a migration ended in this pass, which was about its pods. The next one is another pass's.
	ended bool
}

// trouble is the failure of a step.
type trouble struct {
	step step
	err  error
}

// troubled notes a failure for decide to judge. It ends no pass.
func (o *observation) troubled(at step, err error) error {
	o.know.trouble = &trouble{at, err}
	return nil
}

func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*observation, error) {
	o := &observation{key: key, now: r.clock.Now(), suffix: r.newSuffix(), turns: r.turn != nil, targetNodes: map[string]*corev1.Node{}}
	var err error
	if o.processor, err = r.cluster.processor(ctx, key, cached); err != nil {
		return nil, err
	}
	if o.migrations, err = r.cluster.migrations(ctx, key, cached); err != nil {
		return nil, err
	}
	o.sort()
	if err := r.observePods(ctx, o, cached); err != nil {
		return nil, err
	}
	if err := r.observeNodes(ctx, o); err != nil {
		return nil, err
	}
	o.revise()
	return o, nil
}

func (o *observation) sort() {
	slices.SortFunc(o.migrations, func(a, b *doryv1alpha1.ProcessorMigration) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// observePods reads the epoch, which names the holder, and every pod once.
func (r *Reconciler) observePods(ctx context.Context, o *observation, from freshness) error {
	var err error
	if m := o.active(); m != nil {
		if o.source, err = r.podNamed(ctx, o, m.Status.SourcePod, from); err != nil {
			return err
		}
		if o.target, err = r.podNamed(ctx, o, m.Status.TargetPod, from); err != nil {
			return err
		}
	}
	if id := o.id(); id != "" {
		name := types.NamespacedName{Namespace: o.key.Namespace, Name: doryv1alpha1.ObjectName(id)}
		if o.epoch, err = r.cluster.epoch(ctx, name, from); err != nil {
			return err
		}
	}
	return r.observeHolder(ctx, o, from)
}

func (r *Reconciler) observeHolder(ctx context.Context, o *observation, from freshness) error {
	m := o.active()
	switch name := o.holderName(); {
	case m != nil && name == m.Status.SourcePod:
		o.holder = o.source
		return nil
	case m != nil && name == m.Status.TargetPod:
		o.holder = o.target
		return nil
	}
	var err error
	if o.holder, err = r.podNamed(ctx, o, o.holderName(), from); m == nil {
		o.source, o.target = o.holder, nil
	}
	return err
}

// podNamed looks past the cache for a pod that is not in it: a cache may be late, and absence means that it ended.
func (r *Reconciler) podNamed(ctx context.Context, o *observation, name string, from freshness) (*corev1.Pod, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // no name is no pod
	}
	key := types.NamespacedName{Namespace: o.key.Namespace, Name: name}
	found, err := r.cluster.pod(ctx, key, from)
	if err != nil || found != nil || from == live {
		return found, err
	}
	return r.cluster.pod(ctx, key, live)
}

// observeNodes reads what the next migration's target depends on.
func (r *Reconciler) observeNodes(ctx context.Context, o *observation) error {
	for _, m := range o.migrations {
		name := m.Spec.TargetNode
		if name == "" || m.Ended() || m.Active() {
			continue
		}
		node, err := r.cluster.node(ctx, name)
		if err != nil {
			return err
		}
		o.targetNodes[name] = node
	}
	if o.processor == nil || o.processor.Spec.Placement == nil || o.processor.Spec.Placement.EdgeNode == "" {
		return nil
	}
	edgeNode, err := r.cluster.edgeNode(ctx, o.processor.Spec.Placement.EdgeNode)
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

// revise is called whenever the Processor was read.
func (o *observation) revise() {
	o.revision, o.present = "", ""
	if o.processor != nil && len(o.migrations) > 0 {
		o.present = pod.Revision(o.processor, o.edgeNode)
		o.revision = pod.Target(o.processor, o.edgeNode)
	}
}

// id is the processor's identity, read off the pods once the Processor is gone.
func (o *observation) id() string {
	if o.processor != nil {
		return o.processor.ID()
	}
	for _, p := range []*corev1.Pod{o.source, o.target} {
		if p != nil && p.Annotations[doryv1alpha1.AnnotationProcessorID] != "" {
			return p.Annotations[doryv1alpha1.AnnotationProcessorID]
		}
	}
	return ""
}

// active is the migration under way.
func (o *observation) active() *doryv1alpha1.ProcessorMigration {
	for _, m := range o.migrations {
		if m.Active() {
			return m
		}
	}
	return nil
}

// replace takes a written migration for the one that was read.
func (o *observation) replace(written *doryv1alpha1.ProcessorMigration) {
	for i := range o.migrations {
		if o.migrations[i].UID == written.UID {
			o.migrations[i] = written
		}
	}
}

func (o *observation) drop(gone *doryv1alpha1.ProcessorMigration) {
	o.migrations = slices.DeleteFunc(o.migrations, func(m *doryv1alpha1.ProcessorMigration) bool { return m.UID == gone.UID })
}

// replacePod takes what has become of a pod, which is nil if it is gone, for the one that was read.
func (o *observation) replacePod(name string, now *corev1.Pod) {
	for _, p := range []**corev1.Pod{&o.source, &o.target, &o.holder} {
		if *p != nil && (*p).Name == name {
			*p = now
		}
	}
}

func (o *observation) holderName() string {
	if o.epoch == nil {
		return ""
	}
	return o.epoch.Spec.Holder
}

// committed says whether the target holds the epoch: the point of no return.
func (o *observation) committed(m *doryv1alpha1.ProcessorMigration) bool {
	return m.Status.TargetPod != "" && o.holderName() == m.Status.TargetPod
}

// occasion names the rollback of the migration. Without one, a source is woken whose pod was written when it stood aside.
func (o *observation) occasion(m *doryv1alpha1.ProcessorMigration) string {
	if m == nil {
		return fmt.Sprintf("%s/%s", o.source.UID, o.source.ResourceVersion)
	}
	return string(m.UID)
}

// barred says that no commit by an older look at the epoch can get through any more.
func (o *observation) barred(m *doryv1alpha1.ProcessorMigration) bool {
	return fence.Barred(o.epoch, o.occasion(m))
}

// wanted says whether the processor is to run at all.
func (o *observation) wanted() bool {
	return o.processor != nil && o.processor.DeletionTimestamp == nil && !o.processor.Suspended()
}

// undecodable says why the Processor cannot be decoded; empty where it can.
func (o *observation) undecodable() string {
	if o.processor == nil {
		return ""
	}
	cause, _ := undecodable.Of(o.processor)
	return cause
}

// policy is the Processor, or one with all defaults where it is gone.
func (o *observation) policy() *doryv1alpha1.Processor {
	if o.processor == nil {
		return &doryv1alpha1.Processor{}
	}
	return o.processor
}

// floor is the highest epoch seen anywhere. What the status says of the last checkpoint is read instead of the stored copies,
// which must not cost the handoff time.
func (o *observation) floor() int64 {
	highest := o.know.storedEpoch
	if o.processor != nil {
		highest = max(highest, o.processor.Status.LastEpoch)
		if last := o.processor.Status.Checkpoint; last != nil && last.Epoch <= statestore.MaxCredibleEpoch {
			highest = max(highest, last.Epoch)
		}
	}
	for _, p := range []*corev1.Pod{o.source, o.target, o.holder} {
		highest = max(highest, pod.EpochOf(p))
	}
	for _, is := range []*statexfer.HandoffStatus{o.know.sourceIs, o.know.targetIs} {
		if is != nil {
			highest = max(highest, is.Epoch)
		}
	}
	return highest
}

// over says that no container of the pod runs any more, or ever will.
func over(p *corev1.Pod) bool { return p == nil || fence.Ended(p) }

// going says that somebody deleted the pod and that it has not ended yet.
func going(p *corev1.Pod) bool { return !over(p) && p.DeletionTimestamp != nil }

// aside says that the pod's metadata let a process of it start as a standby.
func aside(p *corev1.Pod) bool {
	return p != nil && p.Annotations[doryv1alpha1.AnnotationRole] == doryv1alpha1.RoleStandby
}
