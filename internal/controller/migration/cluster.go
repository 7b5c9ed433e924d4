package migration

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lastgood"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/rehearsal"
	"github.com/dory-io/dory/internal/undecodable"
)

// freshness says where to read.
type freshness bool

const (
	cached freshness = false
	live   freshness = true
)

// cluster is all that a pass asks of the API server. What does not exist is nil. Writes of migrations are refused with a
// conflict where the object has changed, and update the object that they are given.
type cluster interface {
	processor(ctx context.Context, key types.NamespacedName, from freshness) (*doryv1alpha1.Processor, error)
	migrations(ctx context.Context, of types.NamespacedName, from freshness) ([]*doryv1alpha1.ProcessorMigration, error)
	// migration is read past the cache.
	migration(ctx context.Context, key types.NamespacedName) (*doryv1alpha1.ProcessorMigration, error)
	epoch(ctx context.Context, key types.NamespacedName, from freshness) (*doryv1alpha1.ProcessorEpoch, error)
	pod(ctx context.Context, key types.NamespacedName, from freshness) (*corev1.Pod, error)
	edgeNode(ctx context.Context, name string) (*doryv1alpha1.EdgeNode, error)
	node(ctx context.Context, name string) (*corev1.Node, error)
	// origin is what the pod was made from, or what was kept of that revision; nil where that is not known.
	origin(ctx context.Context, of *doryv1alpha1.Processor, podName, revision string) (*pod.Origin, error)

	updateMigration(ctx context.Context, m *doryv1alpha1.ProcessorMigration) error
	updateStatus(ctx context.Context, m *doryv1alpha1.ProcessorMigration) error
	deleteMigration(ctx context.Context, m *doryv1alpha1.ProcessorMigration) error
	createPod(ctx context.Context, p *corev1.Pod) error
	// rehearse says what stands against ending the pod old for next.
	rehearse(ctx context.Context, next, old *corev1.Pod) error
	patchPod(ctx context.Context, changed, base *corev1.Pod) error
	deletePod(ctx context.Context, p *corev1.Pod) error
	// keep makes an origin durable before its instance is ended. It is false where there is none, and none was kept before.
	keep(ctx context.Context, of *doryv1alpha1.Processor, origin *pod.Origin, epoch int64, trial string, now time.Time) (bool, error)
}

// kubernetes is the cluster of production.
type kubernetes struct {
	client    client.Client
	apiReader client.Reader
	tokens    pod.Tokens
}

func (k kubernetes) records() lastgood.Store {
	return lastgood.Store{Client: k.client, Reader: k.apiReader, Tokens: k.tokens}
}

func (k kubernetes) origin(ctx context.Context, of *doryv1alpha1.Processor, podName, revision string) (*pod.Origin, error) {
	source, err := lookup.Get[corev1.Pod](ctx, k.apiReader, types.NamespacedName{Namespace: of.Namespace, Name: podName})
	if err != nil {
		return nil, err
	}
	if found := pod.OriginOf(source, of, k.tokens); found != nil && found.Revision == revision {
		return found, nil
	}
	return k.records().Version(ctx, of, revision)
}

func (k kubernetes) keep(ctx context.Context, of *doryv1alpha1.Processor, origin *pod.Origin, epoch int64, trial string, now time.Time) (bool, error) {
	record, err := k.records().Keep(ctx, of, origin, epoch, trial, now)
	return record != nil, err
}

func (k kubernetes) from(f freshness) client.Reader {
	if f == live {
		return k.apiReader
	}
	return k.client
}

// processor answers also one that cannot be decoded, as far as it can: what was begun for it has to be taken back. Whether it
// is one, undecodable.Of says.
func (k kubernetes) processor(ctx context.Context, key types.NamespacedName, from freshness) (*doryv1alpha1.Processor, error) {
	p, err := lookup.Get[doryv1alpha1.Processor](ctx, k.from(from), key)
	if aside, yes := undecodable.As(err); yes {
		if rest, ok := aside.Object.(*doryv1alpha1.Processor); ok {
			return rest, nil
		}
	}
	return p, err
}

func (k kubernetes) migration(ctx context.Context, key types.NamespacedName) (*doryv1alpha1.ProcessorMigration, error) {
	return lookup.Get[doryv1alpha1.ProcessorMigration](ctx, k.apiReader, key)
}

// migrations past the cache are those of a namespace: the API server knows no index. One that has ended and cannot be
// decoded is left out, so that nothing is written to it.
func (k kubernetes) migrations(ctx context.Context, of types.NamespacedName, from freshness) ([]*doryv1alpha1.ProcessorMigration, error) {
	options := []client.ListOption{client.InNamespace(of.Namespace), undecodable.Tolerate}
	if from == cached {
		options = append(options, client.MatchingFields{indexProcessor: of.Name})
	}
	var list doryv1alpha1.ProcessorMigrationList
	if err := k.from(from).List(ctx, &list, options...); err != nil {
		return nil, fmt.Errorf("listing the migrations of Processor %s: %w", of, err)
	}
	var found []*doryv1alpha1.ProcessorMigration
	for i := range list.Items {
		if list.Items[i].Spec.Processor == of.Name {
			found = append(found, &list.Items[i])
		}
	}
	if err := undecodable.Unended(found); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(m *doryv1alpha1.ProcessorMigration) bool { _, aside := undecodable.Of(m); return aside }), nil
}

func (k kubernetes) epoch(ctx context.Context, key types.NamespacedName, from freshness) (*doryv1alpha1.ProcessorEpoch, error) {
	return lookup.Get[doryv1alpha1.ProcessorEpoch](ctx, k.from(from), key)
}

func (k kubernetes) pod(ctx context.Context, key types.NamespacedName, from freshness) (*corev1.Pod, error) {
	return lookup.Get[corev1.Pod](ctx, k.from(from), key)
}

func (k kubernetes) edgeNode(ctx context.Context, name string) (*doryv1alpha1.EdgeNode, error) {
	return lookup.Get[doryv1alpha1.EdgeNode](ctx, k.client, types.NamespacedName{Name: name})
}

func (k kubernetes) node(ctx context.Context, name string) (*corev1.Node, error) {
	return lookup.Get[corev1.Node](ctx, k.client, types.NamespacedName{Name: name})
}

func (k kubernetes) updateMigration(ctx context.Context, m *doryv1alpha1.ProcessorMigration) error {
	if err := k.client.Update(ctx, m); err != nil {
		return fmt.Errorf("writing ProcessorMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

func (k kubernetes) updateStatus(ctx context.Context, m *doryv1alpha1.ProcessorMigration) error {
	if err := k.client.Status().Update(ctx, m); err != nil {
		return fmt.Errorf("writing the status of ProcessorMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

func (k kubernetes) deleteMigration(ctx context.Context, m *doryv1alpha1.ProcessorMigration) error {
	uid := m.UID
	if err := k.client.Delete(ctx, m, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting ProcessorMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

func (k kubernetes) createPod(ctx context.Context, p *corev1.Pod) error {
	if err := k.client.Create(ctx, p); err != nil {
		return fmt.Errorf("creating pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

func (k kubernetes) rehearse(ctx context.Context, next, old *corev1.Pod) error {
	return rehearsal.Rehearsal{Client: k.client, Reader: k.apiReader}.Replace(ctx, next, old)
}

func (k kubernetes) patchPod(ctx context.Context, changed, base *corev1.Pod) error {
	if err := k.client.Patch(ctx, changed, client.MergeFrom(base)); err != nil {
		return fmt.Errorf("writing the role of pod %s/%s: %w", changed.Namespace, changed.Name, err)
	}
	return nil
}

func (k kubernetes) deletePod(ctx context.Context, p *corev1.Pod) error {
	uid := p.UID
	if err := k.client.Delete(ctx, p, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}
