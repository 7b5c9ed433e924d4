package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/dory-io/dory/internal/store/pgtest"
	"github.com/dory-io/dory/test/gateway"
)

// Options say what to run.
type Options struct {
	// Root is the repository, with bin/ in it.
	Root string
	// Operator is the binary to measure.
	Operator string
	// Nodes is how many nodes kwok plays.
	Nodes int
	// NodeSize is what each of them has; nil for kwok's own, which is more than any benchmark needs.
	NodeSize corev1.ResourceList
	// Idle has the nodes start no pods, so that nothing but who places them is measured.
	Idle bool
	// Unscheduled leaves out kube-scheduler, for StartScheduler.
	Unscheduled bool
	// Bare leaves out kube-controller-manager, kube-scheduler, kwok and the nodes: the benchmark plays what it needs of
	// them itself.
	Bare bool
	// Webhook has the operator answer evictions.
	Webhook bool
	// Controllers are those of kube-controller-manager to run, as its flag --controllers takes them.
	Controllers []string
	// Clock times the waits.
	Clock clock.Clock
	// Progress tells a person what goes on.
	Progress func(format string, args ...any)
}

// Rig is everything but the operator.
type Rig struct {
	// Admin reaches the API server as a person who may do everything, without a client-side rate limit.
	Admin *rest.Config
	// Database is PostgreSQL.
	Database *Database

	options     Options
	dir         string
	environment *envtest.Environment
	gateway     *gateway.Gateway
	kubeconfig  string
	postgres    *pgtest.Server
	children    []*child
	// operatorKubeconfig is of the operator's ServiceAccount.
	operatorKubeconfig string
}

// Start brings everything up. Call Close in any case, also after an error.
func Start(ctx context.Context, options Options) (*Rig, error) {
	r := &Rig{options: options}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"making a directory for logs", r.makeDir},
		{"starting PostgreSQL", r.startPostgres},
		{"starting etcd and kube-apiserver", r.startControlPlane},
		{"installing Dory's CRDs, roles and admission policies", r.install},
		{"starting kube-controller-manager, kube-scheduler and kwok", unlessBare(options, r.startComponents)},
		{"making nodes", unlessBare(options, r.makeNodes)},
	} {
		if step.run == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return r, fmt.Errorf("stopped before %s: %w", step.name, err)
		}
		options.Progress("%s", step.name)
		if err := step.run(ctx); err != nil {
			return r, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return r, nil
}

func unlessBare(options Options, step func(context.Context) error) func(context.Context) error {
	if options.Bare {
		return nil
	}
	return step
}

func (r *Rig) makeDir(context.Context) error {
	var err error
	r.dir, err = os.MkdirTemp("", "dory-bench-")
	return err
}

// Close ends every process and removes every file.
func (r *Rig) Close() error {
	var errs []error
	for _, c := range slices.Backward(r.children) {
		errs = append(errs, c.stop())
	}
	if r.environment != nil {
		errs = append(errs, r.environment.Stop())
	}
	if r.gateway != nil {
		errs = append(errs, r.gateway.Close())
	}
	if r.Database != nil {
		r.Database.pool.Close()
	}
	if r.postgres != nil {
		r.postgres.Close()
	}
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}

// Check says whether every process is still there.
func (r *Rig) Check() error {
	var errs []error
	for _, c := range r.children {
		errs = append(errs, c.check())
	}
	return errors.Join(errs...)
}

// Run starts one more program, with a kubeconfig of an admin in its environment.
func (r *Rig) Run(name, program string, environment []string, args ...string) error {
	_, err := r.run(name, program, append(environment, "KUBECONFIG="+r.kubeconfig), args...)
	return err
}

// Tail is the end of the log of a program.
func (r *Rig) Tail(name string) string {
	for _, c := range r.children {
		if c.name == name {
			return c.tail()
		}
	}
	return ""
}

// Apply has the API server store what a file or a directory of manifests says.
func (r *Rig) Apply(path string) error { return r.kubectl("apply", "--server-side", "-f", path) }

func (r *Rig) bin(parts ...string) string {
	return filepath.Join(append([]string{r.options.Root, "bin"}, parts...)...)
}
