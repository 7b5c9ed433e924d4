package dbsync

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
)

// defaultSpec is what a row with an empty template asks for: the contract's defaults, all of them written out.
func defaultSpec(changes ...func(*doryv1alpha1.ProcessorSpec)) doryv1alpha1.ProcessorSpec {
	spec := doryv1alpha1.ProcessorSpec{
		ProcessorID: "cam-1", Image: "registry.example/camera:1.0", ImagePullPolicy: corev1.PullAlways,
		Env:  []corev1.EnvVar{{Name: "APP_NAME", Value: "camera"}},
		Port: 8080,
		Resources: &doryv1alpha1.ProcessorResources{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("512Mi")},
			Limits:   corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("2Gi")},
		},
		Probes: doryv1alpha1.ProcessorProbes{
			LivenessPath: "Auto", InitialDelaySeconds: ptr.To[int32](60), PeriodSeconds: 10, TimeoutSeconds: 3, FailureThreshold: 3,
		},
		Location: doryv1alpha1.LocationManaged, Suspend: new(false),
		ServiceAccountName: "dory-processor", TerminationGracePeriodSeconds: 35,
	}
	for _, change := range changes {
		change(&spec)
	}
	return spec
}

func edgeNode(name string) func(*store.ProcessorRow) {
	return func(r *store.ProcessorRow) {
		r.NodeType, r.EdgeNode = store.NodeTypeEdge, &store.EdgeNodeRef{ID: "e1", Name: name}
	}
}

func selector(text string) func(*store.ProcessorRow) {
	return func(r *store.ProcessorRow) { r.NodeSelector = json.RawMessage(text) }
}

func sensor(config string) func(*store.ProcessorRow) {
	return func(r *store.ProcessorRow) {
		r.SensorID = "s1"
		r.Sensor = &store.Sensor{ID: "s1", Name: "Door", Location: "hall 4", Config: json.RawMessage(config)}
	}
}

func TestRender(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	tests := map[string]struct {
		row      store.ProcessorRow
		want     doryv1alpha1.ProcessorSpec
		warnings []string
	}{
		"an empty template has the contract's defaults": {row: rowWith(), want: defaultSpec()},
		"null, and sections that are null, are empty":   {row: rowWith(config(`{"resources": null, "container": {"port": null}, "env_vars": null}`)), want: defaultSpec()},
		"everything is set": {
			row: rowWith(config(`{
				"resources": {"cpu_request": "1", "memory_request": "1Gi", "cpu_limit": "4000m", "memory_limit": "8Gi", "gpu_required": true, "gpu_limit": "2"},
				"container": {"port": 9000, "command": ["/run"], "args": ["-v", ""], "image_pull_policy": "Never"},
				"health_probes": {"initial_delay_sec": 0, "period_sec": 5, "timeout_sec": 2, "failure_threshold": 6, "liveness_path": "/healthz"},
				"env_vars": {"B": "2", "A": "1", "APP_NAME": "mine"}}`)),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Resources = &doryv1alpha1.ProcessorResources{
					Requests: corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")},
					Limits:   corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "nvidia.com/gpu": resource.MustParse("2")},
				}
				s.Port, s.Command, s.Args, s.ImagePullPolicy = 9000, []string{"/run"}, []string{"-v", ""}, corev1.PullNever
				s.Probes = doryv1alpha1.ProcessorProbes{LivenessPath: "/healthz", InitialDelaySeconds: ptr.To[int32](0), PeriodSeconds: 5, TimeoutSeconds: 2, FailureThreshold: 6}
				s.Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "APP_NAME", Value: "mine"}, {Name: "B", Value: "2"}}
			}),
		},
		"every policy is set": {
			row: rowWith(config(`{
				"state": {"checkpoint_interval_sec": 0, "on_missing": "Require"}, "update": {"strategy": "OnDelete", "on_config_change": "Restart"},
				"migration": {"strategy": "StopAndCopy", "start_timeout_sec": 900, "handoff_timeout_sec": 20, "history_limit": 0, "drain_fallback": "Never"}}`)),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.State = &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{}, OnMissing: "Require"}
				s.Update = &doryv1alpha1.ProcessorUpdate{Strategy: "OnDelete", OnConfigChange: "Restart"}
				s.Migration = &doryv1alpha1.ProcessorMigrationPolicy{
					Strategy: "StopAndCopy", StartTimeoutSeconds: 900, HandoffTimeoutSeconds: 20, HistoryLimit: new(int32(0)), DrainFallback: "Never",
				}
			}),
		},
		"a policy in part has the API's defaults for the rest": {
			row: rowWith(config(`{"state": {"on_missing": "Discard"}, "update": {"strategy": null}, "migration": {"strategy": "Live"}}`)),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.State = &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{Duration: 30 * time.Second}, OnMissing: "Discard"}
				s.Update = &doryv1alpha1.ProcessorUpdate{Strategy: "Live", OnConfigChange: "Ignore"}
				s.Migration = &doryv1alpha1.ProcessorMigrationPolicy{
					Strategy: "Live", StartTimeoutSeconds: 300, HandoffTimeoutSeconds: 60, HistoryLimit: new(int32(5)), DrainFallback: "Restart",
				}
			}),
		},
		"policies that say nothing are unset": {row: rowWith(config(`{"state": {}, "update": null}`)), want: defaultSpec()},
		"a GPU without a number is one": {
			row: rowWith(config(`{"resources": {"gpu_required": true, "gpu_limit": ""}}`)),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Resources.Limits["nvidia.com/gpu"] = resource.MustParse("1")
			}),
		},
		"a number of GPUs that none requires is ignored": {
			row: rowWith(config(`{"resources": {"gpu_limit": "2"}}`)), want: defaultSpec(),
			warnings: []string{`resources.gpu_limit is "2" and is ignored, because resources.gpu_required is false`},
		},
		"unknown keys are ignored": {
			row: rowWith(config(`{"zeta": 1, "container": {"tty": true}, "alpha": {"b": 1}}`)), want: defaultSpec(),
			warnings: []string{"unknown key alpha", "unknown key zeta", "unknown key container.tty"},
		},
		"numbers and booleans are variables by their JSON text": {
			row: rowWith(config(`{"env_vars": {"RATE": 1.50, "ON": true, "N": -3}}`)),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Env = []corev1.EnvVar{{Name: "APP_NAME", Value: "camera"}, {Name: "N", Value: "-3"}, {Name: "ON", Value: "true"}, {Name: "RATE", Value: "1.50"}}
			}),
		},
		"what Kubernetes would expand is escaped": {
			row: rowWith(config(`{"env_vars": {"A": "a$$b", "B": "$(POD_NAME)", "C": "pa$word", "D": "100$"}}`), sensor(`{"unit": "$(A)$"}`)),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Env = []corev1.EnvVar{
					{Name: "A", Value: "a$$$$b"},
					{Name: "APP_NAME", Value: "camera"},
					{Name: "B", Value: "$$(POD_NAME)"},
					{Name: "C", Value: "pa$word"},
					{Name: "D", Value: "100$"},
					{Name: "SENSOR_CONFIG", Value: `{"unit": "$$(A)$$"}`},
					{Name: "SENSOR_ID", Value: "s1"},
					{Name: "SENSOR_LOCATION", Value: "hall 4"},
					{Name: "SENSOR_NAME", Value: "Door"},
				}
			}),
		},
		"the slug of the template is escaped, too": {
			row: rowWith(func(r *store.ProcessorRow) { r.TemplateSlug = "$(POD_NAME)" }),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Env = []corev1.EnvVar{{Name: "APP_NAME", Value: "$$(POD_NAME)"}}
			}),
		},
		"command and arguments mean what they mean in a pod": {
			row: rowWith(config(`{"container": {"command": ["run", "$(POD_NAME)"], "args": ["a$$b"]}}`)),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Command, s.Args = []string{"run", "$(POD_NAME)"}, []string{"a$$b"}
			}),
		},
		"a sensor": {
			row: rowWith(sensor(`{"rate": 30}`)),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Env = []corev1.EnvVar{
					{Name: "APP_NAME", Value: "camera"},
					{Name: "SENSOR_CONFIG", Value: `{"rate": 30}`},
					{Name: "SENSOR_ID", Value: "s1"},
					{Name: "SENSOR_LOCATION", Value: "hall 4"},
					{Name: "SENSOR_NAME", Value: "Door"},
				}
			}),
		},
		"the template wins over the sensor": {
			row: rowWith(sensor(`{}`), config(`{"env_vars": {"SENSOR_ID": "mine", "SENSOR_TYPE": ""}}`)),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Env = []corev1.EnvVar{
					{Name: "APP_NAME", Value: "camera"},
					{Name: "SENSOR_CONFIG", Value: `{}`},
					{Name: "SENSOR_ID", Value: "mine"},
					{Name: "SENSOR_LOCATION", Value: "hall 4"},
					{Name: "SENSOR_NAME", Value: "Door"},
					{Name: "SENSOR_TYPE"},
				}
			}),
		},
		"suspended": {
			row:  rowWith(func(r *store.ProcessorRow) { r.Status = store.StatusSuspended }),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) { s.Suspend = new(true) }),
		},
		"on an edge node": {
			row: rowWith(edgeNode("GW 1")),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Location, s.Placement = doryv1alpha1.LocationEdge, &doryv1alpha1.ProcessorPlacement{EdgeNode: doryv1alpha1.ObjectName("GW 1")}
			}),
		},
		"on any edge node of a zone": {
			row: rowWith(selector(`{"example.com/zone": "a"}`), func(r *store.ProcessorRow) { r.NodeType = store.NodeTypeEdge }),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Location, s.Placement = doryv1alpha1.LocationEdge, &doryv1alpha1.ProcessorPlacement{NodeSelector: map[string]string{"example.com/zone": "a"}}
			}),
		},
		"on chosen managed nodes": {
			row: rowWith(selector(`{"disk": "ssd"}`)),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) {
				s.Placement = &doryv1alpha1.ProcessorPlacement{NodeSelector: map[string]string{"disk": "ssd"}}
			}),
		},
		"an empty selector is none": {row: rowWith(selector(`{}`)), want: defaultSpec()},
		"a digest goes behind the tag": {
			row:  rowWith(func(r *store.ProcessorRow) { r.Digest = digest }),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) { s.Image += "@" + digest }),
		},
		"an image that has its digest": {
			row:  rowWith(func(r *store.ProcessorRow) { r.ImageURI, r.Digest = "localhost:5000/camera@"+digest, digest }),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) { s.Image = "localhost:5000/camera@" + digest }),
		},
		"an image that brings its digest": {
			row:  rowWith(func(r *store.ProcessorRow) { r.ImageURI = "camera@" + digest }),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) { s.Image = "camera@" + digest }),
		},
		"an image of a registry with a port": {
			row:  rowWith(func(r *store.ProcessorRow) { r.ImageURI, r.Digest = "localhost:5000/camera", digest }),
			want: defaultSpec(func(s *doryv1alpha1.ProcessorSpec) { s.Image = "localhost:5000/camera@" + digest }),
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, warnings, err := Render(tt.row)
			if err != nil {
				t.Fatalf("Render: %v", err)
			}
			if diff := cmp.Diff(tt.want, p.Spec); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.warnings, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRenderMarks(t *testing.T) {
	p, _, err := Render(rowWith(config(`{"x": 1}`), func(r *store.ProcessorRow) { r.ID, r.Namespace = "Proc_6", "floor" }))
	if err != nil {
		t.Fatal(err)
	}
	want := metav1.ObjectMeta{
		Name: doryv1alpha1.ObjectName("Proc_6"), Namespace: "floor", Labels: map[string]string{"dory.io/source": "database"},
		Annotations: map[string]string{"dory.io/processor-id": "Proc_6", "dory.io/row-revision": "7", "dory.io/template-warnings": "unknown key x"},
	}
	if diff := cmp.Diff(want, p.ObjectMeta); diff != "" || p.Spec.ProcessorID != "Proc_6" {
		t.Errorf("processorID is %q; metadata (-want +got):\n%s", p.Spec.ProcessorID, diff)
	}
}

func TestRenderSaysWhatIsWrong(t *testing.T) {
	template := `runtime_config_template of template "camera", version "1.0": `
	tests := map[string]struct {
		row  store.ProcessorRow
		says []string
	}{
		"no template":        {rowWith(func(r *store.ProcessorRow) { r.TemplateSlug, r.VersionID = "", "" }), []string{`processor_template_id "t1" names no template`, "set it to"}},
		"no active version":  {rowWith(func(r *store.ProcessorRow) { r.VersionID = "" }), []string{`template "camera" has no active version`, "set is_active"}},
		"no sensor":          {rowWith(func(r *store.ProcessorRow) { r.SensorID = "s9" }), []string{`sensor_id "s9"`, "or to NULL"}},
		"no image":           {rowWith(func(r *store.ProcessorRow) { r.ImageURI = "" }), []string{"image_uri is empty: set it"}},
		"a space in it":      {rowWith(func(r *store.ProcessorRow) { r.ImageURI = "a b" }), []string{`"a b"`, "remove that"}},
		"two digests":        {rowWith(func(r *store.ProcessorRow) { r.ImageURI, r.Digest = "a@sha256:1", "sha256:2" }), []string{"sha256:1", "sha256:2", "make them the same"}},
		"a long image":       {rowWith(func(r *store.ProcessorRow) { r.ImageURI = strings.Repeat("x", 1025) }), []string{"1025 characters", "the limit is 1024"}},
		"an array":           {rowWith(config(`[]`)), []string{template + "the template is [] (an array), expected a JSON object"}},
		"a text":             {rowWith(config(`"x"`)), []string{`the template is "x" (a string)`}},
		"no JSON at all":     {rowWith(config(`{"a":`)), []string{`the template is {"a":`}},
		"a wrong section":    {rowWith(config(`{"resources": [1], "env_vars": "A=1"}`)), []string{"resources is [1] (an array)", `env_vars is "A=1" (a string)`}},
		"no quantity":        {rowWith(config(`{"resources": {"cpu_request": "much"}}`)), []string{template, `resources.cpu_request is "much"`, `such as "500m"`}},
		"negative":           {rowWith(config(`{"resources": {"memory_request": "-1Gi"}}`)), []string{`resources.memory_request is "-1Gi"`, "zero or more"}},
		"a number":           {rowWith(config(`{"resources": {"cpu_limit": 2}}`)), []string{"resources.cpu_limit is 2 (a number), expected a quantity in quotes"}},
		"an endless one":     {rowWith(config(`{"resources": {"cpu_request": "1e-999999999"}}`)), []string{template, `resources.cpu_request is "1e-999999999"`}},
		"an endless GPU":     {rowWith(config(`{"resources": {"gpu_required": true, "gpu_limit": "1e999999999"}}`)), []string{template, `resources.gpu_limit is "1e999999999"`}},
		"above the limit":    {rowWith(config(`{"resources": {"cpu_request": "3", "cpu_limit": "2"}}`)), []string{"resources.cpu_request is 3, above resources.cpu_limit, which is 2", "raise the other"}},
		"above the default":  {rowWith(config(`{"resources": {"memory_request": "3Gi"}}`)), []string{"resources.memory_request is 3Gi, above resources.memory_limit, which is 2Gi"}},
		"a GPU in part":      {rowWith(config(`{"resources": {"gpu_required": true, "gpu_limit": "500m"}}`)), []string{`resources.gpu_limit is "500m"`, "whole number"}},
		"no GPU":             {rowWith(config(`{"resources": {"gpu_required": true, "gpu_limit": "0"}}`)), []string{`resources.gpu_limit is "0"`}},
		"GPU of wrong types": {rowWith(config(`{"resources": {"gpu_required": "yes", "gpu_limit": 1}}`)), []string{`resources.gpu_required is "yes" (a string), expected true or false`, "resources.gpu_limit is 1 (a number)"}},
		"a port":             {rowWith(config(`{"container": {"port": 70000}}`)), []string{"container.port is 70000", "from 1 to 65535"}},
		"a port as text":     {rowWith(config(`{"container": {"port": "8080"}}`)), []string{`container.port is "8080" (a string)`}},
		"a port in part":     {rowWith(config(`{"container": {"port": 80.5}}`)), []string{"container.port is 80.5"}},
		"a huge port":        {rowWith(config(`{"container": {"port": 99999999999999999999}}`)), []string{"container.port is 99999999999999999999"}},
		"a command as text":  {rowWith(config(`{"container": {"command": "/run", "args": [1]}}`)), []string{`container.command is "/run" (a string), expected an array`, "container.args is [1]"}},
		"a pull policy":      {rowWith(config(`{"container": {"image_pull_policy": "Sometimes"}}`)), []string{`"Sometimes"`, "Always, IfNotPresent, Never"}},
		"a probe":            {rowWith(config(`{"health_probes": {"period_sec": 0, "liveness_path": "/live"}}`)), []string{"health_probes.period_sec is 0", `health_probes.liveness_path is "/live", expected one of Auto, /health, /healthz`}},
		"policies":           {rowWith(config(`{"state": {"checkpoint_interval_sec": "30s"}, "migration": {"strategy": "live", "history_limit": 101}}`)), []string{`state.checkpoint_interval_sec is "30s"`, "from 0 to 86400", `migration.strategy is "live", expected one of Auto, Live, Overlap, StopAndCopy`, "migration.history_limit is 101"}},
		"a variable's name":  {rowWith(config(`{"env_vars": {"1 A": "x"}}`)), []string{`env_vars has the name "1 A"`}},
		"a nested variable":  {rowWith(config(`{"env_vars": {"A": {"b": 1}, "B": null}}`)), []string{`env_vars.A is {"b": 1} (an object)`, "env_vars.B is null (null)"}},
		"too many variables": {rowWith(config(manyVariables(1100))), []string{"1100 variables, and the limit is 1019"}},
		"too large": {
			rowWith(config(`{"env_vars": {"SMALL": "x", "BIG": "` + strings.Repeat("x", 1<<20) + `"}}`)),
			[]string{"bytes large, and the limit is 1048576", "BIG with 1048576 bytes"},
		},
		"too large as JSON":      {rowWith(config(`{"env_vars": {"BIG": "` + strings.Repeat(`\u0001`, 200_000) + `"}}`)), []string{"the limit is 1048576"}},
		"an edge without a node": {rowWith(func(r *store.ProcessorRow) { r.NodeType = store.NodeTypeEdge }), []string{"neither edge_node_id nor node_selector says where"}},
		"a managed edge node":    {rowWith(edgeNode("gw"), func(r *store.ProcessorRow) { r.NodeType = store.NodeTypeManaged }), []string{"edge_node_id is set and node_type is managed"}},
		"a strange node type":    {rowWith(func(r *store.ProcessorRow) { r.NodeType = "moon" }), []string{`node_type is "moon"`}},
		"a selector's shape":     {rowWith(selector(`["a"]`)), []string{`node_selector is ["a"] (an array)`}},
		"a selector's value":     {rowWith(selector(`{"a": 1, "b": "x y"}`)), []string{"node_selector.a is 1 (a number), expected a string", `node_selector.b is "x y"`}},
		"a selector's key":       {rowWith(selector(`{"a b": "x"}`)), []string{`the key "a b"`}},
		"several things at once": {
			rowWith(config(`{"container": {"port": 0}, "resources": {"cpu_limit": "x"}}`), func(r *store.ProcessorRow) { r.ImageURI = "" }),
			[]string{"container.port is 0", "resources.cpu_limit is \"x\"", "; image_uri is empty"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, _, err := Render(tt.row)
			if err == nil {
				t.Fatalf("Render made %+v, want an error", p.Spec)
			}
			for _, part := range tt.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error %q does not say %q", err.Error(), part)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has more than one line: %q", err)
			}
		})
	}
}

func manyVariables(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"V%d":"x"`, i)
	}
	return `{"env_vars":{` + b.String()[1:] + `}}`
}

// Whatever a template holds, it is rendered the same way twice, or refused; nothing panics.
func TestRenderIsStable(t *testing.T) {
	value := rapid.OneOf(rapid.Just("null"), rapid.Just("true"), rapid.Just(`"500m"`), rapid.Just("[]"), rapid.Just("{}"), rapid.Just("8080"), rapid.Just(`"-1"`),
		rapid.Map(rapid.String(), func(s string) string { b, _ := json.Marshal(s); return string(b) }))
	key := rapid.SampledFrom([]string{"cpu_request", "cpu_limit", "gpu_required", "gpu_limit", "port", "command", "period_sec", "A", "B", "x y"})
	section := rapid.SampledFrom([]string{"resources", "container", "health_probes", "env_vars", "other"})
	rapid.Check(t, func(t *rapid.T) {
		text := fmt.Sprintf(`{%q: {%q: %s, %q: %s}}`, section.Draw(t, "section"), key.Draw(t, "key"), value.Draw(t, "value"), key.Draw(t, "key"), value.Draw(t, "value"))
		row := rowWith(config(text))
		a, aWarnings, aErr := Render(row)
		b, bWarnings, bErr := Render(row)
		if fmt.Sprint(aErr, aWarnings) != fmt.Sprint(bErr, bWarnings) || !equality.Semantic.DeepEqual(a, b) {
			t.Fatalf("%s is rendered in two ways: %v %v and %v %v", text, a, aErr, b, bErr)
		}
		if aErr == nil && !sameProcessor(a, a) {
			t.Fatalf("%s is not the same as itself", text)
		}
	})
}

func TestRenderEdgeNode(t *testing.T) {
	row := func(changes ...func(*store.EdgeNodeRow)) store.EdgeNodeRow {
		r := store.EdgeNodeRow{EdgeNodeRef: store.EdgeNodeRef{ID: "e1", Name: "gw-1"}, OrganizationID: "o1", Status: store.EdgeNodeOnline, Revision: 4}
		for _, change := range changes {
			change(&r)
		}
		return r
	}
	pointing := func(r *store.EdgeNodeRow) { r.FailoverEnabled, r.FailoverTargetID = true, "e2" }
	other := row(func(r *store.EdgeNodeRow) { r.ID, r.Name = "e2", "GW 2" })
	ended := row(func(r *store.EdgeNodeRow) { r.ID, r.Name, r.Status = "e2", "GW 2", store.EdgeNodeDecommissioned })
	twin := row(func(r *store.EdgeNodeRow) { r.ID = "e2" })
	tests := map[string]struct {
		row    store.EdgeNodeRow
		target *store.EdgeNodeRow
		want   doryv1alpha1.EdgeNodeSpec
		says   string
	}{
		"plain":                  {row(), nil, doryv1alpha1.EdgeNodeSpec{EdgeNodeID: "e1", OrganizationID: "o1", NodeName: "gw-1", FailoverPolicy: "Disabled"}, ""},
		"with a node's name":     {row(func(r *store.EdgeNodeRow) { r.KubernetesNode = "node-1" }), nil, doryv1alpha1.EdgeNodeSpec{EdgeNodeID: "e1", OrganizationID: "o1", NodeName: "node-1", FailoverPolicy: "Disabled"}, ""},
		"with a failover target": {row(pointing), &other, doryv1alpha1.EdgeNodeSpec{EdgeNodeID: "e1", OrganizationID: "o1", NodeName: "gw-1", FailoverPolicy: "Enabled", FailoverTarget: doryv1alpha1.ObjectName("GW 2")}, ""},
		"no such target":         {row(pointing), nil, doryv1alpha1.EdgeNodeSpec{}, `failover_target_node_id "e2" names no row`},
		"a target that is gone":  {row(pointing), &ended, doryv1alpha1.EdgeNodeSpec{}, "decommissioned"},
		"a target of its name":   {row(pointing), &twin, doryv1alpha1.EdgeNodeSpec{}, "of the same name"},
		"a name for no node":     {row(func(r *store.EdgeNodeRow) { r.Name = strings.Repeat("x", 254) }), nil, doryv1alpha1.EdgeNodeSpec{}, "set k8s_node_name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			node, err := RenderEdgeNode(tt.row, tt.target)
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("error is %v, want one that says %q", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, node.Spec); diff != "" || node.Name != "gw-1" || !sameEdgeNode(node, node) {
				t.Errorf("name %q, spec (-want +got):\n%s", node.Name, diff)
			}
		})
	}
}

func TestEdgeHolders(t *testing.T) {
	holders := edgeHolders{"gw": "e1"}
	holders.foresee(map[string]bool{"new": true, "twin": true}, []store.EdgeNodeRow{
		{EdgeNodeRef: store.EdgeNodeRef{ID: "e2", Name: "new"}, Status: store.EdgeNodeOnline},
		{EdgeNodeRef: store.EdgeNodeRef{ID: "e3", Name: "twin"}, Status: store.EdgeNodeOnline},
		{EdgeNodeRef: store.EdgeNodeRef{ID: "e4", Name: "twin"}, Status: store.EdgeNodeOnline},
		{EdgeNodeRef: store.EdgeNodeRef{ID: "e5", Name: "new"}, Status: store.EdgeNodeDecommissioned},
		{EdgeNodeRef: store.EdgeNodeRef{ID: "e6", Name: "gw"}, Status: store.EdgeNodeOnline},
	})
	for name, tt := range map[string]struct {
		node *store.EdgeNodeRef
		ok   bool
	}{
		"none":                         {nil, true},
		"its own":                      {&store.EdgeNodeRef{ID: "e1", Name: "gw"}, true},
		"another's":                    {&store.EdgeNodeRef{ID: "e6", Name: "gw"}, false},
		"its own, soon":                {&store.EdgeNodeRef{ID: "e2", Name: "new"}, true},
		"one of two":                   {&store.EdgeNodeRef{ID: "e3", Name: "twin"}, false},
		"the other of two":             {&store.EdgeNodeRef{ID: "e4", Name: "twin"}, false},
		"one that nobody will ever be": {&store.EdgeNodeRef{ID: "e7", Name: "ghost"}, true},
	} {
		if err := holders.check(tt.node); (err == nil) != tt.ok {
			t.Errorf("%s: error is %v, want ok %v", name, err, tt.ok)
		}
	}
}
