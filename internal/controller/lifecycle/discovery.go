package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/internal/undecodable"
)

const (
	// sdkVersionHeader is where newer SDKs say their version.
	sdkVersionHeader = "X-Dory-SDK-Version"
	// unknownSDK is recorded for a processor that says nothing, so that it is asked once.
	unknownSDK = "unknown"
	// maxVersion is the field's limit.
	maxVersion = 64

	discoveryTimeout    = 2 * time.Second
	discoveryMinBackoff = time.Second
	discoveryMaxBackoff = time.Minute
)

// Discovery asks every new instance once which SDK it is made with, at which path it answers liveness probes, and
// whether it supports the live handoff. It has a queue of its own, because it waits for the network.
type Discovery struct {
	client     client.Client
	http       *http.Client
	processors *statexfer.Client
}

// NewDiscovery makes a Discovery. A nil transport is one that asks pods directly, past any proxy.
func NewDiscovery(c client.Client, transport http.RoundTripper) *Discovery {
	if transport == nil {
		transport = &http.Transport{DisableKeepAlives: true}
	}
	return &Discovery{client: c, processors: statexfer.NewClient(statexfer.ClientConfig{Transport: transport}), http: &http.Client{
		Transport: transport, Timeout: discoveryTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Reconcile asks the instance of one Processor, if it has not answered yet.
func (d *Discovery) Reconcile(ctx context.Context, req reconcile.Request) (ctrl.Result, error) {
	p, err := lookup.Get[doryv1alpha1.Processor](ctx, d.client, req.NamespacedName)
	if err != nil || p == nil || !undiscovered(p) {
		return ctrl.Result{}, err
	}
	instance, err := lookup.Get[corev1.Pod](ctx, d.client, types.NamespacedName{Namespace: p.Namespace, Name: p.Status.Instance.Pod})
	if err != nil {
		return ctrl.Result{}, err
	}
	found, err := d.ask(ctx, p, urlOf(p, instance))
	if err != nil {
		// An instance that does not listen yet is the usual case; the queue's backoff asks again.
		log.FromContext(ctx).V(1).Info("the instance does not answer yet", "cause", err.Error())
		return ctrl.Result{Requeue: true}, nil //nolint:staticcheck // the rate limiter paces the tries, and it is no error
	}
	return ctrl.Result{}, d.record(ctx, p, found)
}

// undiscovered: there is an instance with an address that was not asked yet.
func undiscovered(p *doryv1alpha1.Processor) bool {
	instance := p.Status.Instance
	if instance == nil || instance.IP == "" || instance.SDKVersion != "" {
		return false
	}
	phase := p.Status.Phase
	return phase == doryv1alpha1.ProcessorStarting || phase == doryv1alpha1.ProcessorRunning || phase == doryv1alpha1.ProcessorUnhealthy
}

// finding is what an instance said.
type finding struct {
	version string
	// path is where liveness is answered.
	path doryv1alpha1.LivenessPath
	// handoff says whether the live handoff is supported.
	handoff bool
}

// ask tries the path that the kubelet probes and, if that is not found there, the other one.
func (d *Discovery) ask(ctx context.Context, p *doryv1alpha1.Processor, url string) (finding, error) {
	probed := pod.LivenessPath(p)
	for _, path := range []doryv1alpha1.LivenessPath{probed, otherPath(probed)} {
		code, version, err := d.probe(ctx, url+string(path))
		if err != nil {
			return finding{}, err
		}
		if code != http.StatusNotFound {
			handoff, err := d.handsOff(ctx, url)
			return finding{version: version, path: path, handoff: handoff}, err
		}
	}
	return finding{version: unknownSDK, path: probed}, nil
}

// handsOff reads the list of endpoints. A processor that has none supports what the contract's first version says.
func (d *Discovery) handsOff(ctx context.Context, url string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	capabilities, err := d.processors.Capabilities(ctx, statexfer.Endpoint{URL: url})
	if errors.Is(err, statexfer.ErrUnavailable) || ctx.Err() != nil {
		return false, fmt.Errorf("asking %s for its endpoints: %w", url, err)
	}
	return err == nil && capabilities.Handoff, nil
}

// urlOf is where the instance answers; its pod is nil while the cache does not have it.
func urlOf(p *doryv1alpha1.Processor, instance *corev1.Pod) string {
	return "http://" + net.JoinHostPort(p.Status.Instance.IP, strconv.Itoa(int(pod.Port(instance, p.Spec.Port))))
}

func otherPath(path doryv1alpha1.LivenessPath) doryv1alpha1.LivenessPath {
	if path == doryv1alpha1.LivenessPathHealthz {
		return doryv1alpha1.LivenessPathHealth
	}
	return doryv1alpha1.LivenessPathHealthz
}

func (d *Discovery) probe(ctx context.Context, url string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", fmt.Errorf("making a request for %s: %w", url, err)
	}
	response, err := d.http.Do(request)
	if err != nil {
		return 0, "", fmt.Errorf("asking %s: %w", url, err)
	}
	defer func() { _ = response.Body.Close() }()                                            // it was read; closing can only fail to free the connection
	if _, err := io.CopyN(io.Discard, response.Body, 64<<10); err != nil && err != io.EOF { //nolint:errorlint // CopyN answers io.EOF as it is
		return 0, "", fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	return response.StatusCode, versionOf(response.Header), nil
}

// versionOf keeps within the field's limit, whatever a processor sends.
func versionOf(header http.Header) string {
	version := header.Get(sdkVersionHeader)
	if version == "" {
		return unknownSDK
	}
	return message.Line(version, maxVersion)
}

// record writes what was found, unless the instance has changed meanwhile. A path that differs from the probed
// one is remembered only where the spec leaves the choice to us; lifecycle then replaces the pod.
func (d *Discovery) record(ctx context.Context, p *doryv1alpha1.Processor, found finding) error {
	updated := p.DeepCopy()
	updated.Status.Instance.SDKVersion, updated.Status.Handoff = found.version, &found.handoff
	auto := p.Spec.Probes.LivenessPath == "" || p.Spec.Probes.LivenessPath == doryv1alpha1.LivenessPathAuto
	if auto && found.path != pod.LivenessPath(p) {
		updated.Status.LivenessPath = found.path
	}
	patch := client.MergeFromWithOptions(p, client.MergeFromWithOptimisticLock{})
	err := d.client.Status().Patch(ctx, updated, patch)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // The newer object's event brings it here again.
	}
	if err != nil {
		return fmt.Errorf("recording the SDK of Processor %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// SetupWithManager registers the controller.
func (d *Discovery) SetupWithManager(mgr ctrl.Manager) error {
	asks := predicate.NewPredicateFuncs(func(o client.Object) bool { return undiscovered(o.(*doryv1alpha1.Processor)) })
	gone := predicate.Funcs{DeleteFunc: func(event.DeleteEvent) bool { return false }}
	return ctrl.NewControllerManagedBy(mgr).
		Named("discovery").
		For(&doryv1alpha1.Processor{}, builder.WithPredicates(asks, gone)).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: 8,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](
				discoveryMinBackoff, discoveryMaxBackoff),
		}).
		Complete(undecodable.LeaveAside(d))
}
