package sdk

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/dory-io/dory/internal/statexfer"
)

const (
	defaultPort = 8080
	// defaultVolume is where the examples mount a processor's PersistentVolumeClaim.
	defaultVolume = "/var/lib/dory"
	// namespaceFile is where Kubernetes tells a pod its namespace.
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	// localID names a processor that runs on somebody's desk.
	localID = "local"
)

// environment is what the operator tells a processor.
type environment struct {
	processorID  string
	appName      string
	podName      string
	podNamespace string
	bindAddress  string
	port         int
	role         role
	roleFile     string
	epoch        int64
	hasEpoch     bool
	migrating    bool
	restartCount int
	token        string
	backend      string
	statePath    string
	configMap    string
	// instance is the pod that is meant, where anybody said so.
	instance string
	// knowsEpochs says that the pod was made by an operator that issues epochs.
	knowsEpochs bool
}

// reader collects all that is wrong with the environment, so that one start tells it all.
type reader struct {
	lookup func(string) (string, bool)
	errs   []error
}

func readEnvironment(lookup func(string) (string, bool)) (environment, error) {
	r := &reader{lookup: lookup}
	env := environment{
		processorID:  r.either("PROCESSOR_ID", "DORY_PROCESSOR_ID"),
		appName:      r.text("APP_NAME"),
		podName:      r.either("POD_NAME", "DORY_POD_NAME"),
		podNamespace: r.either("POD_NAMESPACE", "DORY_POD_NAMESPACE"),
		bindAddress:  r.address("DORY_BIND_ADDRESS"),
		port:         int(r.number("DORY_HEALTH_PORT", defaultPort, 1, 65535)),
		role:         role(r.oneOf("DORY_ROLE", string(roleStandby), string(rolePrimary))),
		roleFile:     r.text("DORY_ROLE_FILE"),
		epoch:        r.number("DORY_EPOCH", 0, 0, 1<<62),
		hasEpoch:     r.text("DORY_EPOCH") != "",
		migrating:    r.text("DORY_IS_MIGRATING") == "true",
		restartCount: int(r.number("RESTART_COUNT", 0, 0, 1<<31-1)),
		token:        r.text("DORY_STATE_TOKEN"),
		backend:      r.oneOf("DORY_STATE_BACKEND", backendConfigMap, backendPVC, backendLocal, backendNone),
		statePath:    r.text("DORY_STATE_PATH"),
		configMap:    r.text("DORY_STATE_CONFIGMAP"),
		instance:     r.text("DORY_INSTANCE"),
	}
	_, told := lookup("DORY_EPOCH")
	env.knowsEpochs = told && (env.instance != "" || r.text("KUBERNETES_SERVICE_HOST") != "")
	r.fillIn(&env)
	return env, errors.Join(r.errs...)
}

// fillIn decides what the environment left open.
func (r *reader) fillIn(env *environment) {
	if env.role == "" {
		env.role = rolePrimary
	}
	if env.backend == "" {
		env.backend = backendLocal
		if r.text("KUBERNETES_SERVICE_HOST") != "" {
			env.backend = backendConfigMap
		}
	}
	if env.podName == "" {
		hostname, err := os.Hostname()
		if err != nil {
			r.fail("POD_NAME is not set and the host has no name: %w", err)
		}
		env.podName = hostname
	}
	if env.processorID == "" {
		env.processorID = localID
		if env.backend == backendConfigMap || env.backend == backendPVC {
			r.fail("PROCESSOR_ID is not set: state kept in a cluster must belong to a processor")
		}
	}
	if env.appName == "" {
		env.appName = env.processorID
	}
	switch env.backend {
	case backendConfigMap:
		r.fillInConfigMap(env)
	case backendPVC, backendLocal:
		fillInPath(env)
	}
}

func (r *reader) fillInConfigMap(env *environment) {
	if env.configMap == "" && env.processorID != localID {
		env.configMap = statexfer.ConfigMapName(env.processorID)
	}
	if env.podNamespace != "" {
		return
	}
	text, err := os.ReadFile(namespaceFile)
	if err != nil {
		r.fail("POD_NAMESPACE is not set and %s cannot be read: say in which namespace the state's ConfigMap is", namespaceFile)
		return
	}
	env.podNamespace = strings.TrimSpace(string(text))
}

func fillInPath(env *environment) {
	if env.statePath != "" {
		return
	}
	env.statePath = statexfer.ConfigMapPrefix + url.PathEscape(env.processorID) + ".json"
	if env.backend == backendPVC {
		env.statePath = defaultVolume + "/" + env.statePath
	}
}

func (r *reader) text(name string) string {
	value, _ := r.lookup(name)
	return value
}

// either reads a variable that has two spellings, which must not contradict each other.
func (r *reader) either(name, other string) string {
	a, b := r.text(name), r.text(other)
	if a != "" && b != "" && a != b {
		r.fail("%s is %q but %s is %q: they must be the same", name, a, other, b)
	}
	if a == "" {
		return b
	}
	return a
}

func (r *reader) number(name string, unset, smallest, largest int64) int64 {
	text := r.text(name)
	if text == "" {
		return unset
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < smallest || n > largest {
		r.fail("%s is %q, not a whole number from %d to %d", name, text, smallest, largest)
		return unset
	}
	return n
}

func (r *reader) address(name string) string {
	text := r.text(name)
	if text != "" && net.ParseIP(text) == nil {
		r.fail("%s is %q, not an IP address", name, text)
	}
	return text
}

func (r *reader) oneOf(name string, words ...string) string {
	value := r.text(name)
	if value == "" {
		return ""
	}
	if slices.Contains(words, value) {
		return value
	}
	r.fail("%s is %q, not one of %s", name, value, strings.Join(words, ", "))
	return words[len(words)-1] // Whatever needs no more variables, to report no errors that follow from this one.
}

func (r *reader) fail(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}
