package placement

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// api is started by the first test that needs it.
var api struct {
	once        sync.Once
	environment *envtest.Environment
	config      *rest.Config
	client      client.WithWatch
	err         error
}

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code := m.Run()
	if api.environment != nil {
		_ = api.environment.Stop()
	}
	os.Exit(code)
}

func startAPI() error {
	api.environment = &envtest.Environment{CRDDirectoryPaths: []string{filepath.Join("..", "..", "..", "config", "crd", "bases")}}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		api.environment.BinaryAssetsDirectory = filepath.Join("..", "..", "..", "bin", "k8s")
	}
	var err error
	if api.config, err = api.environment.Start(); err != nil {
		return fmt.Errorf("envtest needs kube-apiserver and etcd (make envtest-binaries): %w", err)
	}
	api.config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), doryv1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	api.client, err = client.NewWithWatch(api.config, client.Options{Scheme: scheme})
	return err
}

func needAPI(tb testing.TB) {
	tb.Helper()
	api.once.Do(func() { api.err = startAPI() })
	if api.err != nil {
		tb.Fatal(api.err)
	}
}
