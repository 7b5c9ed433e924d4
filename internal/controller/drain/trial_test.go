package drain

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// One request for a spec, and again only where it failed, where it is old, or where the node is being left; never many at once.
func TestTrialsAreFew(t *testing.T) {
	made := 0
	var refusal error
	c := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
		Create: func(_ context.Context, _ client.WithWatch, object client.Object, options ...client.CreateOption) error {
			applied := (&client.CreateOptions{}).ApplyOptions(options)
			if _, isPod := object.(*corev1.Pod); !isPod || len(applied.DryRun) == 0 {
				t.Errorf("%T is made in earnest", object)
			}
			made++
			return refusal
		},
	})
	trials := newTrials(c, c)
	p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "cam", Generation: 1}, Spec: specOf(doryv1alpha1.LocationManaged)}
	at, revision, other := now, "r1", ""
	others := func(context.Context) (string, error) { return other, nil }
	try := func(believed time.Duration) time.Duration {
		_, again := trials.of(t.Context(), attempted{p, revision, others}, believed, at)
		return again
	}
	for _, test := range []struct {
		name     string
		later    time.Duration
		believed time.Duration
		change   func()
		again    time.Duration
		want     int
	}{
		{"new", 0, trialFresh, func() {}, trialRefresh, 1},
		{"once more", time.Minute, trialFresh, func() {}, trialRefresh, 1},
		{"nodes come and go", 20 * time.Minute, trialRefresh, func() {}, trialRefresh, 1},
		{"its node is left", 0, trialFreshest, func() {}, trialRefresh, 2},
		{"and still is", time.Second, trialFreshest, func() {}, trialRefresh, 2},
		{"another spec", 0, trialFresh, func() { p.Generation++ }, trialRefresh, 3},
		{"another version runs", time.Second, trialFresh, func() { revision = "r2" }, trialRefresh, 4},
		{"a quota", time.Second, trialFresh, func() {
			p.Generation++
			refusal = apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errors.New("exceeded quota: q"))
		}, trialDoubt, 5},
		{"again", time.Minute, trialFresh, func() {}, trialDoubt - time.Minute, 5},
		{"the same", time.Minute, trialFresh, func() {}, 2 * trialDoubt, 6},
		{"which is believed for longer", trialDoubt, trialFresh, func() {}, trialDoubt, 6},
		{"and for longer", trialDoubt, trialFresh, func() {}, 4 * trialDoubt, 7},
		{"but not while its node is left", trialDoubt, trialFreshest, func() {}, trialFreshest, 8},
		{"another answer", trialRefresh, trialFresh, func() {
			refusal = apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errors.New("no"))
		}, trialDoubt, 9},
		{"and room at last", trialDoubt, trialFresh, func() { refusal = nil }, trialRefresh, 10},
	} {
		at = at.Add(test.later)
		test.change()
		if again := try(test.believed); again != test.again || made != test.want {
			t.Errorf("%s: again after %s, %d requests; want %s, %d", test.name, again, made, test.again, test.want)
		}
	}
	refusal = apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errors.New("no"))
	var last time.Duration
	for i := range 100 {
		p.Name = fmt.Sprint("refused", i)
		at = at.Add(trialPace)
		try(trialFresh)
	}
	at, made = at.Add(trialDoubt), 0
	for i := range 100 {
		p.Name = fmt.Sprint("refused", i)
		last = try(trialFresh)
	}
	if made != 1 || last != 99*trialPace {
		t.Errorf("%d repeated at once, the last of 100 after %s", made, last)
	}
	at, refusal, made = at.Add(time.Hour), nil, 0
	for i := range 100 {
		p.Name = fmt.Sprint("cam", i)
		last = try(trialFresh)
	}
	if made != 1 || last != 99*trialPace {
		t.Errorf("%d requests at once, the last of 100 after %s", made, last)
	}
}

func TestVerdictOnATrial(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	for name, test := range map[string]struct {
		err  error
		want trial
	}{
		"taken":            {nil, trial{}},
		"a quota":          {apierrors.NewForbidden(pods, "x", errors.New("exceeded quota: q, requested: pods=1")), trial{quota: `pods "x" is forbidden: exceeded quota: q, requested: pods=1`}},
		"a policy":         {apierrors.NewForbidden(pods, "x", errors.New("no")), trial{refused: `pods "x" is forbidden: no`}},
		"no such pod":      {apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "x", nil), trial{refused: `Pod "x" is invalid`}},
		"a webhook away":   {apierrors.NewInternalError(errors.New("away")), trial{unknown: "Internal error occurred: away"}},
		"no trials at all": {apierrors.NewBadRequest("the webhook does not support dry run"), trial{unknown: "the webhook does not support dry run"}},
		"no one":           {errors.New("refused"), trial{unknown: "refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := verdictOn(test.err); *got != test.want {
				t.Errorf("%+v, want %+v", *got, test.want)
			}
		})
	}
}

// A quota that is full because another processor moves says nothing about the next move.
func TestTrialBesideAnotherMove(t *testing.T) {
	full := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errors.New("exceeded quota: q"))
	for name, test := range map[string]struct {
		before error
		known  bool
		other  string
		want   trial
	}{
		"nobody moves":                 {nil, true, "", trial{quota: full.Error()}},
		"there was room before":        {nil, true, "m3", trial{}},
		"there was none before either": {full, true, "m3", trial{quota: full.Error()}},
		"nothing was known before": {nil, false, "m3", trial{
			unknown: "there is no room for it as long as ProcessorMigration m3 is under way, which has a second pod, too: " + full.Error(),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			answer := test.before
			c := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
				Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return answer },
			})
			trials := newTrials(c, c)
			p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "cam", Generation: 1}, Spec: specOf(doryv1alpha1.LocationManaged)}
			moving := ""
			what := attempted{p, "r1", func(context.Context) (string, error) { return moving, nil }}
			at := now
			if test.known {
				trials.of(t.Context(), what, trialFresh, at)
				at = at.Add(trialRefresh)
			}
			answer, moving = full, test.other
			got, _ := trials.of(t.Context(), what, trialFresh, at)
			if !got.done || !got.same(&test.want) {
				t.Errorf("%+v, want %+v", *got, test.want)
			}
		})
	}
}

func TestSooner(t *testing.T) {
	for _, test := range []struct{ all, one, want time.Duration }{
		{0, 0, 0},
		{0, trialRefresh, 0},
		{0, trialDoubt, trialDoubt},
		{0, trialPace, trialDoubt},
		{4 * trialDoubt, 2 * trialDoubt, 2 * trialDoubt},
		{trialDoubt, 2 * trialDoubt, trialDoubt},
		{trialDoubt, conflictDelay, conflictDelay},
		{conflictDelay, trialDoubt, conflictDelay},
	} {
		if got := sooner(test.all, test.one); got != test.want {
			t.Errorf("%s and %s: %s, want %s", test.all, test.one, got, test.want)
		}
	}
}
