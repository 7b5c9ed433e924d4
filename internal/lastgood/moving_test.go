package lastgood

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// A version that moves while it is on trial is kept beside the one that worked before it, and takes no place of it.
func TestKeepBesideWhatWorked(t *testing.T) {
	c := fake.NewClientBuilder().Build()
	tokens := pod.NewTokens([]byte("the operator's"))
	s := Store{Client: c, Reader: c, Tokens: tokens}
	p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "cam", UID: "processor-uid"}}
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	origin := func(image string) *pod.Origin {
		of := p.DeepCopy()
		of.Spec.Image = image
		return pod.NewOrigin(of, "", tokens)
	}
	worked, tried, next := origin("counter:1"), origin("counter:2"), origin("counter:3")
	keep := func(o *pod.Origin, epoch int64, trial string) *Record {
		t.Helper()
		r, err := s.Keep(t.Context(), p, o, epoch, trial, now)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	version := func(of *pod.Origin) bool {
		t.Helper()
		found, err := s.Version(t.Context(), p, of.Revision)
		if err != nil {
			t.Fatal(err)
		}
		return found != nil && found.Content == of.Content
	}
	kept := func() int {
		t.Helper()
		var list appsv1.ControllerRevisionList
		if err := c.List(t.Context(), &list, client.InNamespace(p.Namespace)); err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}

	keep(worked, 7, tried.Revision)
	for range 2 {
		if r := keep(tried, 8, ""); r == nil || r.Origin.Revision != worked.Revision || r.Trial != tried.Revision {
			t.Fatalf("what worked is %+v", r)
		}
	}
	if !version(worked) || !version(tried) || kept() != 2 {
		t.Errorf("known: what worked %t, what moves %t, of %d", version(worked), version(tried), kept())
	}
	keep(next, 9, "")
	if !version(worked) || version(tried) || !version(next) || kept() != 2 {
		t.Errorf("known after another: %t, %t, %t, of %d", version(worked), version(tried), version(next), kept())
	}
	record, err := s.Cached(t.Context(), p)
	if err != nil || record == nil || record.Origin.Revision != worked.Revision {
		t.Fatalf("what worked is %+v: %v", record, err)
	}
	if err := s.Forget(t.Context(), record); err != nil || kept() != 0 {
		t.Errorf("%d are left: %v", kept(), err)
	}
}
