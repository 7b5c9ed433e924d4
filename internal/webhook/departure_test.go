package webhook

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
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
	spare, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer spare.Close()
	if _, err := fmt.Fprintf(spare, "POST %s HTTP/1.1\r\nHost: spare\r\nContent-Length: 0\r\n\r\n", Path); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(spare)
	response, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil || response.Close {
		t.Fatalf("a spare connection is not kept: %v", err)
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
	clock.Step(quietTime)
	if _, err := answers.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection is not closed before somebody uses it again: %v", err)
	}
	for !clock.HasWaiters() {
		time.Sleep(time.Millisecond) // Until the rest is waited for.
	}
	clock.Step(departureTime - quietTime)
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
