package webhook

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/yaml"

	"github.com/dory-io/dory/internal/pod"
)

// shipped is the configuration as config/webhook has it.
func shipped(t *testing.T) *admissionregistrationv1.ValidatingWebhookConfiguration {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "config", "webhook", "eviction.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := yaml.UnmarshalStrict(text, c); err != nil {
		t.Fatal(err)
	}
	return c
}

func namePattern(t *testing.T) *regexp.Regexp {
	t.Helper()
	for _, condition := range shipped(t).Webhooks[0].MatchConditions {
		if condition.Name == "a-processors-pod" {
			_, pattern, _ := strings.Cut(condition.Expression, "matches('")
			return regexp.MustCompile(strings.TrimSuffix(pattern, "')"))
		}
	}
	t.Fatal("no condition a-processors-pod")
	return nil
}

// TestTheConfigurationMatchesOurPodsNames: CEL's matches is Go's regexp.
func TestTheConfigurationMatchesOurPodsNames(t *testing.T) {
	pattern := namePattern(t)
	for _, processor := range []string{"a", "cam-1", "proc-6-x7", strings.Repeat("a", 45)} {
		for range 1000 {
			if name := pod.Name(processor, utilrand.String(8)); !pattern.MatchString(name) {
				t.Fatalf("%s would be evicted without a word", name)
			}
		}
	}
	for _, name := range []string{
		"dory-operator-7d4b9c8f6d-x2z4q", // a Deployment's
		"dory-x-x2z4q",                   // a ReplicaSet's, a DaemonSet's, a Job's
		"dory-x-0",                       // a StatefulSet's
		"dory-x2z4qx2z",                  // no processor
		"dory--bcdfghjk", "dory-cam-bcdfghja", "dory-cam-bcdfghj", "dory-cam-bcdfghjkl",
		"my-dory-cam-bcdfghjk", "dory-cam-bcdfghjk-0", "dory-cam.x-bcdfghjk", "cam-bcdfghjk",
	} {
		if pattern.MatchString(name) {
			t.Errorf("%s is asked about, and is nobody's processor", name)
		}
	}
}

// TestTheConfigurationNamesWhatTheOperatorHas keeps names in one place honest.
func TestTheConfigurationNamesWhatTheOperatorHas(t *testing.T) {
	c := shipped(t)
	service := c.Webhooks[0].ClientConfig.Service
	if c.Name != ConfigurationName || service.Name != ServiceName || service.Path == nil || *service.Path != Path {
		t.Errorf("%s, %+v", c.Name, service)
	}
}
