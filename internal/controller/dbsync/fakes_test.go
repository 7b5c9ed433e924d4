package dbsync

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
)

// fakeStore answers what it is told to. Methods that a test does not expect panic, because the embedded
// interface is nil.
type fakeStore struct {
	Store

	mu        sync.Mutex
	rows      []store.ProcessorRow
	edges     []store.EdgeNodeRow
	err       error
	listErr   error // comes with the rows that were read before it
	total     int
	told      map[string]string
	updates   [][]store.ProcessorStatus
	updateErr func([]store.ProcessorStatus) error
	upserts   [][]store.KubernetesProcessor
	ended     []store.KubernetesProcessor
	upsertErr func([]store.KubernetesProcessor) error
}

func (f *fakeStore) ListProcessors(context.Context) ([]store.ProcessorRow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	return slices.Clone(f.rows), f.listErr
}

func (f *fakeStore) GetProcessors(_ context.Context, ids []string) ([]store.ProcessorRow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	var found []store.ProcessorRow
	for _, row := range f.rows {
		if slices.Contains(ids, row.ID) {
			found = append(found, row)
		}
	}
	return found, nil
}

func (f *fakeStore) CountProcessors(context.Context) (store.ProcessorCounts, error) {
	return store.ProcessorCounts{Database: f.total}, f.err
}

func (f *fakeStore) ListEdgeNodes(context.Context) ([]store.EdgeNodeRow, error) {
	return f.edges, f.err
}

func (f *fakeStore) SetSyncErrors(_ context.Context, messages map[string]string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, f.err
	}
	maps.Copy(f.told, messages)
	return len(messages), nil
}

func (f *fakeStore) UpdateStatuses(_ context.Context, statuses []store.ProcessorStatus) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.updates = append(f.updates, statuses)
	if f.updateErr != nil {
		return 0, f.updateErr(statuses)
	}
	return len(statuses), nil
}

func (f *fakeStore) UpsertKubernetesProcessors(_ context.Context, processors []store.KubernetesProcessor) ([]store.Conflict, error) {
	f.upserts = append(f.upserts, processors)
	if f.upsertErr != nil {
		return nil, f.upsertErr(processors)
	}
	return nil, nil
}

func (f *fakeStore) TerminateKubernetesProcessors(_ context.Context, processors []store.KubernetesProcessor) error {
	f.ended = append(f.ended, processors...)
	return nil
}

// errHalfWay is what a listing that broke off looks like: an error, and never a short list.
var errHalfWay = errors.New("unexpected EOF after 7 rows")

// newTestSyncer makes a Syncer on fakes, with the objects in its cache.
func newTestSyncer(t *testing.T, s Store, clock clock.Clock, objects ...client.Object) (*Syncer, client.Client) {
	t.Helper()
	return newInterceptedSyncer(t, s, clock, interceptor.Funcs{}, objects...)
}

// newInterceptedSyncer is newTestSyncer, on an API server that does as it is told.
func newInterceptedSyncer(t *testing.T, s Store, clock clock.Clock, funcs interceptor.Funcs, objects ...client.Object) (*Syncer, client.Client) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, doryv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&doryv1alpha1.Processor{}).
		WithInterceptorFuncs(funcs).
		WithIndex(&doryv1alpha1.Processor{}, indexID, func(o client.Object) []string { return []string{processors{}.idOf(o)} }).
		WithIndex(&doryv1alpha1.EdgeNode{}, indexID, func(o client.Object) []string { return []string{edgeNodes{}.idOf(o)} }).
		Build()
	syncer, err := New(Config{
		Client: c, Store: s, Recorder: events.NewFakeRecorder(1000), Registerer: prometheus.NewRegistry(), Options: Options{Clock: clock},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, shutDown := range []func(){syncer.processors.queue.ShutDown, syncer.edgeNodes.queue.ShutDown, syncer.registrar.queue.ShutDown} {
			shutDown()
		}
	})
	return syncer, c
}
