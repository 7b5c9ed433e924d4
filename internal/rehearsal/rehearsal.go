// Package rehearsal finds out whether a pod could take the place of another one, before that one is ended for it.
package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/pod"
)

// Name is the unique part of the name of a pod that is only rehearsed. It is the same each time, so that a refusal which
// names the pod reads the same each time.
const Name = "rehearsal"

// Rehearsal asks the API server, and what else is known.
type Rehearsal struct {
	// Client reads from caches and creates on trial.
	Client client.Client
	// Reader reads past the caches.
	Reader client.Reader
}

// Refusal is a word against a pod that asking again at once does not change.
type Refusal struct {
	error

	// Reason is for a condition; empty where it is the pod that is refused.
	Reason string
}

// NewRefusal is a word against what the pod depends on.
func NewRefusal(reason, message string) error { return &Refusal{errors.New(message), reason} }

// Unwrap is the cause.
func (r *Refusal) Unwrap() error { return r.error }

func refuse(format string, args ...any) error { return &Refusal{error: fmt.Errorf(format, args...)} }

// AsRefusal tells a refusal from trouble that passes.
func AsRefusal(err error) (*Refusal, bool) { return errors.AsType[*Refusal](err) }

// Refused says whether an error is a Refusal.
func Refused(err error) bool {
	refusal, _ := AsRefusal(err)
	return refusal != nil
}

// Unknown says that it could not be told whether anything stands against a pod. That is no permission.
type Unknown struct {
	error

	// Reason is for a condition; empty where it is the pod that nothing is known of.
	Reason string
}

// NewUnknown says why what the pod depends on is not known.
func NewUnknown(reason string, err error) error { return &Unknown{err, reason} }

// Unwrap is the cause.
func (u *Unknown) Unwrap() error { return u.error }

// AsUnknown tells trouble that passes from a refusal.
func AsUnknown(err error) (*Unknown, bool) { return errors.AsType[*Unknown](err) }

// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create
// +kubebuilder:rbac:groups="",resources=nodes;persistentvolumeclaims;configmaps,verbs=get
// +kubebuilder:rbac:groups="",resources=resourcequotas,verbs=list

// Replace says what stands against ending the pod old for next: a Refusal, or an Unknown. Nil: nothing that can be known.
func (r Rehearsal) Replace(ctx context.Context, next, old *corev1.Pod) error {
	err := r.replace(ctx, next, old)
	if err == nil || Refused(err) {
		return err
	}
	return &Unknown{error: err}
}

func (r Rehearsal) replace(ctx context.Context, next, old *corev1.Pod) error {
	if err := r.admit(ctx, next, old); err != nil {
		return err
	}
	if !pod.Ready(old) {
		return nil // Little can be lost, and what is wrong with the old one may be just what the next one mends.
	}
	for _, check := range []func(context.Context, *corev1.Pod, *corev1.Pod) error{r.node, r.volumes, r.images} {
		if err := check(ctx, next, old); err != nil {
			return err
		}
	}
	return nil
}

// Beside says what stands against making next while everything else stays. A full quota does not: nothing is ended for
// next, and its own creation will tell.
func (r Rehearsal) Beside(ctx context.Context, next *corev1.Pod) error {
	err := judge(r.trial(ctx, next))
	if Refused(err) && OverQuota(err) {
		return nil
	}
	return err
}

func (r Rehearsal) trial(ctx context.Context, next *corev1.Pod) error {
	return r.Client.Create(ctx, next.DeepCopy(), client.DryRunAll)
}

// admit lets all of admission judge. The old pod exists meanwhile, so that a quota may be full only because of it.
func (r Rehearsal) admit(ctx context.Context, next, old *corev1.Pod) error {
	err := judge(r.trial(ctx, next))
	if !Refused(err) || !OverQuota(err) {
		return err
	}
	room, roomErr := r.makesRoom(ctx, next, old)
	switch {
	case roomErr != nil:
		return roomErr
	case room:
		return nil // Quotas are asked last: all others have agreed.
	}
	return fmt.Errorf("%w; the end of pod %s would not make room for it", err, old.Name)
}

// judge tells the API server's refusals from its troubles. A webhook that cannot be reached is a trouble: it may be back.
func judge(err error) error {
	if err == nil || !Final(err) {
		return err
	}
	return &Refusal{error: err}
}

// Final says whether the API server's answer is a decision, and no trouble that passes.
func Final(err error) bool {
	var status apierrors.APIStatus // It is no error by its type, which errors.AsType asks for.
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	switch code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	case http.StatusForbidden:
		if unpermitted(err) {
			return false
		}
	}
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError
}

// unpermitted says that it is the operator who may not create pods, whatever they are like. The API server says it in words
// alone.
func unpermitted(err error) bool { return strings.Contains(err.Error(), "cannot create resource") }

// OverQuota knows the one refusal in which the pod that works stands in the way of the next. The API server says it in words
// alone.
func OverQuota(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota: ")
}
