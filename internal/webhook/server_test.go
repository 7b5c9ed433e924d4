package webhook

import (
	"net/http"
	"testing"
)

// The API server keeps connections for as long as http.DefaultTransport does. It must be the one to close them.
func TestIdleConnectionsAreTheAPIServersToClose(t *testing.T) {
	theirs := http.DefaultTransport.(*http.Transport).IdleConnTimeout
	if ours := newHTTPServer(http.NotFoundHandler()).IdleTimeout; ours < 2*theirs {
		t.Errorf("connections are closed after %s of rest, while the API server may use them for %s", ours, theirs)
	}
}
