package rig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/dory-io/dory/test/gateway"
)

// tokenSeconds is longer than any benchmark takes.
const tokenSeconds = 24 * 60 * 60

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
	path := filepath.Join(r.dir, "kubeconfig-"+name)
	return path, os.WriteFile(path, content, 0o600)
}

// serviceAccount writes the kubeconfig of a ServiceAccount, and answers its path. It has a token, as its pods have, and that
// account's rights, its place in the API server's queues, and no more.
func (r *Rig) serviceAccount(ctx context.Context, namespace, name string) (string, error) {
	clients, err := kubernetes.NewForConfig(r.Admin)
	if err != nil {
		return "", err
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(tokenSeconds))}}
	if request, err = clients.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{}); err != nil {
		return "", fmt.Errorf("making a token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: r.Admin.Host, CertificateAuthorityData: r.Admin.CAData}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: request.Status.Token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	path := filepath.Join(r.dir, "kubeconfig-"+name)
	return path, clientcmd.WriteToFile(*config, path)
}

// install applies what a user applies. The operator's Deployment goes again: the operator runs as a process here.
func (r *Rig) install(ctx context.Context) error {
	for _, args := range [][]string{
		{"apply", "--server-side", "-k", filepath.Join(r.options.Root, "config", "foundation")},
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
