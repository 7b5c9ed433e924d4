//go:build e2e

package provisioning

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/test/bench/rig"
)

const (
	namespace  = "provisioning"
	processors = 24
	patience   = 4 * time.Minute
)

// world is an API server, kwok, which plays the kubelets of any node, the real Karpenter, and the built operator.
type world struct {
	*testing.T
	rig    *rig.Rig
	client client.Client
	root   string
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(errors.Join(err, w.rig.Check()))
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, root: root}
	w.rig, err = rig.Start(t.Context(), rig.Options{
		Root: root, Operator: filepath.Join(root, "bin", "dory-operator"), Controllers: []string{"*"}, Clock: clock.RealClock{}, Progress: t.Logf,
	})
	t.Cleanup(func() {
		if err := w.rig.Close(); err != nil {
			t.Error(err)
		}
	})
	w.must(err)
	scheme := runtime.NewScheme()
	w.must(errors.Join(clientgoscheme.AddToScheme(scheme), doryv1alpha1.AddToScheme(scheme)))
	w.client, err = client.New(w.rig.Admin, client.Options{Scheme: scheme})
	w.must(err)
	w.must(w.client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	return w
}

// startKarpenter makes the NodePool that is shipped, of nodes that kwok plays in place of Amazon's.
func (w *world) startKarpenter() {
	w.Helper()
	w.must(w.rig.Apply(filepath.Join(w.root, "bin", "karpenter-crds")))
	w.must(w.rig.Run("karpenter", filepath.Join(w.root, "bin", "karpenter"), []string{
		"SYSTEM_NAMESPACE=default", "DISABLE_LEADER_ELECTION=true", "METRICS_PORT=0", "HEALTH_PROBE_PORT=0",
	}))
	pool, amazons := w.shipped("nodepool.yaml"), w.shipped("ec2nodeclass.yaml")
	w.must(unstructured.SetNestedStringMap(pool.Object, map[string]string{
		"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default",
	}, "spec", "template", "spec", "nodeClassRef"))
	class := &unstructured.Unstructured{}
	class.SetGroupVersionKind(schema.GroupVersionKind{Group: "karpenter.kwok.sh", Version: "v1alpha1", Kind: "KWOKNodeClass"})
	class.SetName("default")
	w.until("the NodePool and its classes are made", func(ctx context.Context) error {
		var failed error
		for _, object := range []*unstructured.Unstructured{class, pool, amazons} {
			failed = errors.Join(failed, client.IgnoreAlreadyExists(w.client.Create(ctx, object)))
		}
		return failed
	})
}

// shipped is an object of config/karpenter.
func (w *world) shipped(file string) *unstructured.Unstructured {
	w.Helper()
	text, err := os.ReadFile(filepath.Join(w.root, "config", "karpenter", file))
	w.must(err)
	object := &unstructured.Unstructured{}
	w.must(yaml.Unmarshal(text, &object.Object))
	return object
}

func (w *world) until(what string, met func(context.Context) error) {
	w.Helper()
	var last error
	err := wait.PollUntilContextTimeout(w.Context(), 500*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		if err := met(ctx); err == nil || ctx.Err() == nil {
			last = err
		}
		return last == nil, w.rig.Check()
	})
	if err != nil {
		w.Fatalf("waiting until %s: %v: %v\nthe end of Karpenter's log:\n%s", what, err, last, w.rig.Tail("karpenter"))
	}
}

func (w *world) processor(name, cpu string) {
	w.Helper()
	w.must(w.client.Create(w.Context(), &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: doryv1alpha1.ProcessorSpec{
			Image:     "registry.example/app:1",
			Placement: &doryv1alpha1.ProcessorPlacement{Scheduler: doryv1alpha1.PlacementSchedulerDory},
			Resources: &doryv1alpha1.ProcessorResources{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("1Gi"),
			}},
		},
	}))
}

func (w *world) pods(ctx context.Context) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := w.client.List(ctx, &pods, client.InNamespace(namespace))
	return pods.Items, err
}

func (w *world) nodes() []corev1.Node {
	w.Helper()
	var nodes corev1.NodeList
	w.must(w.client.List(w.Context(), &nodes))
	return nodes.Items
}

// There is no node. Placement says so on each pod, Karpenter makes nodes, and placement binds the pods to them.
func TestKarpenterMakesTheNodesThatPlacementMisses(t *testing.T) {
	w := newWorld(t)
	_, err := w.rig.StartOperator(t.Context(), "--placement")
	w.must(err)
	for i := range processors {
		w.processor(fmt.Sprintf("p%02d", i), "1500m")
	}
	w.until("placement has said that no node fits", w.allRefused)
	if made := w.nodes(); len(made) != 0 {
		t.Fatalf("%d nodes before Karpenter runs", len(made))
	}
	w.startKarpenter()
	w.until("every processor runs", w.allRun)
	w.boundByPlacement()
	w.roomy()

	before := len(w.nodes())
	w.processor("giant", "100000")
	w.until("the giant is told that it fits nowhere", func(ctx context.Context) error {
		var giant doryv1alpha1.Processor
		if err := w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "giant"}, &giant); err != nil {
			return err
		}
		for _, c := range giant.Status.Conditions {
			if strings.Contains(c.Message, "insufficient cpu") {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %+v", giant.Status.Conditions)
	})
	if after := len(w.nodes()); after != before {
		t.Errorf("%d nodes were made for a pod that fits none", after-before)
	}
}

func (w *world) allRefused(ctx context.Context) error {
	pods, err := w.pods(ctx)
	if err != nil {
		return err
	}
	refused := 0
	for i := range pods {
		if c := pod.Condition(&pods[i], corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			refused++
		}
	}
	if refused != processors {
		return fmt.Errorf("%d of %d pods are Unschedulable", refused, len(pods))
	}
	return nil
}

func (w *world) allRun(ctx context.Context) error {
	var all doryv1alpha1.ProcessorList
	if err := w.client.List(ctx, &all, client.InNamespace(namespace)); err != nil {
		return err
	}
	running := 0
	for i := range all.Items {
		if all.Items[i].Status.Phase == doryv1alpha1.ProcessorRunning {
			running++
		}
	}
	if running != processors {
		return fmt.Errorf("%d of %d run; the first: %+v", running, processors, all.Items[0].Status.Conditions)
	}
	return nil
}

// boundByPlacement sees in the events who bound the pods.
func (w *world) boundByPlacement() {
	w.Helper()
	w.until("the events say who bound the pods", func(ctx context.Context) error {
		var all eventsv1.EventList
		if err := w.client.List(ctx, &all, client.InNamespace(namespace)); err != nil {
			return err
		}
		bound := 0
		for i := range all.Items {
			if e := &all.Items[i]; e.Reason == "Scheduled" && e.ReportingController == pod.SchedulerName {
				bound++
			}
		}
		if bound != processors {
			return fmt.Errorf("%d pods were bound by %s", bound, pod.SchedulerName)
		}
		return nil
	})
}

// roomy sees that the pods are where they belong, and that no node has more than it can take.
func (w *world) roomy() {
	w.Helper()
	pods, err := w.pods(w.Context())
	w.must(err)
	used := map[string]int64{}
	for i := range pods {
		used[pods[i].Spec.NodeName] += pods[i].Spec.Containers[0].Resources.Requests.Cpu().MilliValue()
	}
	for _, n := range w.nodes() {
		if n.Labels["workload-type"] != "application" || n.Labels["karpenter.sh/nodepool"] != "dory-app-pool" {
			w.Errorf("node %s has the labels %v", n.Name, n.Labels)
		}
		if most := n.Status.Allocatable.Cpu().MilliValue(); used[n.Name] > most {
			w.Errorf("node %s has %dm CPUs, and pods for %dm", n.Name, most, used[n.Name])
		}
		w.Logf("node %s: %dm of %dm CPUs", n.Name, used[n.Name], n.Status.Allocatable.Cpu().MilliValue())
	}
}
