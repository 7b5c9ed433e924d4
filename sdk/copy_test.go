package sdk

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
)

// The copies of a processor's pod that people make, each with the environment that it has then.
func TestACopyOfThePodDoesNotAct(t *testing.T) {
	const original = "ns/dory-p-1-a"
	for name, test := range map[string]struct {
		env  []string
		says string
	}{
		"kubectl debug --copy-to": {
			[]string{"DORY_INSTANCE", original, "POD_NAME", "debug", "DORY_EPOCH", "", "DORY_ROLE", "primary"}, "this pod is ns/debug, a copy of " + original,
		},
		"kubectl debug --copy-to --keep-labels": {[]string{"DORY_INSTANCE", original, "POD_NAME", "debug"}, "a copy of " + original},
		"an exported manifest under another name": {
			[]string{"DORY_INSTANCE", original, "POD_NAME", "dory-p-1-b"}, "this pod is ns/dory-p-1-b",
		},
		"a backup restored into another namespace": {
			[]string{"DORY_INSTANCE", original, "POD_NAMESPACE", "restored"}, "this pod is restored/dory-p-1-a",
		},
		"a copy of a move's target": {
			[]string{"DORY_INSTANCE", original, "POD_NAME", "debug", "DORY_EPOCH", "", "DORY_IS_MIGRATING", "true"}, "a copy of",
		},
		"a copy of a standby":                   {[]string{"DORY_INSTANCE", original, "POD_NAME", "debug", "DORY_EPOCH", "", "DORY_ROLE", "standby"}, "a copy of"},
		"a copy of a pod of an older operator":  {[]string{"DORY_EPOCH", "", "KUBERNETES_SERVICE_HOST", "192.0.2.1"}, "this pod was given no epoch"},
		"the labels of the pod are gone":        {[]string{"DORY_INSTANCE", original, "DORY_EPOCH", ""}, "this pod was given no epoch"},
		"an empty identity and no epoch either": {[]string{"DORY_INSTANCE", "", "DORY_EPOCH", "", "KUBERNETES_SERVICE_HOST", "192.0.2.1"}, "this pod was given no epoch"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backend := &memory{doc: document(`{"n":5}`, 6, 9)}
				p := newProcessor(t, backend, environ(test.env...))
				Var(p, "n", 0)
				iterations := 0
				r := start(t, p, func(context.Context) error { iterations++; return nil })
				get(p, "/ready").wantSays(t, http.StatusServiceUnavailable, test.says)
				get(p, "/health").wantSays(t, http.StatusOK, "")
				get(p, "/state").wantSays(t, http.StatusServiceUnavailable, test.says)
				get(p, "/handoff").wantSays(t, http.StatusOK, `"role":"restoring","epoch":0`)
				for path, body := range map[string]string{"/state": `{"data":{"n":7}}`, "/handoff/promote": `{"epoch":8,"state":"saved"}`, "/handoff/resume": `{"epoch":8}`, "/handoff/quiesce": `{"epoch":7}`} {
					if got := ask(p, http.MethodPost, path, body); got.code < 400 {
						t.Errorf("POST %s: %d %s", path, got.code, got.body)
					}
				}
				go get(p, "/prestop")
				if err := r.ended(); err != nil {
					t.Errorf("Run: %v", err)
				}
				if iterations > 0 || backend.position() != (Position{Epoch: 6, Sequence: 9}) {
					t.Errorf("it ran %d iterations, and the saved state is at %s", iterations, backend.position())
				}
			})
		})
	}
}

func TestWhoIsMeantActs(t *testing.T) {
	for name, env := range map[string][]string{
		"the pod that the operator made":       {"DORY_INSTANCE", "ns/dory-p-1-a"},
		"one of an operator without instances": nil,
		"one on a developer's machine":         {"DORY_EPOCH", ""},
		"a target beside its source":           {"DORY_INSTANCE", "ns/dory-p-1-a", "DORY_EPOCH", "", "DORY_IS_MIGRATING", "true"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProcessor(t, &memory{}, environ(env...))
				ran := make(chan struct{})
				r := start(t, p, func(ctx context.Context) error {
					select {
					case <-ran:
					default:
						close(ran)
					}
					<-Yield(ctx)
					return ErrIdle
				})
				<-ran
				r.shutDown()
			})
		})
	}
	without := WithEnv(func(name string) (string, bool) {
		value := map[string]string{"PROCESSOR_ID": "p", "POD_NAME": "x", "POD_NAMESPACE": "ns", "DORY_STATE_BACKEND": "none", "KUBERNETES_SERVICE_HOST": "192.0.2.1"}[name]
		return value, value != ""
	})
	if p := newProcessor(t, &memory{}, without); p.barred != "" {
		t.Errorf("a pod of another operator is barred: %s", p.barred)
	}
}
