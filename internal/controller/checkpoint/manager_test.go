package checkpoint

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

// runOperator runs the controller as an operator does, with caches, watches and the real clock.
func runOperator(t *testing.T) {
	t.Helper()
	needAPI(t)
	manager, err := ctrl.NewManager(api.config, ctrl.Options{
		Cache:  cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: pod.Slim}}}, // As the operator has it.
		Scheme: api.scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	reconciler := New(Config{
		Client: manager.GetClient(), APIReader: manager.GetAPIReader(), Clock: clock.RealClock{}, Metrics: metrics,
		Recorder:   &events.FakeRecorder{},
		Store:      statestore.New(statestore.Config{Client: manager.GetClient(), Reader: manager.GetAPIReader()}),
		Processors: statexfer.NewClient(statexfer.ClientConfig{}), Issuer: fence.NewIssuer(manager.GetClient(), nil, clock.RealClock{}),
		Token: func(string) string { return token },
	})
	if err := reconciler.SetupWithManager(ctx, manager); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error)
	go func() { stopped <- manager.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-timeout:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

// realWorld is a Processor for an operator that runs by itself.
func realWorld(t *testing.T, changes ...func(*doryv1alpha1.Processor)) (*world, *double) {
	t.Helper()
	w := newWorld(t, changes...)
	d := newDouble(t, clock.RealClock{}, 0)
	d.set(`{"n":1}`)
	return w, d
}

func TestTheWatchesLeadHere(t *testing.T) {
	runOperator(t)
	w, d := realWorld(t, every(time.Hour))
	storedIs := func(want string) func() bool {
		return func() bool { got, _ := w.stored(); return got == want }
	}
	w.start(1, d)
	eventually(t, "an instance is looked at when it becomes ready", storedIs(`{"n":1}`))
	eventually(t, "and its status tells", func() bool { return w.condition() != nil })

	d.restart(`{"n":2}`)
	w.kubelet(w.restarted)
	eventually(t, "a container that restarted is looked at", storedIs(`{"n":2}`))

	next := newDouble(t, clock.RealClock{}, d.port)
	next.set(`{"n":3}`)
	old := w.holder
	w.start(2, next)
	eventually(t, "the next holder is looked at", storedIs(`{"n":3}`))

	w.blindSave(old.Name, `{"n":1}`, time.Now())
	next.set(`{"n":3}`)
	w.update(every(3 * time.Second)) // By itself it would notice after ten turns.
	if err := api.client.Delete(t.Context(), old, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the late save of a pod is undone when it goes, and a new interval counts at once", storedIs(`{"n":3}`))

	w.update(every(time.Second))
	w.migrate(doryv1alpha1.MigrationHandingOff)
	eventually(t, "a handoff is not disturbed", func() bool {
		before, _, _ := next.counted()
		time.Sleep(1500 * time.Millisecond) // Longer than an interval, in which nothing may happen.
		after, _, _ := next.counted()
		return after == before
	})
	next.set(`{"n":4}`)
	w.migrate(doryv1alpha1.MigrationSucceeded)
	eventually(t, "its end leads here", storedIs(`{"n":4}`))

	if err := api.client.Delete(t.Context(), w.processor); err != nil {
		t.Fatal(err)
	}
	next.set(`{"n":5}`)
	eventually(t, "a deleted Processor is left alone", func() bool {
		before, _, _ := next.counted()
		time.Sleep(1500 * time.Millisecond) // See above.
		after, _, _ := next.counted()
		return after == before
	})
}

// TestManyProcessors: some of which hang and some fail, and the others have their checkpoints nevertheless.
func TestManyProcessors(t *testing.T) {
	runOperator(t)
	const n = 40
	var worlds []*world
	var doubles []*double
	release := make(chan struct{})
	defer close(release)
	for i := range n {
		w, d := realWorld(t, every(time.Second))
		if i%4 == 0 {
			d.breaks(func(http.ResponseWriter, *http.Request) bool { d.mu.Unlock(); <-release; d.mu.Lock(); return false })
		}
		w.start(1, d)
		worlds, doubles = append(worlds, w), append(doubles, d)
	}
	for round := 2; round < 5; round++ {
		want := fmt.Sprintf(`{"n":%d}`, round)
		for i, d := range doubles {
			if i%4 != 0 {
				d.set(want)
			}
		}
		eventually(t, "those that answer are stored", func() bool {
			for i, w := range worlds {
				if i%4 == 0 {
					continue
				}
				if got, _ := w.stored(); got != want {
					return false
				}
			}
			return true
		})
	}
}
