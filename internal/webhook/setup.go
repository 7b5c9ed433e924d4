package webhook

import (
	"context"
	"fmt"
	"net/http"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const fieldOwner = "dory-operator"

// Config is what the webhook works with.
type Config struct {
	// Desk decides.
	Desk Desk
	// Filled says what is still missing of what the desk reads.
	Filled func() error
	// Namespace is the operator's, with the Secret and the Service.
	Namespace string
	// Host and Port are where it serves. An empty Host is all addresses.
	Host string
	Port int
	// DNSNames are what it is called besides the Service's name.
	DNSNames []string
	// External leaves the Secret and the caBundle to somebody else, such as cert-manager.
	External bool
	// Lifetimes of the certificates; zero for the defaults.
	Lifetimes Lifetimes
	Clock     clock.Clock
}

// Webhook is the server of one replica.
type Webhook struct {
	certificates *certificates
	filled       func() error
}

// Add has the manager serve reviews on every replica, and its leader keep the certificate.
func Add(ctx context.Context, manager ctrl.Manager, config Config) (*Webhook, error) {
	if config.Lifetimes == (Lifetimes{}) {
		config.Lifetimes = defaultLifetimes
	}
	secret := types.NamespacedName{Namespace: config.Namespace, Name: SecretName}
	two, err := addCache(ctx, manager, secret)
	if err != nil {
		return nil, err
	}
	w := &Webhook{filled: config.Filled, certificates: &certificates{reader: two.GetCache(), secret: secret, clock: config.Clock}}
	server := newServer(config, w.certificates.configure)
	leaving := &departure{clock: config.Clock}
	server.Register(Path, leaving.closing(&admission.Webhook{Handler: NewEvictions(config.Desk, config.Filled)}))
	server.Register(DeparturePath, http.HandlerFunc(leaving.announce))
	if err := manager.Add(server); err != nil {
		return nil, fmt.Errorf("adding the webhook's server: %w", err)
	}
	if config.External {
		return w, nil
	}
	dnsNames := append([]string{fmt.Sprintf("%s.%s.svc", ServiceName, config.Namespace)}, config.DNSNames...)
	k := &keeper{client: two.GetClient(), secret: secret, issuer: newIssuer(dnsNames, config.Lifetimes), clock: config.Clock}
	return w, k.setup(manager, two.GetCache())
}

// Ready is for /readyz: whether a review would be answered, over a connection that the API server trusts.
func (w *Webhook) Ready(request *http.Request) error {
	if err := w.filled(); err != nil {
		return err
	}
	return w.certificates.ready(request.Context())
}

// addCache holds the one Secret and the one configuration. The manager's own cache has other Secrets, and may not see
// this one.
func addCache(ctx context.Context, manager ctrl.Manager, secret types.NamespacedName) (cluster.Cluster, error) {
	named := func(name string) fields.Selector { return fields.OneTermEqualSelector("metadata.name", name) }
	kinds := map[client.Object]cache.ByObject{
		&corev1.Secret{}: {Namespaces: map[string]cache.Config{secret.Namespace: {FieldSelector: named(secret.Name)}}},
		&admissionregistrationv1.ValidatingWebhookConfiguration{}: {Field: named(ConfigurationName)},
	}
	two, err := cluster.New(manager.GetConfig(), func(o *cluster.Options) {
		o.Scheme, o.HTTPClient = manager.GetScheme(), manager.GetHTTPClient()
		o.MapperProvider = func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return manager.GetRESTMapper(), nil }
		o.Cache = cache.Options{ByObject: kinds, DefaultTransform: cache.TransformStripManagedFields()}
		o.Client = client.Options{FieldOwner: fieldOwner}
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of the webhook's certificate: %w", err)
	}
	for kind := range kinds {
		if _, err := two.GetCache().GetInformer(ctx, kind, cache.BlockUntilSynced(false)); err != nil {
			return nil, fmt.Errorf("watching the webhook's certificate: %w", err)
		}
	}
	if err := manager.Add(two); err != nil {
		return nil, fmt.Errorf("adding the cache of the webhook's certificate: %w", err)
	}
	return two, nil
}

// setup has one request for whatever changes.
func (k *keeper) setup(manager ctrl.Manager, two cache.Cache) error {
	same := []reconcile.Request{{NamespacedName: k.secret}}
	c, err := controller.New("webhook-certificate", manager, controller.Options{Reconciler: k})
	if err != nil {
		return fmt.Errorf("adding the keeper of the webhook's certificate: %w", err)
	}
	for _, watched := range []source.Source{
		source.Kind(two, &corev1.Secret{}, handler.TypedEnqueueRequestsFromMapFunc(
			func(context.Context, *corev1.Secret) []reconcile.Request { return same })),
		source.Kind(two, &admissionregistrationv1.ValidatingWebhookConfiguration{}, handler.TypedEnqueueRequestsFromMapFunc(
			func(context.Context, *admissionregistrationv1.ValidatingWebhookConfiguration) []reconcile.Request {
				return same
			})),
		source.Func(k.begin),
	} {
		if err := c.Watch(watched); err != nil {
			return fmt.Errorf("watching the webhook's certificate: %w", err)
		}
	}
	return nil
}

// begin is the first look, where neither object exists.
func (k *keeper) begin(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	queue.Add(reconcile.Request{NamespacedName: k.secret})
	return nil
}
