package lifecycle

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
)

// ServiceAccount is the account that processors run as unless their spec says otherwise, and the name of the
// ClusterRole that lets them keep their state in ConfigMaps of their namespace.
const ServiceAccount = "dory-processor"

// prepareNamespace makes the default account and its role binding, where they are missing.
func (r *Reconciler) prepareNamespace(ctx context.Context, p *doryv1alpha1.Processor) error {
	if p.Spec.ServiceAccountName != ServiceAccount {
		return nil
	}
	meta := metav1.ObjectMeta{Namespace: p.Namespace, Name: ServiceAccount, Labels: managed()}
	account, err := lookup.Get[corev1.ServiceAccount](ctx, r.client, types.NamespacedName{Namespace: p.Namespace, Name: ServiceAccount})
	if err != nil {
		return err
	}
	if account == nil {
		if err := r.ensure(ctx, &corev1.ServiceAccount{ObjectMeta: meta}); err != nil {
			return err
		}
	}
	binding, err := lookup.Get[rbacv1.RoleBinding](ctx, r.client, types.NamespacedName{Namespace: p.Namespace, Name: ServiceAccount})
	if err != nil || binding != nil {
		return err
	}
	return r.ensure(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: ServiceAccount},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: p.Namespace, Name: ServiceAccount}},
	})
}

func managed() map[string]string {
	return map[string]string{doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy}
}

func (r *Reconciler) ensure(ctx context.Context, obj client.Object) error {
	if err := r.client.Create(ctx, obj); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating %T %s/%s: %w", obj, obj.GetNamespace(), obj.GetName(), err)
	}
	return nil
}

// ensureToken makes the Secret with the namespace's state token, or mends one that another key made. Only its metadata
// is read, and cached.
func (r *Reconciler) ensureToken(ctx context.Context, namespace string) error {
	found := &metav1.PartialObjectMetadata{}
	found.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := r.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: pod.TokenSecret}, found)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("looking for Secret %s/%s: %w", namespace, pod.TokenSecret, err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: pod.TokenSecret, Labels: managed(),
			Annotations: map[string]string{doryv1alpha1.AnnotationStateKey: r.tokens.KeyID()},
		},
		Data: map[string][]byte{pod.TokenKey: []byte(r.tokens.For(namespace))},
	}
	if err != nil {
		return r.ensure(ctx, secret)
	}
	if found.Annotations[doryv1alpha1.AnnotationStateKey] == r.tokens.KeyID() {
		return nil
	}
	if err := r.client.Update(ctx, secret); err != nil {
		return fmt.Errorf("writing the state token into Secret %s/%s: %w", namespace, pod.TokenSecret, err)
	}
	return nil
}

// pullSecretTTL bounds how long a pull secret that was created or deleted goes unnoticed.
const pullSecretTTL = time.Minute

// pullSecrets knows in which namespaces the image pull secret exists. It asks once a minute and namespace
// instead of caching every Secret of the cluster.
type pullSecrets struct {
	reader client.Reader
	clock  clock.PassiveClock
	name   string

	mu    sync.Mutex
	known map[string]pullSecretAnswer
}

type pullSecretAnswer struct {
	exists bool
	at     time.Time
}

func newPullSecrets(reader client.Reader, clk clock.PassiveClock, name string) *pullSecrets {
	return &pullSecrets{reader: reader, clock: clk, name: name, known: map[string]pullSecretAnswer{}}
}

// in answers the secret's name, or nothing where the namespace has none.
func (s *pullSecrets) in(ctx context.Context, namespace string) (string, error) {
	if s.name == "" {
		return "", nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer, ok := s.known[namespace]
	if !ok || s.clock.Since(answer.at) > pullSecretTTL {
		secret := &metav1.PartialObjectMetadata{}
		secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
		err := s.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: s.name}, secret)
		if client.IgnoreNotFound(err) != nil {
			return "", fmt.Errorf("looking for the image pull secret %s/%s (--image-pull-secret; the operator's role must let it get Secrets of that name): %w", namespace, s.name, err)
		}
		answer = pullSecretAnswer{exists: err == nil, at: s.clock.Now()}
		s.known[namespace] = answer
	}
	if !answer.exists {
		return "", nil
	}
	return s.name, nil
}

// PreparePod makes what a pod of the Processor needs in its namespace, and answers the name of the image pull secret, or
// nothing.
func (r *Reconciler) PreparePod(ctx context.Context, p *doryv1alpha1.Processor) (string, error) {
	if err := r.prepareNamespace(ctx, p); err != nil {
		return "", err
	}
	if err := r.ensureToken(ctx, p.Namespace); err != nil {
		return "", err
	}
	return r.pullSecrets.in(ctx, p.Namespace)
}
