package webhook

import (
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"testing"
	"time"

	testingclock "k8s.io/utils/clock/testing"
)

// TestDepartingReplicaKeepsNoConnections: what came over a kept connection is answered, and that connection is the last.
func TestDepartingReplicaKeepsNoConnections(t *testing.T) {
	clock := testingclock.NewFakeClock(time.Unix(0, 0))
	d := &departure{clock: clock}
	mux := http.NewServeMux()
	mux.Handle(Path, d.closing(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })))
	mux.HandleFunc(DeparturePath, d.announce)
	server := httptest.NewServer(mux)
	defer server.Close()

	ask := func() (reused bool) {
		t.Helper()
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
		request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodPost, server.URL+Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatalf("a question was not answered: %v", err)
		}
		if response.StatusCode != http.StatusNoContent {
			t.Errorf("answered %s", response.Status)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
		return reused
	}
	if ask(); !ask() {
		t.Fatal("connections are not kept, so this test shows nothing")
	}

	told := make(chan error, 1)
	go func() {
		told <- get(t, server.URL+DeparturePath)
	}()
	for !d.leaving.Load() || !clock.HasWaiters() {
		time.Sleep(time.Millisecond) // Until the kubelet's request has come.
	}
	if !ask() {
		t.Error("the kept connection is gone before it was used once more")
	}
	if ask() {
		t.Error("the connection of a departing replica is still kept")
	}
	select {
	case err := <-told:
		t.Errorf("the kubelet may end the replica at once: %v", err)
	default:
	}
	clock.Step(departureTime)
	if err := <-told; err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url string) error {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: &http.Transport{}}).Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}
