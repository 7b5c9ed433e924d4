package drain

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/test/processkubelet"
)

// triggered is what the descheduler takes for an eviction that is under way.
const triggered = "Eviction triggered evacuation"

// slowStart gives a test time to look at a move.
const slowStart = 3 * time.Second

// What Dory is to be known for: the upstream kubectl, without flags, waits until every processor has moved live.
func TestKubectlDrainWaitsForTheHandoff(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	names := []string{"a", "b", "c"}
	var before []*corev1.Pod
	for _, name := range names {
		before = append(before, w.counter(name, "n1"))
	}
	output := w.drained("n1")
	if !strings.Contains(output, triggered) || !strings.Contains(output, "will retry after 5s") {
		t.Errorf("kubectl says nothing of the move:\n%s", output)
	}
	for i, name := range names {
		// Drain asks again by name, without a UID: nobody may ever have an old pod's name.
		if after := w.counts(name, "n1"); after.Name == before[i].Name {
			t.Errorf("pod %s has its predecessor's name", after.Name)
		}
		if w.pod(before[i].Name) != nil {
			t.Errorf("kubectl went while pod %s was there", before[i].Name)
		}
		if err := w.evict(before[i].Name); !apierrors.IsNotFound(err) {
			t.Errorf("evicting pod %s, which has gone: %v", before[i].Name, err)
		}
	}
	w.whole(names...)
	for _, m := range w.moves() {
		if m.Status.Phase != doryv1alpha1.MigrationSucceeded || m.Status.Strategy != doryv1alpha1.MigrationLive {
			t.Errorf("move %s: %s by %s: %s", m.Name, m.Status.Phase, m.Status.Strategy, m.Status.Message)
		}
	}
}

// Facts 1, 5 and 8: 429, in words that the descheduler knows, with causes, and without an order to come back later.
func TestWhatTheAskerIsTold(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	pod := w.counter("a", "n1")
	shared.kubelet.SetDelays(processkubelet.Delays{Start: slowStart})
	w.told(w.evict(pod.Name))
	var said metav1.Status
	w.until("the answer says how far the move is", func() error {
		said = w.told(w.evict(pod.Name))
		if said.Details == nil || len(said.Details.Causes) < 2 {
			return fmt.Errorf("%+v", said)
		}
		return nil
	})
	if !strings.Contains(said.Message, triggered) || said.Reason != metav1.StatusReasonTooManyRequests {
		t.Errorf("%+v", said)
	}
	if said.Details.RetryAfterSeconds != 0 {
		t.Errorf("retryAfterSeconds: %+v", said.Details)
	}
	moves := w.moves()
	if len(moves) != 1 || !slices.ContainsFunc(said.Details.Causes, func(c metav1.StatusCause) bool {
		return c.Type == "MigrationPhase" && c.Field == moves[0].Name
	}) {
		t.Errorf("%d moves, %+v", len(moves), said.Details)
	}
	w.counts("a", "n1")
	w.whole("a")
}

// Fact 2: the webhook is called for our pods, and for nobody else's.
func TestOthersPodsPayNothing(t *testing.T) {
	w := newWorld(t)
	o := w.start(alone).ready()
	before := o.reviews()
	for _, pod := range []*corev1.Pod{
		w.stranger(w.namespace, "web-0", "n1"),
		w.stranger(w.namespace, "dory-web-5d8f7c9b6-x2z4q", "n1"),
		w.stranger("kube-system", "dory-web-bcdfghjk", "n1"),
		w.stranger(operatorNamespace, "dory-web-bcdfghjk", "n1"),
	} {
		w.must(shared.clients.PolicyV1().Evictions(pod.Namespace).Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}))
	}
	asOperator := rest.CopyConfig(shared.admin)
	asOperator.Impersonate = rest.ImpersonationConfig{UserName: operatorUser, Groups: []string{"system:masters"}}
	clients, err := kubernetes.NewForConfig(asOperator)
	w.must(err)
	own := w.stranger(w.namespace, "dory-own-bcdfghjk", "n1")
	w.must(clients.PolicyV1().Evictions(w.namespace).Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: own.Name}}))
	if after := o.reviews(); after != before {
		t.Errorf("asked %d times", after-before)
	}

	alike := w.stranger(w.namespace, "dory-web-bcdfghjk", "n1")
	w.must(w.evict(alike.Name))
	if after := o.reviews(); after != before+1 {
		t.Errorf("asked %d times about a pod that only has the name of a processor's", after-before)
	}
}

// Fact 3: an eviction of another pod than the present one of the name is not ours to hold.
func TestAnotherPodOfTheName(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	pod := w.counter("a", "n1")
	err := w.evict(pod.Name, func(e *policyv1.Eviction) {
		e.DeleteOptions = &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions("0b0e3c4e-0000-4000-8000-000000000001")}
	})
	if !apierrors.IsConflict(err) {
		t.Errorf("%v, want the API server's own conflict", err)
	}
	if moves := w.moves(); len(moves) != 0 {
		t.Errorf("%d moves", len(moves))
	}
}

// Fact 4: a dry run, in either place, is let through, and nothing is made.
func TestDryRuns(t *testing.T) {
	w := newWorld(t)
	o := w.start(alone).ready()
	pod := w.counter("a", "n1")
	before := o.reviews()
	output, err := shared.kubectl(t.Context(), "drain", "n1", "--dry-run=server", "--timeout=20s")
	if err != nil || !strings.Contains(output, "(server dry run)") {
		t.Errorf("%v:\n%s", err, output)
	}
	w.must(shared.clients.CoreV1().RESTClient().Post().Namespace(w.namespace).Resource("pods").Name(pod.Name).SubResource("eviction").
		Param("dryRun", metav1.DryRunAll).
		Body(&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: pod.Name}}).Do(t.Context()).Error())
	if o.reviews() < before+2 {
		t.Error("the webhook was not asked")
	}
	if now := w.counts("a", ""); now.UID != pod.UID || len(w.moves()) != 0 {
		t.Errorf("pod %s, %d moves", now.Name, len(w.moves()))
	}
}

// Fact 6: budgets are looked at after the webhook. They neither let a processor go nor keep it: it moves first, and then
// there is nothing left to evict. More than one budget, which no other pod survives, is no matter either.
func TestBudgetsOnProcessors(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	w.counter("a", "n1")
	for _, name := range []string{"first", "second"} {
		one := intstr.FromInt32(1)
		w.must(shared.k8s.Create(t.Context(), &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
			Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{
				MatchLabels: map[string]string{doryv1alpha1.LabelProcessor: "a"},
			}},
		}))
	}
	w.drained("n1")
	w.counts("a", "n1")
	w.whole("a")
}

// Fact 6: pods that are pending, ended or ending hold nobody up.
func TestPodsThatDoNotWork(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	pod := w.counter("stuck", "n1")
	w.must(shared.k8s.Delete(t.Context(), &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "stuck"}}))
	w.until("the eviction of a deleted Processor's pod is let through", func() error {
		err := w.evict(pod.Name)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})

	for _, node := range nodes {
		w.cordon(node, true)
	}
	w.must(shared.k8s.Create(t.Context(), &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "homeless"}, Spec: doryv1alpha1.ProcessorSpec{Image: image, Port: w.port},
	}))
	var pending *corev1.Pod
	w.until("a pod is pending", func() error {
		if pending = w.holder("homeless"); pending == nil {
			return errors.New("no pod")
		}
		return nil
	})
	w.until("the eviction of a pending pod is let through", func() error { return w.evict(pending.Name) })
	if moves := w.moves(); len(moves) != 0 {
		t.Errorf("%d moves", len(moves))
	}
}

// Fact 7, as shipped: while nobody answers, the processor stays and works, and whoever drains reads why. Others' pods go.
func TestNobodyAnswers(t *testing.T) {
	w := newWorld(t)
	o := w.start(alone).ready()
	pod := w.counter("a", "n1")
	o.kill()
	web := w.stranger(w.namespace, "web-0", "n1")
	output, err := w.drain("n1", "--force")
	if err == nil || !strings.Contains(output, `failed calling webhook "eviction.dory.io"`) {
		t.Errorf("%v:\n%s", err, output)
	}
	w.until("the other pod goes", func() error { return gone(w.pod(web.Name)) })
	if now := w.counts("a", ""); now.UID != pod.UID {
		t.Errorf("pod %s, was %s", now.Name, pod.Name)
	}

	w.start(alone).ready()
	w.drained("n1", "--force")
	w.counts("a", "n1")
	w.whole("a")
}

func gone(pod *corev1.Pod) error {
	if pod != nil {
		return fmt.Errorf("pod %s is there", pod.Name)
	}
	return nil
}

// Fact 7, with the component: while nobody answers, an eviction goes through. The pod's object stays until an operator has
// seen that its process ended, which is then the first thing that it does.
func TestNobodyAnswersAndThatIsIgnored(t *testing.T) {
	w := newWorld(t)
	w.posture(admissionregistrationv1.Ignore)
	o := w.start(alone).ready()
	pod := w.counter("a", "n1")
	w.told(w.evict(pod.Name)) // As long as somebody answers, there is no difference.
	w.counts("a", "n1")
	pod = w.holder("a")
	o.kill()
	w.must(w.evict(pod.Name))
	if now := w.pod(pod.Name); now == nil || now.DeletionTimestamp == nil {
		t.Errorf("%v, want it to end", now)
	}
	w.cordon(pod.Spec.NodeName, true)
	w.start(alone).ready()
	w.counts("a", pod.Spec.NodeName)
	w.whole("a")
}

// posture applies config/default with the component, and what is shipped again afterwards.
func (w *world) posture(policy admissionregistrationv1.FailurePolicyType) {
	w.Helper()
	dir, err := filepath.EvalSymlinks(w.TempDir())
	w.must(err)
	config, err := filepath.Rel(dir, filepath.Join(shared.root, "config"))
	w.must(err)
	w.must(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), fmt.Appendf(nil,
		"resources: [%s/default]\ncomponents: [%s/webhook-ignore]\n", config, config), 0o600))
	w.apply(dir)
	w.Cleanup(func() { w.apply(filepath.Join(shared.root, "config", "default")) })
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	w.must(shared.k8s.Get(w.Context(), client.ObjectKey{Name: "dory-eviction"}, configuration))
	if got := *configuration.Webhooks[0].FailurePolicy; got != policy {
		w.Fatalf("failurePolicy %s, want %s", got, policy)
	}
}

func (w *world) apply(dir string) {
	w.Helper()
	output, err := shared.kubectl(context.WithoutCancel(w.Context()), "apply", "--server-side", "-k", dir)
	if err != nil {
		w.Errorf("%v\n%s", err, output)
	}
}

// A drain with no time for anybody is still an eviction.
func TestForceAndNoGrace(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	w.counter("a", "n1")
	output := w.drained("n1", "--force", "--grace-period=0")
	if !strings.Contains(output, triggered) {
		t.Errorf("it did not wait:\n%s", output)
	}
	w.counts("a", "n1")
	w.whole("a")
}

// Nor does a drain with no time for anybody cut short what a processor saves at its end.
func TestNoGraceForAProcessorThatIsRestarted(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	pod := w.counter("a", "n1", func(p *doryv1alpha1.Processor) { p.Spec.Migration.Strategy = doryv1alpha1.MigrationStopAndCopy })
	shared.kubelet.SetDelays(processkubelet.Delays{Stop: slowStart})
	at := int64(0)
	w.until("the pod is gone", func() error {
		err := w.evict(pod.Name, func(e *policyv1.Eviction) { e.DeleteOptions = &metav1.DeleteOptions{GracePeriodSeconds: &at} })
		if apierrors.IsNotFound(err) {
			return nil
		}
		if now := w.pod(pod.Name); now != nil && now.DeletionGracePeriodSeconds != nil && *now.DeletionGracePeriodSeconds != 5 && !fence.Ended(now) {
			t.Fatalf("pod %s has %d s for its end (%v)", pod.Name, *now.DeletionGracePeriodSeconds, err)
		}
		return fmt.Errorf("it is there: %w", err)
	})
	w.counts("a", pod.Spec.NodeName)
	w.whole("a")
}

// A drain without evictions asks nobody: the pod ends, as after kubectl delete, and the processor goes on elsewhere from what
// it saved at its end.
func TestDisableEviction(t *testing.T) {
	w := newWorld(t)
	o := w.start(alone).ready()
	w.counter("a", "n1")
	w.drained("n1", "--disable-eviction")
	if o.reviews() != 0 {
		t.Error("the webhook was asked")
	}
	w.counts("a", "n1")
	w.whole("a")
}

// As Karpenter does it: a taint, then evictions of the one pod by its UID, with a backoff of its own.
func TestTaintThenEvict(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	pod := w.counter("a", "n1")
	taint := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"taints":[{"key":"karpenter.sh/disrupted","effect":"NoSchedule"}]}}`))
	w.must(shared.k8s.Patch(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, taint))
	wait := 100 * time.Millisecond
	w.until("the pod is gone", func() error {
		err := w.evict(pod.Name, func(e *policyv1.Eviction) {
			e.DeleteOptions = &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		if err == nil {
			if holder := w.holder("a"); holder == nil || holder.UID == pod.UID {
				t.Errorf("the eviction was let through, and the processor is at %v", holder)
			}
			return errors.New("the pod ends")
		}
		w.told(err)
		time.Sleep(wait)
		wait = min(2*wait, 10*time.Second)
		return err
	})
	w.counts("a", "n1")
	w.whole("a")
}
