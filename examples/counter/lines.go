package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// batch writes lines together, which spares whoever collects them most of the work: with many iterations a second that is
// more than the iterations are. What is held back when the process is killed is never told, as if it had not been done; so
// it is not for tests in which processes are killed.
type batch struct {
	mu   sync.Mutex
	out  io.Writer
	held []byte
	err  error
}

// output is where the lines go, and what to do after the last one.
func (c config) output(stdout io.Writer) (lines io.Writer, end func() error) {
	if c.flushInterval == 0 {
		return stdout, func() error { return nil }
	}
	b, ticker, stop := &batch{out: stdout}, time.NewTicker(c.flushInterval), make(chan struct{})
	go b.flushOn(ticker.C, stop)
	return b, func() error {
		ticker.Stop()
		close(stop)
		return b.flush()
	}
}

// Write takes whole lines. Once some could not be written it takes no more, so that no line is there of an iteration that
// failed.
func (b *batch) Write(lines []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	b.held = append(b.held, lines...)
	return len(lines), nil
}

func (b *batch) flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || len(b.held) == 0 {
		return b.err
	}
	if _, err := b.out.Write(b.held); err != nil {
		b.err = fmt.Errorf("writing what was held back: %w", err)
	}
	b.held = b.held[:0]
	return b.err
}

// flushOn flushes at each tick, until stop is closed.
func (b *batch) flushOn(ticks <-chan time.Time, stop <-chan struct{}) {
	for {
		select {
		case <-ticks:
			_ = b.flush() // The next iteration's Write returns it.
		case <-stop:
			return
		}
	}
}
