package processkubelet

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a container.
type process struct {
	id      string
	cmd     *exec.Cmd
	started time.Time
	// pretended is given to a container without a process; its end comes through here.
	pretended chan int32
	// done is closed once it has ended; the fields below are read after that.
	done     chan struct{}
	finished time.Time
	exitCode int32
}

// startProcess starts a program that the kernel ends if the test dies, however it dies.
func startProcess(path string, args, env []string, dir string, out *output) (*process, error) {
	p := &process{done: make(chan struct{}), started: time.Now()}
	p.cmd = exec.Command(path, args...) //nolint:noctx // its worker ends it
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = out.stdout(), out.stderr()
	p.cmd.WaitDelay = time.Second // A child of its own may have its output open.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	failed := make(chan error, 1)
	go func() {
		// Pdeathsig comes when the thread ends that started the child, so the thread is kept for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		failed <- err
		if err != nil {
			return
		}
		_ = p.cmd.Wait() // The exit code is what there is to know.
		p.finished, p.exitCode = time.Now(), exitCode(p.cmd)
		close(p.done)
	}()
	if err := <-failed; err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	p.id = fmt.Sprintf("process://%d-%d", p.cmd.Process.Pid, p.started.UnixNano())
	return p, nil
}

// pretend is a container without a process.
func pretend() *process {
	p := &process{done: make(chan struct{}), started: time.Now(), pretended: make(chan int32, 1)}
	p.id = fmt.Sprintf("process://pretended-%d", p.started.UnixNano())
	return p
}

// killedBy is what container runtimes add to the number of a signal.
const killedBy = 128

// exitCode is what container runtimes make of it.
func exitCode(cmd *exec.Cmd) int32 {
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() { //nolint:misspell // its name
		return killedBy + int32(status.Signal())
	}
	return int32(cmd.ProcessState.ExitCode())
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signal goes to the process unless it has been waited for.
func (p *process) signal(s syscall.Signal) {
	switch {
	case p.cmd != nil:
		_ = p.cmd.Process.Signal(s)
	case s == syscall.SIGTERM:
		p.end(0)
	case s == syscall.SIGKILL:
		p.end(killedBy + int32(s))
	}
}

// end ends a pretended container, once.
func (p *process) end(exitCode int32) {
	select {
	case p.pretended <- exitCode:
		p.finished, p.exitCode = time.Now(), exitCode
		close(p.done)
	default:
	}
}

func (p *process) kill() { p.signal(syscall.SIGKILL) }
