package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// reporter tells what is done and how long it took; several steps may tell at once.
type reporter struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
}

func newReporter(out io.Writer) *reporter { return &reporter{out: out, start: time.Now()} }

func (r *reporter) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "[%5.1fs] "+format+"\n", append([]any{time.Since(r.start).Seconds()}, args...)...) //nolint:errcheck // nothing to do where nobody reads
}

// step runs fn and says what it did and for how long.
func (r *reporter) step(what string, fn func() error) error {
	began := time.Now()
	if err := fn(); err != nil {
		return err
	}
	r.say("%s (%s)", what, elapsed(began))
	return nil
}

func elapsed(since time.Time) string { return fmt.Sprintf("%.1f s", time.Since(since).Seconds()) }

// parallel runs all functions; the first failure cancels the others' context, and is the one returned.
func parallel(ctx context.Context, fns ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, fn := range fns {
		wg.Go(func() {
			if err := fn(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// sequence makes one function of several, to be run one after the other.
func sequence(fns ...func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, fn := range fns {
			if err := fn(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

// poll calls check until it succeeds; when the context ends first, the error tells what check said last.
func poll(ctx context.Context, every time.Duration, check func(context.Context) error) error {
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(every):
		}
	}
}
