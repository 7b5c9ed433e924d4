package lastgood_test

import (
	"context"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lastgood"
	"github.com/dory-io/dory/internal/pod"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// place is a cluster with a Processor and two leaders, of which the first may be overtaken just before its next write.
type place struct {
	t         *testing.T
	processor *doryv1alpha1.Processor
	api       client.WithWatch
	overtaken func()
}

func newPlace(t *testing.T) *place {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return &place{
		t: t, api: fake.NewClientBuilder().WithScheme(scheme).Build(),
		processor: &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "cam", UID: "uid"}, Spec: doryv1alpha1.ProcessorSpec{Image: "counter:1"}},
	}
}

func (p *place) interrupt() {
	if happens := p.overtaken; happens != nil {
		p.overtaken = nil
		happens()
	}
}

func tokens() pod.Tokens { return pod.NewTokens([]byte("secret")) }

func (p *place) first() lastgood.Store {
	return lastgood.Store{Reader: p.api, Tokens: tokens(), Client: interceptor.NewClient(p.api, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			p.interrupt()
			return c.Create(ctx, obj, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			p.interrupt()
			return c.Delete(ctx, obj, opts...)
		},
	})}
}

func (p *place) second() lastgood.Store {
	return lastgood.Store{Client: p.api, Reader: p.api, Tokens: tokens()}
}

func (p *place) keep(s lastgood.Store) (*lastgood.Record, error) {
	return s.Keep(p.t.Context(), p.processor, pod.NewOrigin(p.processor, "", tokens()), 7, "next", noon)
}

func (p *place) kept(s lastgood.Store) *lastgood.Record {
	p.t.Helper()
	record, err := p.keep(s)
	if err != nil || record == nil {
		p.t.Fatalf("%v, %v", record, err)
	}
	return record
}

func (p *place) live() *lastgood.Record {
	p.t.Helper()
	record, err := p.second().Live(p.t.Context(), p.processor)
	if err != nil {
		p.t.Fatal(err)
	}
	return record
}

func TestWhoWasOvertakenDeletesNoRecord(t *testing.T) {
	t.Run("that was written while it looked", func(t *testing.T) {
		p := newPlace(t)
		p.overtaken = func() { p.kept(p.second()) }
		if _, err := p.keep(p.first()); !apierrors.IsConflict(err) {
			t.Errorf("%v, want a conflict", err)
		}
		if p.live() == nil {
			t.Error("the record of the other is gone")
		}
	})
	t.Run("that came to mean something since", func(t *testing.T) {
		p := newPlace(t)
		stale := p.kept(p.second())
		if err := p.second().Revert(t.Context(), p.live(), "next", "it crashed"); err != nil {
			t.Fatal(err)
		}
		if err := p.first().Forget(t.Context(), stale); !apierrors.IsConflict(err) {
			t.Errorf("%v, want a conflict", err)
		}
		if record := p.live(); record == nil || record.Reverted != "next" {
			t.Errorf("the record is %+v", record)
		}
	})
	t.Run("that took the place of what it was to replace", func(t *testing.T) {
		p := newPlace(t)
		alien := p.alien()
		p.overtaken = func() { // Before its Create, which fails all the same.
			p.overtaken = func() { // Before its Delete.
				if err := p.api.Delete(t.Context(), alien); err != nil {
					t.Fatal(err)
				}
				p.kept(p.second())
			}
		}
		if _, err := p.keep(p.first()); !apierrors.IsConflict(err) {
			t.Errorf("%v, want a conflict", err)
		}
		if p.live() == nil {
			t.Error("the record of the other is gone")
		}
	})
}

// alien is not the operator's word, and is in the way.
func (p *place) alien() *appsv1.ControllerRevision {
	p.t.Helper()
	object := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "cam-" + pod.Revision(p.processor, ""), UID: "alien"},
		Data:       runtime.RawExtension{Raw: []byte(`{}`)},
	}
	if err := p.api.Create(p.t.Context(), object); err != nil {
		p.t.Fatal(err)
	}
	object.Annotations = map[string]string{"changed": "once"} // The fake API server goes by the version alone, and the next object starts at the first.
	if err := p.api.Update(p.t.Context(), object); err != nil {
		p.t.Fatal(err)
	}
	return object
}

func TestKeepReplacesWhatBearsNoSeal(t *testing.T) {
	p := newPlace(t)
	p.alien()
	if _, err := p.keep(p.first()); !apierrors.IsConflict(err) {
		t.Errorf("%v, want a conflict, and another try", err)
	}
	record := p.kept(p.first())
	if err := p.first().Forget(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if record := p.live(); record != nil {
		t.Errorf("%+v is still there", record)
	}
}
