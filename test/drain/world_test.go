package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/processkubelet"
)

// patience bounds every wait. The machine may be busy; nothing here measures.
const patience = 90 * time.Second

// world is what a test has of its own: a namespace, replicas, and all nodes, where nobody else runs.
type world struct {
	*testing.T
	namespace string
	port      int32
	started   int
	replicas  []*operator
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, port: processkubelet.Port(t)}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "drain-"}}
	w.must(shared.k8s.Create(t.Context(), ns))
	w.namespace = ns.Name
	t.Cleanup(w.wipe)
	return w
}

// wipe removes what later tests would see: there is no garbage collector here.
func (w *world) wipe() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	shared.gateway.Serve()
	shared.kubelet.SetDelays(processkubelet.Delays{})
	all := client.InNamespace(w.namespace)
	err := errors.Join(
		shared.k8s.DeleteAllOf(ctx, &doryv1alpha1.Processor{}, all),
		shared.k8s.DeleteAllOf(ctx, &doryv1alpha1.ProcessorEpoch{}, all),
		shared.k8s.DeleteAllOf(ctx, &policyv1.PodDisruptionBudget{}, all))
	var migrations doryv1alpha1.ProcessorMigrationList
	var pods corev1.PodList
	err = errors.Join(err, shared.k8s.List(ctx, &migrations, all), shared.k8s.List(ctx, &pods, all))
	for i := range migrations.Items {
		err = errors.Join(err, abandon(ctx, &migrations.Items[i]))
	}
	for i := range pods.Items {
		err = errors.Join(err, abandon(ctx, &pods.Items[i]))
	}
	for _, node := range nodes {
		untouched := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"unschedulable":null,"taints":null}}`))
		err = errors.Join(err, shared.k8s.Patch(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, untouched))
	}
	if err != nil {
		w.Errorf("tidying up: %v", err)
	}
}

// abandon removes an object, as somebody does who is sure that nothing is left of it.
func abandon(ctx context.Context, object client.Object) error {
	strip := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
	return errors.Join(
		client.IgnoreNotFound(shared.k8s.Patch(ctx, object, strip)),
		client.IgnoreNotFound(shared.k8s.Delete(ctx, object, client.GracePeriodSeconds(0))))
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// until waits for what is to come, and says what it was if it does not.
func (w *world) until(what string, is func() error) {
	w.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("waited %s for this: %s: %v", patience, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// counter makes a processor that counts on a node, and waits until it does.
func (w *world) counter(name, node string, change ...func(*doryv1alpha1.Processor)) *corev1.Pod {
	w.Helper()
	w.onlyOn(node, func() {
		w.must(w.create(name, change...))
		w.counts(name, "")
	})
	pod := w.holder(name)
	if pod == nil || pod.Spec.NodeName != node {
		w.Fatalf("%s runs on %v, want %s", name, pod, node)
	}
	return pod
}

func (w *world) create(name string, change ...func(*doryv1alpha1.Processor)) error {
	p := &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: doryv1alpha1.ProcessorSpec{
			Image: image, Port: w.port, Env: []corev1.EnvVar{{Name: "COUNTER_INTERVAL", Value: "2ms"}}, TerminationGracePeriodSeconds: 5,
			State:     &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{Duration: time.Second}},
			Migration: &doryv1alpha1.ProcessorMigrationPolicy{StartTimeoutSeconds: 60, HandoffTimeoutSeconds: 5},
		},
	}
	for _, c := range change {
		c(p)
	}
	return shared.k8s.Create(w.Context(), p)
}

// onlyOn has the scheduler choose one node.
func (w *world) onlyOn(node string, do func()) {
	w.Helper()
	for _, other := range nodes {
		if other != node {
			w.cordon(other, true)
			defer w.cordon(other, false)
		}
	}
	do()
}

func (w *world) cordon(node string, unschedulable bool) {
	w.Helper()
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, unschedulable))
	w.must(shared.k8s.Patch(w.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, patch))
}

// holder is the pod that holds the epoch, or nil.
func (w *world) holder(name string) *corev1.Pod {
	epoch := &doryv1alpha1.ProcessorEpoch{}
	if err := shared.k8s.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, epoch); err != nil {
		return nil
	}
	return w.pod(epoch.Spec.Holder)
}

func (w *world) pod(name string) *corev1.Pod {
	pod := &corev1.Pod{}
	if err := shared.k8s.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, pod); err != nil {
		return nil
	}
	return pod
}

// counts waits until an instance counts that is on another node than the given one.
func (w *world) counts(name, not string) *corev1.Pod {
	w.Helper()
	var pod *corev1.Pod
	w.until(name+" counts", func() error {
		if pod = w.holder(name); pod == nil || pod.Spec.NodeName == "" || pod.Spec.NodeName == not {
			return fmt.Errorf("its instance is %v", pod)
		}
		before := w.last(name, pod.Name)
		for range 50 {
			if w.last(name, pod.Name) > before {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
		}
		return fmt.Errorf("pod %s has stopped at %d", pod.Name, before)
	})
	return pod
}

func (w *world) last(processor, pod string) int64 {
	var last int64
	for _, line := range w.lines(processor) {
		var iteration struct {
			N int64 `json:"n"`
		}
		if line.Pod == pod && json.Unmarshal([]byte(line.Text), &iteration) == nil {
			last = max(last, iteration.N)
		}
	}
	return last
}

func (w *world) lines(processor string) []processkubelet.Line {
	return shared.kubelet.Lines(w.namespace, map[string]string{doryv1alpha1.LabelProcessor: processor})
}

// whole says that nothing that was ever counted is lost or repeated.
func (w *world) whole(processors ...string) {
	w.Helper()
	for _, p := range processors {
		if chain := w.chain(p); !chain.Whole {
			w.Errorf("%s: %+v", p, chain)
		}
	}
}

func (w *world) chain(processor string) processkubelet.Chain {
	w.Helper()
	chain, err := processkubelet.VerifyChain(w.Context(), shared.counter, w.lines(processor))
	w.must(err)
	return chain
}

func (w *world) checkpointed(name string) error {
	p := &doryv1alpha1.Processor{}
	if err := shared.k8s.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, p); err != nil {
		return err
	}
	if p.Status.Checkpoint == nil {
		return fmt.Errorf("status %+v", p.Status)
	}
	return nil
}

// moves are the migrations for drains.
func (w *world) moves() []doryv1alpha1.ProcessorMigration {
	w.Helper()
	var list doryv1alpha1.ProcessorMigrationList
	w.must(shared.k8s.List(w.Context(), &list, client.InNamespace(w.namespace)))
	var drains []doryv1alpha1.ProcessorMigration
	for _, m := range list.Items {
		if m.Spec.Reason == doryv1alpha1.MigrationDrain {
			drains = append(drains, m)
		}
	}
	return drains
}

// drain is kubectl drain.
func (w *world) drain(node string, flags ...string) (string, error) {
	ctx, cancel := context.WithTimeout(w.Context(), 2*patience)
	defer cancel()
	return shared.kubectl(ctx, append([]string{"drain", node, "--timeout=" + patience.String()}, flags...)...)
}

// drained is a drain that must succeed.
func (w *world) drained(node string, flags ...string) string {
	w.Helper()
	output, err := w.drain(node, flags...)
	if err != nil {
		w.Fatalf("kubectl drain %s: %v\n%s", node, err, output)
	}
	return output
}

// evict asks for an eviction, as a program does.
func (w *world) evict(pod string, change ...func(*policyv1.Eviction)) error {
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: pod}}
	for _, c := range change {
		c(eviction)
	}
	return shared.clients.PolicyV1().Evictions(eviction.Namespace).Evict(w.Context(), eviction)
}

// told is what the asker was told with 429.
func (w *world) told(err error) metav1.Status {
	w.Helper()
	var status apierrors.APIStatus
	if !apierrors.IsTooManyRequests(err) || !errors.As(err, &status) {
		w.Fatalf("want 429, got %v", err)
	}
	return status.Status()
}

// stranger makes somebody else's pod, and waits until it runs.
func (w *world) stranger(namespace, name, node string) *corev1.Pod {
	w.Helper()
	grace := int64(0)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: &grace,
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: "web", Image: webImage, SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}}},
		},
	}
	w.must(shared.k8s.Create(w.Context(), pod))
	w.Cleanup(func() { _ = abandon(context.Background(), pod) })
	w.until(name+" runs", func() error {
		w.must(shared.k8s.Get(w.Context(), client.ObjectKeyFromObject(pod), pod))
		if pod.Status.Phase != corev1.PodRunning {
			return errors.New(string(pod.Status.Phase))
		}
		return nil
	})
	return pod
}
