package main

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func environment(values map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := values[name]
		return value, ok
	}
}

func TestParseOptions(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		env   map[string]string
		check func(options) bool
	}{
		"defaults": {
			check: func(o options) bool {
				return o.databaseURL == "" && o.resyncInterval == 30*time.Second && o.maxDeletionShare == 0.2 && o.discoverSDK &&
					o.imagePullSecret == "ecr-registry-secret" && o.metricsAddress == ":8080" && o.probeAddress == ":8081" && o.pprofAddress == "0" && o.logLevel == zapcore.InfoLevel
			},
		},
		"database from the environment": {
			env: map[string]string{"DORY_DATABASE_URL": "postgres://db/dory\n", "DORY_DATABASE_DIRECT_URL": "postgres://direct/dory"},
			check: func(o options) bool {
				return o.databaseURL == "postgres://db/dory" && o.databaseDirectURL == "postgres://direct/dory"
			},
		},
		"the flag wins": {
			args:  []string{"--database-url=postgres://flag/dory"},
			env:   map[string]string{"DORY_DATABASE_URL": "postgres://env/dory"},
			check: func(o options) bool { return o.databaseURL == "postgres://flag/dory" },
		},
		"a feature":  {args: []string{"--feature-gates=EvictionResponder=true"}, check: func(o options) bool { return len(o.features.podResponders()) == 1 }},
		"no feature": {check: func(o options) bool { return o.features.podResponders() == nil }},
		"log level":  {args: []string{"--log-level=debug"}, check: func(o options) bool { return o.logLevel == zapcore.DebugLevel }},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parseOptions(append(test.args, "--leader-elect=false"), environment(test.env), io.Discard)
			if err != nil || !test.check(o) {
				t.Errorf("options %+v, error %v", o, err)
			}
		})
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for name, test := range map[string]struct{ arg, want string }{
		"short resync":    {"--resync-interval=10ms", "--resync-interval=10ms is too short"},
		"share above one": {"--max-deletion-share=20", "--max-deletion-share=20 is no share"},
		"negative share":  {"--max-deletion-share=-0.1", "use a number above 0 and up to 1"},
		"no share":        {"--max-deletion-share=0", "is no share"},
		"no workers":      {"--concurrency=0", "use 1 or more"},
		"no patience":     {"--drain-patience=5s", "--drain-patience=5s is too short"},
		"no drains":       {"--drain-parallel-per-node=0", "use 1 or more"},
		"no port":         {"--webhook-port=65536", "--webhook-port=65536 is no port"},
		"certificates":    {"--webhook-certificates=None", "use Own or External"},
		"no feature":      {"--feature-gates=Teleport=true", `"Teleport" is no feature`},
		"half a feature":  {"--feature-gates=EvictionResponder", "neither true nor false"},
		"an argument":     {"run", `unexpected argument "run"`},
		"unknown flag":    {"--databse-url=x", "not defined: -databse-url"},
		"unknown level":   {"--log-level=loud", "loud"},
		"lease nowhere":   {"--leader-elect=true", "--leader-election-namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseOptions([]string{"--leader-elect=false", test.arg}, environment(nil), io.Discard)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want it to say %q", err, test.want)
			}
		})
	}
	if _, err := parseOptions([]string{"--help"}, environment(nil), io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
}

func TestSlimNodeKeepsWhatDecisionsNeed(t *testing.T) {
	slim, err := slimNode(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "a"}, Annotations: map[string]string{"large": "x"}},
		Spec:       corev1.NodeSpec{Unschedulable: true, Taints: []corev1.Taint{{Key: "k"}}, ProviderID: "p"},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady}}, Images: []corev1.ContainerImage{{Names: []string{"i"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	node := slim.(*corev1.Node)
	if node.Labels["zone"] != "a" || !node.Spec.Unschedulable || len(node.Spec.Taints) != 1 || len(node.Status.Conditions) != 1 {
		t.Errorf("lost: %+v", node)
	}
	if node.Annotations != nil || node.Status.Images != nil {
		t.Errorf("kept: %+v", node)
	}
}

func TestSuffixesDiffer(t *testing.T) {
	if a, b := newSuffix(), newSuffix(); a == b || len(a) != 8 {
		t.Errorf("suffixes %q and %q", a, b)
	}
}
