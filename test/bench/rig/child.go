package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// stopTimeout is how long a process may take to end by itself.
const stopTimeout = 20 * time.Second

// child is a process that ends with this one, however that ends.
type child struct {
	name    string
	cmd     *exec.Cmd
	log     string
	ended   chan struct{}
	endedBy error
	stopped bool
}

// run starts a program that writes its log to a file of the rig's.
func (r *Rig) run(name, program string, environment []string, args ...string) (*child, error) {
	c := &child{name: name, log: filepath.Join(r.dir, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()     // the process has its own copy
	c.cmd = exec.Command(program, args...) //nolint:noctx,gosec // it ends by stop, in order; the programs are the rig's own
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.Env = append(os.Environ(), environment...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.start(); err != nil {
		return nil, fmt.Errorf("starting %s (was it built? see make help): %w", program, err)
	}
	r.children = append(r.children, c)
	return c, nil
}

// start keeps the thread that starts the process for as long as the process lives: the kernel sends the signal of
// Pdeathsig when that thread ends.
func (c *child) start() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.endedBy = c.cmd.Wait()
			close(c.ended)
		}
	}()
	return <-started
}

// check says how a process ended that should be there.
func (c *child) check() error {
	select {
	case <-c.ended:
		if c.stopped {
			return nil
		}
		return fmt.Errorf("%s ended by itself (%w); the end of its log:\n%s", c.name, orZero(c.endedBy), c.tail())
	default:
		return nil
	}
}

func orZero(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func (c *child) tail() string {
	const most = 2000
	text, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

// stop asks the process to end, and ends it if it does not.
func (c *child) stop() error {
	if c.check() != nil || c.stopped {
		return nil // whoever needed it has been told
	}
	c.stopped = true
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", c.name, err)
	}
	timer := time.NewTimer(stopTimeout) //nolint:forbidigo // the time is the process's, not the benchmark's
	defer timer.Stop()
	select {
	case <-c.ended:
		return nil
	case <-timer.C:
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s, which did not end within %s: %w", c.name, stopTimeout, err)
	}
	<-c.ended
	return nil
}
