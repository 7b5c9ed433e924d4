package dbsync

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// meddler is an API server with a webhook that changes what is written. It lets go after a number of writes.
type meddler struct {
	client.Client
	writes, stubborn int
}

func (m *meddler) meddle(p *doryv1alpha1.Processor) {
	if m.writes++; m.writes <= m.stubborn {
		p.Spec.Image = "meddled"
	}
}

func (m *meddler) Apply(_ context.Context, obj runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
	encoded, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	p := &doryv1alpha1.Processor{}
	if err := json.Unmarshal(encoded, p); err != nil {
		return err
	}
	m.meddle(p)
	if encoded, err = json.Marshal(p); err != nil {
		return err
	}
	return json.Unmarshal(encoded, obj)
}

func (m *meddler) Patch(_ context.Context, obj client.Object, _ client.Patch, _ ...client.PatchOption) error {
	m.meddle(asProcessor(obj))
	return nil
}

func TestApplyInsistsOnceThenSaysSo(t *testing.T) {
	for name, tt := range map[string]struct {
		stubborn, writes int
		want             error
	}{
		"nobody meddles":          {0, 1, nil},
		"something was left over": {1, 2, nil},
		"somebody insists":        {9, 2, errNotKept},
	} {
		t.Run(name, func(t *testing.T) {
			server := &meddler{stubborn: tt.stubborn}
			w := writer{client: server, clock: testingclock.NewFakePassiveClock(start())}
			want := rendered(t)
			applied, err := w.apply(t.Context(), processors{}, want)
			if !errors.Is(err, tt.want) || server.writes != tt.writes {
				t.Fatalf("apply = %v after %d writes, want %v after %d", err, server.writes, tt.want, tt.writes)
			}
			if err == nil && !sameProcessor(want, asProcessor(applied)) {
				t.Errorf("apply answers %+v, want what was applied", applied)
			}
		})
	}
}
