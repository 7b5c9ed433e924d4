package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dory-io/dory/hack/internal/process"
)

// component is one long-running program of the cluster.
type component struct {
	process.Spec
	healthy func(context.Context) error
	// patience is how long it may take to become healthy; zero stands for the default.
	patience time.Duration
}

const defaultPatience = 60 * time.Second

// ensure starts the component unless it runs as it should, and waits until it is healthy.
func (c *cluster) ensure(ctx context.Context, k component) error {
	began := time.Now()
	started, err := c.procs.Ensure(ctx, k.Spec)
	if err != nil {
		return err
	}
	if err := c.await(ctx, k, started); err != nil {
		return fmt.Errorf("%s: %w\n--- the end of %s:\n%s\n---", k.Name, err, c.userPath("logs", k.Name+".log"),
			process.Tail(c.procs.LogFile(k.Name), 12))
	}
	if started != nil {
		c.started.Add(1)
		c.out.say("%s started (%s)", k.Name, elapsed(began))
	}
	return nil
}

func (c *cluster) await(ctx context.Context, k component, started *process.Started) error {
	patience := max(k.patience, 0)
	if patience == 0 {
		patience = defaultPatience
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not healthy after %s", patience))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if started != nil {
		go func() {
			select {
			case <-started.Exited:
				fail(fmt.Errorf("ended right after its start: %s", started.State()))
			case <-ctx.Done():
			}
		}()
	}
	return poll(ctx, 100*time.Millisecond, k.healthy)
}
