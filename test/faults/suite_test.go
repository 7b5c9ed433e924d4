package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store/pgtest"
	"github.com/dory-io/dory/test/faults/failpoints"
	"github.com/dory-io/dory/test/processkubelet"
)

const (
	// operatorUser has the rights of the operator's ServiceAccount, and no more.
	operatorUser      = "system:serviceaccount:dory-system:dory-operator"
	operatorNamespace = "dory-system"
	operatorPackage   = "./cmd/dory-operator"
	// image is of a processor that is only said to run.
	image = "counter:1"
	// crashingImage is of a processor that ends as soon as it runs.
	crashingImage = "crashing:1"
	// counterImage is of one that does: every iteration prints a link of a chain.
	counterImage = "counting:1"
	// fullNode takes nobody, and nothing says that it never will: moves to it wait.
	fullNode = "full"
)

// servers are what the tests of this package share.
type servers struct {
	dir, root string
	scheme    *runtime.Scheme

	environment *envtest.Environment
	admin       *rest.Config
	k8s         client.WithWatch
	kubeconfig  string // of the operator
	postgres    *pgtest.Server
	kubelet     *processkubelet.Kubelet

	// shipped is built as users get it; brittle has the failpoints and what brittleEdits make of it.
	shipped, brittle string
	failpoints       []string
	// counter is what counterImage stands for.
	counter string
}

var shared servers

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/faults:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	s := &shared
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.start(context.Background()); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

func (s *servers) start(ctx context.Context) error {
	var err error
	if s.root, err = filepath.Abs(filepath.Join("..", "..")); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "dory-faults-"); err != nil {
		return err
	}
	s.scheme = runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s.scheme), doryv1alpha1.AddToScheme(s.scheme)); err != nil {
		return err
	}
	var group errgroup.Group
	group.Go(func() error { return s.build(ctx) })
	group.Go(func() error {
		var err error
		s.counter, err = processkubelet.Build(processkubelet.CounterPackage)
		return err
	})
	group.Go(func() error { return s.startControlPlane(ctx) })
	group.Go(func() error {
		var err error
		s.postgres, err = pgtest.New()
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return s.startKubelet()
}

func (s *servers) build(ctx context.Context) error {
	s.shipped, s.brittle = filepath.Join(s.dir, "dory-operator"), filepath.Join(s.dir, "dory-operator-brittle")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", s.shipped, operatorPackage)
	cmd.Dir, cmd.Env = s.root, append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the operator: %w\n%s", err, output)
	}
	var err error
	s.failpoints, err = failpoints.Build(ctx, s.root, operatorPackage, s.brittle, brittleEdits)
	return err
}

func (s *servers) bin(name string) string {
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		dir = filepath.Join(s.root, "bin", "k8s")
	}
	return filepath.Join(dir, name)
}

// startControlPlane brings up an API server that can be killed and started again, with Dory installed as users do it.
func (s *servers) startControlPlane(ctx context.Context) error {
	s.environment = &envtest.Environment{
		BinaryAssetsDirectory: filepath.Dir(s.bin("etcd")), ControlPlaneStartTimeout: patience, ControlPlaneStopTimeout: patience,
	}
	api := s.environment.ControlPlane.GetAPIServer()
	api.CertDir = filepath.Join(s.dir, "certs") // or each start would make another authority
	if err := os.Mkdir(api.CertDir, 0o700); err != nil {
		return err
	}
	var err error
	if s.admin, err = s.environment.Start(); err != nil {
		return fmt.Errorf("starting the API server (make envtest-binaries): %w", err)
	}
	s.admin.QPS = -1
	if s.k8s, err = client.NewWithWatch(s.admin, client.Options{Scheme: s.scheme}); err != nil {
		return err
	}
	admin, err := s.user("admin", "system:masters")
	if err != nil {
		return err
	}
	if s.kubeconfig, err = s.user(operatorUser); err != nil {
		return err
	}
	for _, args := range []string{"apply --server-side -k " + filepath.Join(s.root, "config", "foundation"), "apply --server-side -k " + filepath.Join(s.root, "config", "default"), "wait --for=condition=Established --timeout=30s crd --all"} {
		cmd := exec.CommandContext(ctx, s.bin("kubectl"), append([]string{"--kubeconfig", admin}, strings.Fields(args)...)...)
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("kubectl %s: %w\n%s", args, err, output)
		}
	}
	return nil
}

// user writes a kubeconfig, and answers its path.
func (s *servers) user(name string, groups ...string) (string, error) {
	user, err := s.environment.AddUser(envtest.User{Name: name, Groups: groups}, nil)
	if err != nil {
		return "", err
	}
	content, err := user.KubeConfig()
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, fmt.Sprintf("kubeconfig-%d", len(name)))
	return path, os.WriteFile(path, content, 0o600)
}

func (s *servers) startKubelet() error {
	var nodes []processkubelet.Node
	for i := range 3 {
		nodes = append(nodes, processkubelet.Node{Name: fmt.Sprint("node-", i), Labels: map[string]string{"workload-type": "application"}})
	}
	for whose, names := range map[string][]string{"true": reservedNodes, dated: datedNodes} {
		for _, name := range names {
			nodes = append(nodes, processkubelet.Node{
				Name: name, Taints: []corev1.Taint{reservation},
				Labels: map[string]string{"workload-type": "application", reserved: whose},
			})
		}
	}
	nodes = append(nodes, processkubelet.Node{
		Name: fullNode, Labels: map[string]string{"workload-type": "application"},
		Taints: []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}},
	})
	programs := map[string]processkubelet.Program{image: {}, counterImage: {Path: s.counter}, crashingImage: {Path: "/bin/false"}}
	if err := s.impostors(programs); err != nil {
		return err
	}
	var err error
	s.kubelet, err = processkubelet.New(processkubelet.Config{REST: s.admin, Nodes: nodes, Programs: programs, ProbePeriod: 50 * time.Millisecond})
	return err
}

func (s *servers) stop() error {
	var errs []error
	if s.kubelet != nil {
		s.kubelet.Close()
	}
	processkubelet.RemoveBuilds()
	if s.environment != nil { // also where it was started half way
		errs = append(errs, s.environment.Stop())
	}
	if s.postgres != nil {
		s.postgres.Close()
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
