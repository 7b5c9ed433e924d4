package pod_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statexfer"
)

// processor is what the API server makes of a Processor that names only an image.
func processor(change ...func(*doryv1alpha1.Processor)) *doryv1alpha1.Processor {
	delay := int32(60)
	p := &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "cam", UID: "u1"},
		Spec: doryv1alpha1.ProcessorSpec{
			Image: "counter:1", Port: 8080, Location: doryv1alpha1.LocationManaged,
			ServiceAccountName: "dory-processor", TerminationGracePeriodSeconds: 35,
			Probes: doryv1alpha1.ProcessorProbes{
				LivenessPath: doryv1alpha1.LivenessPathAuto, InitialDelaySeconds: &delay,
				PeriodSeconds: 10, TimeoutSeconds: 3, FailureThreshold: 3,
			},
		},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func build(t *testing.T, p *doryv1alpha1.Processor, change ...func(*pod.Input)) *corev1.Pod {
	t.Helper()
	in := pod.Input{Processor: p, Name: "dory-cam-x7k2", Epoch: 7}
	for _, c := range change {
		c(&in)
	}
	built, err := pod.Build(in)
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	return built
}

func envOf(t *testing.T, p *corev1.Pod) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, env := range p.Spec.Containers[0].Env {
		if _, twice := values[env.Name]; twice {
			t.Errorf("variable %s is set twice", env.Name)
		}
		switch {
		case env.ValueFrom == nil:
			values[env.Name] = env.Value
		case env.ValueFrom.FieldRef != nil:
			values[env.Name] = "field:" + env.ValueFrom.FieldRef.FieldPath
		default:
			values[env.Name] = "secret:" + env.ValueFrom.SecretKeyRef.Name + "/" + env.ValueFrom.SecretKeyRef.Key
		}
	}
	return values
}

func TestBuildFollowsTheContract(t *testing.T) {
	built := build(t, processor())
	wantLabels := map[string]string{
		"managed-by": "dory-orchestrator", "processor-id": "cam", "dory.io/processor": "cam",
		"dory.io/epoch": "7", "workload-location": "managed",
	}
	if diff := cmp.Diff(wantLabels, built.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	wantEnv := map[string]string{
		"POD_NAME": "field:metadata.name", "POD_NAMESPACE": "field:metadata.namespace", "DORY_INSTANCE": "vision/dory-cam-x7k2",
		"DORY_POD_NAME": "field:metadata.name", "DORY_POD_NAMESPACE": "field:metadata.namespace",
		"POD_IP": "field:status.podIP", "NODE_NAME": "field:spec.nodeName", "PROCESSOR_ID": "cam", "DORY_PROCESSOR_ID": "cam",
		"APP_NAME": "cam", "RESTART_COUNT": "0", "DORY_HEALTH_PORT": "8080",
		"DORY_EPOCH": "field:metadata.labels['dory.io/epoch']", "DORY_ROLE": "field:metadata.annotations['dory.io/role']",
		"DORY_STATE_CONFIGMAP": "dory-state-cam", "DORY_STATE_TOKEN": "secret:dory-state-token/token",
	}
	if diff := cmp.Diff(wantEnv, envOf(t, built)); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	container := built.Spec.Containers[0]
	if got := container.LivenessProbe; got.HTTPGet.Path != "/health" || got.InitialDelaySeconds != 60 || got.PeriodSeconds != 10 || got.TimeoutSeconds != 3 || got.FailureThreshold != 3 {
		t.Errorf("liveness probe = %+v", got)
	}
	if got := container.ReadinessProbe; got.HTTPGet.Path != "/ready" || got.PeriodSeconds*got.FailureThreshold != 30 || got.InitialDelaySeconds != 0 {
		t.Errorf("readiness probe = %+v, want /ready from the start, given up after 30 s", got)
	}
	if got := container.Lifecycle.PreStop.HTTPGet; got.Path != "/prestop" || got.Port.IntValue() != 8080 {
		t.Errorf("preStop = %+v", got)
	}
	if *built.Spec.TerminationGracePeriodSeconds != 35 || built.Spec.ServiceAccountName != "dory-processor" || built.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		t.Errorf("grace, account or restart policy: %+v", built.Spec)
	}
	if cpu := container.Resources.Requests[corev1.ResourceCPU]; cpu.String() != "500m" {
		t.Errorf("default CPU request = %s, want 500m", cpu.String())
	}
	owner := metav1.GetControllerOf(built)
	if owner == nil || owner.Kind != "Processor" || owner.UID != "u1" {
		t.Errorf("controller = %+v, want the Processor: kubectl drain refuses a pod without one", owner)
	}
	if !slices.Contains(built.Finalizers, "dory.io/fence") {
		t.Errorf("finalizers = %v, want dory.io/fence: without it a forced deletion hides whether the instance ended", built.Finalizers)
	}
}

func TestBuildNamesEvictionResponders(t *testing.T) {
	ours := []corev1.EvictionResponder{{Name: "dory.io/drain", Priority: new(int32(10000))}}
	theirs := []byte(`{"evictionResponders":[{"name":"example.com/alarm","priority":20000}]}`)
	built := build(t, processor(func(p *doryv1alpha1.Processor) {
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: theirs}}
	}), func(in *pod.Input) { in.EvictionResponders = ours })
	var names []string
	for _, responder := range built.Spec.EvictionResponders {
		names = append(names, responder.Name)
	}
	slices.Sort(names)
	if want := []string{"dory.io/drain", "example.com/alarm"}; !slices.Equal(names, want) {
		t.Errorf("responders = %v, want %v: a pod that does not name us is evicted without us", names, want)
	}
}

func TestBuildPlacement(t *testing.T) {
	notSystem := corev1.NodeSelectorRequirement{Key: "node-role", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"system"}}
	for name, test := range map[string]struct {
		change       func(*doryv1alpha1.Processor)
		edgeNode     string
		wantSelector map[string]string
		wantTaints   []string
		wantFields   int
	}{
		"managed": {
			change:       func(*doryv1alpha1.Processor) {},
			wantSelector: map[string]string{"workload-type": "application"},
		},
		"managed with a selector": {
			change: func(p *doryv1alpha1.Processor) {
				p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{NodeSelector: map[string]string{"zone": "a"}}
			},
			wantSelector: map[string]string{"workload-type": "application", "zone": "a"},
		},
		"edge by selector": {
			change: func(p *doryv1alpha1.Processor) {
				p.Spec.Location = doryv1alpha1.LocationEdge
				p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{NodeSelector: map[string]string{"site": "north"}}
			},
			wantSelector: map[string]string{"node-type": "edge", "site": "north"},
			wantTaints:   []string{"edge-node", corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady},
		},
		"edge by node": {
			change: func(p *doryv1alpha1.Processor) {
				p.Spec.Location = doryv1alpha1.LocationEdge
				p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{EdgeNode: "gate"}
			},
			edgeNode:     "gate-k8s",
			wantSelector: map[string]string{"node-type": "edge"},
			wantTaints:   []string{"edge-node", corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady},
			wantFields:   1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := build(t, processor(test.change), func(in *pod.Input) { in.EdgeNode = test.edgeNode }).Spec
			if diff := cmp.Diff(test.wantSelector, spec.NodeSelector); diff != "" {
				t.Errorf("node selector (-want +got):\n%s", diff)
			}
			var taints []string
			for _, toleration := range spec.Tolerations {
				taints = append(taints, toleration.Key)
			}
			if diff := cmp.Diff(test.wantTaints, taints); diff != "" {
				t.Errorf("tolerated taints (-want +got):\n%s", diff)
			}
			term := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0]
			if diff := cmp.Diff([]corev1.NodeSelectorRequirement{notSystem}, term.MatchExpressions); diff != "" {
				t.Errorf("affinity (-want +got):\n%s", diff)
			}
			if len(term.MatchFields) != test.wantFields || (test.wantFields == 1 && term.MatchFields[0].Values[0] != test.edgeNode) {
				t.Errorf("match fields = %v", term.MatchFields)
			}
		})
	}
}

func TestBuildKeepsIdentityAgainstOverlayAndEnv(t *testing.T) {
	p := processor(func(p *doryv1alpha1.Processor) {
		p.Spec.Env = []corev1.EnvVar{{Name: "PROCESSOR_ID", Value: "other"}, {Name: "MODE", Value: "fast"}, {Name: "APP_NAME", Value: "vision-app"}}
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{
			Metadata: doryv1alpha1.PodTemplateMetadata{Labels: map[string]string{"dory.io/epoch": "99", "team": "blue"}, Annotations: map[string]string{"dory.io/revision": "mine"}},
			Spec: &runtime.RawExtension{Raw: []byte(`{"hostNetwork":true,"containers":[
				{"name":"processor","env":[{"name":"DORY_EPOCH","value":"99"},{"name":"EXTRA","value":"1"}],"securityContext":{"privileged":true}},
				{"name":"sidecar","image":"log:1"}]}`)},
		}
	})
	built := build(t, p)
	env := envOf(t, built)
	if env["PROCESSOR_ID"] != "cam" || env["DORY_EPOCH"] != "field:metadata.labels['dory.io/epoch']" || env["MODE"] != "fast" || env["EXTRA"] != "1" || env["APP_NAME"] != "vision-app" {
		t.Errorf("environment = %v", env)
	}
	if built.Labels["dory.io/epoch"] != "7" || built.Labels["team"] != "blue" {
		t.Errorf("labels = %v, want our epoch and their team", built.Labels)
	}
	if built.Annotations["dory.io/revision"] != pod.Revision(p, "") {
		t.Errorf("revision = %q was overlaid", built.Annotations["dory.io/revision"])
	}
	if !built.Spec.HostNetwork || len(built.Spec.Containers) != 2 || built.Spec.Containers[0].Image != "counter:1" || !*built.Spec.Containers[0].SecurityContext.Privileged {
		t.Errorf("the overlay was not merged: %+v", built.Spec)
	}
}

func TestBuildRefusesABadOverlay(t *testing.T) {
	for name, test := range map[string]struct{ overlay, want string }{
		"unknown field":      {`{"contaners":[]}`, "contaners"},
		"wrong type":         {`{"hostNetwork":"yes"}`, "hostNetwork"},
		"endless quantity":   {`{"containers":[{"name":"processor","resources":{"requests":{"cpu":"1e-999999999"}}}]}`, `containers[0].resources.requests.cpu: the exponent of "1e-999999999"`},
		"endless, not ours":  {`{"volumes":[{"name":"v","ephemeral":{"volumeClaimTemplate":{"spec":{"resources":{"requests":{"storage":"1e999"}}}}}}]}`, "1e999"},
		"not an object":      {`[1]`, "spec.podTemplate.spec"},
		"processor removed":  {`{"containers":[{"$patch":"replace"},{"name":"other","image":"x"}]}`, `removes the container "processor"`},
		"container unnnamed": {`{"containers":[{"image":"x"}]}`, "name"},
	} {
		t.Run(name, func(t *testing.T) {
			p := processor(func(p *doryv1alpha1.Processor) {
				p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(test.overlay)}}
			})
			_, err := pod.Build(pod.Input{Processor: p, Name: "dory-cam-x7k2"})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want it to say %q", err, test.want)
			}
		})
	}
}

func TestBuildIDs(t *testing.T) {
	for id, want := range map[string]struct{ label, stateMap string }{
		"":                        {"cam", "dory-state-cam"},
		"cam-7":                   {"cam-7", "dory-state-cam-7"},
		"Proc_6":                  {"Proc_6", "dory-state-proc-6.id-rzkm33b7ezi24sdkfftqwwjx67"},
		"größe":                   {"", statexfer.ConfigMapName("größe")},
		strings.Repeat("a", 64):   {"", "dory-state-" + strings.Repeat("a", 64)},
		strings.Repeat("Ab ", 99): {"", statexfer.ConfigMapName(strings.Repeat("Ab ", 99))},
	} {
		t.Run(id, func(t *testing.T) {
			p := processor(func(p *doryv1alpha1.Processor) { p.Spec.ProcessorID = id })
			built := build(t, p)
			if got := built.Labels["processor-id"]; got != want.label {
				t.Errorf("label = %q, want %q", got, want.label)
			}
			if got := built.Annotations["dory.io/processor-id"]; got != p.ID() {
				t.Errorf("annotation = %q, want the id itself", got)
			}
			if env := envOf(t, built); env["PROCESSOR_ID"] != p.ID() || env["DORY_STATE_CONFIGMAP"] != want.stateMap {
				t.Errorf("id %q, state in %q, want %q in %q", env["PROCESSOR_ID"], env["DORY_STATE_CONFIGMAP"], p.ID(), want.stateMap)
			}
		})
	}
}

// The public SDK starts empty at RESTART_COUNT 3 and leaves the saved state unread.
func TestRestartCountNeverDiscardsState(t *testing.T) {
	for restarts, want := range map[int32]string{0: "0", 1: "1", 2: "2", 3: "2", 400: "2"} {
		built := build(t, processor(), func(in *pod.Input) { in.Restarts = restarts })
		if got := envOf(t, built)["RESTART_COUNT"]; got != want {
			t.Errorf("after %d restarts RESTART_COUNT = %s, want %s", restarts, got, want)
		}
	}
}

func TestLivenessPath(t *testing.T) {
	for name, test := range map[string]struct{ spec, found, want doryv1alpha1.LivenessPath }{
		"unset":          {"", "", "/health"},
		"auto":           {"Auto", "", "/health"},
		"auto and found": {"Auto", "/healthz", "/healthz"},
		"said":           {"/healthz", "", "/healthz"},
		"said wins":      {"/health", "/healthz", "/health"},
	} {
		t.Run(name, func(t *testing.T) {
			p := processor(func(p *doryv1alpha1.Processor) {
				p.Spec.Probes.LivenessPath, p.Status.LivenessPath = test.spec, test.found
			})
			if got := pod.LivenessPath(p); got != test.want {
				t.Errorf("LivenessPath = %s, want %s", got, test.want)
			}
		})
	}
}

func TestOutdated(t *testing.T) {
	suspended := true
	for name, test := range map[string]struct {
		change   func(*doryv1alpha1.Processor)
		edgeNode string
		want     bool
	}{
		"nothing":          {change: func(*doryv1alpha1.Processor) {}},
		"suspend":          {change: func(p *doryv1alpha1.Processor) { p.Spec.Suspend = &suspended }},
		"labels":           {change: func(p *doryv1alpha1.Processor) { p.Labels = map[string]string{"a": "b"} }},
		"image":            {change: func(p *doryv1alpha1.Processor) { p.Spec.Image = "counter:2" }, want: true},
		"env":              {change: func(p *doryv1alpha1.Processor) { p.Spec.Env = []corev1.EnvVar{{Name: "A", Value: "1"}} }, want: true},
		"liveness learned": {change: func(p *doryv1alpha1.Processor) { p.Status.LivenessPath = "/healthz" }, want: true},
		"edge node moved":  {change: func(*doryv1alpha1.Processor) {}, edgeNode: "n2", want: true},
		"resources": {change: func(p *doryv1alpha1.Processor) {
			p.Spec.Resources = &doryv1alpha1.ProcessorResources{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}
		}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			built := build(t, processor())
			if got := pod.Outdated(built, processor(test.change), test.edgeNode); got != test.want {
				t.Errorf("Outdated = %t, want %t", got, test.want)
			}
		})
	}
	t.Run("adopted without a revision", func(t *testing.T) {
		if pod.Outdated(&corev1.Pod{}, processor(), "") {
			t.Error("a pod that is about to be adopted would be replaced at once")
		}
	})
}

// If this fails, every processor of every user restarts when the operator is updated: the revision of a spec that
// nobody touched has changed. A new field must leave it alone while it is unset.
func TestRevisionOfAnUntouchedSpecNeverChanges(t *testing.T) {
	if got, want := pod.Revision(processor(), ""), "98b368bc531c0c8d"; got != want {
		t.Errorf("revision = %s, want %s", got, want)
	}
}

func TestAdoptedPodKeepsItsProbe(t *testing.T) {
	built := build(t, processor(func(p *doryv1alpha1.Processor) { p.Spec.Probes.LivenessPath = doryv1alpha1.LivenessPathHealthz }))
	for name, test := range map[string]struct {
		said, learned doryv1alpha1.LivenessPath
		want          bool
	}{
		"nothing learned":     {"Auto", "", false},
		"learned what it has": {"Auto", "/healthz", false},
		"learned another":     {"Auto", "/health", true},
		"said what it has":    {"/healthz", "/health", false},
		"said another":        {"/health", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			p := processor(func(p *doryv1alpha1.Processor) {
				p.Spec.Probes.LivenessPath, p.Status.LivenessPath = test.said, test.learned
			})
			if got := pod.Outdated(built, p, ""); got != test.want {
				t.Errorf("Outdated = %t, want %t", got, test.want)
			}
		})
	}
}

func TestBuildTheTargetOfAMove(t *testing.T) {
	overlaid := processor(func(p *doryv1alpha1.Processor) {
		p.Spec.Env = []corev1.EnvVar{{Name: "DORY_ROLE", Value: "primary"}, {Name: "DORY_EPOCH", Value: "9"}}
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{
			Metadata: doryv1alpha1.PodTemplateMetadata{Labels: map[string]string{"dory.io/epoch": "9", "dory.io/migration": "x"}, Annotations: map[string]string{"dory.io/role": "primary"}},
		}
	})
	standby := build(t, overlaid, func(in *pod.Input) {
		in.Epoch, in.Standby, in.Move = 0, true, &pod.Move{Migration: "cam-1", From: "dory-cam-old", AvoidNode: "n1"}
	})
	env := envOf(t, standby)
	if env["DORY_IS_MIGRATING"] != "true" || env["DORY_MIGRATED_FROM"] != "dory-cam-old" || env["DORY_ROLE"] != "field:metadata.annotations['dory.io/role']" {
		t.Errorf("environment = %v", env)
	}
	if _, has := standby.Labels["dory.io/epoch"]; has || standby.Labels["dory.io/migration"] != "cam-1" || standby.Annotations["dory.io/role"] != "standby" {
		t.Errorf("labels %v, annotations %v: a standby holds no epoch", standby.Labels, standby.Annotations)
	}
	preferred := standby.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	if len(preferred) != 1 || preferred[0].Preference.MatchFields[0].Operator != corev1.NodeSelectorOpNotIn || preferred[0].Preference.MatchFields[0].Values[0] != "n1" {
		t.Errorf("preferred = %+v, want any node but n1", preferred)
	}
	if plain := build(t, overlaid); plain.Labels["dory.io/migration"] != "" || plain.Labels["dory.io/epoch"] != "7" || plain.Annotations["dory.io/role"] != "primary" {
		t.Errorf("labels %v, annotations %v of an instance that is no target", plain.Labels, plain.Annotations)
	}
}

// The terms of a node selector are alternatives, so that the node must be in each of them, also in those of an overlay.
func TestATargetGoesToItsNodeWhateverTheOverlaySays(t *testing.T) {
	for name, overlay := range map[string]string{
		"none":            `{}`,
		"two terms":       `{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"a","operator":"Exists"}]},{"matchExpressions":[{"key":"b","operator":"Exists"}]}]}}}}`,
		"affinity erased": `{"affinity":null}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := processor(func(p *doryv1alpha1.Processor) {
				p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(overlay)}}
			})
			for _, test := range []struct {
				move     pod.Move
				operator corev1.NodeSelectorOperator
				node     string
			}{
				{pod.Move{Migration: "m", Node: "n2", AvoidNode: "n1"}, corev1.NodeSelectorOpIn, "n2"},
				{pod.Move{Migration: "m", Node: "n2", AvoidNode: "n1", Leave: true}, corev1.NodeSelectorOpIn, "n2"},
				{pod.Move{Migration: "m", AvoidNode: "n1", Leave: true}, corev1.NodeSelectorOpNotIn, "n1"},
			} {
				target := build(t, p, func(in *pod.Input) { in.Move = &test.move })
				terms := target.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
				for i, term := range terms {
					fields := term.MatchFields
					if len(fields) != 1 || fields[0].Key != "metadata.name" || fields[0].Operator != test.operator || fields[0].Values[0] != test.node {
						t.Errorf("term %d of %d = %+v, want it to say %s %s", i, len(terms), term, test.operator, test.node)
					}
				}
				if len(terms) == 0 {
					t.Errorf("no term says %s %s", test.operator, test.node)
				}
			}
		})
	}
}

func TestTokens(t *testing.T) {
	a, b := pod.NewTokens([]byte("key a")), pod.NewTokens([]byte("key b"))
	if a.For("x") == a.For("y") || a.For("x") == b.For("x") || len(a.For("x")) < 43 || a.For("x") != pod.NewTokens([]byte("key a")).For("x") {
		t.Errorf("tokens %q, %q, %q", a.For("x"), a.For("y"), b.For("x"))
	}
	if a.KeyID() == b.KeyID() || strings.Contains(a.For("x"), a.KeyID()) {
		t.Errorf("key ids %q, %q", a.KeyID(), b.KeyID())
	}
}

func BenchmarkBuild(b *testing.B) {
	in := pod.Input{Processor: processor(), Name: "dory-cam-x7k2", Epoch: 7}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := pod.Build(in); err != nil {
			b.Fatal(err)
		}
	}
}
