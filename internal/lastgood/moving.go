package lastgood

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// A version that runs and has not proven itself yet may have to change its place by a restart, while the one that worked before it
// is kept for the case that it does not. Both are needed then, and they are kept apart: the first comes back only where its own
// move puts it.

// movingSuffix ends the name of such a record, so that it is never in the way of one of a version that worked.
const movingSuffix = "-moving"

// keepMoving makes durable what a pod was made from that ends for its own move. There is one of these for a Processor at most.
func (s Store) keepMoving(ctx context.Context, p *doryv1alpha1.Processor, origin *pod.Origin, epoch int64, now time.Time) error {
	if there, err := s.Version(ctx, p, origin.Revision); err != nil || there != nil {
		return err
	}
	if err := s.forgetMoving(ctx, p.Namespace, p.Name, origin.Revision); err != nil {
		return err
	}
	object, err := objectOf(p, p.Name+"-"+origin.Revision+movingSuffix, origin, epoch, now)
	if err != nil {
		return err
	}
	metav1.SetMetaDataAnnotation(&object.ObjectMeta, doryv1alpha1.AnnotationMoving, "true")
	err = s.Client.Create(ctx, object)
	switch {
	case apierrors.IsAlreadyExists(err):
		return s.replace(ctx, p, object)
	case err != nil:
		return fmt.Errorf("keeping what the pod of Processor %s/%s was made from, which moves: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// Version is what was kept of a revision, past the cache, be it that it worked or that it moves; nil where nothing was.
func (s Store) Version(ctx context.Context, p *doryv1alpha1.Processor, revision string) (*pod.Origin, error) {
	all, err := s.all(ctx, p, s.Reader)
	if err != nil {
		return nil, err
	}
	for _, record := range all {
		if record.Origin.Revision == revision {
			return record.Origin, nil
		}
	}
	return nil, nil //nolint:nilnil // absence is an answer here, and the caller checks for it
}

// forgetMoving removes the records of versions that moved, but for the one of the revision.
func (s Store) forgetMoving(ctx context.Context, namespace, processor, except string) error {
	objects, err := list(ctx, s.Client, namespace, processor)
	if err != nil {
		return err
	}
	for i := range objects {
		object := &objects[i]
		if a := object.Annotations; a[doryv1alpha1.AnnotationMoving] == "" || a[doryv1alpha1.AnnotationRevision] == except {
			continue
		}
		if err := s.remove(ctx, object); err != nil {
			return err
		}
	}
	return nil
}
