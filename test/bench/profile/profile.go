// Package profile takes pprof profiles of the operator, and of the API server that it works on, while a benchmark runs.
package profile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"k8s.io/client-go/kubernetes"

	"github.com/dory-io/dory/test/bench/rig"
)

// cpuSeconds is for how long the processor is watched.
const cpuSeconds = 20

// Profiler writes profiles into a directory. Without a directory it does nothing.
type Profiler struct {
	// Dir is made if it is missing.
	Dir string
	// Clients reach the API server.
	Clients kubernetes.Interface
}

// Take watches the processor for some seconds, and then writes the heap and all allocations so far. It works in the
// background; the channel tells the outcome. Without an operator it watches the API server alone.
func (p Profiler) Take(ctx context.Context, operator *rig.Operator, name string) <-chan error {
	outcome := make(chan error, 1)
	go func() {
		server := make(chan error, 1)
		go func() { server <- p.serverCPU(ctx, name) }()
		var err error
		if operator != nil {
			err = errors.Join(p.operatorCPU(ctx, operator, name), p.Heap(ctx, operator, name))
		}
		outcome <- errors.Join(err, <-server)
	}()
	return outcome
}

// Heap writes what the operator has allocated now, after a garbage collection, and what it ever had.
func (p Profiler) Heap(ctx context.Context, operator *rig.Operator, name string) error {
	return errors.Join(
		p.save(ctx, operator.Pprof+"heap?gc=1", name+"-heap"),
		p.save(ctx, operator.Pprof+"allocs", name+"-allocs"),
	)
}

func (p Profiler) operatorCPU(ctx context.Context, operator *rig.Operator, name string) error {
	return p.save(ctx, fmt.Sprintf("%sprofile?seconds=%d", operator.Pprof, cpuSeconds), name+"-cpu")
}

func (p Profiler) serverCPU(ctx context.Context, name string) error {
	if p.Dir == "" {
		return nil
	}
	content, err := p.Clients.Discovery().RESTClient().Get().AbsPath("/debug/pprof/profile").
		Param("seconds", strconv.Itoa(cpuSeconds)).DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("profiling the API server: %w", err)
	}
	return p.write(content, name+"-apiserver-cpu")
}

func (p Profiler) save(ctx context.Context, url, name string) error {
	if p.Dir == "" {
		return nil
	}
	body, err := rig.Get(ctx, url)
	if err != nil {
		return fmt.Errorf("profiling the operator: %w", err)
	}
	defer func() { _ = body.Close() }() // it was read
	content, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("profiling the operator: %w", err)
	}
	return p.write(content, name)
}

func (p Profiler) write(content []byte, name string) error {
	if err := os.MkdirAll(p.Dir, 0o750); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.Dir, name+".pprof"), content, 0o600)
}
