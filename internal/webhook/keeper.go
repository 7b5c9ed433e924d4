package webhook

import (
	"bytes"
	"context"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// SecretName is the Secret in the operator's namespace with the webhook's certificate and its authority.
	SecretName = "dory-webhook-cert" //nolint:gosec // the name of a Secret is none
	// ServiceName is the Service in the operator's namespace that the API server asks.
	ServiceName = "dory-webhook"
	// ConfigurationName is the ValidatingWebhookConfiguration.
	ConfigurationName = "dory-eviction"
	// AnnotationTrustedSince is since when the API server trusts what it does.
	AnnotationTrustedSince = "dory.io/ca-bundle-since"

	conflictInterval = time.Second
)

// keeper makes the certificate, has the API server trust it, and replaces it in time. The leader has one.
type keeper struct {
	client client.Client // reads from a cache of the two objects
	secret types.NamespacedName
	issuer *issuer
	clock  clock.PassiveClock
}

// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingwebhookconfigurations,resourceNames=dory-eviction,verbs=get;list;watch;patch

// Reconcile takes one step, and has the API server trust all that is about to be used.
func (k *keeper) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	result, err := k.reconcile(ctx)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return ctrl.Result{RequeueAfter: conflictInterval}, nil // Another has been here, or the cache is late.
	}
	return result, err
}

func (k *keeper) reconcile(ctx context.Context) (ctrl.Result, error) {
	secret, configuration, err := k.read(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	now := k.clock.Now()
	what := k.issuer.next(observed(secret, configuration), now)
	if what != stepNone {
		log.FromContext(ctx).Info("the webhook's certificate", "step", what, "secret", k.secret)
		if secret.Data, err = k.issuer.take(what, secret.Data, now); err != nil {
			return ctrl.Result{}, err
		}
		if err := k.write(ctx, secret); err != nil {
			return ctrl.Result{}, err
		}
	}
	if err := k.trust(ctx, configuration, secret.Data, now); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: k.issuer.lifetimes.checkAfter(secret.Data)}, nil
}

func (k *keeper) read(ctx context.Context) (*corev1.Secret, *admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: k.secret.Namespace, Name: k.secret.Name}}
	if err := client.IgnoreNotFound(k.client.Get(ctx, k.secret, secret)); err != nil {
		return nil, nil, fmt.Errorf("reading Secret %s: %w", k.secret, err)
	}
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	err := k.client.Get(ctx, types.NamespacedName{Name: ConfigurationName}, configuration)
	if client.IgnoreNotFound(err) != nil {
		return nil, nil, fmt.Errorf("reading ValidatingWebhookConfiguration %s: %w", ConfigurationName, err)
	}
	return secret.DeepCopy(), configuration.DeepCopy(), nil
}

func observed(secret *corev1.Secret, configuration *admissionregistrationv1.ValidatingWebhookConfiguration) seen {
	s := seen{secret: secret.Data}
	if len(configuration.Webhooks) > 0 {
		s.bundle = configuration.Webhooks[0].ClientConfig.CABundle
	}
	since, err := time.Parse(time.RFC3339, configuration.Annotations[AnnotationTrustedSince])
	if err == nil {
		s.bundleSince = since
	}
	return s
}

func (k *keeper) write(ctx context.Context, secret *corev1.Secret) error {
	var err error
	if secret.ResourceVersion == "" {
		err = k.client.Create(ctx, secret)
	} else {
		err = k.client.Update(ctx, secret)
	}
	if err != nil {
		return fmt.Errorf("writing Secret %s: %w", k.secret, err)
	}
	return nil
}

// trust writes the bundle where it is another, together with the time. Without a configuration there is nothing to do.
func (k *keeper) trust(ctx context.Context, configuration *admissionregistrationv1.ValidatingWebhookConfiguration, secret map[string][]byte, now time.Time) error {
	before := configuration.DeepCopy()
	changed := false
	for i := range configuration.Webhooks {
		at := &configuration.Webhooks[i].ClientConfig
		bundle := bundleOf(secret, at.CABundle, now)
		changed = changed || !bytes.Equal(bundle, at.CABundle)
		at.CABundle = bundle
	}
	if _, err := time.Parse(time.RFC3339, configuration.Annotations[AnnotationTrustedSince]); err == nil && !changed {
		return nil
	}
	if len(configuration.Webhooks) == 0 {
		return nil
	}
	metav1.SetMetaDataAnnotation(&configuration.ObjectMeta, AnnotationTrustedSince, now.UTC().Format(time.RFC3339))
	if err := k.client.Patch(ctx, configuration, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("writing the caBundle of ValidatingWebhookConfiguration %s: %w", ConfigurationName, err)
	}
	return nil
}
