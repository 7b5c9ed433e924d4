package drain

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/undecodable"
)

// view is what is known about a pod that somebody wants to leave its node. Its objects come from caches and are read-only.
type view struct {
	// pod is nil where there is none of the name.
	pod *corev1.Pod
	// processor is what the pod belongs to; nil once it is gone.
	processor *doryv1alpha1.Processor
	// runs is the Processor as it was when the pod was made, where that is not the present spec; nil otherwise.
	runs *doryv1alpha1.Processor
	// epoch is that of the processor's id; nil before the first one.
	epoch *doryv1alpha1.ProcessorEpoch
	// migrations are all of the Processor.
	migrations []*doryv1alpha1.ProcessorMigration
	// aside says what of the processor, its epoch and its moves cannot be decoded; empty: nothing. Then the rest is not
	// complete.
	aside string
	// target is that of the active migration; nil where there is none.
	target *corev1.Pod
	// nodes are all of the cluster. They are left out where no attempt can be one that ends the instance first, and no move leads
	// to a node that was named.
	nodes []*corev1.Node
	// leave says whether the pod's node is being left.
	leave leave
	// settled lets nobody's patience count: it is tried again and again to move the processor, and it is never restarted.
	settled  bool
	patience time.Duration
	now      time.Time
}

// viewer makes views.
type viewer struct {
	reader   client.Reader
	clock    clock.PassiveClock
	options  Options
	versions *Versions
}

// ofName looks at a pod by its name.
func (w viewer) ofName(ctx context.Context, key types.NamespacedName) (*view, error) {
	found, err := lookup.Get[corev1.Pod](ctx, w.reader, key)
	if err != nil || found == nil {
		return &view{now: w.clock.Now()}, err
	}
	return w.of(ctx, found)
}

// of looks at a pod, and at all that decides about it.
func (w viewer) of(ctx context.Context, p *corev1.Pod) (*view, error) {
	v := &view{pod: p, patience: w.options.patience(), now: w.clock.Now()}
	name, owned := processorOf(p)
	if !owned {
		return v, nil
	}
	err := w.fill(ctx, v, types.NamespacedName{Namespace: p.Namespace, Name: name})
	if aside, yes := undecodable.As(err); yes {
		if aside.Object.GetDeletionTimestamp() == nil || undecodable.KindOf(aside.Object) != "Processor" {
			v.aside = aside.Error()
		}
		return v, nil
	}
	return v, err
}

// fill looks at what belongs to the pod's Processor.
func (w viewer) fill(ctx context.Context, v *view, key types.NamespacedName) (err error) {
	p := v.pod
	if v.processor, err = lookup.Get[doryv1alpha1.Processor](ctx, w.reader, key); err != nil || v.processor == nil {
		return err
	}
	if v.migrations, err = w.migrations(ctx, key); err != nil {
		return err
	}
	if m := v.active(); m != nil && m.Status.TargetPod != "" {
		if v.target, err = lookup.Get[corev1.Pod](ctx, w.reader, types.NamespacedName{Namespace: p.Namespace, Name: m.Status.TargetPod}); err != nil {
			return err
		}
	}
	id := types.NamespacedName{Namespace: p.Namespace, Name: doryv1alpha1.ObjectName(v.processor.ID())}
	if v.epoch, err = lookup.Get[doryv1alpha1.ProcessorEpoch](ctx, w.reader, id); err != nil {
		return err
	}
	if v.holds() && !ended(p) {
		if v.runs, err = w.versions.of(ctx, v.processor, p); err != nil {
			return err
		}
	}
	node, err := w.node(ctx, p.Spec.NodeName)
	if err != nil {
		return err
	}
	v.leave = leaving(node, v.version(), w.options.Proactive)
	if v.mayStop() || v.active() != nil && v.active().Spec.TargetNode != "" {
		v.nodes, err = allNodes(ctx, w.reader)
	}
	return err
}

func (w viewer) node(ctx context.Context, name string) (*corev1.Node, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // no name is no node
	}
	return lookup.Get[corev1.Node](ctx, w.reader, types.NamespacedName{Name: name})
}

func (w viewer) migrations(ctx context.Context, of types.NamespacedName) ([]*doryv1alpha1.ProcessorMigration, error) {
	var list doryv1alpha1.ProcessorMigrationList
	err := w.reader.List(ctx, &list, client.InNamespace(of.Namespace), client.MatchingFields{indexMigrationProcessor: of.Name}, client.UnsafeDisableDeepCopy, undecodable.Tolerate)
	if err != nil {
		return nil, fmt.Errorf("listing the migrations of Processor %s: %w", of, err)
	}
	found := pointers(list.Items)
	return found, undecodable.Unended(found)
}

func pointers[T any](items []T) []*T {
	found := make([]*T, len(items))
	for i := range items {
		found[i] = &items[i]
	}
	return found
}

// processorOf is the name of the Processor that answers for the pod.
func processorOf(p client.Object) (name string, owned bool) {
	owner := metav1.GetControllerOf(p)
	if owner == nil || owner.Kind != "Processor" || owner.APIVersion != doryv1alpha1.GroupVersion.String() {
		return "", false
	}
	return owner.Name, true
}

// owned says whether it is this Processor that answers for the pod, and not an earlier one of its name.
func (v *view) owned() bool {
	owner := metav1.GetControllerOf(v.pod)
	return owner != nil && v.processor != nil && owner.UID == v.processor.UID
}

// active is the migration under way.
func (v *view) active() *doryv1alpha1.ProcessorMigration {
	for _, m := range v.migrations {
		if m.Active() {
			return m
		}
	}
	return nil
}

// version is what a drain moves: the Processor as it was when the pod was made.
func (v *view) version() *doryv1alpha1.Processor {
	if v.runs == nil {
		return v.processor
	}
	return v.runs
}

// pinned says that the pod can be on no other node.
func (v *view) pinned() *metav1.Condition { return v.said(pinned(v.version())) }

// placeless says why no other node takes the pod.
func (v *view) placeless() *metav1.Condition {
	return v.said(placeless(v.version(), v.pod.Spec.NodeName, v.nodes))
}

func (v *view) said(hindrance *metav1.Condition) *metav1.Condition {
	if hindrance != nil && v.version() != v.processor {
		hindrance.Message += ofAnother
	}
	return hindrance
}

func (v *view) holder() string {
	if v.epoch == nil {
		return ""
	}
	return v.epoch.Spec.Holder
}

// holds says whether the pod is the one that may act.
func (v *view) holds() bool { return v.holder() == v.pod.Name }

// committed says whether the target of the migration has taken over. A cache may not know it yet.
func (v *view) committed(m *doryv1alpha1.ProcessorMigration) bool {
	return m.Status.Phase == doryv1alpha1.MigrationRetiring || (m.Status.TargetPod != "" && v.holder() == m.Status.TargetPod)
}

// surplus pods have lost the epoch, or never had it. What the caches do not agree about is not surplus: the pod may act.
func (v *view) surplus() bool {
	if v.epoch == nil || v.holds() {
		return false
	}
	if epoch := pod.EpochOf(v.pod); epoch != 0 {
		return epoch < v.epoch.Spec.Epoch
	}
	name := v.pod.Labels[doryv1alpha1.LabelMigration]
	return slices.ContainsFunc(v.migrations, func(m *doryv1alpha1.ProcessorMigration) bool {
		return m.Name == name && m.Ended() && m.Status.Phase != doryv1alpha1.MigrationSucceeded
	})
}

// attempts are the drains of this very pod, the oldest first.
func (v *view) attempts() []*doryv1alpha1.ProcessorMigration {
	var found []*doryv1alpha1.ProcessorMigration
	for _, m := range v.migrations {
		if m.Spec.Reason == doryv1alpha1.MigrationDrain && m.Spec.SourcePod == v.pod.Name && m.DeletionTimestamp == nil {
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(a, b *doryv1alpha1.ProcessorMigration) int {
		return numberOf(a.Name) - numberOf(b.Name)
	})
	return found
}

func ended(p *corev1.Pod) bool { return fence.Ended(p) }

// running says whether the processor's process runs, as far as its kubelet has said.
func running(p *corev1.Pod) bool {
	container := pod.ContainerStatus(p)
	return container != nil && container.State.Running != nil
}

// unplaced is what the scheduler says about a pod that it finds no node for.
func unplaced(p *corev1.Pod) (message string, yes bool) {
	if p == nil || p.Spec.NodeName != "" {
		return "", false
	}
	condition := pod.Condition(p, corev1.PodScheduled)
	if condition == nil || condition.Status != corev1.ConditionFalse {
		return "", false
	}
	return condition.Message, true
}
