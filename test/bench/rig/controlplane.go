package rig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/dory-io/dory/test/gateway"
)

// operatorUser is how the API server sees the operator: by its ServiceAccount, with that account's rights and no more.
const operatorUser = "system:serviceaccount:dory-system:dory-operator"

func (r *Rig) startControlPlane(context.Context) error {
	environment := &envtest.Environment{BinaryAssetsDirectory: r.bin("k8s")}
	// With kube-controller-manager there are ServiceAccounts, so pods get their token's volume as on any cluster.
	environment.ControlPlane.GetAPIServer().Configure().Disable("disable-admission-plugins")
	if r.options.Webhook {
		var err error
		if r.gateway, err = gateway.New(r.dir); err != nil {
			return err
		}
		r.gateway.Configure(environment.ControlPlane.GetAPIServer())
	}
	config, err := environment.Start()
	if err != nil {
		return fmt.Errorf("%w (make envtest-binaries builds what this needs)", err)
	}
	r.environment = environment
	r.Admin = rest.CopyConfig(config)
	r.Admin.QPS = -1
	r.kubeconfig, err = r.user("admin", "system:masters")
	return err
}

// user writes the kubeconfig of a user of the API server, and answers its path.
func (r *Rig) user(name string, groups ...string) (string, error) {
	user, err := r.environment.AddUser(envtest.User{Name: name, Groups: groups}, nil)
	if err != nil {
		return "", fmt.Errorf("making the user %s: %w", name, err)
	}
	content, err := user.KubeConfig()
	if err != nil {
		return "", fmt.Errorf("making the kubeconfig of %s: %w", name, err)
	}
	path := filepath.Join(r.dir, fmt.Sprintf("kubeconfig-%d", len(name)))
	return path, os.WriteFile(path, content, 0o600)
}

// install applies what a user applies. The operator's Deployment goes again: the operator runs as a process here.
func (r *Rig) install(ctx context.Context) error {
	for _, args := range [][]string{
		{"apply", "--server-side", "-k", filepath.Join(r.options.Root, "config", "default")},
		{"wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"},
	} {
		if err := r.kubectl(args...); err != nil {
			return err
		}
	}
	clients, err := kubernetes.NewForConfig(r.Admin)
	if err != nil {
		return err
	}
	return clients.AppsV1().Deployments("dory-system").Delete(ctx, "dory-operator", metav1.DeleteOptions{})
}

func (r *Rig) kubectl(args ...string) error {
	kubectl, err := r.run("kubectl", r.bin("k8s", "kubectl"), nil, append([]string{"--kubeconfig", r.kubeconfig}, args...)...)
	if err != nil {
		return err
	}
	<-kubectl.ended
	kubectl.stopped = true
	if kubectl.endedBy != nil {
		return fmt.Errorf("kubectl %v: %w\n%s", args, kubectl.endedBy, kubectl.tail())
	}
	return nil
}
