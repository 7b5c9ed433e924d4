package dbsync

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
)

// The defaults of runtime_config_template, as the processor contract has them.
const (
	defaultPort             = 8080
	defaultPullPolicy       = corev1.PullAlways
	defaultInitialDelay     = 60
	defaultPeriod           = 10
	defaultTimeout          = 3
	defaultFailureThreshold = 3
)

// template is what a template version says about each of its processors.
type template struct {
	// spec has the fields that the template decides, with the environment of a processor without a sensor.
	spec doryv1alpha1.ProcessorSpec
	// warnings name what was ignored.
	warnings []string
	// err says what is wrong with the template.
	err error
}

// readTemplate reads runtime_config_template. Everything that is wrong with it is told at once.
func readTemplate(row store.ProcessorRow) *template {
	root := readRoot(row.RuntimeConfig)
	t := &template{spec: doryv1alpha1.ProcessorSpec{
		Resources: readResources(root.object("resources")),
		Probes:    readProbes(root.object("health_probes")),
		State:     readState(root.object("state")),
		Update:    readUpdate(root.object("update")),
		Migration: readMigration(root.object("migration")),
	}}
	readContainer(root.object("container"), &t.spec)
	t.spec.Env = readEnv(root.object("env_vars"), row.TemplateSlug)
	t.warnings = root.ignored()
	if err := errors.Join(root.report.problems...); err != nil {
		t.err = fmt.Errorf("runtime_config_template of template %q, version %q: %w", row.TemplateSlug, row.Version, flatten(err))
	}
	return t
}

func readContainer(s *section, spec *doryv1alpha1.ProcessorSpec) {
	spec.Port = s.integer("port", defaultPort, 1, 65535)
	spec.Command = s.texts("command")
	spec.Args = s.texts("args")
	spec.ImagePullPolicy = oneOf(s, "image_pull_policy", defaultPullPolicy, corev1.PullIfNotPresent, corev1.PullNever)
}

// readProbes also knows the key liveness_path, which the original did not: it ends the guessing where the SDK of
// the image is known.
func readProbes(s *section) doryv1alpha1.ProcessorProbes {
	initialDelay := s.integer("initial_delay_sec", defaultInitialDelay, 0, 86400)
	return doryv1alpha1.ProcessorProbes{
		InitialDelaySeconds: &initialDelay,
		PeriodSeconds:       s.integer("period_sec", defaultPeriod, 1, 3600),
		TimeoutSeconds:      s.integer("timeout_sec", defaultTimeout, 1, 600),
		FailureThreshold:    s.integer("failure_threshold", defaultFailureThreshold, 1, 100),
		LivenessPath: oneOf(s, "liveness_path", doryv1alpha1.LivenessPathAuto,
			doryv1alpha1.LivenessPathHealth, doryv1alpha1.LivenessPathHealthz),
	}
}
