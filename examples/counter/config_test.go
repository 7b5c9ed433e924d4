package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dory-io/dory/sdk"
)

// A standby of another version refuses the state, and so a live move to it is rolled back.
func TestStateOfAnotherVersionIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		version string
		want    int
	}{
		"of the same":  {"", http.StatusOK},
		"of a version": {"2", http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			vars := map[string]string{
				"COUNTER_STATE_VERSION": test.version,
				"DORY_ROLE":             "standby", "DORY_STATE_BACKEND": "none", "DORY_HEALTH_PORT": freePort(t),
			}
			lookup := func(name string) (string, bool) { value, ok := vars[name]; return value, ok }
			c, err := readConfig(lookup)
			if err != nil {
				t.Fatal(err)
			}
			p, err := sdk.New(append(c.options(), sdk.WithEnv(lookup))...)
			if err != nil {
				t.Fatal(err)
			}
			go p.Run(t.Context(), newCounter(p, c, t.Output()).iterate)
			if got := post(t, p.Handler(), `{"data":{"n":7,"hash":"","payload":""},"epoch":1,"sequence":7}`); got != test.want {
				t.Errorf("status %d, want %d", got, test.want)
			}
		})
	}
}

// post gives the state to a processor as soon as that is ready.
func post(t *testing.T, processor http.Handler, state string) int {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		answer := httptest.NewRecorder()
		processor.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/state", strings.NewReader(state)))
		if answer.Code != http.StatusServiceUnavailable {
			return answer.Code
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it is not ready")
	return 0
}
