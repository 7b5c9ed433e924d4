package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// certificates are what this replica serves with: always the newest good one that the Secret has held. There is no file:
// a kubelet takes a minute to bring a changed Secret into a volume, and kubectl drain refuses pods with an emptyDir.
type certificates struct {
	reader client.Reader // from a cache
	secret types.NamespacedName
	clock  clock.PassiveClock

	mu      sync.Mutex
	version string // of the Secret that was looked at last
	current *tls.Certificate
}

// configure keeps handshakes cheap: a burst of evictions comes with as many of them. What is reviewed needs no protection
// from the computers of the future.
func (c *certificates) configure(config *tls.Config) {
	config.MinVersion, config.CurvePreferences = tls.VersionTLS13, []tls.CurveID{tls.X25519, tls.CurveP256}
	config.GetCertificate = c.get
}

// get is for tls.Config. It is called for new connections alone, so one that exists outlives its certificate.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.newest(hello.Context())
}

// newest prefers an older certificate to none: the Secret may be gone, or half of it may be, for a moment.
func (c *certificates) newest(ctx context.Context) (*tls.Certificate, error) {
	secret := &corev1.Secret{}
	err := c.reader.Get(ctx, c.secret, secret)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && secret.ResourceVersion != c.version {
		err = c.take(secret)
	}
	if c.current != nil {
		return c.current, nil
	}
	if err == nil || apierrors.IsNotFound(err) {
		err = errors.New("the leader has not made it yet")
	}
	return nil, fmt.Errorf("there is no certificate for the webhook in Secret %s: %w", c.secret, err)
}

func (c *certificates) take(secret *corev1.Secret) error {
	pair, err := tls.X509KeyPair(secret.Data[keyServing], secret.Data[keyServingKey])
	if err != nil {
		return err
	}
	c.version, c.current = secret.ResourceVersion, &pair
	return nil
}

// ready says whether the API server would trust this replica.
func (c *certificates) ready(ctx context.Context) error {
	pair, err := c.newest(ctx)
	if err != nil {
		return err
	}
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	err = c.reader.Get(ctx, types.NamespacedName{Name: ConfigurationName}, configuration)
	switch {
	case apierrors.IsNotFound(err):
		return nil // Somebody does without, and nobody asks.
	case err != nil:
		return fmt.Errorf("reading ValidatingWebhookConfiguration %s: %w", ConfigurationName, err)
	}
	for i := range configuration.Webhooks {
		if err := c.trustedBy(configuration.Webhooks[i].ClientConfig.CABundle, pair); err != nil {
			return fmt.Errorf("the caBundle of ValidatingWebhookConfiguration %s does not match Secret %s: %w", ConfigurationName, c.secret, err)
		}
	}
	return nil
}

func (c *certificates) trustedBy(bundle []byte, pair *tls.Certificate) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	for _, der := range pair.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(cert)
		}
	}
	_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: c.clock.Now()})
	return err
}
