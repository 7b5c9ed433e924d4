package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/undecodable"
)

// One object that cannot be decoded does not stop the rest: not the others of its kind, in its namespace or elsewhere, and not a
// replica that starts meanwhile. What runs for it works on, and it is mended or deleted like any other.
func TestOneUndecodableObjectDoesNotStopTheRest(t *testing.T) {
	w, good, locked := newWorld(t), newWorld(t), newWorld(t)
	w.loosen()
	first := w.start(alone).ready()
	bad := w.counter("bad", "n1")
	fenced := w.counter("fenced", "n2")
	first.kill()

	w.spoil("processors", "bad", "", `{"spec":{"state":{"checkpointInterval":"1d"}}}`)
	w.spoil("processorepochs", "fenced", "", `{"spec":{"issuedAt":"yesterday"}}`)
	w.make("EdgeNode", "", "bad-"+w.namespace, `{"edgeNodeID":7}`)
	w.make("ProcessorMigration", w.namespace, "old", `{"processor":"good"}`)
	w.spoil("processormigrations", "old", "status", `{"status":{"phase":"Succeeded","pause":"1d"}}`)
	before := w.raw("processors", "bad")

	good.must(shared.k8s.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: good.namespace, Name: "dory-state-odd"}, Data: map[string]string{"state": `{"no`, "metadata": "7"},
	}))
	locked.must(shared.k8s.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: locked.namespace, Name: pod.TokenSecret}, Immutable: new(true), Data: map[string][]byte{"x": {0}},
	}))

	second := w.start(alone).ready()
	good.must(good.create("odd"))
	locked.must(locked.create("locked"))
	good.must(good.create("elsewhere"))
	w.must(w.create("good"))
	good.counts("elsewhere", "")
	instance := w.counts("good", "")
	w.until("a move goes on beside an old one that cannot be decoded", func() error {
		return w.move("good", instance.Name)
	})
	w.until("a Secret that cannot be mended stops its namespace alone", func() error {
		return locked.conditioned("locked", pod.TokenSecret)
	})
	w.until("the metric counts every kind", func() error {
		text, err := get(w.Context(), "http://"+second.metrics+"/metrics")
		for _, kind := range []string{"Processor", "ProcessorMigration", "ProcessorEpoch", "EdgeNode"} {
			if line := fmt.Sprintf("dory_undecodable_objects{kind=%q} 1\n", kind); err == nil && !strings.Contains(string(text), line) {
				err = fmt.Errorf("no %s", line)
			}
		}
		return err
	})
	w.until("an event says which field it is", func() error {
		return w.says("bad", "Undecodable", `spec.state.checkpointInterval: time: unknown unit "d" in duration "1d"`)
	})

	t.Run("its instance works on", func(t *testing.T) {
		for name, was := range map[string]*corev1.Pod{"bad": bad, "fenced": fenced} {
			if now := w.pod(was.Name); now == nil || now.UID != was.UID || now.DeletionTimestamp != nil {
				t.Errorf("the pod of %s is %v", name, now)
			}
			last := w.last(name, was.Name)
			w.until(name+" counts on", func() error {
				if w.last(name, was.Name) > last {
					return nil
				}
				return errors.New("it stands still")
			})
			if said := w.told(w.evict(was.Name)); !strings.Contains(said.Message, "cannot be decoded") {
				t.Errorf("the eviction of %s is told: %s", was.Name, said.Message)
			}
		}
		if after := w.raw("processors", "bad"); after.GetResourceVersion() != before.GetResourceVersion() {
			t.Errorf("it was written:\n%v\n%v", before, after)
		}
	})
	t.Run("a condition says that an epoch cannot be read", func(t *testing.T) {
		w.until("it is told", func() error { return w.conditioned("fenced", "spec.issuedAt") })
		if p := w.processor("fenced"); p.Status.Instance == nil || p.Status.Instance.Pod != fenced.Name || p.Status.Instance.Epoch == 0 {
			t.Errorf("the status forgets what runs: %+v", p.Status)
		}
	})
	t.Run("one that comes later does not stop the rest either", func(_ *testing.T) {
		w.make("Processor", w.namespace, "later", `{"image":"`+image+`","state":{"checkpointInterval":"2 hours"}}`)
		w.until("it is told of", func() error { return w.says("later", "Undecodable", "2 hours") })
		w.must(w.create("after"))
		w.counts("after", "")
		w.remove("processors", "later")
	})
	t.Run("it goes on when an administrator mends it as the message says", func(t *testing.T) {
		w.administer(t, undecodable.Remedy(w.left("Processor", "bad")), `KUBE_EDITOR='sed -i "s/1d$/2s/"' kubectl edit processor -n `+w.namespace+` bad`)
		w.administer(t, undecodable.Remedy(w.left("ProcessorEpoch", "fenced")), `kubectl get processorepoch -n `+w.namespace+` fenced -o yaml > epoch.yaml`,
			`sed -i 's/yesterday$/"2026-01-02T03:04:05Z"/' epoch.yaml`, `kubectl --as=system:serviceaccount:dory-system:dory-operator replace -f epoch.yaml`)
		for _, name := range []string{"bad", "fenced"} {
			w.until(name+" is looked after", func() error {
				p := w.processor(name)
				if p.Status.ObservedGeneration != p.Generation || p.Status.Phase != doryv1alpha1.ProcessorRunning {
					return fmt.Errorf("%+v", p.Status)
				}
				return nil
			})
		}
		w.until("the pod may be evicted as ever", func() error {
			said := w.told(w.evict(bad.Name))
			if !strings.Contains(said.Message, triggered) {
				return errors.New(said.Message)
			}
			return nil
		})
		w.counts("bad", "n1")
		w.whole("bad", "fenced")
	})
	t.Run("it can be deleted", func(_ *testing.T) {
		w.spoil("processors", "bad", "", `{"spec":{"state":{"checkpointInterval":"1d"}}}`)
		w.until("it is told of again", func() error {
			text, err := get(w.Context(), "http://"+second.metrics+"/metrics")
			if err == nil && !strings.Contains(string(text), `dory_undecodable_objects{kind="Processor"} 1`) {
				err = errors.New("it is not")
			}
			return err
		})
		was := w.holder("bad")
		w.remove("processors", "bad")
		w.until("its instance ends", func() error {
			if now := w.pod(was.Name); now != nil {
				return fmt.Errorf("%+v", now.Status.Phase)
			}
			return nil
		})
	})
}

// loosen has the API server take what it took under an older CRD. At the end of the test it refuses again.
func (w *world) loosen() {
	w.Helper()
	anything := map[string]any{"x-kubernetes-preserve-unknown-fields": true}
	for crd, path := range map[string][]string{
		"processors":          {"spec", "state", "checkpointInterval"},
		"processorepochs":     {"spec", "issuedAt"},
		"processormigrations": {"status", "pause"},
		"edgenodes":           {"spec", "edgeNodeID"},
	} {
		name := crd + ".dory.io"
		strict := w.definition(name)
		loose := strict.DeepCopy()
		versions, _, _ := unstructured.NestedSlice(loose.Object, "spec", "versions")
		field := []string{"schema", "openAPIV3Schema"}
		for _, step := range path {
			field = append(field, "properties", step)
		}
		for length := 2; length < len(field); length += 2 { // Rules may name the field, whose type is gone.
			unstructured.RemoveNestedField(versions[0].(map[string]any), append(slices.Clone(field[:length]), "x-kubernetes-validations")...)
		}
		w.must(unstructured.SetNestedMap(versions[0].(map[string]any), anything, field...))
		w.must(unstructured.SetNestedSlice(loose.Object, versions, "spec", "versions"))
		w.must(shared.k8s.Update(w.Context(), loose))
		w.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			now := w.definition(name)
			strict.SetResourceVersion(now.GetResourceVersion())
			if err := shared.k8s.Update(ctx, strict); err != nil {
				w.Errorf("making %s strict again: %v", name, err)
			}
		})
	}
	w.Cleanup(w.sweep)
}

// sweep removes what no typed client can list.
func (w *world) sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, kind := range []string{"Processor", "ProcessorMigration", "ProcessorEpoch", "EdgeNode"} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(doryv1alpha1.GroupVersion.WithKind(kind + "List"))
		err := shared.k8s.List(ctx, list)
		for i := range list.Items {
			if o := &list.Items[i]; o.GetNamespace() == w.namespace || strings.HasSuffix(o.GetName(), w.namespace) {
				err = errors.Join(err, abandon(ctx, o))
			}
		}
		if err != nil {
			w.Errorf("sweeping: %v", err)
		}
	}
}

func (w *world) definition(name string) *unstructured.Unstructured {
	w.Helper()
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	w.must(shared.k8s.Get(context.WithoutCancel(w.Context()), types.NamespacedName{Name: name}, crd))
	return crd
}

var kinds = map[string]string{"processors": "Processor", "processorepochs": "ProcessorEpoch", "processormigrations": "ProcessorMigration"}

func (w *world) raw(resource, name string) *unstructured.Unstructured {
	w.Helper()
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(doryv1alpha1.GroupVersion.WithKind(kinds[resource]))
	w.must(shared.k8s.Get(w.Context(), types.NamespacedName{Namespace: w.namespace, Name: name}, o))
	return o
}

// spoil patches an object, once the API server takes that, as the operator: only it may write epochs.
func (w *world) spoil(resource, name, subresource, patch string) {
	w.Helper()
	w.until("the API server takes "+patch, func() error {
		request := operatorREST(w).Patch(types.MergePatchType).AbsPath("/apis/dory.io/v1alpha1/namespaces/"+w.namespace+"/"+resource+"/"+name, subresource).
			Body([]byte(patch))
		answer, err := request.DoRaw(w.Context())
		if err != nil {
			return fmt.Errorf("%w: %s", err, answer)
		}
		return nil
	})
}

// operatorREST is the operator's, without its limits.
func operatorREST(w *world) rest.Interface {
	w.Helper()
	config := rest.CopyConfig(shared.admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: operatorUser, Groups: []string{"system:masters"}}
	clients, err := kubernetes.NewForConfig(config)
	w.must(err)
	return clients.Discovery().RESTClient()
}

// make creates an object, once the API server takes it.
func (w *world) make(kind, namespace, name, spec string) {
	w.Helper()
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(doryv1alpha1.GroupVersion.WithKind(kind))
	o.SetNamespace(namespace)
	o.SetName(name)
	var fields map[string]any
	w.must(json.Unmarshal([]byte(spec), &fields))
	o.Object["spec"] = fields
	w.until("the API server takes "+spec, func() error { return client.IgnoreAlreadyExists(shared.k8s.Create(w.Context(), o.DeepCopy())) })
}

func (w *world) remove(resource, name string) {
	w.Helper()
	output, err := shared.kubectl(w.Context(), "delete", "--wait=false", "--namespace="+w.namespace, resource+".dory.io", name)
	if err != nil {
		w.Fatalf("kubectl delete: %v\n%s", err, output)
	}
}

// left is what a message is about.
func (w *world) left(kind, name string) client.Object {
	if kind == "ProcessorEpoch" {
		return &doryv1alpha1.ProcessorEpoch{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	}
	return &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
}

// administer runs commands as an administrator does, who is refused by the admission policies like anyone. Those of kubectl are in
// the message.
func (w *world) administer(t *testing.T, message string, commands ...string) {
	t.Helper()
	directory := t.TempDir()
	for _, command := range commands {
		if _, shown, ok := strings.Cut(command, "kubectl "); ok && !strings.Contains(message, "kubectl "+shown) {
			t.Errorf("%q does not say %q", message, shown)
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
		cmd.Dir = directory
		cmd.Env = append(os.Environ(), "KUBECONFIG="+shared.adminConfig, "PATH="+filepath.Dir(shared.bin("kubectl"))+":"+os.Getenv("PATH"))
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, output)
		}
	}
}

// says looks for an event.
func (w *world) says(about, reason, text string) error {
	events, err := shared.clients.EventsV1().Events(w.namespace).List(w.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, e := range events.Items {
		if e.Regarding.Name == about && e.Reason == reason && strings.Contains(e.Note, text) {
			return nil
		}
	}
	return fmt.Errorf("none of %d events says so", len(events.Items))
}

func (w *world) processor(name string) *doryv1alpha1.Processor {
	w.Helper()
	p := &doryv1alpha1.Processor{}
	w.must(shared.k8s.Get(w.Context(), types.NamespacedName{Namespace: w.namespace, Name: name}, p))
	return p
}

// conditioned looks for a condition that is not as it should be.
func (w *world) conditioned(name, text string) error {
	status := w.processor(name).Status
	for _, c := range status.Conditions {
		if c.Status == metav1.ConditionFalse && strings.Contains(c.Message, text) {
			return nil
		}
	}
	return fmt.Errorf("%+v", status)
}

// move moves a processor by hand.
func (w *world) move(name, from string) error {
	m := &doryv1alpha1.ProcessorMigration{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "by-hand"}, Spec: doryv1alpha1.ProcessorMigrationSpec{Processor: name, SourcePod: from}}
	if err := shared.k8s.Create(w.Context(), m); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := shared.k8s.Get(w.Context(), client.ObjectKeyFromObject(m), m); err != nil {
		return err
	}
	if m.Status.Phase != doryv1alpha1.MigrationSucceeded {
		return fmt.Errorf("%+v", m.Status)
	}
	return nil
}
