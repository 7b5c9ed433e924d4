package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/yaml"
)

// Operator is the running operator.
type Operator struct {
	// PID is its process.
	PID int
	// Metrics, Pprof and Ready are where it serves them.
	Metrics, Pprof, Ready string
	child                 *child
}

// readyTimeout bounds the start of the operator's process, not of its caches.
const readyTimeout = 30 * time.Second

// StartOperator starts the operator as it runs in a cluster, but for what needs a cluster around it: it elects no
// leader and asks no instance over HTTP, because kwok's instances have made-up addresses. It answers once metrics
// are served.
func (r *Rig) StartOperator(ctx context.Context, flags ...string) (*Operator, error) {
	if r.operatorKubeconfig == "" {
		var err error
		if r.operatorKubeconfig, err = r.serviceAccount(ctx, "dory-system", "dory-operator"); err != nil {
			return nil, err
		}
	}
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	flags = append([]string{
		"--leader-elect=false", "--discover-sdk=false", "--log-level=warn",
		"--metrics-bind-address=" + ports[0], "--health-probe-bind-address=" + ports[1], "--pprof-bind-address=" + ports[2],
	}, flags...)
	if r.options.Webhook {
		if flags, err = r.withWebhook(flags, ports[3]); err != nil {
			return nil, err
		}
	}
	if !r.options.Bare {
		flags = append(flags, "--checkpoints=false") // kwok's instances have no state to ask for.
	}
	environment, err := runtimeSettings(r.options.Root)
	if err != nil {
		return nil, err
	}
	child, err := r.run("dory-operator", r.options.Operator, append(environment,
		"KUBECONFIG="+r.operatorKubeconfig, "DORY_DATABASE_URL="+r.Database.operatorURL), flags...)
	if err != nil {
		return nil, err
	}
	o := &Operator{PID: child.cmd.Process.Pid, Metrics: "http://" + ports[0] + "/metrics", Pprof: "http://" + ports[2] + "/debug/pprof/", Ready: "http://" + ports[1] + "/readyz", child: child}
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, readyTimeout, true, func(ctx context.Context) (bool, error) {
		body, err := Get(ctx, o.Metrics)
		if err != nil {
			return false, o.child.check()
		}
		return true, body.Close()
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for the operator's metrics: %w", err)
	}
	return o, nil
}

// runtimeSettings are what the shipped Deployment tells Go's runtime: the variables that begin with GO.
func runtimeSettings(root string) ([]string, error) {
	path := filepath.Join(root, "config", "manager", "deployment.yaml")
	text, err := os.ReadFile(path) //nolint:gosec // in the repository
	if err != nil {
		return nil, err
	}
	var deployment appsv1.Deployment
	if err := yaml.Unmarshal(text, &deployment); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	var settings []string
	for _, container := range deployment.Spec.Template.Spec.Containers {
		for _, variable := range container.Env {
			if strings.HasPrefix(variable.Name, "GO") {
				settings = append(settings, variable.Name+"="+variable.Value)
			}
		}
	}
	return settings, nil
}

// withWebhook leads the API server to the operator.
func (r *Rig) withWebhook(flags []string, address string) ([]string, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	r.gateway.Serve(address)
	return append(flags, "--webhook-port="+port, "--leader-election-namespace=dory-system"), nil
}

// Stop ends the operator in good order.
func (o *Operator) Stop() error { return o.child.stop() }

// Get answers the body of an HTTP answer.
func Get(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("GET %s: %s", url, response.Status), response.Body.Close())
	}
	return response.Body, nil
}

// freePorts finds addresses of loopback that nobody listens on.
func freePorts(n int) ([]string, error) {
	var addresses []string
	for range n {
		listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		defer func() { _ = listener.Close() }() // all stay taken until all are found
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}
