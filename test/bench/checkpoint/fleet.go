package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// port is the contract's.
	port = 8080
	// network is where the processors listen: 127.80.0.1 and so on. hostsPerNetwork leaves out .0 and .255.
	network         = "127.80"
	hostsPerNetwork = 254
	maxProcessors   = 256 * hostsPerNetwork
)

// fleet are the processors, by where they listen and by the name of their pod.
type fleet struct {
	clock      clock.PassiveClock
	stateBytes int
	server     http.Server

	mu        sync.Mutex
	byAddress map[string]*processor
	byName    map[string]*processor
	serving   sync.WaitGroup
}

func newFleet(clk clock.PassiveClock, stateBytes int) *fleet {
	f := &fleet{clock: clk, stateBytes: stateBytes, byAddress: map[string]*processor{}, byName: map[string]*processor{}}
	f.server = http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	return f
}

// start runs the process of a pod, unless it runs already, and answers its address. The Processor's earlier process, if
// any, ends.
func (f *fleet) start(ctx context.Context, name, pod string, epoch int64) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.byName[name]
	if before != nil && before.pod == pod {
		return before.address, nil
	}
	if len(f.byAddress) == maxProcessors {
		return "", fmt.Errorf("all %d addresses of %s are taken", maxProcessors, network)
	}
	address := addressOf(len(f.byAddress))
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp4", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return "", fmt.Errorf("listening as pod %s: %w", pod, err)
	}
	p := newProcessor(name, pod, epoch, f.clock, f.stateBytes)
	p.address, p.stop = address, listener.Close
	if before != nil {
		_ = before.stop() // Its pod is gone.
	}
	f.byAddress[address], f.byName[name] = p, p
	f.serving.Go(func() {
		_ = f.server.Serve(listener) // It ends with the listener, which close and start close.
	})
	return address, nil
}

func addressOf(i int) string {
	return fmt.Sprintf("%s.%d.%d", network, i/hostsPerNetwork, 1+i%hostsPerNetwork)
}

// ServeHTTP hands a request to the processor of the address that it came to.
func (f *fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	f.mu.Lock()
	p := f.byAddress[local.IP.String()]
	f.mu.Unlock()
	p.ServeHTTP(w, r)
}

// of is the running process of a Processor, or nil.
func (f *fleet) of(processor string) *processor {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byName[processor]
}

// all are those that run.
func (f *fleet) all() []*processor {
	f.mu.Lock()
	defer f.mu.Unlock()
	running := make([]*processor, 0, len(f.byName))
	for _, p := range f.byName {
		running = append(running, p)
	}
	return running
}

func (f *fleet) close() error {
	err := f.server.Close()
	f.mu.Lock()
	var errs []error
	for _, p := range f.byName {
		if err := p.stop(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	f.mu.Unlock()
	f.serving.Wait()
	return errors.Join(append(errs, err)...)
}
