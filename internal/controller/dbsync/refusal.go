package dbsync

import (
	"context"
	"errors"
	"net"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/dory-io/dory/internal/store"
)

// errNotKept says that what was written is not what was asked for.
var errNotKept = errors.New("something changes the object each time it is written, a mutating webhook perhaps: exclude objects with the label dory.io/source=database from it")

// errUnreadable says that what was written still cannot be decoded, for something that is not in its spec.
var errUnreadable = errors.New("the object was written, and still cannot be decoded")

// refused says whether an error is the API server's last word on this object, which only a change of the row or
// of the cluster will alter. Anything else is worth another try at once.
func refused(err error) bool {
	return errors.Is(err, errNotKept) || errors.Is(err, errUnreadable) || apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err) ||
		apierrors.IsNotFound(err) || apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsMethodNotSupported(err)
}

// errorType is the label error_type of dory_reconciliation_errors_total.
func errorType(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, store.ErrUnavailable):
		return "database_unavailable"
	case errors.Is(err, errNotKept):
		return "not_kept"
	case errors.Is(err, errUnreadable):
		return "unreadable"
	case apierrors.ReasonForError(err) != "":
		return string(apierrors.ReasonForError(err))
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network):
		return "network"
	}
	return "other"
}
