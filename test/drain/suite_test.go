package drain

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

	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/gateway"
	"github.com/dory-io/dory/test/processkubelet"
)

const (
	// operatorUser has the rights of the operator's ServiceAccount, and no more.
	operatorUser      = "system:serviceaccount:dory-system:dory-operator"
	operatorNamespace = "dory-system"
	// image is of a processor that prints a link of a chain with every iteration.
	image = "counter:1"
	// webImage is of somebody else's pod.
	webImage = "web:1"
)

// nodes are n1 to n3.
var nodes = []string{"n1", "n2", "n3"}

// servers are what the tests of this package share.
type servers struct {
	dir, root string
	scheme    *runtime.Scheme

	environment *envtest.Environment
	gateway     *gateway.Gateway
	admin       *rest.Config
	k8s         client.Client
	clients     kubernetes.Interface
	// Paths of kubeconfigs.
	adminConfig, operatorConfig string

	kubelet           *processkubelet.Kubelet
	operator, counter string
}

var shared servers

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/drain:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctrl.SetLogger(zap.New(zap.WriteTo(os.Stderr), zap.Level(zapcore.ErrorLevel)))
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
	if s.dir, err = os.MkdirTemp("", "drain-"); err != nil {
		return err
	}
	s.scheme = runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s.scheme), doryv1alpha1.AddToScheme(s.scheme)); err != nil {
		return err
	}
	var group errgroup.Group
	group.Go(func() error { return s.build(ctx) })
	group.Go(func() error { return s.startControlPlane(ctx) })
	if err := group.Wait(); err != nil {
		return err
	}
	return s.startKubelet()
}

func (s *servers) build(ctx context.Context) error {
	s.operator = filepath.Join(s.dir, "dory-operator")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", s.operator, "./cmd/dory-operator")
	cmd.Dir, cmd.Env = s.root, append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the operator: %w\n%s", err, output)
	}
	var err error
	s.counter, err = processkubelet.Build(processkubelet.CounterPackage)
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
	if s.gateway, err = gateway.New(s.dir); err != nil {
		return err
	}
	s.gateway.Configure(api)
	if s.admin, err = s.environment.Start(); err != nil {
		return fmt.Errorf("starting the API server (make envtest-binaries): %w", err)
	}
	s.admin.QPS = -1
	if s.k8s, err = client.New(s.admin, client.Options{Scheme: s.scheme}); err != nil {
		return err
	}
	if s.clients, err = kubernetes.NewForConfig(s.admin); err != nil {
		return err
	}
	if s.adminConfig, err = s.user("admin", "system:masters"); err != nil {
		return err
	}
	if s.operatorConfig, err = s.user(operatorUser); err != nil {
		return err
	}
	for _, args := range []string{"apply --server-side -k " + filepath.Join(s.root, "config", "foundation"), "apply --server-side -k " + filepath.Join(s.root, "config", "default"), "wait --for=condition=Established --timeout=30s crd --all"} {
		if output, err := s.kubectl(ctx, strings.Fields(args)...); err != nil {
			return fmt.Errorf("kubectl %s: %w\n%s", args, err, output)
		}
	}
	return nil
}

// kubectl is the upstream one, as an admin runs it. It answers both streams.
func (s *servers) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.bin("kubectl"), append([]string{"--kubeconfig", s.adminConfig}, args...)...)
	output, err := cmd.CombinedOutput()
	return string(output), err
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
	var played []processkubelet.Node
	for _, name := range nodes {
		played = append(played, playedNode(name))
	}
	var err error
	s.kubelet, err = processkubelet.New(processkubelet.Config{
		REST: s.admin, Nodes: played, Programs: map[string]processkubelet.Program{image: {Path: s.counter}, webImage: {}},
		ProbePeriod: 50 * time.Millisecond, RestartDelay: 50 * time.Millisecond,
	})
	return err
}

func playedNode(name string) processkubelet.Node {
	return processkubelet.Node{Name: name, Labels: map[string]string{"workload-type": "application"}}
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
	if s.gateway != nil {
		errs = append(errs, s.gateway.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
