package faults

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// operator is a replica of the operator.
type operator struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
	// failpoints is the address of a brittle operator's GOFAIL_HTTP.
	failpoints string
	// silent ones have nothing to say about a failure that comes later.
	silent bool
}

// start runs an operator. Its log is shown if the test fails.
func (w *world) start(binary string, flags ...string) *operator {
	w.Helper()
	return w.startArmed(binary, "", flags...)
}

// startArmed runs an operator with a failpoint's term.
func (w *world) startArmed(binary, failpoint string, flags ...string) *operator {
	w.Helper()
	w.operators++
	o := &operator{t: w.T, log: filepath.Join(w.TempDir(), fmt.Sprintf("operator-%d.log", w.operators)), ended: make(chan struct{})}
	log, err := os.Create(o.log)
	w.must(err)
	defer log.Close()
	o.failpoints = freeAddress(w.T)
	o.cmd = exec.CommandContext(context.WithoutCancel(w.Context()), binary, append([]string{
		"--metrics-bind-address=0", "--health-probe-bind-address=0", "--discover-sdk=false", "--leader-election-namespace=" + operatorNamespace,
	}, flags...)...)
	o.cmd.Env = append(os.Environ(), "KUBECONFIG="+shared.kubeconfig, "DORY_DATABASE_URL="+w.url, "GOFAIL_HTTP="+o.failpoints, clockVariable+"="+w.clockFile(), failpointsVariable+"="+failpoint)
	if w.confined {
		o.cmd.Env = append(o.cmd.Env, namespaceVariable+"="+w.namespace)
	}
	o.cmd.Stdout, o.cmd.Stderr = log, log
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		// Pdeathsig comes when the thread ends that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := o.cmd.Start()
		started <- err
		if err == nil {
			_ = o.cmd.Wait()
			close(o.ended)
		}
	}()
	w.must(<-started)
	w.Cleanup(func() {
		o.kill()
		if w.Failed() && !o.silent {
			w.Logf("%s, the end of its log:\n%s", filepath.Base(o.log), tail(o.text()))
		}
	})
	return o
}

// alone are the flags of an operator that asks nobody before it works.
const alone = "--leader-elect=false"

func (o *operator) text() []byte {
	text, err := os.ReadFile(o.log)
	if err != nil {
		return []byte(err.Error())
	}
	return text
}

func tail(text []byte) []byte {
	const most = 6000
	return text[max(0, len(text)-most):]
}

func (o *operator) says(words string) bool { return bytes.Contains(o.text(), []byte(words)) }

func (o *operator) signal(s syscall.Signal) { _ = o.cmd.Process.Signal(s) }

// kill is SIGKILL: no lease is given back, nothing is finished.
func (o *operator) kill() {
	o.signal(syscall.SIGKILL)
	<-o.ended
}

func (o *operator) hasEnded() bool {
	select {
	case <-o.ended:
		return true
	default:
		return false
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
