// Command peer is one end of the comparison of transfers: a processor whose state is 8 MiB, and beside it, on a port of its
// own, a plain HTTP server that takes bytes and gives them back.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dory-io/dory/sdk"
)

const (
	stateBytes = 8 << 20
	// plainPort is beside the contract's port.
	plainPort = ":8090"
	// interval of the iterations: it works, but does not occupy a core with it.
	interval = 100 * time.Millisecond
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	p, err := sdk.New(sdk.WithInterval(interval))
	if err != nil {
		return err
	}
	n, payload := sdk.Var(p, "n", int64(0)), sdk.Var(p, "payload", "")
	failed := make(chan error, 1)
	go func() {
		// DORY_BIND_ADDRESS is the SDK's: on a desk, both ends run on one machine.
		server := http.Server{Addr: os.Getenv("DORY_BIND_ADDRESS") + plainPort, Handler: &plain{}, ReadHeaderTimeout: time.Minute}
		failed <- server.ListenAndServe()
	}()
	return p.Run(ctx, func(context.Context) error {
		select {
		case err := <-failed:
			return fmt.Errorf("the plain server on %s: %w", plainPort, err)
		default:
		}
		n.Set(n.Get() + 1)
		if payload.Get() == "" {
			payload.Set(strings.Repeat("x", stateBytes))
		}
		return nil
	})
}

// plain keeps the bytes that were posted last.
type plain struct {
	mu    sync.Mutex
	bytes []byte
}

func (p *plain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.Method {
	case http.MethodGet:
		w.Header().Set("Content-Length", strconv.Itoa(len(p.bytes)))
		w.Write(p.bytes) //nolint:errcheck // The client is gone, and nobody is left to tell.
	case http.MethodPost:
		if r.ContentLength < 0 || r.ContentLength > 2*stateBytes {
			http.Error(w, "say how much it is, up to 16 MiB", http.StatusLengthRequired)
			return
		}
		taken := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, taken); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.bytes = taken
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}
