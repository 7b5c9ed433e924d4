package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/dory-io/dory/internal/controller/drain"
)

const (
	// Path is where evictions are reviewed.
	Path = "/evictions"
	// AuditReason is the audit annotation that says why a pod may go, or not. The API server puts the webhook's name
	// before it.
	AuditReason = "reason"
	// CauseNotDecided is the type of the cause in an answer that the desk could not give.
	CauseNotDecided metav1.CauseType = "NotDecided"
)

// Desk decides whether a pod may go, and has it moved if not.
type Desk interface {
	Ask(ctx context.Context, request drain.Request) (drain.Answer, error)
}

// Evictions reviews evictions.
type Evictions struct {
	desk Desk
	// filled says what is still missing of what the desk reads. With an empty cache nothing would be a processor's pod.
	filled func() error
}

// NewEvictions makes the handler. It lets nobody go before filled answers nil.
func NewEvictions(desk Desk, filled func() error) *Evictions {
	return &Evictions{desk: desk, filled: filled}
}

// Handle answers one review. A no is always 429: it is all that makes kubectl drain ask again.
func (e *Evictions) Handle(ctx context.Context, review admission.Request) admission.Response {
	request, err := requestOf(review)
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if err := e.filled(); err != nil {
		return undecided(request, err)
	}
	answer, err := e.desk.Ask(ctx, request)
	if err != nil {
		log.FromContext(ctx).Error(err, "deciding an eviction", "pod", request.Pod, "user", review.UserInfo.Username)
		return undecided(request, err)
	}
	return responseOf(request, answer)
}

// requestOf reads what is asked for. A dry run is said in one of two places: by the request, or by the eviction's own
// options, as kubectl drain --dry-run=server does.
func requestOf(review admission.Request) (drain.Request, error) {
	var eviction policyv1.Eviction
	if err := json.Unmarshal(review.Object.Raw, &eviction); err != nil {
		return drain.Request{}, fmt.Errorf("the review of an eviction of pod %s/%s holds no Eviction: %w", review.Namespace, review.Name, err)
	}
	request := drain.Request{
		Pod:    types.NamespacedName{Namespace: review.Namespace, Name: review.Name},
		DryRun: review.DryRun != nil && *review.DryRun,
		By:     "eviction",
	}
	options := eviction.DeleteOptions
	if options == nil {
		return request, nil
	}
	request.DryRun = request.DryRun || slices.Contains(options.DryRun, metav1.DryRunAll)
	request.GracePeriodSeconds = options.GracePeriodSeconds
	if options.Preconditions != nil && options.Preconditions.UID != nil {
		request.UID = *options.Preconditions.UID
	}
	return request, nil
}

// responseOf puts an answer into the API server's words. There is no retryAfterSeconds in a no: client-go would try again
// inside of one call, hide the message, and overshoot kubectl's --timeout.
func responseOf(request drain.Request, answer drain.Answer) admission.Response {
	if !answer.Allowed {
		return denied(request, answer.Reason, answer.Message, answer.Causes)
	}
	response := admission.Allowed("")
	response.AuditAnnotations = map[string]string{AuditReason: answer.Reason}
	if slices.Contains(warned, answer.Reason) {
		response.Warnings = []string{answer.Message}
	}
	return response
}

// warned are the reasons of a yes that a person wants to read about.
var warned = []string{drain.ReasonRestartsFromCheckpoint, drain.ReasonWouldMove}

// undecided asks the asker to come again. Any other error would make kubectl drain give up.
func undecided(request drain.Request, err error) admission.Response {
	message := fmt.Sprintf("whether pod %s may go cannot be said yet; evict it again in a few seconds: %v", request.Pod, err)
	return denied(request, string(CauseNotDecided), message, []metav1.StatusCause{{Type: CauseNotDecided, Message: err.Error()}})
}

func denied(request drain.Request, reason, message string, causes []metav1.StatusCause) admission.Response {
	response := admission.Denied("")
	response.Result = &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests, Message: message,
		Details: &metav1.StatusDetails{Name: request.Pod.Name, Kind: "pods", Causes: causes},
	}
	response.AuditAnnotations = map[string]string{AuditReason: reason}
	return response
}
