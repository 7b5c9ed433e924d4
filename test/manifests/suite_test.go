package manifests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const (
	// operatorUser is how the API server sees the operator.
	operatorUser = "system:serviceaccount:dory-system:dory-operator"
	configDir    = "../../config"
)

var (
	testEnv *envtest.Environment
	// admin is in system:masters, as the people are whom the policies must refuse too.
	admin client.Client
	// operator is the operator's ServiceAccount. It is in system:masters as well, so that these tests are about admission
	// and not about RBAC.
	operator client.Client
	// typed is an admin who knows our types.
	typed   client.Client
	kubectl func(args ...string) (string, error)
)

func TestManifests(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Manifests")
}

var _ = BeforeSuite(func(ctx context.Context) {
	testEnv = &envtest.Environment{}
	cfg, err := testEnv.Start()
	Expect(err).NotTo(HaveOccurred(), "no API server: run `make test`, or `make envtest-binaries` and set KUBEBUILDER_ASSETS to bin/k8s")
	DeferCleanup(func() { Expect(testEnv.Stop()).To(Succeed()) })

	admin = clientAs(cfg, "")
	operator = clientAs(cfg, operatorUser)
	scheme := runtime.NewScheme()
	Expect(doryv1alpha1.AddToScheme(scheme)).To(Succeed())
	typed, err = client.New(cfg, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	kubectl, err = kubectlAs(testEnv)
	Expect(err).NotTo(HaveOccurred())

	for _, part := range []string{"guard", "foundation", "default"} {
		out, err := kubectl("apply", "--server-side", "-k", filepath.Join(configDir, part))
		Expect(err).NotTo(HaveOccurred(), out)
	}
	out, err := kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
	Expect(err).NotTo(HaveOccurred(), out)
	waitForPolicies(ctx)
})

// waitForPolicies returns when the API server enforces the policies, which takes it a moment after they were created.
func waitForPolicies(ctx context.Context) {
	Eventually(func(g Gomega) {
		g.Expect(admin.Delete(ctx, named("apiextensions.k8s.io/v1", "CustomResourceDefinition", "edgenodes.dory.io"), client.DryRunAll)).NotTo(Succeed())
		g.Expect(admin.Create(ctx, object(ownedProcessor("probe")), client.DryRunAll)).NotTo(Succeed())
		g.Expect(admin.Create(ctx, object(epochOf("probe", 1, "pod-1")), client.DryRunAll)).NotTo(Succeed())
		g.Expect(admin.Create(ctx, object(processorWithDivisor("1e1.5")), client.DryRunAll)).NotTo(Succeed())
		g.Expect(admin.Create(ctx, object(podWith("probe", `[{name: DORY_INSTANCE, value: vision/x}]`)), client.DryRunAll)).
			To(refusedBecause("dory-instances"))
	}).WithContext(ctx).WithTimeout(timeToSettle).Should(Succeed())
}

// clientAs returns a client that refuses unknown fields, so that a typing error in a manifest is seen.
func clientAs(cfg *rest.Config, user string) client.Client {
	GinkgoHelper()
	cfg = rest.CopyConfig(cfg)
	if user != "" {
		cfg.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}}
	}
	c, err := client.New(cfg, client.Options{})
	Expect(err).NotTo(HaveOccurred())
	return client.WithFieldValidation(c, metav1.FieldValidationStrict)
}

// kubectlAs returns a function that runs the kubectl that belongs to the API server under test, as an admin. It answers
// with what a person would see: both streams.
func kubectlAs(env *envtest.Environment) (func(args ...string) (string, error), error) {
	user, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return nil, fmt.Errorf("make an admin: %w", err)
	}
	ctl, err := user.Kubectl()
	if err != nil {
		return nil, fmt.Errorf("make a kubeconfig: %w", err)
	}
	return func(args ...string) (string, error) {
		stdout, stderr, err := ctl.Run(args...)
		out, readErr := io.ReadAll(io.MultiReader(stdout, stderr))
		return string(out), errors.Join(err, readErr)
	}, nil
}

// object parses one YAML manifest.
func object(manifest string) *unstructured.Unstructured {
	GinkgoHelper()
	obj := &unstructured.Unstructured{}
	text, err := yaml.YAMLToJSONStrict([]byte(manifest))
	Expect(err).NotTo(HaveOccurred(), manifest)
	Expect(obj.UnmarshalJSON(text)).To(Succeed(), manifest)
	return obj
}
