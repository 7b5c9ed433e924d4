package drain

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// indexer lets a fake client have the indexes of the caches.
type indexer struct{ *fake.ClientBuilder }

func (i indexer) IndexField(_ context.Context, obj client.Object, field string, extract client.IndexerFunc) error {
	i.WithIndex(obj, field, extract)
	return nil
}

// clusterOf is an API server without watches, in which everything is seen at once.
func clusterOf(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, eventsv1.AddToScheme, doryv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(funcs).
		WithStatusSubresource(&doryv1alpha1.ProcessorMigration{}, &doryv1alpha1.Processor{})
	if err := addIndexes(t.Context(), indexer{builder}); err != nil {
		t.Fatal(err)
	}
	return builder.Build()
}

// working is a processor of the name with its instance on the node.
func working(name, node string) []client.Object {
	p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: name, UID: "uid"}, Spec: specOf(doryv1alpha1.LocationManaged)}
	i := podOf(p, "dory-"+name+"-aaaabbbb", 1)
	i.Spec.NodeName = node
	epoch := &doryv1alpha1.ProcessorEpoch{
		ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: name},
		Spec:       doryv1alpha1.ProcessorEpochSpec{ProcessorID: name, Epoch: 1, Holder: i.Name},
	}
	return []client.Object{p, i, epoch}
}

// queued is a drain of such a processor that could begin.
func queued(name string) *doryv1alpha1.ProcessorMigration {
	return &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: name + "-drain", UID: types.UID("uid-" + name)},
		Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: name, Reason: doryv1alpha1.MigrationDrain, SourcePod: "dory-" + name + "-aaaabbbb"},
	}
}

func TestTurnsLetNoMoreBeginThanTheyMay(t *testing.T) {
	var objects []client.Object
	var all []*doryv1alpha1.ProcessorMigration
	for i := range 6 {
		name := fmt.Sprint("cam", i)
		m := queued(name)
		objects, all = append(objects, append(working(name, "n1"), m)...), append(all, m)
	}
	c := clusterOf(t, interceptor.Funcs{}, objects...)
	clk := clocktesting.NewFakeClock(now)
	turns := NewTurns(c, clk, Limits{PerNode: 2, Total: 3})
	ask := func(i int) string {
		t.Helper()
		waitsFor, err := turns.Turn(t.Context(), all[i])
		if err != nil {
			t.Fatal(err)
		}
		return waitsFor
	}
	set := func(i int, phase doryv1alpha1.MigrationPhase) {
		t.Helper()
		all[i].Status.Phase, all[i].Status.SourceNode = phase, "n1"
		if err := c.Status().Update(t.Context(), all[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"", "", "2 processors are being moved off node n1", "2 processors are"} {
		if got := ask(i); (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%d waits for %q, want %q: what may begin counts before it is seen to", i, got, want)
		}
	}
	if got := ask(0); got != "" {
		t.Errorf("who may begin still may: %q", got)
	}
	set(0, doryv1alpha1.MigrationPlacing)
	set(1, doryv1alpha1.MigrationPlacing)
	if got := ask(2); got == "" {
		t.Error("a third one may begin while two are under way")
	}
	set(0, doryv1alpha1.MigrationRetiring)
	turns.ended(t.Context())
	select {
	case e := <-turns.Wake():
		if e.Object.GetName() != "cam2-drain" || e.Object.(*doryv1alpha1.ProcessorMigration).Spec.Processor != "cam2" {
			t.Errorf("woke %s", e.Object.GetName())
		}
	default:
		t.Fatal("nobody is woken when a move has handed over")
	}
	if got := ask(3); got != "the moves of other processors go first" {
		t.Errorf("the later one waits for %q, while the earlier is next", got)
	}
	if got := ask(2); got != "" {
		t.Errorf("whose turn it is waits for %q", got)
	}

	clk.Step(grantPatience + time.Second)
	if got := ask(4); got != "the moves of other processors go first" {
		t.Errorf("waits for %q, want it to be behind one that waits longer, as the one who may begin did not", got)
	}
	clk.Step(waitPatience + time.Second)
	if got := ask(5); got != "" {
		t.Errorf("waits for %q, though nobody asks any more", got)
	}
	other := &doryv1alpha1.ProcessorMigration{Spec: doryv1alpha1.ProcessorMigrationSpec{Processor: "cam0", Reason: doryv1alpha1.MigrationUpdate}}
	if got, err := turns.Turn(t.Context(), other); got != "" || err != nil {
		t.Errorf("an Update waits for %q (%v)", got, err)
	}
}

// Moves that find no place keep nobody waiting who may find one.
func TestTurnsDoNotCountWhatFindsNoPlace(t *testing.T) {
	stuck, next := queued("cam0"), queued("cam1")
	stuck.Status.Phase, stuck.Status.SourceNode, stuck.Status.TargetPod = doryv1alpha1.MigrationPlacing, "n1", "target"
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "target"}}
	c := clusterOf(t, interceptor.Funcs{}, append(append(working("cam0", "n1"), working("cam1", "n1")...), stuck, next, target)...)
	turns := NewTurns(c, clocktesting.NewFakeClock(now), Limits{PerNode: 1, Total: 1})
	if waitsFor, err := turns.Turn(t.Context(), next); err != nil || waitsFor == "" {
		t.Errorf("it may begin while another seeks a node (%v)", err)
	}
	target.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes"}}
	if err := c.Status().Update(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if waitsFor, err := turns.Turn(t.Context(), next); err != nil || waitsFor != "" {
		t.Errorf("it waits for %q, while the other finds none (%v)", waitsFor, err)
	}
}

func deskOf(t *testing.T, c client.Client) (*Desk, *events.FakeRecorder) {
	t.Helper()
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	recorder := events.NewFakeRecorder(100)
	return NewDesk(DeskConfig{Client: c, Clock: clocktesting.NewFakeClock(now), Recorder: recorder, Metrics: m}), recorder
}

// A thousand evictions of one pod, on two replicas, make one move; and the API server is not asked while they are answered.
func TestDeskMakesOneMoveForManyEvictions(t *testing.T) {
	var creations, failures atomic.Int32
	failures.Store(2)
	c := clusterOf(t, interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
		if failures.Add(-1) >= 0 {
			return apierrors.NewInternalError(errors.New("the API server is away"))
		}
		creations.Add(1)
		return c.Create(ctx, o, options...)
	}}, working("cam", "n1")...)
	one, recorder := deskOf(t, c)
	two, _ := deskOf(t, c)
	two.orders.maker.events = one.orders.maker.events // Whichever is first tells.
	request := Request{Pod: client.ObjectKey{Namespace: "vision", Name: "dory-cam-aaaabbbb"}, By: "eviction"}
	for range 500 {
		for _, d := range []*Desk{one, two} {
			a, err := d.Ask(t.Context(), request)
			if err != nil || a.Allowed || a.Reason != ReasonQueued || a.Migration != "cam-drain-aaaabbbb-1" {
				t.Fatalf("answer %+v, error %v", a, err)
			}
		}
	}
	if creations.Load() != 0 {
		t.Fatal("an answer waited for the API server")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	for _, d := range []*Desk{one, two} {
		go func() {
			defer func() { done <- struct{}{} }()
			if err := d.Start(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	if said := <-recorder.Events; !strings.Contains(said, EventRequested) {
		t.Errorf("said %q", said)
	}
	cancel()
	<-done
	<-done
	var list doryv1alpha1.ProcessorMigrationList
	if err := c.List(t.Context(), &list); err != nil || len(list.Items) != 1 {
		t.Errorf("made %d (%v)", len(list.Items), err)
	}
	if len(recorder.Events) != 0 {
		t.Errorf("said more: %q", <-recorder.Events)
	}
}

// Whoever waits for a move that the API server does not take is told why.
func TestDeskTellsWhyAMoveCannotBeMade(t *testing.T) {
	c := clusterOf(t, interceptor.Funcs{Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
		return apierrors.NewForbidden(doryv1alpha1.GroupVersion.WithResource("processormigrations").GroupResource(), "cam", errors.New("exceeded quota"))
	}}, working("cam", "n1")...)
	d, recorder := deskOf(t, c)
	request := Request{Pod: client.ObjectKey{Namespace: "vision", Name: "dory-cam-aaaabbbb"}, By: "eviction"}
	ask := func() string {
		t.Helper()
		a, err := d.Ask(t.Context(), request)
		if err != nil || a.Allowed {
			t.Fatalf("answer %+v, error %v", a, err)
		}
		return a.Message
	}
	if said := ask(); strings.Contains(said, "quota") {
		t.Errorf("says %q before it was tried", said)
	}
	d.orders.next(t.Context())
	if said := ask(); !strings.Contains(said, "exceeded quota") {
		t.Errorf("says %q", said)
	}
	if said := <-recorder.Events; !strings.Contains(said, EventRefused) || !strings.Contains(said, "exceeded quota") {
		t.Errorf("an event says %q", said)
	}
	d.clock.(*clocktesting.FakeClock).Step(refusalMemory + time.Second)
	if said := ask(); strings.Contains(said, "quota") {
		t.Errorf("says %q though that is long ago", said)
	}
}

func TestDeskMakesNothingForADryRun(t *testing.T) {
	c := clusterOf(t, interceptor.Funcs{}, working("cam", "n1")...)
	d, _ := deskOf(t, c)
	a, err := d.Ask(t.Context(), Request{Pod: client.ObjectKey{Namespace: "vision", Name: "dory-cam-aaaabbbb"}, DryRun: true})
	if err != nil || !a.Allowed || a.Reason != ReasonWouldMove {
		t.Errorf("answer %+v, error %v", a, err)
	}
	if d.orders.queue.Len() != 0 {
		t.Error("something is to be made")
	}
}

// What nobody could read is no permission.
func TestDeskDoesNotGuess(t *testing.T) {
	broken := errors.New("the cache is broken")
	for _, kind := range []client.Object{&corev1.Pod{}, &doryv1alpha1.Processor{}, &doryv1alpha1.ProcessorEpoch{}} {
		c := clusterOf(t, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			if fmt.Sprintf("%T", o) == fmt.Sprintf("%T", kind) {
				return broken
			}
			return c.Get(ctx, key, o, options...)
		}}, working("cam", "n1")...)
		d, _ := deskOf(t, c)
		if a, err := d.Ask(t.Context(), Request{Pod: client.ObjectKey{Namespace: "vision", Name: "dory-cam-aaaabbbb"}}); !errors.Is(err, broken) || a.Allowed {
			t.Errorf("without %T: answer %+v, error %v", kind, a, err)
		}
	}
	d, _ := deskOf(t, nil)
	if d.Ready() == nil {
		t.Error("ready before it has any cache")
	}
}

// A move that has changed since it was looked at is not displaced: it may hand over by now.
func TestDeskDisplacesOnlyWhatItSaw(t *testing.T) {
	for name, changed := range map[string]bool{"as it was seen": false, "further since": true} {
		t.Run(name, func(t *testing.T) {
			stuck := migration("m3", time.Minute, in("Placing"), func(m *doryv1alpha1.ProcessorMigration) { m.Spec.Reason = doryv1alpha1.MigrationManual })
			c := clusterOf(t, interceptor.Funcs{}, append(working("cam", "n1"), aNode(cordoned), aNode(named("n2")), stuck)...)
			d, _ := deskOf(t, c)
			a, err := d.Ask(t.Context(), Request{Pod: client.ObjectKey{Namespace: "vision", Name: instance}, By: "eviction"})
			if err != nil || !strings.Contains(a.Message, "m3 (Manual) gives way to it") {
				t.Fatalf("answer %+v, error %v", a, err)
			}
			now := &doryv1alpha1.ProcessorMigration{}
			read := func() {
				t.Helper()
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(stuck), now); err != nil {
					t.Fatal(err)
				}
			}
			read()
			if changed {
				now.Status.Phase = doryv1alpha1.MigrationHandingOff
				if err := c.Status().Update(t.Context(), now); err != nil {
					t.Fatal(err)
				}
			}
			d.orders.next(t.Context())
			if read(); now.Cancelled() == changed {
				t.Errorf("called off: %t", now.Cancelled())
			}
			if d.orders.queue.Len() != 0 || len(d.orders.open) != 0 {
				t.Error("it is tried again")
			}
		})
	}
}
