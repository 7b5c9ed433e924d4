package manifests

import (
	"context"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("The CRDs", func() {
	DescribeTable("refuse",
		func(ctx context.Context, manifest string, because ...string) {
			Expect(admin.Create(ctx, object(manifest))).To(refusedBecause(because...))
		},
		Entry("a Processor without spec", processor("p", ""), "spec", "Required value"),
		Entry("a Processor without image", processor("p", "port: 8080"), "spec.image", "Required value"),
		Entry("an empty image", processor("p", `image: ""`), "spec.image"),
		Entry("an image with a space and a capital", processor("p", `image: "My Proc:1"`), "spec.image", "must be the reference of an image"),
		Entry("an image with a cut digest", processor("p", `image: "app@sha256:0123456789abcdef0123456789abcdef"`), "spec.image", "must be the reference of an image"),
		Entry("an image by its id", processor("p", "image: "+strings.Repeat("0123456789abcdef", 4)), "spec.image", "must be the reference of an image"),
		Entry("a field that does not exist", processor("p", "image: a\nimages: b"), `unknown field "spec.images"`),
		Entry("Edge without node or selector", processor("p", "image: a\nlocation: Edge"),
			"location Edge needs spec.placement.edgeNode or spec.placement.nodeSelector"),
		Entry("an edge node with location Managed", processor("p", "image: a\nplacement: {edgeNode: e1}"),
			"spec.placement.edgeNode needs location Edge"),
		Entry("an unknown location", processor("p", "image: a\nlocation: Moon"), "spec.location", `"Managed", "Edge"`),
		Entry("an empty placement", processor("p", "image: a\nplacement: {}"), "spec.placement"),
		Entry("an empty node selector", processor("p", "image: a\nlocation: Edge\nplacement: {nodeSelector: {}}"), "nodeSelector"),
		Entry("a negative request", processor("p", `{image: a, resources: {requests: {cpu: "-1"}}}`),
			"requests must be quantities of zero or more"),
		Entry("a negative limit", processor("p", `{image: a, resources: {limits: {memory: "-5Gi"}}}`),
			"limits must be quantities of zero or more"),
		Entry("a negative whole number", processor("p", `{image: a, resources: {requests: {cpu: -1}}}`),
			"requests must be quantities of zero or more"),
		Entry("a quantity that is none", processor("p", `{image: a, resources: {requests: {cpu: plenty}}}`), "spec.resources.requests"),
		Entry("a request over its limit", processor("p", `{image: a, resources: {requests: {cpu: 2}, limits: {cpu: 1500m}}}`),
			"a request must not exceed its limit"),
		Entry("an unknown liveness path", processor("p", "{image: a, probes: {livenessPath: /alive}}"),
			"spec.probes.livenessPath", `"Auto", "/health", "/healthz"`),
		Entry("a negative probe delay", processor("p", "{image: a, probes: {initialDelaySeconds: -1}}"), "initialDelaySeconds"),
		Entry("an unknown pull policy", processor("p", "{image: a, imagePullPolicy: Sometimes}"), "spec.imagePullPolicy"),
		Entry("a port out of range", processor("p", "{image: a, port: 70000}"), "spec.port"),
		Entry("no grace at all", processor("p", "{image: a, terminationGracePeriodSeconds: 0}"), "spec.terminationGracePeriodSeconds"),
		Entry("one variable twice", processor("p", "{image: a, env: [{name: A, value: x}, {name: A, value: y}]}"), "Duplicate value"),
		Entry("an overlay that is no object", processor("p", "{image: a, podTemplate: {spec: text}}"), "spec.podTemplate.spec"),
		Entry("a name of 46 characters", processor(strings.Repeat("a", 46), "image: a"), "at most 45 characters", "spec.processorID"),
		Entry("a name with a dot", processor("cam.1", "image: a"), "metadata.name must be a DNS label"),
		Entry("an id of 513 characters", processor("p", "{image: a, processorID: "+strings.Repeat("a", 513)+"}"), "spec.processorID"),
		Entry("an edge node that fails over to itself", manifest("EdgeNode", "e1", "failoverTarget: e1"),
			"spec.failoverTarget must be another EdgeNode"),
		Entry("an edge node with an unknown policy", manifest("EdgeNode", "e1", "failoverPolicy: Maybe"), "spec.failoverPolicy"),
		Entry("a quantity of the right letters that is none", processor("p", `{image: a, resources: {limits: {cpu: 1e1.5}}}`), "limits must be quantities"),
		Entry("an edge node whose id is no UUID", manifest("EdgeNode", "e1", "edgeNodeID: seven"), "spec.edgeNodeID"),
		Entry("a migration of nothing", manifest("ProcessorMigration", "m", "reason: Manual"), "spec.processor", "Required value"),
		Entry("a migration for no known reason", manifest("ProcessorMigration", "m", "{processor: p, reason: Whim}"), "spec.reason"),
		Entry("a migration by no known strategy", manifest("ProcessorMigration", "m", "{processor: p, strategy: Fast}"),
			"spec.strategy", `"Auto", "Live", "Overlap", "StopAndCopy"`),
		Entry("a migration without a moment to spare", manifest("ProcessorMigration", "m", "{processor: p, activeDeadlineSeconds: 0}"), "spec.activeDeadlineSeconds"),
		Entry("a migration from a pod without a name", manifest("ProcessorMigration", "m", `{processor: p, sourcePod: ""}`), "spec.sourcePod"),
		Entry("an unknown fallback of drains", processor("p", "{image: a, migration: {drainFallback: Maybe}}"), "spec.migration.drainFallback", `"Restart", "Never"`),
		Entry("a migration to a node without a name", manifest("ProcessorMigration", "m", `{processor: p, targetNode: ""}`), "spec.targetNode"),
		Entry("checkpoints more often than every second", processor("p", "{image: a, state: {checkpointInterval: 999ms}}"),
			"spec.state.checkpointInterval", "0s, for no checkpoints, or from 1s to 24h"),
		Entry("checkpoints less often than every day", processor("p", "{image: a, state: {checkpointInterval: 24h1s}}"), "from 1s to 24h"),
		Entry("checkpoints backwards in time", processor("p", "{image: a, state: {checkpointInterval: -30s}}"), "from 1s to 24h"),
		Entry("an interval in words", processor("p", "{image: a, state: {checkpointInterval: soon}}"), "spec.state.checkpointInterval"),
		Entry("an interval in days", processor("p", "{image: a, state: {checkpointInterval: 1d}}"),
			"spec.state.checkpointInterval", "must be a Go duration such as 30s or 24h"),
		Entry("an interval with a space", processor("p", "{image: a, state: {checkpointInterval: 30 sec}}"), "must be a Go duration such as 30s or 24h"),
		Entry("an interval in capitals", processor("p", "{image: a, state: {checkpointInterval: 5S}}"), "must be a Go duration such as 30s or 24h"),
		Entry("an interval that is a number", processor("p", "{image: a, state: {checkpointInterval: 30}}"), "spec.state.checkpointInterval", "must be of type string"),
		Entry("an unknown meaning of missing state", processor("p", "{image: a, state: {onMissing: Panic}}"),
			"spec.state.onMissing", `"Require", "PreferLatest", "Discard"`),
		Entry("a restart in words", processor("p", "{image: a, restartedAt: now}"), "spec.restartedAt", "must be an RFC 3339 time such as 2026-01-31T12:00:00Z"),
		Entry("a restart on a day alone", processor("p", `{image: a, restartedAt: "2026-01-31"}`), "must be an RFC 3339 time"),
		Entry("a restart in month 13", processor("p", `{image: a, restartedAt: "2026-13-01T12:00:00Z"}`), "must be an RFC 3339 time"),
		Entry("a restart in no time zone", processor("p", `{image: a, restartedAt: "2026-01-31T12:00:00"}`), "must be an RFC 3339 time"),
		Entry("a restart at no time", processor("p", `{image: a, restartedAt: ""}`), "spec.restartedAt"),
		Entry("an unknown way to update", processor("p", "{image: a, update: {strategy: RollingUpdate}}"),
			"spec.update.strategy", `"Live", "Recreate", "OnDelete"`),
		Entry("an unknown answer to changed configuration", processor("p", "{image: a, update: {onConfigChange: Move}}"),
			"spec.update.onConfigChange", `"Ignore", "Restart"`),
		Entry("an unknown way to move", processor("p", "{image: a, migration: {strategy: Fast}}"),
			"spec.migration.strategy", `"Auto", "Live", "Overlap", "StopAndCopy"`),
		Entry("no time to start", processor("p", "{image: a, migration: {startTimeoutSeconds: 0}}"), "spec.migration.startTimeoutSeconds"),
		Entry("more than a day to start", processor("p", "{image: a, migration: {startTimeoutSeconds: 86401}}"), "spec.migration.startTimeoutSeconds"),
		Entry("no time to hand over", processor("p", "{image: a, migration: {handoffTimeoutSeconds: 0}}"), "spec.migration.handoffTimeoutSeconds"),
		Entry("more than an hour to hand over", processor("p", "{image: a, migration: {handoffTimeoutSeconds: 3601}}"), "spec.migration.handoffTimeoutSeconds"),
		Entry("a history shorter than none", processor("p", "{image: a, migration: {historyLimit: -1}}"), "spec.migration.historyLimit"),
		Entry("a history without bounds", processor("p", "{image: a, migration: {historyLimit: 101}}"), "spec.migration.historyLimit"),
	)

	DescribeTable("take",
		func(ctx context.Context, manifest string) {
			Expect(admin.Create(ctx, object(manifest), client.DryRunAll)).To(Succeed())
		},
		Entry("a Processor that names only an image", processor("p", "image: a")),
		Entry("an image of a registry with a port, by tag and digest",
			processor("p", `image: "Registry.example:5000/team/app__x:V1.0_a@sha256:`+strings.Repeat("0123456789abcdef", 4)+`"`)),
		Entry("a name of 45 characters", processor(strings.Repeat("a", 45), "image: a")),
		Entry("an id that is no object name", processor("p", "{image: a, processorID: Proc_6}")),
		Entry("an id of 512 characters", processor("p", "{image: a, processorID: "+strings.Repeat("é", 512)+"}")),
		Entry("Edge with a node", processor("p", "{image: a, location: Edge, placement: {edgeNode: e1}}")),
		Entry("Edge with a selector", processor("p", "{image: a, location: Edge, placement: {nodeSelector: {site: north}}}")),
		Entry("quantities of every spelling", processor("p",
			`{image: a, resources: {requests: {cpu: 1, memory: "0.5e9", example.com/gpu: 1}, limits: {cpu: 1000m, memory: 1Gi}}}`)),
		Entry("nothing of a resource", processor("p", `{image: a, resources: {requests: {cpu: 0, memory: "0"}}}`)),
		Entry("a request without limit", processor("p", `{image: a, resources: {requests: {cpu: 8}, limits: {memory: 1Gi}}}`)),
		Entry("an overlay with any field of a pod", processor("p", `{image: a, podTemplate: {metadata: {labels: {team: vision}},
			spec: {hostNetwork: true, containers: [{name: processor, volumeMounts: [{name: v, mountPath: /v}]}]}}}`)),
		Entry("an edge node without spec", manifest("EdgeNode", "e1", "")),
		Entry("an edge node that fails over to another", manifest("EdgeNode", "e1", "{failoverPolicy: Enabled, failoverTarget: e2}")),
		Entry("a migration that names only its processor", manifest("ProcessorMigration", "m", "processor: p")),
		Entry("a migration that says it all", manifest("ProcessorMigration", "m",
			"{processor: p, reason: Update, targetNode: node-1, strategy: StopAndCopy, targetRevision: 0123456789abcdef, sourcePod: dory-p-x, activeDeadlineSeconds: 1, cancel: false}")),
		Entry("a processor that no drain may restart", processor("p", "{image: a, migration: {drainFallback: Never}}")),
		Entry("no checkpoints", processor("p", "{image: a, state: {checkpointInterval: 0s}}")),
		Entry("a checkpoint every second", processor("p", "{image: a, state: {checkpointInterval: 1s}}")),
		Entry("a checkpoint every day", processor("p", "{image: a, state: {checkpointInterval: 24h}}")),
		Entry("an interval of several units", processor("p", "{image: a, state: {checkpointInterval: 1m30s}}")),
		Entry("the shortest times, and no history", processor("p",
			"{image: a, migration: {startTimeoutSeconds: 1, handoffTimeoutSeconds: 1, historyLimit: 0}}")),
		Entry("the longest times and history", processor("p",
			"{image: a, migration: {startTimeoutSeconds: 86400, handoffTimeoutSeconds: 3600, historyLimit: 100}}")),
	)

	DescribeTable("refuse the change of",
		func(ctx context.Context, manifest string, change map[string]any, because ...string) {
			obj := create(ctx, manifest)
			merge(obj.Object, change)
			Expect(operator.Update(ctx, obj)).To(refusedBecause(because...))
		},
		Entry("a processor's id", processor("change", "{image: a, processorID: one}"),
			spec("processorID", "two"), "spec.processorID is immutable"),
		Entry("no id to one", processor("change", "image: a"),
			spec("processorID", "two"), "spec.processorID is immutable"),
		Entry("an id to none", processor("change", "{image: a, processorID: one}"),
			spec("processorID", nil), "spec.processorID is immutable"),
		Entry("an epoch to a lower one", epochOf("change", 7, "pod-7"),
			spec("epoch", int64(6)), "epoch never falls"),
		Entry("the holder under the same epoch", epochOf("change", 7, "pod-7"),
			spec("holder", "pod-8"), "another holder needs a higher epoch"),
		Entry("an epoch's processor", epochOf("change", 7, "pod-7"),
			spec("processorID", "other"), "spec.processorID is immutable"),
		Entry("a migration's target", manifest("ProcessorMigration", "change", "{processor: p, targetNode: a}"),
			spec("targetNode", "b"), "spec is immutable"),
		Entry("a migration's reason", manifest("ProcessorMigration", "change", "processor: p"),
			spec("reason", "Drain"), "spec is immutable"),
		Entry("a migration's processor", manifest("ProcessorMigration", "change", "processor: p"),
			spec("processor", "q"), "spec is immutable"),
		Entry("a migration's strategy from none to one", manifest("ProcessorMigration", "change", "processor: p"),
			spec("strategy", "Live"), "spec is immutable"),
		Entry("a migration's revision", manifest("ProcessorMigration", "change", "{processor: p, targetRevision: a}"),
			spec("targetRevision", nil), "spec is immutable"),
		Entry("a migration's source", manifest("ProcessorMigration", "change", "{processor: p, sourcePod: a}"),
			spec("sourcePod", "b"), "spec is immutable but for spec.cancel"),
		Entry("a migration's deadline", manifest("ProcessorMigration", "change", "processor: p"),
			spec("activeDeadlineSeconds", int64(9)), "spec is immutable but for spec.cancel"),
		Entry("a migration's cancellation, and more", manifest("ProcessorMigration", "change", "processor: p"),
			map[string]any{"spec": map[string]any{"cancel": true, "targetNode": "b"}}, "spec is immutable but for spec.cancel"),
		Entry("a migration's cancellation, back again", manifest("ProcessorMigration", "change", "{processor: p, cancel: true}"),
			spec("cancel", false), "spec.cancel cannot be taken back"),
		Entry("a migration's cancellation, to nothing", manifest("ProcessorMigration", "change", "{processor: p, cancel: true}"),
			spec("cancel", nil), "spec.cancel cannot be taken back"),
		Entry("an edge node's id", manifest("EdgeNode", "change", "edgeNodeID: 0b0e3c4e-0000-4000-8000-000000000001"),
			spec("edgeNodeID", "0b0e3c4e-0000-4000-8000-000000000002"), "spec.edgeNodeID is immutable"),
		Entry("an edge node's organisation", manifest("EdgeNode", "change", "organizationID: 0b0e3c4e-0000-4000-8000-000000000001"),
			spec("organizationID", "0b0e3c4e-0000-4000-8000-000000000002"), "spec.organizationID is immutable"),
	)

	DescribeTable("take the change of",
		func(ctx context.Context, manifest string, change map[string]any) {
			obj := create(ctx, manifest)
			merge(obj.Object, change)
			Expect(operator.Update(ctx, obj)).To(Succeed())
		},
		Entry("a processor's image", processor("change", "{image: a, processorID: one}"), spec("image", "b")),
		Entry("a processor's location", processor("change", "image: a"),
			map[string]any{"spec": map[string]any{"location": "Edge", "placement": map[string]any{"edgeNode": "e1"}}}),
		Entry("how a processor's state is kept", processor("change", "{image: a, state: {onMissing: Require}}"),
			spec("state", map[string]any{"onMissing": "Discard", "checkpointInterval": "5s"})),
		Entry("how a processor is updated and moved", processor("change", "image: a"), map[string]any{"spec": map[string]any{
			"update": map[string]any{"strategy": "OnDelete"}, "migration": map[string]any{"strategy": "StopAndCopy"},
		}}),
		Entry("a migration's labels", manifest("ProcessorMigration", "change", "processor: p"), metadata("labels", "team", "audio")),
		Entry("a migration that is called off", manifest("ProcessorMigration", "change", "processor: p"), spec("cancel", true)),
		Entry("a migration that says more, and is called off", manifest("ProcessorMigration", "change",
			"{processor: p, reason: Drain, targetNode: node-1, strategy: Live, targetRevision: r, sourcePod: s, activeDeadlineSeconds: 9, cancel: false}"), spec("cancel", true)),
		Entry("the epoch and its holder", epochOf("change", 7, "pod-7"),
			map[string]any{"spec": map[string]any{"epoch": int64(8), "holder": "pod-8"}}),
		Entry("the holder to nobody under the same epoch", epochOf("change", 7, "pod-7"), spec("holder", nil)),
		Entry("an edge node's id from none to one", manifest("EdgeNode", "change", "nodeName: node-1"),
			spec("edgeNodeID", "0b0e3c4e-0000-4000-8000-000000000001")),
	)

	It("does not let the holder come back under the same epoch", func(ctx context.Context) {
		obj := create(ctx, epochOf("change", 7, "pod-7"))
		merge(obj.Object, spec("holder", nil))
		Expect(operator.Update(ctx, obj)).To(Succeed())
		merge(obj.Object, spec("holder", "pod-7"))
		Expect(operator.Update(ctx, obj)).To(refusedBecause("another holder needs a higher epoch"))
	})

	It("fill the defaults of a Processor that names only an image", func(ctx context.Context) {
		obj := create(ctx, processor("change", "image: a"))
		Expect(obj.Object["spec"]).To(Equal(object(processor("change", `
image: a
location: Managed
port: 8080
probes: {livenessPath: Auto, initialDelaySeconds: 60, periodSeconds: 10, timeoutSeconds: 3, failureThreshold: 3}
serviceAccountName: dory-processor
terminationGracePeriodSeconds: 35
`)).Object["spec"]))
	})

	It("fill the defaults of what a Processor says about state, updates and moves", func(ctx context.Context) {
		got := create(ctx, processor("change", "{image: a, state: {}, update: {}, migration: {}}")).Object["spec"]
		Expect(got).To(And(
			HaveKeyWithValue("state", map[string]any{"checkpointInterval": "30s", "onMissing": "PreferLatest"}),
			HaveKeyWithValue("update", map[string]any{"strategy": "Live", "onConfigChange": "Ignore"}),
			HaveKeyWithValue("migration", map[string]any{
				"strategy": "Auto", "startTimeoutSeconds": int64(300), "handoffTimeoutSeconds": int64(60), "historyLimit": int64(5), "drainFallback": "Restart",
			}),
		))
	})

	It("have the defaults that the operator reckons with where nothing is said", func(ctx context.Context) {
		create(ctx, processor("change", "{image: a, state: {}, update: {}, migration: {}}"))
		said, unsaid := &doryv1alpha1.Processor{}, &doryv1alpha1.Processor{}
		Expect(typed.Get(ctx, client.ObjectKey{Namespace: "default", Name: "change"}, said)).To(Succeed())
		Expect(said.Spec.State).NotTo(BeNil())
		Expect(unsaid.CheckpointInterval()).To(Equal(said.CheckpointInterval()))
		Expect(unsaid.OnMissing()).To(Equal(said.OnMissing()))
		Expect(unsaid.UpdateStrategy()).To(Equal(said.UpdateStrategy()))
		Expect(unsaid.MigrationStrategy()).To(Equal(said.MigrationStrategy()))
		Expect(unsaid.StartTimeout()).To(Equal(said.StartTimeout()))
		Expect(unsaid.HandoffTimeout()).To(Equal(said.HandoffTimeout()))
		Expect(unsaid.HistoryLimit()).To(Equal(said.HistoryLimit()))
		Expect(unsaid.DrainFallback()).To(Equal(said.DrainFallback()))
	})

	It("fill the defaults of the other kinds", func(ctx context.Context) {
		Expect(create(ctx, manifest("EdgeNode", "change", "nodeName: node-1")).Object["spec"]).To(HaveKeyWithValue("failoverPolicy", "Disabled"))
		Expect(create(ctx, manifest("ProcessorMigration", "change", "processor: p")).Object["spec"]).To(HaveKeyWithValue("reason", "Manual"))
	})

	It("keep every field of an overlay", func(ctx context.Context) {
		obj := create(ctx, processor("change", "{image: a, podTemplate: {spec: {hostAliases: [{ip: 10.0.0.1, hostnames: [db]}]}}}"))
		aliases, found, err := unstructured.NestedSlice(obj.Object, "spec", "podTemplate", "spec", "hostAliases")
		Expect(err).NotTo(HaveOccurred())
		Expect(found).To(BeTrue())
		Expect(aliases).To(HaveLen(1))
	})

	DescribeTable("show to kubectl get",
		func(ctx context.Context, manifest, resource, columns, more string) {
			create(ctx, manifest)
			Expect(header(kubectl("get", resource, "-n", "default"))).To(Equal(strings.Fields(columns)))
			wide := header(kubectl("get", resource, "-n", "default", "-o", "wide"))
			Expect(wide).To(ConsistOf(strings.Fields(columns + " " + more)))
		},
		Entry("processors", processor("change", "image: a"), "proc",
			"NAME PHASE READY REASON UPDATED NODE AGE", "EPOCH RESTARTS SINCE CHECKPOINT IMAGE POD LOCATION SDK SOURCE"),
		Entry("epochs", epochOf("change", 7, "pod-7"), "procepoch", "NAME EPOCH HOLDER REASON ISSUED", "ID"),
		Entry("migrations", manifest("ProcessorMigration", "change", "processor: p"), "procmig",
			"NAME PROCESSOR REASON PHASE PAUSE AGE", "FROM TO STRATEGY DURATION WHY MESSAGE"),
		Entry("edge nodes", manifest("EdgeNode", "change", "nodeName: node-1"), "edgenode",
			"NAME NODE FAILOVER TARGET AGE", "ORGANIZATION"),
	)

	It("show to kubectl get how far a move is, and how it went", func(ctx context.Context) {
		obj := create(ctx, manifest("ProcessorMigration", "change", "processor: p"))
		obj.Object["status"] = map[string]any{
			"phase": "Succeeded", "strategy": "Live", "sourceNode": "north", "targetNode": "south", "pause": "17.4ms", "duration": "6s",
			"reason": "Moved", "message": "pod b acts under epoch 2", "sourcePod": "dory-a", "targetPod": "dory-b",
		}
		Expect(operator.Status().Update(ctx, obj)).To(Succeed())
		out, err := kubectl("get", "procmig", "change", "-n", "default", "-o", "wide", "--no-headers")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(strings.Fields(out)).To(HaveExactElements("change", "p", "Manual", "Succeeded", "17.4ms", Not(BeEmpty()),
			"north", "south", "Live", "6s", "Moved", "pod", "b", "acts", "under", "epoch", "2"))
	})

	It("show to kubectl get what runs, and whether it is what the spec asks for", func(ctx context.Context) {
		obj := create(ctx, processor("change", "image: registry.example.com/cam:2"))
		condition := func(kind, status, reason string) any {
			return map[string]any{"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}
		}
		obj.Object["status"] = map[string]any{
			"phase": "Running", "instance": map[string]any{"pod": "dory-change-x", "node": "node-1", "image": "registry.example.com/cam:1"},
			"conditions": []any{condition("Ready", "True", "Running"), condition("Updated", "False", "UpdateRolledBack")},
		}
		Expect(operator.Status().Update(ctx, obj)).To(Succeed())
		out, err := kubectl("get", "proc", "change", "-n", "default", "-o", "wide", "--no-headers")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(strings.Fields(out)).To(ContainElement("registry.example.com/cam:1"))
		Expect(out).NotTo(ContainSubstring("cam:2"))
		Expect(strings.Fields(out)[:6]).To(HaveExactElements("change", "Running", "True", "Running", "False", "node-1"))
	})

	It("show to kubectl get lines that fit a terminal", func(ctx context.Context) {
		const columns = 120
		const node = "ip-10-0-132-117.ec2.internal"
		create(ctx, "{apiVersion: v1, kind: Namespace, metadata: {name: production}}")
		p := create(ctx, "{apiVersion: dory.io/v1alpha1, kind: Processor, metadata: {name: camera-north-17, namespace: production}, spec: {image: a}}")
		condition := func(kind, status, reason string) any {
			return map[string]any{"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}
		}
		p.Object["status"] = map[string]any{
			"phase": "Unhealthy", "instance": map[string]any{"pod": "dory-camera-north-17-abcdefgh", "node": node},
			"conditions": []any{condition("Ready", "False", "ContainerWaiting"), condition("Updated", "False", "UpdateRolledBack")},
		}
		Expect(operator.Status().Update(ctx, p)).To(Succeed())
		m := create(ctx, "{apiVersion: dory.io/v1alpha1, kind: ProcessorMigration, metadata: {name: camera-north-17-update-98b368bc-1, namespace: production}, "+
			"spec: {processor: camera-north-17, reason: Update}}")
		m.Object["status"] = map[string]any{"phase": "RollingBack", "targetNode": node, "sourceNode": node, "pause": "123.4ms", "reason": "TargetUnschedulable"}
		Expect(operator.Status().Update(ctx, m)).To(Succeed())
		for _, kind := range []string{"proc", "procmig", "procepoch", "edgenode"} {
			out, err := kubectl("get", kind, "-A")
			Expect(err).NotTo(HaveOccurred(), out)
			for line := range strings.Lines(out) {
				Expect(len(strings.TrimSpace(line))).To(BeNumerically("<=", columns), line)
			}
		}
	})

	It("show to kubectl get how old the newest checkpoint is", func(ctx context.Context) {
		obj := create(ctx, processor("change", "image: a"))
		obj.Object["status"] = map[string]any{"phase": "Running", "checkpoint": map[string]any{
			"time": time.Now().Add(-100 * time.Minute).UTC().Format(time.RFC3339), "checksum": strings.Repeat("0", 64), "storage": "ConfigMap",
		}}
		Expect(operator.Status().Update(ctx, obj)).To(Succeed())
		out, err := kubectl("get", "proc", "change", "-n", "default", "-o", "wide", "--no-headers")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(out).To(ContainSubstring(" 100m "))
	})

	DescribeTable("refuse a status that says",
		func(ctx context.Context, manifest string, status map[string]any, because ...string) {
			obj := create(ctx, manifest)
			obj.Object["status"] = status
			Expect(operator.Status().Update(ctx, obj)).To(refusedBecause(because...))
		},
		Entry("an unknown step of a move", manifest("ProcessorMigration", "change", "processor: p"),
			map[string]any{"phase": "Cutover"}, "status.phase"),
		Entry("a negative epoch of a move", manifest("ProcessorMigration", "change", "processor: p"),
			map[string]any{"targetEpoch": int64(-1)}, "status.targetEpoch"),
		Entry("a checkpoint of no known place", processor("change", "image: a"),
			map[string]any{"checkpoint": map[string]any{"time": "2026-01-02T03:04:05Z", "checksum": strings.Repeat("0", 64), "storage": "Tape"}},
			"status.checkpoint.storage", `"ConfigMap", "Database", "Chunks"`),
		Entry("a checkpoint without a checksum", processor("change", "image: a"),
			map[string]any{"checkpoint": map[string]any{"time": "2026-01-02T03:04:05Z", "storage": "ConfigMap"}}, "status.checkpoint.checksum"),
		Entry("a checkpoint of a time that is none", processor("change", "image: a"),
			map[string]any{"checkpoint": map[string]any{"time": "noon", "checksum": strings.Repeat("0", 64), "storage": "ConfigMap"}}, "status.checkpoint.time"),
	)

	It("list everything under the category dory", func(ctx context.Context) {
		create(ctx, processor("change", "image: a"))
		create(ctx, epochOf("change", 7, "pod-7"))
		out, err := kubectl("get", "dory", "-n", "default", "-o", "name")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(strings.Fields(out)).To(ContainElements("processor.dory.io/change", "processorepoch.dory.io/change"))
	})

	DescribeTable("can be selected by",
		func(ctx context.Context, field, value string) {
			obj := create(ctx, processor("change", "{image: a, processorID: Proc_6}"))
			create(ctx, processor("another", "image: a"))
			obj.Object["status"] = map[string]any{
				"phase": "Running", "instance": map[string]any{"pod": "dory-change-x", "node": "node-1"},
			}
			Expect(operator.Status().Update(ctx, obj)).To(Succeed())
			out, err := kubectl("get", "proc", "-n", "default", "-o", "name", "--field-selector", field+"="+value)
			Expect(err).NotTo(HaveOccurred(), out)
			Expect(strings.Fields(out)).To(ConsistOf("processor.dory.io/change"))
		},
		Entry("id", "spec.processorID", "Proc_6"),
		Entry("phase", "status.phase", "Running"),
		Entry("node", "status.instance.node", "node-1"),
	)
})

// header is the first line of kubectl's table.
func header(out string, err error) []string {
	GinkgoHelper()
	Expect(err).NotTo(HaveOccurred(), out)
	first, _, _ := strings.Cut(out, "\n")
	return strings.Fields(first)
}
