package checkpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/retry"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

// world is one Processor on a real API server, and an operator whose passes the test makes by hand, under a clock that
// the test steps.
type world struct {
	*Reconciler

	t         *testing.T
	clock     *clocktesting.FakeClock
	processor *doryv1alpha1.Processor
	holder    *corev1.Pod
	recorder  *events.FakeRecorder
	registry  *prometheus.Registry
	database  statestore.Database
	// wait is what the last pass asked for.
	wait time.Duration

	mu    sync.Mutex
	calls map[string]int
	// conflicts is how many of the next status writes meet another one.
	conflicts int
}

func newWorld(t *testing.T, changes ...func(*doryv1alpha1.Processor)) *world {
	t.Helper()
	needAPI(t)
	w := &world{t: t, clock: clocktesting.NewFakeClock(time.Now().Truncate(time.Second)), calls: map[string]int{}}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "checkpoint-"}}
	if err := api.client.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	w.processor = &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "cam"},
		Spec:       doryv1alpha1.ProcessorSpec{ProcessorID: "Cam_1", Image: "counter:1"},
	}
	for _, change := range changes {
		change(w.processor)
	}
	if err := api.client.Create(t.Context(), w.processor); err != nil {
		t.Fatal(err)
	}
	w.restartOperator()
	return w
}

// restartOperator forgets all that is only remembered.
func (w *world) restartOperator() {
	w.t.Helper()
	w.recorder, w.registry = events.NewFakeRecorder(100), prometheus.NewRegistry()
	metrics, err := NewMetrics(w.registry)
	if err != nil {
		w.t.Fatal(err)
	}
	c := w.counting()
	w.Reconciler = New(Config{
		Client: c, APIReader: c, Clock: w.clock, Recorder: w.recorder, Metrics: metrics,
		Store:      statestore.New(statestore.Config{Client: c, Reader: c, Database: w.database}),
		Processors: statexfer.NewClient(statexfer.ClientConfig{Clock: hurried{}}),
		Issuer:     fence.NewIssuer(c, nil, w.clock),
		Token:      func(string) string { return token },
	})
}

// counting counts calls by verb and kind, and stands in for the index of a cache.
func (w *world) counting() client.WithWatch {
	return interceptor.NewClient(api.client, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			w.count("get", obj)
			return c.Get(ctx, key, obj, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			var options client.ListOptions
			options.ApplyOptions(opts)
			return c.List(ctx, list, client.InNamespace(options.Namespace))
		},
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			w.count("create", obj)
			return c.Create(ctx, obj, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			w.count("update", obj)
			return c.Update(ctx, obj, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			w.count("patch", obj)
			return c.Patch(ctx, obj, patch, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			w.count("delete", obj)
			return c.Delete(ctx, obj, opts...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			if w.conflict() {
				if err := w.touchStatus(ctx); err != nil {
					return err
				}
			}
			w.count("patch "+sub, obj)
			return c.SubResource(sub).Patch(ctx, obj, patch, opts...)
		},
	})
}

func (w *world) conflict() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conflicts--
	return w.conflicts >= 0
}

// touchStatus is what lifecycle may do at any time.
func (w *world) touchStatus(ctx context.Context) error {
	p := &doryv1alpha1.Processor{}
	if err := api.client.Get(ctx, client.ObjectKeyFromObject(w.processor), p); err != nil {
		return err
	}
	p.Status.LastEpoch++
	return api.client.Status().Update(ctx, p)
}

func (w *world) count(verb string, obj client.Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	gvk, _ := api.client.GroupVersionKindFor(obj) // Only a name.
	w.calls[verb+" "+gvk.Kind]++
}

// spent are the calls that do not come from a cache in an operator, since the last time it was asked.
func (w *world) spent() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = map[string]int{}
	maps.DeleteFunc(calls, func(call string, _ int) bool {
		return call == "get Processor" || call == "get ProcessorEpoch" || call == "get Pod"
	})
	return calls
}

func (w *world) wantSpent(want map[string]int) {
	w.t.Helper()
	if got := w.spent(); !maps.Equal(got, want) {
		w.t.Errorf("spent %v, want %v", got, want)
	}
}

// start makes the pod of a double that has just become ready, and gives it the next epoch.
func (w *world) start(epoch int64, d *double, changes ...func(*corev1.Pod)) {
	w.t.Helper()
	d.mu.Lock()
	d.pod = podName(epoch)
	d.mu.Unlock()
	w.launch(epoch, d.address, d.port, changes...)
}

func podName(epoch int64) string { return fmt.Sprintf("dory-cam-%d", epoch) }

func (w *world) launch(epoch int64, address string, port int32, changes ...func(*corev1.Pod)) {
	w.t.Helper()
	w.update(func(p *doryv1alpha1.Processor) { p.Spec.Port = port })
	built, err := pod.Build(pod.Input{Processor: w.processor, Name: podName(epoch), Epoch: epoch})
	if err != nil {
		w.t.Fatal(err)
	}
	built.Finalizers = nil
	for _, change := range changes {
		change(built)
	}
	if err := api.client.Create(w.t.Context(), built); err != nil {
		w.t.Fatal(err)
	}
	w.holder = built
	w.kubelet(func(s *corev1.PodStatus) { *s = w.running(address) })
	w.hold(epoch, built.Name)
}

func (w *world) running(address string) corev1.PodStatus {
	now := metav1.NewTime(w.clock.Now())
	return corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}, StartTime: &now,
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: pod.ContainerName, Ready: true, ContainerID: "containerd://" + address + "-0", Image: "i", ImageID: "i",
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
}

// kubelet changes the status of the holder's pod.
func (w *world) kubelet(change func(*corev1.PodStatus)) {
	w.t.Helper()
	fresh := &corev1.Pod{}
	if err := api.client.Get(w.t.Context(), client.ObjectKeyFromObject(w.holder), fresh); err != nil {
		w.t.Fatal(err)
	}
	change(&fresh.Status)
	if err := api.client.Status().Update(w.t.Context(), fresh); err != nil {
		w.t.Fatal(err)
	}
	w.holder = fresh
}

// restarted is how a kubelet tells of a container that restarted and is ready again.
func (w *world) restarted(s *corev1.PodStatus) {
	s.ContainerStatuses[0].RestartCount++
	s.ContainerStatuses[0].ContainerID += "+"
	s.ContainerStatuses[0].State.Running.StartedAt = metav1.NewTime(w.clock.Now())
	s.Conditions[0].LastTransitionTime = metav1.NewTime(w.clock.Now())
}

// hold issues an epoch.
func (w *world) hold(epoch int64, holder string) {
	w.t.Helper()
	w.holdFor(epoch, holder, doryv1alpha1.EpochReplace)
}

func (w *world) holdFor(epoch int64, holder string, reason doryv1alpha1.EpochReason) {
	w.t.Helper()
	e := &doryv1alpha1.ProcessorEpoch{ObjectMeta: metav1.ObjectMeta{Namespace: w.processor.Namespace, Name: doryv1alpha1.ObjectName("Cam_1")}}
	err := api.client.Get(w.t.Context(), client.ObjectKeyFromObject(e), e)
	e.Spec = doryv1alpha1.ProcessorEpochSpec{
		ProcessorID: "Cam_1", Epoch: epoch, Holder: holder, Reason: reason, IssuedAt: metav1.NewTime(w.clock.Now()),
	}
	if err != nil {
		err = api.client.Create(w.t.Context(), e)
	} else {
		err = api.client.Update(w.t.Context(), e)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// end removes the holder's pod, as after a crash.
func (w *world) end() {
	w.t.Helper()
	if err := api.client.Delete(w.t.Context(), w.holder, client.GracePeriodSeconds(0)); err != nil {
		w.t.Fatal(err)
	}
}

// migrate makes a migration of the phase; it replaces an earlier one.
func (w *world) migrate(phase doryv1alpha1.MigrationPhase) {
	w.t.Helper()
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.processor.Namespace, Name: "move"},
		Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: "cam"},
	}
	if err := api.client.Create(w.t.Context(), m); err != nil {
		if err := api.client.Get(w.t.Context(), client.ObjectKeyFromObject(m), m); err != nil {
			w.t.Fatal(err)
		}
	}
	m.Status.Phase = phase
	if err := api.client.Status().Update(w.t.Context(), m); err != nil {
		w.t.Fatal(err)
	}
}

// pass reconciles once.
func (w *world) pass() {
	w.t.Helper()
	result, err := w.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(w.processor)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.wait = result.RequeueAfter
}

// turn waits for what the last pass asked for, and reconciles.
func (w *world) turn() {
	w.t.Helper()
	w.clock.Step(w.wait)
	w.pass()
}

// turns makes passes until the condition holds, for as long as a person would wait.
func (w *world) turns(what string, until func() bool) {
	w.t.Helper()
	for range 12 {
		w.turn()
		if until() {
			return
		}
	}
	w.t.Fatalf("not after 12 turns: %s; events:\n%s", what, strings.Join(w.events(), "\n"))
}

// update changes the Processor as a person would, also while an operator writes its status.
func (w *world) update(change func(*doryv1alpha1.Processor)) {
	w.t.Helper()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		w.processor = w.fresh()
		change(w.processor)
		return api.client.Update(w.t.Context(), w.processor)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) fresh() *doryv1alpha1.Processor {
	w.t.Helper()
	p := &doryv1alpha1.Processor{}
	if err := api.client.Get(w.t.Context(), client.ObjectKeyFromObject(w.processor), p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) condition() *metav1.Condition {
	return meta.FindStatusCondition(w.fresh().Status.Conditions, doryv1alpha1.ConditionCheckpointed)
}

func (w *world) wantCondition(status metav1.ConditionStatus, reason string, parts ...string) {
	w.t.Helper()
	c := w.condition()
	if c == nil || c.Status != status || c.Reason != reason {
		w.t.Errorf("condition %+v, want %s %s", c, status, reason)
		return
	}
	for _, part := range parts {
		if !strings.Contains(c.Message, part) {
			w.t.Errorf("the condition says %q, want it to say %q", c.Message, part)
		}
	}
}

// events are those since the last time it was asked.
func (w *world) events() []string {
	var told []string
	for {
		select {
		case event := <-w.recorder.Events:
			told = append(told, event)
		default:
			return told
		}
	}
}

func (w *world) wantEvents(want ...string) {
	w.t.Helper()
	got := w.events()
	if len(got) != len(want) {
		w.t.Errorf("events %q, want %q", got, want)
		return
	}
	for i := range got {
		for part := range strings.SplitSeq(want[i], "…") {
			if !strings.Contains(got[i], part) {
				w.t.Errorf("event %q does not say %q", got[i], part)
			}
		}
	}
}

// key is where the state is.
func (w *world) key() statestore.Key { return statestore.KeyOf(w.processor) }

// stored is the newest stored state, without spaces.
func (w *world) stored() (string, *statestore.Copy) {
	w.t.Helper()
	s := statestore.New(statestore.Config{Client: api.client, Reader: api.client, Database: w.database})
	found, document, err := s.Newest(w.t.Context(), w.key(), statestore.Lineage{Epoch: 1 << 20, Holder: "nobody"})
	if err != nil {
		w.t.Fatal(err)
	}
	if document == nil {
		return "", nil
	}
	var compact strings.Builder
	var value any
	if err := json.Unmarshal(document.Payload, &value); err != nil {
		w.t.Fatal(err)
	}
	encoder := json.NewEncoder(&compact)
	if err := encoder.Encode(value); err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(compact.String()), found.Newest()
}

func (w *world) wantStored(want string) *statestore.Copy {
	w.t.Helper()
	got, c := w.stored()
	if got != want {
		w.t.Errorf("stored %.100s, want %.100s", got, want)
	}
	return c
}

// blindSave is what the public SDK does at /prestop.
func (w *world) blindSave(podName, state string, at time.Time) {
	w.t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.processor.Namespace, Name: pod.StateConfigMapName(w.processor)}}
	d := statexfer.Document{Payload: []byte(state), Metadata: statexfer.Metadata{ProcessorID: "Cam_1", PodName: podName, Time: at}}
	if err := statexfer.IntoConfigMap(cm, d, 0); err != nil {
		w.t.Fatal(err)
	}
	if err := api.client.Update(w.t.Context(), cm); err != nil {
		w.t.Fatal(err)
	}
}

// result is how often looks ended like this.
func (w *world) result(result string) int {
	return int(testutil.ToFloat64(w.metrics.total.WithLabelValues(result)))
}
