package sdk

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dory-io/dory/internal/statexfer"
)

func lookup(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	}
}

func TestEnvironment(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	operators := map[string]string{
		"PROCESSOR_ID": "Proc_6", "DORY_PROCESSOR_ID": "Proc_6", "APP_NAME": "app", "POD_NAME": "pod", "DORY_POD_NAME": "pod",
		"POD_NAMESPACE": "ns", "DORY_POD_NAMESPACE": "ns", "DORY_HEALTH_PORT": "9000", "DORY_EPOCH": "7", "RESTART_COUNT": "2",
		"DORY_STATE_TOKEN": "t", "DORY_STATE_CONFIGMAP": "dory-state-proc-6", "DORY_INSTANCE": "ns/pod", "KUBERNETES_SERVICE_HOST": "192.0.2.1",
	}
	for name, test := range map[string]struct {
		vars map[string]string
		want environment
	}{
		"by the operator": {operators, environment{
			processorID: "Proc_6", appName: "app", podName: "pod", podNamespace: "ns", port: 9000, role: rolePrimary, epoch: 7, hasEpoch: true, restartCount: 2,
			token: "t", backend: "configmap", configMap: "dory-state-proc-6", instance: "ns/pod", knowsEpochs: true,
		}},
		"the other spelling": {
			map[string]string{"DORY_PROCESSOR_ID": "p", "DORY_POD_NAME": "pod", "DORY_POD_NAMESPACE": "ns", "DORY_STATE_BACKEND": "configmap"},
			environment{processorID: "p", appName: "p", podName: "pod", podNamespace: "ns", port: 8080, role: rolePrimary, backend: "configmap", configMap: "dory-state-p"},
		},
		"an id that is no name": {
			map[string]string{"PROCESSOR_ID": "Proc_6", "POD_NAME": "pod", "POD_NAMESPACE": "ns", "DORY_STATE_BACKEND": "configmap"},
			environment{processorID: "Proc_6", appName: "Proc_6", podName: "pod", podNamespace: "ns", port: 8080, role: rolePrimary, backend: "configmap", configMap: statexfer.ConfigMapName("Proc_6")},
		},
		"nothing": {nil, environment{
			processorID: "local", appName: "local", podName: hostname, port: 8080, role: rolePrimary, backend: "local", statePath: "dory-state-local.json",
		}},
		"volume": {
			map[string]string{"PROCESSOR_ID": "../p", "POD_NAME": "pod", "DORY_STATE_BACKEND": "pvc", "KUBERNETES_SERVICE_HOST": "192.0.2.1"},
			environment{processorID: "../p", appName: "../p", podName: "pod", port: 8080, role: rolePrimary, backend: "pvc", statePath: "/var/lib/dory/dory-state-..%2Fp.json"},
		},
		"path": {
			map[string]string{"PROCESSOR_ID": "p", "POD_NAME": "pod", "DORY_STATE_BACKEND": "pvc", "DORY_STATE_PATH": "/data/s"},
			environment{processorID: "p", appName: "p", podName: "pod", port: 8080, role: rolePrimary, backend: "pvc", statePath: "/data/s"},
		},
		"none": {
			map[string]string{"DORY_STATE_BACKEND": "none", "POD_NAME": "pod"},
			environment{processorID: "local", appName: "local", podName: "pod", port: 8080, role: rolePrimary, backend: "none"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readEnvironment(lookup(test.vars))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(environment{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEnvironmentSaysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		vars map[string]string
		says []string
	}{
		"two ids":         {map[string]string{"PROCESSOR_ID": "a", "DORY_PROCESSOR_ID": "b"}, []string{`PROCESSOR_ID is "a" but DORY_PROCESSOR_ID is "b"`}},
		"no id":           {map[string]string{"DORY_STATE_BACKEND": "pvc"}, []string{"PROCESSOR_ID is not set"}},
		"port":            {map[string]string{"DORY_HEALTH_PORT": "0"}, []string{`DORY_HEALTH_PORT is "0", not a whole number from 1 to 65535`}},
		"port is a text":  {map[string]string{"DORY_HEALTH_PORT": "http"}, []string{`DORY_HEALTH_PORT is "http"`}},
		"negative epoch":  {map[string]string{"DORY_EPOCH": "-1"}, []string{`DORY_EPOCH is "-1"`}},
		"epoch too large": {map[string]string{"DORY_EPOCH": "99999999999999999999"}, []string{`DORY_EPOCH is "99999999999999999999"`}},
		"restarts":        {map[string]string{"RESTART_COUNT": "many"}, []string{`RESTART_COUNT is "many"`}},
		"backend":         {map[string]string{"DORY_STATE_BACKEND": "s3"}, []string{`DORY_STATE_BACKEND is "s3", not one of configmap, pvc, local, none`}},
		"no namespace":    {map[string]string{"PROCESSOR_ID": "p", "DORY_STATE_BACKEND": "configmap"}, []string{"POD_NAMESPACE is not set"}},
		"all at once":     {map[string]string{"DORY_EPOCH": "x", "RESTART_COUNT": "y", "DORY_HEALTH_PORT": "z"}, []string{"DORY_EPOCH", "RESTART_COUNT", "DORY_HEALTH_PORT"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(WithEnv(lookup(test.vars)))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %s", err, want)
				}
			}
		})
	}
}

func TestConfigMapBackendNeedsACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_, err := New(environ("DORY_STATE_BACKEND", "configmap"))
	if err == nil || !strings.Contains(err.Error(), "to run outside of a cluster set it to local or none") {
		t.Errorf("got %v", err)
	}
}

func TestOptionsOutOfBounds(t *testing.T) {
	for want, option := range map[string]Option{
		"WithInterval: -1s is negative":       WithInterval(-time.Second),
		"WithSaveInterval: -1s is negative":   WithSaveInterval(-time.Second),
		"WithRestoreTimeout: -1s is negative": WithRestoreTimeout(-time.Second),
		"WithShutdownTimeout: 0s":             WithShutdownTimeout(0),
		"WithLogger: no logger":               WithLogger(nil),
	} {
		if _, err := New(environ(), option); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}
