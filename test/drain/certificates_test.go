package drain

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	desk "github.com/dory-io/dory/internal/controller/drain"
	"github.com/dory-io/dory/internal/webhook"
)

// never lets nobody go.
type never struct{}

func (never) Ask(context.Context, desk.Request) (desk.Answer, error) {
	return desk.Answer{Reason: desk.ReasonMoving, Message: triggered + " of everybody"}, nil
}

// serve runs a replica that has nothing but the webhook, with certificates that live for seconds.
func serve(w *world, lifetimes webhook.Lifetimes) (*webhook.Webhook, string) {
	w.Helper()
	rights, err := clientcmd.BuildConfigFromFlags("", shared.operatorConfig)
	w.must(err)
	manager, err := ctrl.NewManager(rights, ctrl.Options{
		Scheme: shared.scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: ctrlconfig.Controller{SkipNameValidation: new(true)},
	})
	w.must(err)
	address := freeAddress(w.T)
	host, text, err := net.SplitHostPort(address)
	w.must(err)
	port, err := strconv.Atoi(text)
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	served, err := webhook.Add(ctx, manager, webhook.Config{
		Desk: never{}, Filled: func() error { return nil }, Namespace: operatorNamespace, Host: host, Port: port,
		Lifetimes: lifetimes, Clock: clock.RealClock{},
	})
	w.must(err)
	stopped := make(chan error, 1)
	go func() { stopped <- manager.Start(ctx) }()
	w.Cleanup(func() {
		cancel()
		w.must(<-stopped)
	})
	return served, address
}

// forget removes the certificate, and what the API server trusts.
func forget(w *world) {
	ctx := context.Background()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: webhook.SecretName}}
	w.must(client.IgnoreNotFound(shared.k8s.Delete(ctx, secret)))
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	w.must(shared.k8s.Get(ctx, types.NamespacedName{Name: webhook.ConfigurationName}, configuration))
	configuration.Webhooks[0].ClientConfig.CABundle = nil
	w.must(shared.k8s.Update(ctx, configuration))
}

// Certificates and authorities are replaced again and again, and two replicas serve with them over connections that are
// made anew every time. No eviction ever gets another answer than the desk's.
func TestCertificatesAreReplacedInTheMiddle(t *testing.T) {
	w := newWorld(t)
	w.Cleanup(func() { forget(w) })
	lifetimes := webhook.Lifetimes{Authority: 24 * time.Second, Serving: 6 * time.Second, Settling: time.Second}
	forget(w)
	first, one := serve(w, lifetimes)
	second, two := serve(w, lifetimes)
	shared.gateway.Serve(one, two)
	for _, replica := range []*webhook.Webhook{first, second} {
		w.until("the replica is ready", func() error { return replica.Ready(request(t)) })
	}

	const replaced, authorities = 4, 1
	certificates, roots := map[string]bool{}, map[string]bool{}
	connections, evictions := shared.gateway.Accepted(), 0
	for len(certificates) <= replaced || len(roots) <= authorities {
		status := w.told(w.evict("dory-any-bcdfghjk"))
		if !strings.Contains(status.Message, triggered+" of everybody") {
			t.Fatalf("after %d evictions: %+v", evictions, status)
		}
		evictions++
		shared.gateway.Cut()
		secret := &corev1.Secret{}
		if err := shared.k8s.Get(t.Context(), types.NamespacedName{Namespace: operatorNamespace, Name: webhook.SecretName}, secret); err != nil {
			t.Fatal(err)
		}
		certificates[string(secret.Data[corev1.TLSCertKey])] = true
		roots[string(secret.Data["ca.crt"])] = true
		if err := errors.Join(first.Ready(request(t)), second.Ready(request(t))); err != nil {
			t.Fatalf("a replica is not ready any more: %v", err)
		}
	}
	t.Logf("%d certificates by %d authorities, %d evictions over %d connections", len(certificates), len(roots), evictions, shared.gateway.Accepted()-connections)
	if shared.gateway.Accepted()-connections < evictions/2 {
		t.Error("hardly any connection was a new one")
	}
}

func request(t *testing.T) *http.Request {
	t.Helper()
	return httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", http.NoBody)
}
