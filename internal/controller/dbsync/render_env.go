package dbsync

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/store"
)

// envAppName is what processors know their application by: the slug of the template.
const envAppName = "APP_NAME"

// maxEnv is the API's bound on the number of variables; the sensor's may come on top of the template's.
const maxEnv = 1024 - 5

// readEnv reads the section env_vars, and adds the application's name unless the section has it. Values arrive as the row has
// them: what Kubernetes would make something else of is escaped. The order is by name, because a JSON object of PostgreSQL
// has no order of its own.
func readEnv(s *section, slug string) []corev1.EnvVar {
	values := s.values()
	if len(values) > maxEnv {
		s.problem("%s has %d variables, and the limit is %d: remove some", s.path, len(values), maxEnv)
	}
	env := make([]corev1.EnvVar, 0, len(values)+1)
	for name, value := range values {
		if faults := validation.IsEnvVarName(name); len(faults) > 0 {
			s.problem("%s has the name %q, which no environment variable may have: %s", s.path, shorten(name), strings.Join(faults, ", "))
			continue
		}
		env = append(env, corev1.EnvVar{Name: name, Value: pod.Verbatim(value)})
	}
	if _, own := values[envAppName]; !own && slug != "" {
		env = append(env, corev1.EnvVar{Name: envAppName, Value: pod.Verbatim(slug)})
	}
	sortEnv(env)
	return env
}

// withSensor adds what the row's sensor says; the template's variables win.
func withSensor(template []corev1.EnvVar, sensor *store.Sensor) []corev1.EnvVar {
	if sensor == nil {
		return template
	}
	values := map[string]string{
		"SENSOR_ID":       sensor.ID,
		"SENSOR_NAME":     sensor.Name,
		"SENSOR_TYPE":     sensor.Type,
		"SENSOR_LOCATION": sensor.Location,
		"SENSOR_CONFIG":   string(sensor.Config),
	}
	maps.DeleteFunc(values, func(_, value string) bool { return value == "" })
	for i := range template {
		delete(values, template[i].Name)
	}
	env := slices.Grow(slices.Clone(template), len(values))
	for name, value := range values {
		env = append(env, corev1.EnvVar{Name: name, Value: pod.Verbatim(value)})
	}
	sortEnv(env)
	return env
}

func sortEnv(env []corev1.EnvVar) {
	slices.SortFunc(env, func(a, b corev1.EnvVar) int { return cmp.Compare(a.Name, b.Name) })
}
