package pgtest

import (
	"bytes"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running server.
type process struct {
	cmd   *exec.Cmd
	out   *logBuffer
	ended chan struct{} // closed when the process has been waited for
}

// startProcess starts a command that the kernel ends if this process dies, however it dies.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, out: &logBuffer{}, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	started := make(chan error, 1)
	go func() {
		// The signal comes when the thread that started the child ends, not the process. So the thread is
		// kept for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			// The exit status tells nothing that the log does not.
			_ = cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// end sends a signal and waits for the end; after the timeout it kills.
func (p *process) end(signal syscall.Signal, timeout time.Duration) error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("end PostgreSQL (pid %d): %w", p.cmd.Process.Pid, err)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
	}
	_ = p.cmd.Process.Kill() // It may have ended just now.
	<-p.ended
	return fmt.Errorf("PostgreSQL (pid %d) did not end within %s of %s and was killed", p.cmd.Process.Pid, timeout, signal)
}

func (p *process) log() string { return p.out.String() }

func (p *process) logged(texts ...string) bool {
	log := p.log()
	for _, text := range texts {
		if strings.Contains(log, text) {
			return true
		}
	}
	return false
}

// logBuffer keeps the end of the server's output for error messages.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// maxLog is how much output is kept, in bytes.
const maxLog = 64 << 10

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() > maxLog {
		b.buf.Next(b.buf.Len() - maxLog/2)
	}
	return b.buf.Write(p)
}

// String returns what was kept.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
