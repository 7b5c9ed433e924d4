package sdk

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBoundaryIsFairToThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundary()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { // An iteration of 1 ms follows the other at once.
			defer close(ended)
			for {
				if _, err := b.begin(ctx); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
				b.release()
			}
		}()
		for range 100 {
			began := time.Now()
			if err := b.acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(began); waited > time.Millisecond {
				t.Fatalf("waited %v behind iterations of 1ms", waited)
			}
			b.release()
		}
		cancel()
		<-ended
	})
}

func TestBoundaryGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundary()
		if err := b.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		b.release()
		// Free, but the context has ended: it is not taken, and stays free.
		for range 100 {
			if err := b.acquire(ctx); err == nil {
				t.Fatal("taken with a context that has ended")
			}
		}
		if err := b.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestYieldOfEachIteration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundary()
		asked := func(yield <-chan struct{}) bool {
			select {
			case <-yield:
				return true
			default:
				return false
			}
		}
		begin := func() <-chan struct{} {
			yield, err := b.begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return yield
		}
		first := begin()
		if asked(first) {
			t.Error("nobody waits, but the iteration is asked to end")
		}
		b.wait(1)
		b.wait(1)
		if !asked(first) {
			t.Error("somebody waits, but the iteration is not asked to end")
		}
		b.wait(-1)
		b.release()
		second := begin()
		if !asked(second) {
			t.Error("somebody still waits, but the next iteration is not asked to end")
		}
		b.wait(-1)
		b.release()
		if asked(begin()) {
			t.Error("nobody waits any more, but the iteration is asked to end")
		}
	})
}
