package dbsync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dory-io/dory/internal/store"
)

func TestRefused(t *testing.T) {
	resource := schema.GroupResource{Group: "dory.io", Resource: "processors"}
	tests := map[string]struct {
		err       error
		refused   bool
		errorType string
	}{
		"invalid":            {apierrors.NewInvalid(schema.GroupKind{}, "a", nil), true, "Invalid"},
		"forbidden":          {apierrors.NewForbidden(resource, "a", errors.New("no")), true, "Forbidden"},
		"no namespace":       {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "a"), true, "NotFound"},
		"too large":          {apierrors.NewRequestEntityTooLargeError("no"), true, "RequestEntityTooLarge"},
		"malformed":          {apierrors.NewBadRequest("no"), true, "BadRequest"},
		"rewritten":          {fmt.Errorf("applying: %w", errNotKept), true, "not_kept"},
		"conflict":           {apierrors.NewConflict(resource, "a", errors.New("no")), false, "Conflict"},
		"too many requests":  {apierrors.NewTooManyRequests("no", 1), false, "TooManyRequests"},
		"the server's fault": {apierrors.NewInternalError(errors.New("no")), false, "InternalError"},
		"timeout":            {apierrors.NewServerTimeout(resource, "patch", 1), false, "ServerTimeout"},
		"not logged in":      {apierrors.NewUnauthorized("no"), false, string(metav1.StatusReasonUnauthorized)},
		"network":            {&net.OpError{Op: "dial", Err: errors.New("no")}, false, "network"},
		"deadline":           {context.DeadlineExceeded, false, "network"},
		"database":           {fmt.Errorf("reading: %w", store.ErrUnavailable), false, "database_unavailable"},
		"anything else":      {errors.New("no"), false, "other"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := refused(tt.err); got != tt.refused {
				t.Errorf("refused = %v, want %v", got, tt.refused)
			}
			if got := errorType(tt.err); got != tt.errorType {
				t.Errorf("errorType = %q, want %q", got, tt.errorType)
			}
		})
	}
}
