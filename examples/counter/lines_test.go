package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// pieces keeps what is written apart.
type pieces struct {
	written []string
	err     error
}

func (p *pieces) Write(text []byte) (int, error) {
	p.written = append(p.written, string(text))
	return len(text), p.err
}

func TestLinesAreWrittenTogether(t *testing.T) {
	var out pieces
	b := &batch{out: &out}
	ticks, stop, stopped := make(chan time.Time), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		b.flushOn(ticks, stop)
	}()
	for _, line := range []string{"1\n", "2\n"} {
		if n, err := b.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	ticks <- time.Time{}
	ticks <- time.Time{} // The first one is dealt with by now, and this one finds nothing.
	if _, err := b.Write([]byte("3\n")); err != nil {
		t.Fatal(err)
	}
	close(stop)
	<-stopped
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	if len(out.written) != 2 || out.written[0] != "1\n2\n" || out.written[1] != "3\n" {
		t.Errorf("written %q", out.written)
	}
}

func TestNothingIsTakenAfterWhatCouldNotBeWritten(t *testing.T) {
	full := errors.New("the disk is full")
	out := &pieces{err: full}
	b := &batch{out: out}
	if _, err := b.Write([]byte("1\n")); err != nil {
		t.Fatalf("before anything was written: %v", err)
	}
	if err := b.flush(); !errors.Is(err, full) {
		t.Errorf("flush: %v", err)
	}
	out.err = nil
	if n, err := b.Write([]byte("2\n")); n != 0 || !errors.Is(err, full) {
		t.Errorf("the next line: %d, %v", n, err)
	}
	if err := b.flush(); !errors.Is(err, full) || len(out.written) != 1 {
		t.Errorf("the next flush: %v, written %q", err, out.written)
	}
}

func TestDurationsOfTheEnvironment(t *testing.T) {
	vars := map[string]string{"COUNTER_INTERVAL": "10ms", "COUNTER_FLUSH_INTERVAL": "100ms"}
	lookup := func(name string) (string, bool) { value, ok := vars[name]; return value, ok }
	c, err := readConfig(lookup)
	if err != nil || c.interval != 10*time.Millisecond || c.flushInterval != 100*time.Millisecond {
		t.Errorf("read %+v (%v)", c, err)
	}
	for name := range vars {
		vars[name] = "-1s"
		if _, err := readConfig(lookup); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=-1s: %v", name, err)
		}
		vars[name] = ""
	}
}

// Whatever is held back is written when the counter ends by itself.
func TestHeldLinesAreWrittenAtTheEnd(t *testing.T) {
	var out bytes.Buffer
	write, end := (config{flushInterval: time.Hour}).output(&out)
	if _, err := write.Write([]byte("1\n")); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 0 {
		t.Errorf("%q is written at once", out.String())
	}
	if err := end(); err != nil || out.String() != "1\n" {
		t.Errorf("at the end %q is written (%v)", out.String(), err)
	}

	out.Reset()
	write, end = (config{}).output(&out)
	if _, err := write.Write([]byte("2\n")); err != nil || out.String() != "2\n" {
		t.Errorf("without an interval %q is written (%v)", out.String(), err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}
