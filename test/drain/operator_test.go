package drain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// operator is a replica of the operator.
type operator struct {
	w                       *world
	cmd                     *exec.Cmd
	log                     string
	ended                   chan struct{}
	webhook, metrics, probe string
}

// alone are the flags of an operator that asks nobody before it works.
const alone = "--leader-elect=false"

// start runs a replica. It is asked about evictions from its start on; wait for ready.
func (w *world) start(flags ...string) *operator {
	w.Helper()
	w.started++
	o := &operator{
		w: w, log: filepath.Join(w.TempDir(), fmt.Sprintf("operator-%d.log", w.started)), ended: make(chan struct{}),
		webhook: freeAddress(w.T), metrics: freeAddress(w.T), probe: freeAddress(w.T),
	}
	log, err := os.Create(o.log)
	w.must(err)
	defer log.Close()
	_, port, err := net.SplitHostPort(o.webhook)
	w.must(err)
	o.cmd = exec.CommandContext(context.WithoutCancel(w.Context()), shared.operator, append([]string{
		"--metrics-bind-address=" + o.metrics, "--health-probe-bind-address=" + o.probe, "--webhook-port=" + port,
		"--discover-sdk=false", "--leader-election-namespace=" + operatorNamespace,
	}, flags...)...)
	o.cmd.Env = append(os.Environ(), "KUBECONFIG="+shared.operatorConfig)
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
	w.Cleanup(o.tidy)
	w.replicas = append(w.replicas, o)
	w.serve()
	return o
}

// serve leads the API server to those replicas that live.
func (w *world) serve() {
	var addresses []string
	for _, o := range w.replicas {
		if !o.hasEnded() {
			addresses = append(addresses, o.webhook)
		}
	}
	shared.gateway.Serve(addresses...)
}

func (o *operator) tidy() {
	o.kill()
	if !o.w.Failed() {
		return
	}
	const most = 8000
	text, err := os.ReadFile(o.log)
	o.w.Logf("%s (%v), the end of its log:\n%s", filepath.Base(o.log), err, text[max(0, len(text)-most):])
}

// ready waits until a replica says that it answers.
func (o *operator) ready() *operator {
	o.w.Helper()
	o.w.until("the operator is ready", func() error {
		if o.hasEnded() {
			text, err := os.ReadFile(o.log)
			o.w.Fatalf("the operator ended: %s %v", text, err)
		}
		_, err := get(o.w.Context(), "http://"+o.probe+"/readyz")
		return err
	})
	return o
}

// kill is SIGKILL: no lease is given back, nothing is finished, nobody is answered.
func (o *operator) kill() {
	_ = o.cmd.Process.Signal(syscall.SIGKILL)
	<-o.ended
	o.w.serve()
}

func (o *operator) hasEnded() bool {
	select {
	case <-o.ended:
		return true
	default:
		return false
	}
}

// reviews is how many evictions the replica was asked about.
func (o *operator) reviews() int {
	o.w.Helper()
	text, err := get(o.w.Context(), "http://"+o.metrics+"/metrics")
	o.w.must(err)
	sum := 0
	for line := range bytes.Lines(text) {
		name, value, found := strings.Cut(strings.TrimSpace(string(line)), "} ")
		if found && strings.HasPrefix(name, "controller_runtime_webhook_requests_total{") {
			n, err := strconv.Atoi(value)
			o.w.must(err)
			sum += n
		}
	}
	return sum
}

func get(ctx context.Context, url string) (body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if body, err = io.ReadAll(response.Body); err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, err
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
