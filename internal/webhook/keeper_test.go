package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

const serviceDNS = "dory-webhook.dory-system.svc"

var secretKey = types.NamespacedName{Namespace: "dory-system", Name: SecretName}

// watched is a keeper at work, and all that anybody may know of it: an API server or a replica may be late by a while.
type watched struct {
	*testing.T
	client   client.Client
	clock    *clocktesting.FakeClock
	keeper   *keeper
	replica  *certificates
	bundles  []fact[[]byte]
	servings []fact[*tls.Certificate]
}

type fact[T any] struct {
	since time.Time
	what  T
}

func configuration() *admissionregistrationv1.ValidatingWebhookConfiguration {
	return &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: ConfigurationName},
		Webhooks:   []admissionregistrationv1.ValidatingWebhook{{Name: "eviction.dory.io"}},
	}
}

func newWatched(t *testing.T, objects ...client.Object) *watched {
	t.Helper()
	w := &watched{T: t, client: fake.NewClientBuilder().WithObjects(objects...).Build(), clock: clocktesting.NewFakeClock(monday)}
	w.keeper = &keeper{client: w.client, secret: secretKey, issuer: newIssuer([]string{serviceDNS}, lifetimes), clock: w.clock}
	w.replica = &certificates{reader: w.client, secret: secretKey, clock: w.clock}
	return w
}

// pass is one look of the keeper, and one of everybody else.
func (w *watched) pass() ctrl.Result {
	w.Helper()
	result, err := w.keeper.Reconcile(w.Context(), ctrl.Request{})
	if err != nil {
		w.Fatal(err)
	}
	w.bundles = append(w.bundles, fact[[]byte]{since: w.clock.Now(), what: w.configuration().Webhooks[0].ClientConfig.CABundle})
	serving, err := w.replica.newest(w.Context())
	if err == nil {
		w.servings = append(w.servings, fact[*tls.Certificate]{since: w.clock.Now(), what: serving})
	}
	return result
}

func (w *watched) configuration() *admissionregistrationv1.ValidatingWebhookConfiguration {
	w.Helper()
	c := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := w.client.Get(w.Context(), types.NamespacedName{Name: ConfigurationName}, c); err != nil {
		w.Fatal(err)
	}
	return c
}

// lately are the facts that somebody may still hold for true who hears of everything within half a minute.
func lately[T any](facts []fact[T], now time.Time) []T {
	var all []T
	for i, f := range facts {
		if i+1 == len(facts) || now.Sub(facts[i+1].since) < 30*time.Second {
			all = append(all, f.what)
		}
	}
	return all
}

func (w *watched) everybodyIsTrusted(what string) {
	w.Helper()
	for _, bundle := range lately(w.bundles, w.clock.Now()) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundle)
		for _, serving := range lately(w.servings, w.clock.Now()) {
			_, err := serving.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: serviceDNS, CurrentTime: w.clock.Now()})
			if err != nil {
				w.Fatalf("%s, %s: %v", w.clock.Now(), what, err)
			}
		}
	}
}

// TestNoRotationBreaksAConnection goes through more than a year and some mishaps.
func TestNoRotationBreaksAConnection(t *testing.T) {
	w := newWatched(t, configuration())
	w.pass()
	w.clock.Step(time.Minute)
	mishaps := map[int]func(){
		150: func() { w.must(w.client.Delete(w.Context(), w.secret())) },
		250: func() {
			secret := w.secret()
			secret.Data[keyServing] = []byte("garbage")
			w.must(w.client.Update(w.Context(), secret))
		},
		350: func() {
			secret := w.secret()
			delete(secret.Data, keyCAKey)
			w.must(w.client.Update(w.Context(), secret))
		},
	}
	served := map[*tls.Certificate]bool{}
	for n := range 400 {
		if mishap := mishaps[n]; mishap != nil {
			mishap()
		}
		for looks, soon := 0, true; soon; looks++ {
			if soon = w.pass().RequeueAfter < time.Hour; looks > 10 {
				t.Fatalf("day %d: it never rests", n)
			}
			w.everybodyIsTrusted("right after a pass")
			w.clock.Step(20 * time.Second)
			w.everybodyIsTrusted("20 s later")
		}
		for _, s := range w.servings {
			served[s.what] = true
		}
		w.bundles, w.servings = w.bundles[len(w.bundles)-1:], w.servings[len(w.servings)-1:]
		w.clock.Step(day)
	}
	if len(served) < 20 {
		t.Errorf("%d certificates in 400 days", len(served))
	}
}

func (w *watched) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *watched) secret() *corev1.Secret {
	w.Helper()
	secret := &corev1.Secret{}
	w.must(w.client.Get(w.Context(), secretKey, secret))
	return secret
}

func TestTheKeeperRests(t *testing.T) {
	w := newWatched(t, configuration())
	w.pass()
	secret, config := w.secret().ResourceVersion, w.configuration().ResourceVersion
	for range 3 {
		w.clock.Step(time.Hour)
		if result := w.pass(); result.RequeueAfter != 12*time.Hour {
			t.Errorf("%+v", result)
		}
	}
	if w.secret().ResourceVersion != secret || w.configuration().ResourceVersion != config {
		t.Error("it writes though nothing changes")
	}
}

func TestTheBundleIsPutBack(t *testing.T) {
	w := newWatched(t, configuration())
	w.pass()
	config := w.configuration()
	config.Webhooks[0].ClientConfig.CABundle = nil
	w.must(w.client.Update(t.Context(), config))
	if err := w.replica.ready(t.Context()); err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Errorf("ready though nobody trusts it: %v", err)
	}
	w.pass()
	w.must(w.replica.ready(t.Context()))
}

func TestAReplicaIsReadyOnceItCanServe(t *testing.T) {
	w := newWatched(t)
	if err := w.replica.ready(t.Context()); err == nil || !strings.Contains(err.Error(), "the leader has not made it yet") {
		t.Errorf("%v", err)
	}
	if _, err := w.replica.newest(t.Context()); err == nil {
		t.Error("it serves without a certificate")
	}
	if _, err := w.keeper.Reconcile(t.Context(), ctrl.Request{}); err != nil {
		t.Fatal(err)
	}
	w.must(w.replica.ready(t.Context())) // There is no configuration: somebody does without the webhook.
	w.must(w.client.Create(t.Context(), configuration()))
	if err := w.replica.ready(t.Context()); err == nil {
		t.Error("ready before the API server trusts it")
	}
	w.pass()
	w.must(w.replica.ready(t.Context()))
}

func TestAReplicaKeepsItsLastGoodCertificate(t *testing.T) {
	w := newWatched(t, configuration())
	w.pass()
	before, err := w.replica.newest(t.Context())
	w.must(err)
	w.must(w.client.Delete(t.Context(), w.secret()))
	if after, err := w.replica.newest(t.Context()); err != nil || after != before {
		t.Errorf("%v", err)
	}
}

// TestTwoKeepersDoNotOverwriteEachOther: a leader that was overtaken writes nothing over its successor's work.
func TestTwoKeepersDoNotOverwriteEachOther(t *testing.T) {
	w := newWatched(t, configuration())
	stale := &keeper{client: frozen{Client: w.client}, secret: secretKey, issuer: w.keeper.issuer, clock: w.clock}
	w.pass()
	before := w.secret()
	result, err := stale.Reconcile(t.Context(), ctrl.Request{})
	if err != nil || result.RequeueAfter != conflictInterval {
		t.Errorf("%+v, %v", result, err)
	}
	if after := w.secret(); after.ResourceVersion != before.ResourceVersion {
		t.Error("the Secret was written over")
	}
}

// frozen is a cache that has seen nothing yet.
type frozen struct{ client.Client }

func (frozen) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return apierrors.NewNotFound(schema.GroupResource{}, "any")
}
