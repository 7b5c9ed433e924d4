package databasesecret

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Add has the manager's leader follow the Secret. The manager's own cache has other Secrets, and may not see this one.
func Add(manager ctrl.Manager, namespace, url string) error {
	one, err := cache.New(manager.GetConfig(), cache.Options{
		HTTPClient: manager.GetHTTPClient(), Scheme: manager.GetScheme(), Mapper: manager.GetRESTMapper(),
		ByObject: map[client.Object]cache.ByObject{&corev1.Secret{}: {
			Namespaces: map[string]cache.Config{namespace: {FieldSelector: fields.OneTermEqualSelector("metadata.name", SecretName)}},
		}},
		DefaultTransform: cache.TransformStripManagedFields(),
	})
	if err != nil {
		return fmt.Errorf("making the cache of Secret %s: %w", SecretName, err)
	}
	if err := manager.Add(one); err != nil {
		return fmt.Errorf("adding the cache of Secret %s: %w", SecretName, err)
	}
	follower := &Follower{Secrets: one, Client: manager.GetClient(), Reader: manager.GetAPIReader(), Namespace: namespace, URL: url}
	c, err := controller.New("database-secret", manager, controller.Options{Reconciler: follower})
	if err != nil {
		return fmt.Errorf("adding the follower of Secret %s: %w", SecretName, err)
	}
	same := []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: namespace, Name: SecretName}}}
	changes := handler.TypedEnqueueRequestsFromMapFunc(func(context.Context, *corev1.Secret) []reconcile.Request { return same })
	if err := c.Watch(source.Kind(one, &corev1.Secret{}, changes)); err != nil {
		return fmt.Errorf("watching Secret %s: %w", SecretName, err)
	}
	return nil
}
