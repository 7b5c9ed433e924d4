// Package databasesecret has the operator take up the database's URL when its Secret comes or changes after the operator has
// started: it asks for a rollout of its own Deployment, as `kubectl rollout restart` does, so that one replica after the other
// starts with the new URL and evictions are answered meanwhile.
package databasesecret

import (
	"bytes"
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/dory-io/dory/internal/lookup"
)

const (
	// SecretName is the Secret in the operator's namespace that config/manager reads the URL from.
	SecretName = "dory-database"
	// SecretKey is the key of the URL in it.
	SecretKey = "url"
	// DeploymentName is the operator's own.
	DeploymentName = "dory-operator"
	// Annotation of the Deployment's pods: the version of the Secret that they were started for.
	Annotation = "dory.io/database-secret"
	// ConfiguredAnnotation of the Deployment says that its operators work with a database.
	ConfiguredAnnotation = "dory.io/database"
)

// Follower compares the Secret with what this process was started with. The leader has one.
type Follower struct {
	// Secrets reads the Secret, and may be a cache.
	Secrets client.Reader
	// Client and Reader are for the Deployment, which no cache holds.
	Client client.Client
	Reader client.Reader
	// Namespace is the operator's.
	Namespace string
	// URL is the one that this process was started with; empty if none.
	URL string
}

// Reconcile asks for the rollout, once for each version of the Secret. And it records that there is a database, for Required.
func (f *Follower) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	secret, err := lookup.Get[corev1.Secret](ctx, f.Secrets, types.NamespacedName{Namespace: f.Namespace, Name: SecretName})
	if err != nil || secret == nil {
		return ctrl.Result{}, err
	}
	deployment, err := lookup.Get[appsv1.Deployment](ctx, f.Reader, types.NamespacedName{Namespace: f.Namespace, Name: DeploymentName})
	switch {
	case err != nil || deployment == nil:
		return ctrl.Result{}, err
	case !f.differs(secret):
		return ctrl.Result{}, f.record(ctx, deployment)
	case started(deployment, secret):
		return ctrl.Result{}, nil
	}
	restarted := deployment.DeepCopy()
	if restarted.Spec.Template.Annotations == nil {
		restarted.Spec.Template.Annotations = map[string]string{}
	}
	restarted.Spec.Template.Annotations[Annotation] = versionOf(secret)
	if err := f.Client.Patch(ctx, restarted, client.MergeFromWithOptions(deployment, client.MergeFromWithOptimisticLock{})); err != nil {
		return ctrl.Result{}, fmt.Errorf("starting Deployment %s/%s anew, because Secret %s has another URL than it was started with: %w", f.Namespace, DeploymentName, SecretName, err)
	}
	log.FromContext(ctx).Info("the database's URL is new: the operators start anew with it, one after the other", "secret", SecretName)
	return ctrl.Result{}, nil
}

// record says on the Deployment that this process works with a database.
func (f *Follower) record(ctx context.Context, deployment *appsv1.Deployment) error {
	if _, done := deployment.Annotations[ConfiguredAnnotation]; done || f.URL == "" {
		return nil
	}
	recorded := deployment.DeepCopy()
	metav1.SetMetaDataAnnotation(&recorded.ObjectMeta, ConfiguredAnnotation, "configured")
	if err := f.Client.Patch(ctx, recorded, client.MergeFrom(deployment)); err != nil {
		return fmt.Errorf("recording on Deployment %s/%s that there is a database: %w", f.Namespace, DeploymentName, err)
	}
	return nil
}

// Required is an error for a process that was started without a URL where operators have worked with a database: its rows would not
// be mirrored, and epochs and states that only it knows would be missed. The process ends with it, and is started again until
// the Secret is there or a person says that there is no database any more.
func Required(ctx context.Context, reader client.Reader, namespace string) error {
	deployment, err := lookup.Get[appsv1.Deployment](ctx, reader, types.NamespacedName{Namespace: namespace, Name: DeploymentName})
	if err != nil || deployment == nil || deployment.Annotations[ConfiguredAnnotation] == "" {
		return err
	}
	return fmt.Errorf("there is no URL of the database in Secret %[1]s/%[2]s, and this installation has worked with one: create the Secret again or, to go on "+
		"without a database, kubectl -n %[1]s annotate deployment %[3]s %[4]s-", namespace, SecretName, DeploymentName, ConfiguredAnnotation)
}

// differs says whether the Secret has a URL that this process was not started with. A Secret that is gone, or has none, is no
// reason to give the database up.
func (f *Follower) differs(secret *corev1.Secret) bool {
	if secret == nil {
		return false
	}
	url := bytes.TrimSpace(secret.Data[SecretKey])
	return len(url) > 0 && string(url) != f.URL
}

// started says whether the Deployment's pods were asked to start with that Secret already. A process that runs all the same is
// about to end, or has its URL from elsewhere.
func started(deployment *appsv1.Deployment, secret *corev1.Secret) bool {
	return deployment.Spec.Template.Annotations[Annotation] == versionOf(secret)
}

func versionOf(secret *corev1.Secret) string {
	return string(secret.UID) + "/" + secret.ResourceVersion
}
