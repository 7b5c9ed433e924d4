// Package lookup reads Kubernetes objects of which there may be none.
package lookup

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// object is a pointer to T that is a Kubernetes object.
type object[T any] interface {
	*T
	client.Object
}

// Get answers nil where there is no such object.
func Get[T any, P object[T]](ctx context.Context, reader client.Reader, key types.NamespacedName) (P, error) {
	obj := P(new(T))
	if err := reader.Get(ctx, key, obj); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil //nolint:nilnil // absence is an answer here, and every caller checks for it
		}
		return nil, fmt.Errorf("reading %T %s: %w", obj, key, err)
	}
	return obj, nil
}
