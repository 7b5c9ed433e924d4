package webhook

import (
	"bytes"
	"maps"
	"testing"
	"time"
)

var (
	monday    = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	lifetimes = Lifetimes{Authority: 300 * 24 * time.Hour, Serving: 30 * 24 * time.Hour, Settling: time.Minute}
)

const day = 24 * time.Hour

func made(t *testing.T, i *issuer, secret map[string][]byte, at time.Time, steps ...step) map[string][]byte {
	t.Helper()
	for _, s := range steps {
		var err error
		if secret, err = i.take(s, secret, at); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	return secret
}

func without(secret map[string][]byte, keys ...string) map[string][]byte {
	secret = maps.Clone(secret)
	for _, key := range keys {
		delete(secret, key)
	}
	return secret
}

func TestNextStep(t *testing.T) {
	i := newIssuer([]string{"dory-webhook.dory-system.svc", "localhost"}, lifetimes)
	begun := made(t, i, nil, monday, stepBegin)
	bundle := bundleOf(begun, nil, monday)
	prepared := made(t, i, begun, monday.Add(201*day), stepRenew, stepPrepare)
	both := bundleOf(prepared, bundle, monday.Add(201*day))
	elsewhere := newIssuer([]string{"dory-webhook.elsewhere.svc"}, lifetimes)

	for name, test := range map[string]struct {
		issuer *issuer
		seen   seen
		at     time.Time
		want   step
	}{
		"nothing there, nobody trusts anything": {at: monday, want: stepBegin},
		"all there":                             {seen: seen{secret: begun, bundle: bundle}, at: monday, want: stepNone},
		"all there, not trusted yet":            {seen: seen{secret: begun}, at: monday, want: stepNone},
		"garbage":                               {seen: seen{secret: map[string][]byte{keyCA: []byte("x")}}, at: monday, want: stepBegin},
		"the Secret deleted, while replicas serve from memory": {seen: seen{bundle: bundle}, at: monday, want: stepPrepare},
		"the Secret deleted, and what was trusted has run out": {seen: seen{bundle: bundle}, at: monday.Add(301 * day), want: stepBegin},
		"the key taken away":             {seen: seen{secret: without(begun, keyServingKey), bundle: bundle}, at: monday, want: stepRenew},
		"the authority's key taken away": {seen: seen{secret: without(begun, keyCAKey), bundle: bundle}, at: monday.Add(21 * day), want: stepPrepare},
		"another namespace":              {issuer: elsewhere, seen: seen{secret: begun, bundle: bundle}, at: monday, want: stepRenew},
		"two thirds of a certificate":    {seen: seen{secret: begun, bundle: bundle}, at: monday.Add(21 * day), want: stepRenew},
		"not quite two thirds":           {seen: seen{secret: begun, bundle: bundle}, at: monday.Add(19 * day), want: stepNone},
		"two thirds of an authority": {
			seen: seen{secret: made(t, i, begun, monday.Add(200*day), stepRenew), bundle: bundle}, at: monday.Add(201 * day), want: stepPrepare,
		},
		"the next authority is not trusted yet": {seen: seen{secret: prepared, bundle: bundle}, at: monday.Add(202 * day), want: stepNone},
		"the next authority is trusted, but not by everybody": {
			seen: seen{secret: prepared, bundle: both, bundleSince: monday.Add(202*day - time.Minute + time.Second)}, at: monday.Add(202 * day), want: stepNone,
		},
		"the certificate runs out while the next authority waits": {
			seen: seen{secret: prepared, bundle: bundle}, at: monday.Add(222 * day), want: stepRenew,
		},
		"the next authority is trusted": {
			seen: seen{secret: prepared, bundle: both, bundleSince: monday.Add(202*day - time.Minute)}, at: monday.Add(202 * day), want: stepSwitch,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.issuer == nil {
				test.issuer = i
			}
			if got := test.issuer.next(test.seen, test.at); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestStepsMakeWhatServes(t *testing.T) {
	i := newIssuer([]string{"dory-webhook.dory-system.svc"}, lifetimes)
	begun := made(t, i, nil, monday, stepBegin)
	for name, test := range map[string]struct {
		steps  []step
		sameCA bool
		sameBy bool
	}{
		"renewed":  {steps: []step{stepRenew}, sameCA: true},
		"prepared": {steps: []step{stepPrepare}, sameCA: true, sameBy: true},
		"switched": {steps: []step{stepPrepare, stepSwitch}},
	} {
		t.Run(name, func(t *testing.T) {
			got := made(t, i, begun, monday.Add(day), test.steps...)
			if !i.serves(got, monday.Add(day)) {
				t.Error("it does not serve")
			}
			if same := bytes.Equal(got[keyCA], begun[keyCA]); same != test.sameCA {
				t.Errorf("the same authority: %t", same)
			}
			if same := bytes.Equal(got[keyServing], begun[keyServing]); same != test.sameBy {
				t.Errorf("the same certificate: %t", same)
			}
			if next := i.next(seen{secret: got, bundle: got[keyCA]}, monday.Add(day)); next != stepNone {
				t.Errorf("then %s", next)
			}
		})
	}
}

func TestTheBundle(t *testing.T) {
	i := newIssuer([]string{"dory-webhook.dory-system.svc"}, lifetimes)
	secret := made(t, i, nil, monday, stepBegin)
	var bundle []byte
	for n := range 6 {
		at := monday.Add(time.Duration(n) * day)
		bundle = bundleOf(secret, bundle, at)
		if again := bundleOf(secret, bundle, at); !bytes.Equal(again, bundle) {
			t.Fatal("it is never at rest")
		}
		if !trusted(bundle, secret[keyCA]) {
			t.Fatal("what serves is not trusted")
		}
		before := secret[keyCA]
		secret = made(t, i, secret, at, stepPrepare)
		if bundle = bundleOf(secret, bundle, at); !trusted(bundle, before) || !trusted(bundle, secret[keyNextCA]) {
			t.Fatal("one of the two that are about to serve is not trusted")
		}
		if secret = made(t, i, secret, at, stepSwitch); !trusted(bundleOf(secret, bundle, at), before) {
			t.Fatal("a replica that is late with the new one is not trusted")
		}
	}
	if n := len(authorities(bundle, monday)); n != mostAuthorities {
		t.Errorf("%d authorities", n)
	}
	if later := bundleOf(secret, bundle, monday.Add(400*day)); len(later) != 0 {
		t.Error("authorities that have run out are kept")
	}
}
