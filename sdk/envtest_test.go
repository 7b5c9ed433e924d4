package sdk

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// apiServer is started by the first test that needs it, because most do not.
var apiServer struct {
	once        sync.Once
	environment *envtest.Environment
	admin       *rest.Config
	client      kubernetes.Interface
	err         error
}

func startAPIServer() {
	s := &apiServer
	s.environment = &envtest.Environment{}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		s.environment.BinaryAssetsDirectory = filepath.Join("..", "bin", "k8s")
	}
	if s.admin, s.err = s.environment.Start(); s.err != nil {
		s.err = fmt.Errorf("starting an API server (make envtest-binaries makes its binaries): %w", s.err)
		return
	}
	s.client, s.err = kubernetes.NewForConfig(s.admin)
}

func stopAPIServer() {
	if apiServer.environment == nil {
		return
	}
	if err := apiServer.environment.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stopping the API server:", err)
	}
}

// newNamespace is a namespace on a real API server, with a user who may there what the verbs say about ConfigMaps.
func newNamespace(t *testing.T, verbs ...string) (namespace string, user *rest.Config) {
	t.Helper()
	apiServer.once.Do(startAPIServer)
	if apiServer.err != nil {
		t.Fatal(apiServer.err)
	}
	ns, err := apiServer.client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "sdk-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	added, err := apiServer.environment.AddUser(envtest.User{Name: ns.Name}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(verbs) > 0 {
		allow(t, ns.Name, verbs)
	}
	return ns.Name, added.Config()
}

// allow binds a role to the user who is named like the namespace.
func allow(t *testing.T, namespace string, verbs []string) {
	t.Helper()
	rbac := apiServer.client.RbacV1()
	meta := metav1.ObjectMeta{Name: "processor"}
	_, err := rbac.Roles(namespace).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: verbs}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rbac.RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "processor"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: namespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}
