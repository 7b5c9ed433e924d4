package checkpoint

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/internal/undecodable"
)

// observation is what a pass knows. It comes from informer caches and is read-only.
type observation struct {
	// processor is nil once it is gone.
	processor *doryv1alpha1.Processor
	// epoch is nil before the first one was issued.
	epoch *doryv1alpha1.ProcessorEpoch
	// holder is the pod that the epoch names, or nil.
	holder *corev1.Pod
	// migration is the one that is under way, or nil.
	migration *doryv1alpha1.ProcessorMigration
	now       time.Time
}

func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*observation, error) {
	o := &observation{now: r.clock.Now()}
	processor, err := lookup.Get[doryv1alpha1.Processor](ctx, r.client, key)
	if err != nil || processor == nil {
		return o, err
	}
	o.processor = processor
	o.epoch, o.holder, err = readHolder(ctx, r.client, processor)
	if err != nil {
		return nil, err
	}
	o.migration, err = activeMigration(ctx, r.client, processor, client.MatchingFields{indexMigration: key.Name})
	return o, err
}

// readHolder reads who holds the epoch of a Processor.
func readHolder(ctx context.Context, reader client.Reader, p *doryv1alpha1.Processor) (*doryv1alpha1.ProcessorEpoch, *corev1.Pod, error) {
	epoch, err := lookup.Get[doryv1alpha1.ProcessorEpoch](ctx, reader, types.NamespacedName{Namespace: p.Namespace, Name: doryv1alpha1.ObjectName(p.ID())})
	if err != nil || epoch == nil || epoch.Spec.Holder == "" {
		return epoch, nil, err
	}
	holder, err := lookup.Get[corev1.Pod](ctx, reader, types.NamespacedName{Namespace: p.Namespace, Name: epoch.Spec.Holder})
	return epoch, holder, err
}

func activeMigration(ctx context.Context, reader client.Reader, p *doryv1alpha1.Processor, options ...client.ListOption) (*doryv1alpha1.ProcessorMigration, error) {
	var migrations doryv1alpha1.ProcessorMigrationList
	if err := reader.List(ctx, &migrations, append(options, client.InNamespace(p.Namespace), undecodable.Tolerate)...); err != nil {
		return nil, fmt.Errorf("listing the migrations of Processor %s/%s: %w", p.Namespace, p.Name, err)
	}
	var active *doryv1alpha1.ProcessorMigration
	for i := range migrations.Items {
		m := &migrations.Items[i]
		if m.Spec.Processor != p.Name {
			continue
		}
		if err := undecodable.Unended([]*doryv1alpha1.ProcessorMigration{m}); err != nil {
			return nil, err
		}
		if m.Active() && active == nil {
			active = m
		}
	}
	return active, nil
}

// running says whether there is an instance whose state is to be looked at now.
func (o *observation) running() bool {
	p := o.processor
	return p.DeletionTimestamp == nil && !p.Suspended() && o.holder != nil && serves(o.holder) && !o.handingOff()
}

// handingOff is the short time in which the migration controller alone talks to the processor.
func (o *observation) handingOff() bool {
	return o.migration != nil && o.migration.Status.Phase == doryv1alpha1.MigrationHandingOff
}

// serves says whether the pod's process has restored its state and answers, on its kubelet's word. A container that
// has just restarted is not ready, also while the pod's own condition still says so.
func serves(p *corev1.Pod) bool {
	container := pod.ContainerStatus(p)
	return p.DeletionTimestamp == nil && !fence.Ended(p) && p.Status.PodIP != "" && pod.Ready(p) && (container == nil || container.Ready)
}

// readySince is when a pod that is ready became so.
func readySince(p *corev1.Pod) time.Time {
	if condition := pod.Condition(p, corev1.PodReady); condition != nil {
		return condition.LastTransitionTime.Time
	}
	return p.CreationTimestamp.Time
}

// instance is one process of a processor. A container that restarts in its pod is another one.
type instance struct {
	pod       types.UID
	container string
	restarts  int32
}

func instanceOf(p *corev1.Pod) instance {
	i := instance{pod: p.UID}
	if container := pod.ContainerStatus(p); container != nil {
		i.container, i.restarts = container.ContainerID, container.RestartCount
	}
	return i
}

// startedAt is when the process started, to the second, by its node's clock.
func startedAt(p *corev1.Pod) time.Time {
	if container := pod.ContainerStatus(p); container != nil && container.State.Running != nil {
		return container.State.Running.StartedAt.Time
	}
	if p.Status.StartTime != nil {
		return p.Status.StartTime.Time
	}
	return p.CreationTimestamp.Time
}

func (o *observation) endpoint(token func(string) string) statexfer.Endpoint {
	port := pod.Port(o.holder, o.processor.Spec.Port)
	host := net.JoinHostPort(o.holder.Status.PodIP, strconv.Itoa(int(port)))
	return statexfer.Endpoint{URL: "http://" + host, Token: token(o.processor.Namespace)}
}

func (o *observation) key() statestore.Key { return statestore.KeyOfInstance(o.processor, o.holder) }

func (o *observation) lineage() statestore.Lineage { return statestore.LineageOf(o.processor, o.epoch) }

// phase spreads the processors over an interval, each always at the same point of it, so that no start of an operator
// makes them all due at once.
func phase(uid types.UID, interval time.Duration) time.Duration {
	const fraction = 1 << 16
	h := fnv.New32a()
	h.Write([]byte(uid))
	return interval / fraction * time.Duration(h.Sum32()%fraction)
}
