package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/dory-io/dory/internal/controller/drain"
)

// stub is a desk that always says the same.
type stub struct {
	asked  []drain.Request
	answer drain.Answer
	err    error
}

func (s *stub) Ask(_ context.Context, request drain.Request) (drain.Answer, error) {
	s.asked = append(s.asked, request)
	return s.answer, s.err
}

func filled() error { return nil }

const podName = "dory-cam-bcdfghjk"

// review is how the API server asks about an eviction.
func review(t *testing.T, dryRun bool, options *metav1.DeleteOptions) admission.Request {
	t.Helper()
	raw, err := json.Marshal(policyv1.Eviction{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "Eviction"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: podName}, DeleteOptions: options,
	})
	if err != nil {
		t.Fatal(err)
	}
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		UID: "review", Namespace: "ns", Name: podName, DryRun: &dryRun, Object: runtime.RawExtension{Raw: raw},
	}}
}

func TestWhatTheDeskIsAsked(t *testing.T) {
	pod := types.NamespacedName{Namespace: "ns", Name: podName}
	for name, test := range map[string]struct {
		dryRun  bool
		options *metav1.DeleteOptions
		want    drain.Request
	}{
		"any pod of the name": {want: drain.Request{Pod: pod}},
		"one pod alone": {
			options: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions("uid")},
			want:    drain.Request{Pod: pod, UID: "uid"},
		},
		"a version of any pod": {
			options: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: new("7")}},
			want:    drain.Request{Pod: pod},
		},
		"a dry run, as the request says": {dryRun: true, want: drain.Request{Pod: pod, DryRun: true}},
		"a dry run, as the eviction says": {
			options: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}, want: drain.Request{Pod: pod, DryRun: true},
		},
		"at once": {options: metav1.NewDeleteOptions(0), want: drain.Request{Pod: pod, GracePeriodSeconds: new(int64(0))}},
	} {
		t.Run(name, func(t *testing.T) {
			desk := &stub{answer: drain.Answer{Allowed: true}}
			NewEvictions(desk, filled).Handle(t.Context(), review(t, test.dryRun, test.options))
			test.want.By = "eviction"
			if diff := cmp.Diff([]drain.Request{test.want}, desk.asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatTheAPIServerIsTold(t *testing.T) {
	causes := []metav1.StatusCause{{Type: "MigrationPhase", Message: "Starting", Field: "cam-drain-1"}}
	for name, test := range map[string]struct {
		desk     stub
		allowed  bool
		says     string
		causes   []metav1.StatusCause
		warnings []string
		reason   string
	}{
		"a pod that may go": {desk: stub{answer: drain.Answer{Allowed: true, Reason: drain.ReasonFinished, Message: "it ended"}}, allowed: true, reason: drain.ReasonFinished},
		"a pod that may go, at a price": {
			desk:    stub{answer: drain.Answer{Allowed: true, Reason: drain.ReasonRestartsFromCheckpoint, Message: "it goes on from 12:00"}},
			allowed: true, warnings: []string{"it goes on from 12:00"}, reason: drain.ReasonRestartsFromCheckpoint,
		},
		"a dry run": {
			desk:    stub{answer: drain.Answer{Allowed: true, Reason: drain.ReasonWouldMove, Message: "it would move"}},
			allowed: true, warnings: []string{"it would move"}, reason: drain.ReasonWouldMove,
		},
		"a pod that is moved": {
			desk: stub{answer: drain.Answer{Reason: drain.ReasonMoving, Message: "Eviction triggered evacuation of cam", Causes: causes}},
			says: "Eviction triggered evacuation of cam", causes: causes, reason: drain.ReasonMoving,
		},
		"nothing known": {
			desk: stub{err: errors.New("the cache is empty")}, says: "whether pod ns/" + podName + " may go cannot be said yet",
			causes: []metav1.StatusCause{{Type: CauseNotDecided, Message: "the cache is empty"}}, reason: "NotDecided",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := NewEvictions(&test.desk, filled).Handle(t.Context(), review(t, false, nil))
			if err := got.Complete(review(t, false, nil)); err != nil {
				t.Fatal(err)
			}
			if got.Allowed != test.allowed || got.UID != "review" || got.AuditAnnotations[AuditReason] != test.reason {
				t.Errorf("%+v", got)
			}
			if diff := cmp.Diff(test.warnings, got.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if !test.allowed {
				checkDenial(t, got.Result, test.says, test.causes)
			}
		})
	}
}

// checkDenial holds an answer against what kubectl drain, the descheduler and Cluster API understand.
func checkDenial(t *testing.T, got *metav1.Status, says string, causes []metav1.StatusCause) {
	t.Helper()
	if got.Code != http.StatusTooManyRequests || got.Reason != metav1.StatusReasonTooManyRequests || got.Status != metav1.StatusFailure {
		t.Errorf("%+v: kubectl drain asks again after 429 alone", got)
	}
	if !strings.Contains(got.Message, says) {
		t.Errorf("message %q, want it to say %q", got.Message, says)
	}
	if got.Details.RetryAfterSeconds != 0 {
		t.Error("with retryAfterSeconds client-go asks again by itself and shows nothing")
	}
	if diff := cmp.Diff(causes, got.Details.Causes); diff != "" {
		t.Errorf("causes (-want +got):\n%s", diff)
	}
}

func TestNobodyGoesBeforeTheCachesAreFilled(t *testing.T) {
	desk := &stub{answer: drain.Answer{Allowed: true}}
	got := NewEvictions(desk, func() error { return errors.New("pods are not listed yet") }).Handle(t.Context(), review(t, false, nil))
	if got.Allowed || len(desk.asked) != 0 {
		t.Errorf("%+v, asked %v", got, desk.asked)
	}
	checkDenial(t, got.Result, "cannot be said yet", []metav1.StatusCause{{Type: CauseNotDecided, Message: "pods are not listed yet"}})
}

func TestAReviewWithoutEviction(t *testing.T) {
	request := review(t, false, nil)
	request.Object.Raw = []byte("[]")
	got := NewEvictions(&stub{}, filled).Handle(t.Context(), request)
	if got.Allowed || got.Result.Code != http.StatusBadRequest || !strings.Contains(got.Result.Message, "holds no Eviction") {
		t.Errorf("%+v", got.Result)
	}
}
