package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/undecodable"
)

const (
	// readyPatience is for how long an instance may be unready before it is asked why, and the least time between two
	// questions; where the answer stays the same, the time doubles up to readyLongest.
	readyPatience = 30 * time.Second
	readyLongest  = 4 * time.Minute
	// readyTimeout and readyBytes bound an answer, and readySaid is how much of it is passed on: it is a stranger's text.
	readyTimeout = 3 * time.Second
	readyBytes   = 4 << 10
	readySaid    = 300

	readyConcurrency = 4
	wakeBuffer       = 64
)

// Readiness asks instances that stay unready why that is so, because their own words are in no status: the kubelet tells no
// more than that its probe failed. It has a queue of its own, because it waits for the network.
type Readiness struct {
	reconciler *Reconciler
	http       *http.Client
}

// NewReadiness makes a Readiness, whose answers appear in the statuses that the Reconciler writes. A nil transport is one
// that asks pods directly, past any proxy.
func NewReadiness(r *Reconciler, transport http.RoundTripper) *Readiness {
	if transport == nil {
		transport = &http.Transport{DisableKeepAlives: true}
	}
	return &Readiness{reconciler: r, http: &http.Client{
		Transport: transport, Timeout: readyTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Reconcile finds out why an instance is not ready.
func (a *Readiness) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r := a.reconciler
	p, instance, err := a.unready(ctx, req.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	if instance == nil {
		r.explanations.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	now := r.clock.Now()
	if wait := r.explanations.due(req.NamespacedName, instance, now); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	wait, news := r.explanations.set(req.NamespacedName, instance, a.explain(ctx, p, instance), now)
	if news {
		select {
		case r.wake <- event.GenericEvent{Object: &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: req.Namespace, Name: req.Name}}}:
		case <-ctx.Done():
		}
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

// unready is the Processor's instance if it has a node and is not ready, or else nil.
func (a *Readiness) unready(ctx context.Context, key types.NamespacedName) (*doryv1alpha1.Processor, *corev1.Pod, error) {
	p, err := lookup.Get[doryv1alpha1.Processor](ctx, a.reconciler.client, key)
	if err != nil || p == nil || !waitsForReady(p) {
		return nil, nil, err
	}
	instance, err := lookup.Get[corev1.Pod](ctx, a.reconciler.client, types.NamespacedName{Namespace: p.Namespace, Name: p.Status.Instance.Pod})
	if err != nil || instance == nil || pod.Ready(instance) || !alive(instance) || instance.DeletionTimestamp != nil {
		return nil, nil, err
	}
	return p, instance, nil
}

// waitsForReady says whether the status tells of an instance that runs and is not ready.
func waitsForReady(p *doryv1alpha1.Processor) bool {
	ready := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionReady)
	return p.Status.Instance != nil && p.Status.Instance.Node != "" && p.DeletionTimestamp == nil && ready != nil &&
		ready.Status == metav1.ConditionFalse && (ready.Reason == doryv1alpha1.ReasonStarting || ready.Reason == doryv1alpha1.ReasonNotReady)
}

// explain says why the instance is not ready; nothing where that cannot be found out.
func (a *Readiness) explain(ctx context.Context, p *doryv1alpha1.Processor, instance *corev1.Pod) string {
	container := pod.ContainerStatus(instance)
	if container == nil || container.State.Running == nil || pod.Blocking(instance) != container || instance.Status.PodIP == "" {
		return "is not ready: " + pod.Unreadiness(instance)
	}
	port := pod.Port(instance, p.Spec.Port)
	code, said, err := a.ask(ctx, "http://"+net.JoinHostPort(instance.Status.PodIP, strconv.Itoa(int(port)))+"/ready")
	var before string
	if container.RestartCount > 0 {
		before = "; " + pod.Unreadiness(instance)
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("does not listen on port %d, where it is asked GET /ready%s", port, before)
	case err != nil, code == http.StatusOK:
		return ""
	case said == "":
		return fmt.Sprintf("answers GET /ready with %d%s", code, before)
	}
	return fmt.Sprintf("answers GET /ready with %d: %s%s", code, said, before)
}

// ask answers the status and what the instance says with it.
func (a *Readiness) ask(ctx context.Context, url string) (code int, said string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", fmt.Errorf("making a request for %s: %w", url, err)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return 0, "", fmt.Errorf("asking %s: %w", url, err)
	}
	defer func() { _ = response.Body.Close() }() // it was read; closing can only fail to free the connection
	body, err := io.ReadAll(io.LimitReader(response.Body, readyBytes))
	if err != nil {
		return 0, "", fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	return response.StatusCode, message.Line(reasonIn(body), readySaid), nil
}

// reasonIn is what a JSON answer gives as its reason, or else all of it.
func reasonIn(body []byte) string {
	var answer struct {
		Reason  string `json:"reason"`
		Error   string `json:"error"`
		Message string `json:"message"`
		Detail  string `json:"detail"`
	}
	if json.Unmarshal(body, &answer) == nil {
		if reason := cmp.Or(answer.Reason, answer.Error, answer.Message, answer.Detail); reason != "" {
			return reason
		}
	}
	return string(body)
}

// SetupWithManager registers the controller.
func (a *Readiness) SetupWithManager(mgr ctrl.Manager) error {
	asks := predicate.NewPredicateFuncs(func(o client.Object) bool { return waitsForReady(o.(*doryv1alpha1.Processor)) })
	return ctrl.NewControllerManagedBy(mgr).
		Named("readiness").
		For(&doryv1alpha1.Processor{}, builder.WithPredicates(predicate.Or[client.Object](asks, deletions()))).
		WithOptions(controller.Options{MaxConcurrentReconciles: readyConcurrency, RateLimiter: retries()}).
		Complete(undecodable.LeaveAside(a))
}

func deletions() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
}

// explanations remembers, by Processor, why its instance is not ready. It forgets when the operator ends, and asks again.
type explanations struct {
	mu    sync.Mutex
	known map[types.NamespacedName]explanation
}

type explanation struct {
	pod  types.UID
	text string
	next time.Time
	wait time.Duration
}

// of is what is known of the pod. Once it is ready, that is nothing any more.
func (e *explanations) of(key types.NamespacedName, instance *corev1.Pod) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	known, found := e.known[key]
	switch {
	case !found:
		return ""
	case instance == nil, known.pod != instance.UID, pod.Ready(instance):
		delete(e.known, key)
		return ""
	}
	return known.text
}

// due is how long to wait before the pod is asked.
func (e *explanations) due(key types.NamespacedName, instance *corev1.Pod, now time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known := e.known[key]; known.pod == instance.UID {
		return known.next.Sub(now)
	}
	unreadySince := readySince(instance)
	return min(readyPatience, unreadySince.Add(readyPatience).Sub(now)) // The kubelet's clock may be ahead.
}

// set keeps an answer, and says when to ask again and whether it is news.
func (e *explanations) set(key types.NamespacedName, instance *corev1.Pod, text string, now time.Time) (wait time.Duration, news bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known == nil {
		e.known = map[types.NamespacedName]explanation{}
	}
	last := e.known[key]
	wait, news = readyPatience, last.pod != instance.UID || last.text != text
	if !news {
		wait = min(readyLongest, 2*last.wait)
	}
	e.known[key] = explanation{pod: instance.UID, text: text, next: now.Add(wait), wait: wait}
	return wait, news
}

func (e *explanations) forget(key types.NamespacedName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.known, key)
}
