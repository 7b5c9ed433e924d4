package migration

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/internal/undecodable"
)

// The words in which the tests of decide describe what was observed.

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type change func(*observation)

// given is a processor with an instance that is ready.
func given(changes ...change) *observation {
	delay := int32(60)
	o := &observation{
		key: types.NamespacedName{Namespace: namespace, Name: "cam"}, now: now, suffix: "new", targetNodes: map[string]*corev1.Node{"missing": nil},
		processor: &doryv1alpha1.Processor{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cam", UID: "processor-uid"},
			Spec: doryv1alpha1.ProcessorSpec{
				Image: "counter:1", Port: 8080, Location: doryv1alpha1.LocationManaged, TerminationGracePeriodSeconds: 35,
				Probes: doryv1alpha1.ProcessorProbes{LivenessPath: "Auto", InitialDelaySeconds: &delay, PeriodSeconds: 10, TimeoutSeconds: 3, FailureThreshold: 3},
			},
		},
		epoch: &doryv1alpha1.ProcessorEpoch{Spec: doryv1alpha1.ProcessorEpochSpec{Epoch: 7, Holder: "dory-cam-old"}},
		live:  true,
	}
	o.holder = o.instance("dory-cam-old", 7)
	o.source = o.holder
	for _, change := range changes {
		change(o)
	}
	o.sort()
	o.revise()
	return o
}

func (o *observation) instance(name string, epoch int64) *corev1.Pod {
	built, err := pod.Build(pod.Input{Processor: o.processor, Name: name, Epoch: epoch, Standby: epoch == 0})
	if err != nil {
		panic(err)
	}
	built.Spec.NodeName = "n1"
	built.Status.Phase, built.Status.PodIP = corev1.PodRunning, "10.0.0.7"
	setReady(built, true)
	return built
}

// with adds a migration that was created some time ago.
func with(name string, age time.Duration, changes ...func(*doryv1alpha1.ProcessorMigration)) change {
	return func(o *observation) {
		m := &doryv1alpha1.ProcessorMigration{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-age))},
			Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: "cam", Reason: doryv1alpha1.MigrationManual},
		}
		for _, change := range changes {
			change(m)
		}
		o.migrations = append(o.migrations, m)
	}
}

func held(m *doryv1alpha1.ProcessorMigration) { m.Finalizers = []string{Finalizer} }

func deleted(m *doryv1alpha1.ProcessorMigration) { t := metav1.NewTime(now); m.DeletionTimestamp = &t }

func reason(r doryv1alpha1.MigrationReason) func(*doryv1alpha1.ProcessorMigration) {
	return func(m *doryv1alpha1.ProcessorMigration) { m.Spec.Reason = r }
}

func strategy(s doryv1alpha1.MigrationStrategy) func(*doryv1alpha1.ProcessorMigration) {
	return func(m *doryv1alpha1.ProcessorMigration) { m.Spec.Strategy = s }
}

func node(name string) func(*doryv1alpha1.ProcessorMigration) {
	return func(m *doryv1alpha1.ProcessorMigration) { m.Spec.TargetNode = name }
}

func update(revision string) func(*doryv1alpha1.ProcessorMigration) {
	return func(m *doryv1alpha1.ProcessorMigration) {
		m.Spec.Reason, m.Spec.TargetRevision = doryv1alpha1.MigrationUpdate, revision
	}
}

// in puts a migration of the strategy into a phase that it reached some time ago.
func in(phase doryv1alpha1.MigrationPhase, ago time.Duration, why string) func(*doryv1alpha1.ProcessorMigration) {
	return func(m *doryv1alpha1.ProcessorMigration) {
		t := metav1.NewTime(now.Add(-ago))
		m.Status.Phase, m.Status.PhaseTime, m.Status.Reason = phase, &t, why
		if m.Active() {
			held(m)
			m.Status.SourcePod, m.Status.TargetPod, m.Status.StartTime = "dory-cam-old", "dory-cam-new", &t
			m.Status.Strategy = doryv1alpha1.MigrationLive
		}
		if m.Ended() {
			m.Status.CompletionTime = &t
		}
	}
}

func saying(text string) func(*doryv1alpha1.ProcessorMigration) {
	return func(m *doryv1alpha1.ProcessorMigration) { m.Status.Message = text }
}

// sameRevision lets the active migration be about the Processor as it is.
func sameRevision(o *observation) {
	o.revise()
	o.active().Status.Revision = o.revision
}

func targetPod(changes ...func(*corev1.Pod)) change {
	return func(o *observation) {
		o.target = o.instance("dory-cam-new", 0)
		for _, change := range changes {
			change(o.target)
		}
	}
}

func unbound(p *corev1.Pod) { p.Spec.NodeName = "" }

func unready(p *corev1.Pod) { setReady(p, false) }

func waiting(reason string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		setReady(p, false)
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "processor", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
	}
}

// companion is another container than the processor's that waits, and keeps the processor's waiting where it is of init.
func companion(reason string, ofInit bool) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		setReady(p, false)
		status := corev1.ContainerStatus{Name: "proxy", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
		if ofInit {
			waiting("PodInitializing")(p)
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{status}
			return
		}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "processor", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}, status}
	}
}

func can(handoff bool) change {
	return func(o *observation) { o.know.sourceCan = &statexfer.Capabilities{Handoff: handoff} }
}

func troubled(at step, err error) change {
	return func(o *observation) { o.know.trouble = &trouble{at, err} }
}

func processor(change func(*doryv1alpha1.Processor)) change {
	return func(o *observation) { change(o.processor) }
}

func holder(change func(*corev1.Pod)) change { return func(o *observation) { change(o.holder) } }

// String says in one line what was decided.
func (d decision) String() string {
	var s strings.Builder
	switch {
	case d.step != "":
		s.WriteString(string(d.step))
	case d.after > 0:
		fmt.Fprintf(&s, "wait %s", d.after)
	default:
		return "await"
	}
	if d.status != nil {
		fmt.Fprintf(&s, " %s", d.status.Reason)
	}
	if d.migration != nil && d.migration.Name != "m" {
		fmt.Fprintf(&s, " of %s", d.migration.Name)
	}
	return s.String()
}

func TestDecideWhoMayBegin(t *testing.T) {
	yes := true
	manual := reason(doryv1alpha1.MigrationManual)
	const minute = time.Minute
	for name, test := range map[string]struct {
		o    *observation
		want string
	}{
		"nothing to do":      {given(), "await"},
		"ask first":          {given(with("m", 0)), "ask-source"},
		"then hold on to it": {given(with("m", 0), can(true)), "hold"},
		"then begin":         {given(with("m", 0, held), can(true)), "enter-placing Moving"},
		"begin by overlap":   {given(with("m", 0, held), can(false)), "enter-placing Moving"},
		"begin by stopping":  {given(with("m", 0, held, strategy(doryv1alpha1.MigrationStopAndCopy))), "enter-warming Moving"},
		"the Processor may say it, too": {given(with("m", 0, held), processor(func(p *doryv1alpha1.Processor) {
			p.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{Strategy: "Overlap"}
		})), "enter-placing Moving"},
		"no handoff for Live":        {given(with("m", 0, strategy(doryv1alpha1.MigrationLive)), can(false)), "enter-rolled-back SourceHasNoHandoff"},
		"the cache has no Processor": {given(with("m", 0), func(o *observation) { o.processor, o.live = nil, false }), "look"},
		"there is no Processor":      {given(with("m", 0), func(o *observation) { o.processor = nil }), "enter-failed ProcessorNotFound"},
		"the Processor goes":         {given(with("m", 0), processor(func(p *doryv1alpha1.Processor) { t := metav1.NewTime(now); p.DeletionTimestamp = &t })), "enter-failed NothingToMove"},
		"it cannot be decoded":       {given(with("m", 0), processor(unreadable)), "enter-failed ProcessorUndecodable"},
		"it is suspended":            {given(with("m", 0), processor(func(p *doryv1alpha1.Processor) { p.Spec.Suspend = &yes })), "enter-failed NothingToMove"},
		"the name is too long":       {given(with(strings.Repeat("m", 64), 0)), "enter-rolled-back NameTooLong of " + strings.Repeat("m", 64)},
		"there is no such node":      {given(with("m", 0, node("missing"))), "enter-rolled-back TargetNodeNotFound"},
		"there is such a node":       {given(with("m", 0, node("n2")), target("n2")), "ask-source"},
		"the node lacks a label":     {given(with("m", 0, node("n2")), target("n2", func(n *corev1.Node) { n.Labels = nil })), "enter-rolled-back TargetNodeExcluded"},
		"the node is for the system": {given(with("m", 0, node("n2")), target("n2", func(n *corev1.Node) { n.Labels["node-role"] = "system" })), "enter-rolled-back TargetNodeExcluded"},
		"the node is tainted": {given(with("m", 0, node("n2")), target("n2", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "team", Effect: corev1.TaintEffectNoSchedule}}
		})), "enter-rolled-back TargetNodeExcluded"},
		"the node is cordoned, which may pass": {given(with("m", 0, node("n2")), target("n2", func(n *corev1.Node) {
			n.Spec.Unschedulable = true
			n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
		})), "ask-source"},
		"the node is another than the template names": {given(with("m", 0, node("n2")), target("n2"), template(`{"nodeName":"n1"}`), current), "enter-rolled-back TargetNodeExcluded"},
		"that template does not run yet":              {given(with("m", 0, node("n2")), target("n2"), template(`{"nodeName":"n1"}`)), "ask-source"},
		"the edge node is unknown": {given(with("m", 0), func(o *observation) {
			o.edgeNodeUnknown, o.processor.Spec.Placement = true, &doryv1alpha1.ProcessorPlacement{EdgeNode: "gone"}
		}), "enter-rolled-back EdgeNodeUnknown"},
		"the spec is another by now": {given(with("m", 0, update("another"))), "enter-rolled-back Superseded"},
		"somebody was faster": {given(with("m", 0), func(o *observation) {
			o.revise()
			update(o.revision)(o.migrations[0])
		}), "enter-rolled-back AlreadyCurrent"},
		"an update that is due": {given(with("m", 0), func(o *observation) {
			o.revise()
			update(o.revision)(o.migrations[0])
			o.holder.Annotations[doryv1alpha1.AnnotationRevision] = "older"
		}), "ask-source"},
		"no instance yet":            {given(with("m", 0), func(o *observation) { o.holder = nil }), "note WaitingForInstance"},
		"the instance is not ready":  {given(with("m", 0), holder(unready)), "note WaitingForInstance"},
		"the instance is ending":     {given(with("m", 0), holder(func(p *corev1.Pod) { t := metav1.NewTime(now); p.DeletionTimestamp = &t })), "note WaitingForInstance"},
		"the instance stands by":     {given(with("m", 0), holder(func(p *corev1.Pod) { p.Annotations[doryv1alpha1.AnnotationRole] = "standby"; unready(p) })), "note WaitingForInstance"},
		"the instance has no epoch":  {given(with("m", 0), holder(func(p *corev1.Pod) { delete(p.Labels, doryv1alpha1.LabelEpoch) })), "note WaitingForInstance"},
		"it waits for the instance":  {given(with("m", 0, in("Pending", minute, ReasonWaitingForInstance), saying("the processor has no instance yet")), func(o *observation) { o.holder = nil }), "wait 4m0s"},
		"it has waited long enough":  {given(with("m", 0, in("Pending", 5*minute, ReasonWaitingForInstance)), func(o *observation) { o.holder = nil }), "enter-failed NothingToMove"},
		"the source does not answer": {given(with("m", 0), troubled(stepAskSource, statexfer.ErrUnavailable)), "note SourceUnavailable"},
		"it still does not":          {given(with("m", 0, in("Pending", minute, ReasonSourceUnavailable), saying("pod dory-cam-old does not say what it can do")), troubled(stepAskSource, statexfer.ErrUnavailable)), "wait 1s"},
		"it never did":               {given(with("m", 0, in("Pending", 5*minute, ReasonSourceUnavailable)), troubled(stepAskSource, statexfer.ErrUnavailable)), "enter-rolled-back SourceUnavailable"},
		"the older goes first":       {given(with("m", 2*minute, manual), with("b", minute, reason(doryv1alpha1.MigrationDrain))), "ask-source"},
		"and the other is told": {given(with("m", 2*minute, in("Pending", 0, ReasonWaitingForInstance), saying("the processor has no instance yet")), with("b", minute, reason(doryv1alpha1.MigrationDrain)),
			func(o *observation) { o.holder = nil }), "note Queued of b"},
		"of the same reason the newer": {given(with("a", 2*minute), with("m", minute)), "ask-source"},
		"and the older gives way": {given(with("a", 2*minute), with("m", minute, in("Pending", 0, ReasonWaitingForInstance), saying("the processor has no instance yet")),
			func(o *observation) { o.holder = nil }), "enter-rolled-back Superseded of a"},
		"behind an active one":                {given(with("a", 2*minute, in("Placing", 0, ReasonMoving)), with("m", minute), targetPod(unbound), sameRevision), "note Queued"},
		"its turn has to be asked for":        {given(with("m", 0), can(true), turns), "ask-turn"},
		"and has come":                        {given(with("m", 0), can(true), turns, turn("")), "hold"},
		"and has not come":                    {given(with("m", 0), can(true), turns, turn("10 move already")), "note Queued"},
		"and has not come yet":                {given(with("m", 0, in("Pending", 0, ReasonQueued), saying("10 move already")), can(true), turns, turn("10 move already")), "wait 5s"},
		"another pod is to be left":           {given(with("m", 0, leaves("dory-cam-older"))), "enter-rolled-back SourceReplaced"},
		"so the cache says":                   {given(with("m", 0, leaves("dory-cam-older")), func(o *observation) { o.live = false }), "look"},
		"this pod is to be left":              {given(with("m", 0, leaves("dory-cam-old"))), "ask-source"},
		"called off":                          {given(with("m", 0, calledOffAlready)), "enter-rolled-back Cancelled"},
		"called off while it waits":           {given(with("m", 0, in("Pending", 0, ReasonQueued), held, calledOffAlready)), "enter-rolled-back Cancelled"},
		"one called off is in nobody's way":   {given(with("m", minute), with("b", 0, calledOffAlready)), "ask-source"},
		"its time is up":                      {given(with("m", minute, within(60)), holder(unready)), "enter-rolled-back DeadlineExceeded"},
		"its time is up, without an instance": {given(with("m", minute, within(60), in("Pending", minute, ReasonWaitingForInstance)), holder(unready)), "enter-rolled-back WaitingForInstance"},
		"its time is up in the queue":         {given(with("m", minute, within(60), in("Pending", minute, ReasonQueued))), "enter-rolled-back DeadlineExceeded"},
		"its time is up, without an answer":   {given(with("m", minute, within(60), in("Pending", minute, ReasonSourceUnavailable)), troubled(stepAskSource, statexfer.ErrUnavailable)), "enter-rolled-back SourceUnavailable"},
		"its time is up soon":                 {given(with("m", minute, within(90), in("Pending", minute, ReasonWaitingForInstance), saying("pod dory-cam-old is not ready, so that it cannot hand over its state")), holder(unready)), "wait 30s"},
		"an ended one is let go":              {given(with("m", minute, in("Succeeded", 0, ReasonMoved), held)), "release"},
		"a deleted one that never began":      {given(with("m", minute, deleted)), "await"},
		"a deleted one that was held already": {given(with("m", minute, deleted, held)), "release"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.o).String(); got != test.want {
				t.Errorf("decided %q, want %q", got, test.want)
			}
		})
	}
}

// target is a node that a processor can be moved to, but for the changes.
func target(name string, changes ...func(*corev1.Node)) change {
	return func(o *observation) {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"workload-type": "application"}}}
		for _, change := range changes {
			change(n)
		}
		o.targetNodes[name] = n
	}
}

func template(spec string) change {
	return processor(func(p *doryv1alpha1.Processor) {
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(spec)}}
	})
}

// current has the instance be of the present spec.
func current(o *observation) { o.holder = o.instance("dory-cam-old", 7) }

func turns(o *observation) { o.turns = true }

func turn(waitsFor string) change {
	return func(o *observation) { o.know.turnAsked, o.know.waitsFor = true, waitsFor }
}

func leaves(name string) func(*doryv1alpha1.ProcessorMigration) {
	return func(m *doryv1alpha1.ProcessorMigration) {
		m.Spec.Reason, m.Spec.SourcePod = doryv1alpha1.MigrationDrain, name
	}
}

func calledOffAlready(m *doryv1alpha1.ProcessorMigration) { m.Spec.Cancel = new(true) }

func supersededBy(m *doryv1alpha1.ProcessorMigration) {
	metav1.SetMetaDataAnnotation(&m.ObjectMeta, doryv1alpha1.AnnotationSupersededBy, "the drain of node n1")
}

func within(seconds int64) func(*doryv1alpha1.ProcessorMigration) {
	return func(m *doryv1alpha1.ProcessorMigration) { m.Spec.ActiveDeadlineSeconds = &seconds }
}

func unreadable(p *doryv1alpha1.Processor) { undecodable.Mark(p, "why") }

func TestDecideToGiveUp(t *testing.T) {
	const second = time.Second
	ending := func(o *observation) { t := metav1.NewTime(now); o.source.DeletionTimestamp = &t }
	stopping := func(m *doryv1alpha1.ProcessorMigration) { m.Status.Strategy = doryv1alpha1.MigrationStopAndCopy }
	for name, test := range map[string]struct {
		o    *observation
		want string
	}{
		"called off in Placing":                 {given(with("m", 0, in("Placing", 0, ""), calledOffAlready), sameRevision, targetPod(unbound)), "enter-rolling-back Cancelled"},
		"undecodable in Placing":                {given(with("m", 0, in("Placing", 0, "")), processor(unreadable), sameRevision, targetPod(unbound)), "enter-rolling-back ProcessorUndecodable"},
		"undecodable in the handoff":            {given(with("m", 0, in("HandingOff", 0, "")), processor(unreadable), targetPod()), "enter-rolling-back ProcessorUndecodable"},
		"undecodable too late":                  {given(with("m", 0, in("HandingOff", 0, "")), processor(unreadable), targetPod(), handedOver), "check-target"},
		"called off in the handoff":             {given(with("m", 0, in("HandingOff", 0, ""), calledOffAlready), targetPod()), "enter-rolling-back Cancelled"},
		"on a cache's word alone":               {given(with("m", 0, in("HandingOff", 0, ""), calledOffAlready), targetPod(), func(o *observation) { o.live = false }), "look"},
		"called off too late":                   {given(with("m", 0, in("HandingOff", 0, ""), calledOffAlready), targetPod(), handedOver), "check-target"},
		"called off when the source ends":       {given(with("m", 0, in("HandingOff", 0, ""), stopping, calledOffAlready), ending), "await"},
		"overdue without a node":                {given(with("m", 60*second, in("Placing", 50*second, ""), within(60)), sameRevision, targetPod(unbound)), "enter-rolling-back DeadlineExceeded"},
		"overdue and not made":                  {given(with("m", 60*second, in("Placing", 50*second, ReasonTargetOverQuota), saying("exceeded quota: q"), within(60)), sameRevision), "enter-rolling-back TargetOverQuota"},
		"called off for a drain":                {given(with("m", 0, in("Placing", 0, ""), calledOffAlready, supersededBy), sameRevision, targetPod(unbound)), "enter-rolling-back Superseded"},
		"overdue and not ready":                 {given(with("m", 60*second, in("Starting", 50*second, ""), within(60)), sameRevision, targetPod(unready)), "enter-rolling-back DeadlineExceeded"},
		"overdue without an image":              {given(with("m", 60*second, in("Starting", 20*second, ""), within(60)), sameRevision, targetPod(waiting("ImagePullBackOff"))), "enter-rolling-back TargetImageUnavailable"},
		"overdue, a companion without an image": {given(with("m", 60*second, in("Starting", 20*second, ""), within(60)), sameRevision, targetPod(companion("ImagePullBackOff", true))), "enter-rolling-back TargetImageUnavailable"},
		"overdue and crashing":                  {given(with("m", 60*second, in("Starting", 20*second, ""), within(60)), sameRevision, targetPod(waiting("CrashLoopBackOff"))), "enter-rolling-back DeadlineExceeded"},
		"overdue in the handoff":                {given(with("m", 60*second, in("HandingOff", second, ""), within(60)), targetPod()), "enter-rolling-back DeadlineExceeded"},
		"overdue after the handoff":             {given(with("m", 60*second, in("HandingOff", second, ""), within(60)), targetPod(), handedOver), "check-target"},
		"overdue when the source ends":          {given(with("m", 60*second, in("HandingOff", second, ""), stopping, within(60)), ending), "await"},
		"overdue soon":                          {given(with("m", 50*second, in("Placing", 50*second, ""), within(60)), sameRevision, targetPod(unbound)), "wait 10s"},
		"the deadline is later than the rest":   {given(with("m", 50*second, in("Placing", 50*second, ""), within(600)), sameRevision, targetPod(unbound)), "wait 4m10s"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.o).String(); got != test.want {
				t.Errorf("decided %q, want %q", got, test.want)
			}
		})
	}
}

// The last attempt to leave a pod says to the drain what to try next.
func TestCollectKeepsWhatDrainsGoBy(t *testing.T) {
	none := int32(0)
	o := given(
		processor(func(p *doryv1alpha1.Processor) {
			p.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{HistoryLimit: &none}
		}),
		with("a", 3*time.Hour, leaves("dory-cam-old"), in("RolledBack", 3*time.Hour, ReasonDeadlineExceeded)),
		with("b", 2*time.Hour, leaves("dory-cam-old"), in("RolledBack", 2*time.Hour, ReasonDeadlineExceeded)),
		with("c", time.Hour, leaves("dory-cam-older"), in("Succeeded", time.Hour, ReasonMoved)),
	)
	for _, want := range []string{"collect of a", "collect of c", "await"} {
		d := decide(o)
		if d.String() != want {
			t.Fatalf("decided %q, want %q", d, want)
		}
		if d.migration != nil {
			o.drop(d.migration)
		}
	}
}

func TestDecideAboutTheTarget(t *testing.T) {
	const second = time.Second
	placing, starting := doryv1alpha1.MigrationPlacing, doryv1alpha1.MigrationStarting
	forbidden := apierrors.NewForbidden(resource("pods"), "x", errors.New("a policy"))
	crowded := apierrors.NewForbidden(resource("pods"), "x", errors.New("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"))
	said := func(o *observation) { o.know.said = true }
	nowhere := func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes"})
	}
	const silent = "target pod dory-cam-new on node n1 is not ready: its kubelet has not said anything yet"
	invalid := apierrors.NewInvalid(doryv1alpha1.GroupVersion.WithKind("Pod").GroupKind(), "x", nil)
	capable := func(handoff bool) change {
		return func(o *observation) { o.know.targetCan = &statexfer.Capabilities{Handoff: handoff} }
	}
	for name, test := range map[string]struct {
		o    *observation
		want string
	}{
		"not made yet":                 {given(with("m", 0, in(placing, 0, "")), sameRevision), "create-target"},
		"refused for now":              {given(with("m", 0, in(placing, 0, "")), sameRevision, troubled(stepCreateTarget, forbidden)), "wait 1s"},
		"refused for a while":          {given(with("m", 0, in(placing, 3*second, "")), sameRevision, troubled(stepCreateTarget, forbidden)), "note TargetRejected"},
		"refused as it said":           {given(with("m", 0, in(placing, 3*second, ReasonTargetRejected), saying(forbidden.Error())), sameRevision, troubled(stepCreateTarget, forbidden)), "wait 1s"},
		"refused in other words":       {given(with("m", 0, in(placing, 3*second, ReasonTargetRejected), saying("before")), sameRevision, troubled(stepCreateTarget, forbidden)), "note TargetRejected"},
		"in others in each try":        {given(with("m", 0, in(placing, 3*second, ReasonTargetRejected), saying("before")), sameRevision, troubled(stepCreateTarget, forbidden), said), "wait 1s"},
		"refused for too long":         {given(with("m", 0, in(placing, 300*second, "")), sameRevision, troubled(stepCreateTarget, forbidden)), "enter-rolling-back TargetRejected"},
		"no room in a quota":           {given(with("m", 0, in(placing, 20*second, "")), sameRevision, troubled(stepCreateTarget, crowded)), "note TargetOverQuota"},
		"nor in time":                  {given(with("m", 0, in(placing, 300*second, "")), sameRevision, troubled(stepCreateTarget, crowded)), "enter-rolling-back TargetOverQuota"},
		"nor soon, for a drain":        {given(with("m", 0, in(placing, 9*second, ""), reason(doryv1alpha1.MigrationDrain)), sameRevision, troubled(stepCreateTarget, crowded)), "enter-rolling-back TargetOverQuota"},
		"no node so far":               {given(with("m", 0, in(placing, 10*second, "")), sameRevision, targetPod(unbound, nowhere)), "note TargetUnschedulable"},
		"no node, as it said":          {given(with("m", 0, in(placing, 10*second, ReasonTargetUnschedulable), saying("target pod dory-cam-new finds no node: 0/3 nodes")), sameRevision, targetPod(unbound, nowhere)), "wait 4m50s"},
		"no node for a moment":         {given(with("m", 0, in(placing, second, "")), sameRevision, targetPod(unbound, nowhere)), "wait 2s"},
		"refused for good":             {given(with("m", 0, in(placing, 0, "")), sameRevision, troubled(stepCreateTarget, invalid)), "enter-rolling-back TargetInvalid"},
		"without a node":               {given(with("m", 0, in(placing, 10*second, "")), sameRevision, targetPod(unbound)), "wait 4m50s"},
		"without a node in time":       {given(with("m", 0, in(placing, 300*second, "")), sameRevision, targetPod(unbound)), "enter-rolling-back TargetUnschedulable"},
		"with a node":                  {given(with("m", 0, in(placing, 10*second, "")), sameRevision, targetPod()), "enter-starting Moving"},
		"not ready for a moment":       {given(with("m", 0, in(starting, 2*second, "")), sameRevision, targetPod(unready)), "wait 1s"},
		"not ready":                    {given(with("m", 0, in(starting, 10*second, "")), sameRevision, targetPod(unready)), "note TargetNotReady"},
		"not ready, as it said":        {given(with("m", 0, in(starting, 10*second, ReasonTargetNotReady), saying(silent)), sameRevision, targetPod(unready)), "wait 4m50s"},
		"not ready in time":            {given(with("m", 0, in(starting, 300*second, "")), sameRevision, targetPod(unready)), "enter-rolling-back TargetNotReady"},
		"without an image, so far":     {given(with("m", 0, in(starting, 10*second, "")), sameRevision, targetPod(waiting("ErrImagePull"))), "note TargetImageUnavailable"},
		"without one, as it said":      {given(with("m", 0, in(starting, 10*second, ReasonTargetImage), saying("target pod dory-cam-new on node n1 is not ready: container processor: ErrImagePull")), sameRevision, targetPod(waiting("ErrImagePull"))), "wait 20s"},
		"without an image":             {given(with("m", 0, in(starting, 30*second, "")), sameRevision, targetPod(waiting("ImagePullBackOff"))), "enter-rolling-back TargetImageUnavailable"},
		"a pull fails late":            {given(with("m", 0, in(starting, 40*second, "")), sameRevision, targetPod(waiting("ErrImagePull"))), "enter-rolling-back TargetImageUnavailable"},
		"without an image in time":     {given(with("m", 0, in(starting, 300*second, "")), sameRevision, targetPod(waiting("ErrImagePull"))), "enter-rolling-back TargetImageUnavailable"},
		"no name of an image":          {given(with("m", 0, in(starting, 30*second, "")), sameRevision, targetPod(waiting("InvalidImageName"))), "enter-rolling-back TargetNotReady"},
		"a companion without an image": {given(with("m", 0, in(starting, 30*second, "")), sameRevision, targetPod(companion("ImagePullBackOff", false))), "enter-rolling-back TargetImageUnavailable"},
		"init without an image":        {given(with("m", 0, in(starting, 30*second, "")), sameRevision, targetPod(companion("ErrImagePull", true))), "enter-rolling-back TargetImageUnavailable"},
		"init fails, so far":           {given(with("m", 0, in(starting, 10*second, "")), sameRevision, targetPod(companion("CrashLoopBackOff", true))), "note TargetNotReady"},
		"init fails":                   {given(with("m", 0, in(starting, 30*second, "")), sameRevision, targetPod(companion("CrashLoopBackOff", true))), "enter-rolling-back TargetNotReady"},
		"crashing again and again":     {given(with("m", 0, in(starting, 30*second, "")), sameRevision, targetPod(waiting("CrashLoopBackOff"))), "enter-rolling-back TargetNotReady"},
		"creating its container":       {given(with("m", 0, in(starting, 30*second, "")), sameRevision, targetPod(waiting("ContainerCreating"))), "note TargetNotReady"},
		"ready":                        {given(with("m", 0, in(starting, 10*second, "")), sameRevision, targetPod()), "ask-target"},
		"ready and capable":            {given(with("m", 0, in(starting, 10*second, "")), sameRevision, targetPod(), capable(true)), "enter-warming Moving"},
		"ready and not capable":        {given(with("m", 0, in(starting, 10*second, "")), sameRevision, targetPod(), capable(false)), "enter-rolling-back TargetHasNoHandoff"},
		"the spec has changed":         {given(with("m", 0, in(starting, 10*second, "")), targetPod()), "enter-rolling-back Superseded"},
		"nothing on a cache's word":    {given(with("m", 0, in(starting, 10*second, "")), sameRevision, targetPod(), func(o *observation) { o.live = false }), "look"},
		"waiting costs no look":        {given(with("m", 0, in(starting, 10*second, ReasonTargetNotReady), saying(silent)), sameRevision, targetPod(unready), func(o *observation) { o.live = false }), "wait 4m50s"},
		"warming for too long":         {given(with("m", 0, in("Warming", 90*second, "")), sameRevision, targetPod()), "enter-rolling-back StateNotCopied"},
		"the epoch is barred first":    {given(with("m", 0, in("RollingBack", second, "")), targetPod()), "bar"},
		"its end is awaited":           {given(with("m", 0, in("RollingBack", second, "")), barred, targetPod(func(p *corev1.Pod) { t := metav1.NewTime(now); p.DeletionTimestamp = &t })), "wait 1m34s"},
		"but not for ever":             {given(with("m", 0, in("RollingBack", 95*second, "TargetLost")), barred, targetPod(func(p *corev1.Pod) { t := metav1.NewTime(now); p.DeletionTimestamp = &t })), "enter-rolled-back TargetLost"},
		"the source's end is awaited": {given(with("m", 0, in("Retiring", second, "")), targetPod(), handedOver, holder(func(*corev1.Pod) {}), func(o *observation) {
			t := metav1.NewTime(now)
			o.source.DeletionTimestamp = &t
		}), "wait 1m34s"},
		"though not for ever": {given(with("m", 0, in("Retiring", 95*second, "")), targetPod(), handedOver, func(o *observation) {
			t := metav1.NewTime(now)
			o.source.DeletionTimestamp = &t
		}), "enter-succeeded Moved"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.o).String(); got != test.want {
				t.Errorf("decided %q, want %q", got, test.want)
			}
		})
	}
}

// A state that is given to whoever acts takes the place of what it did.
func TestDecideGivesNoStateToWhoeverActs(t *testing.T) {
	is := func(role string) change {
		return func(o *observation) {
			o.know.sourceIs = &statexfer.HandoffStatus{Role: roleQuiesced, Epoch: 7}
			o.know.targetIs = &statexfer.HandoffStatus{Role: role, Epoch: 7}
			o.know.copy, o.know.final, o.know.drawn = &statexfer.State{}, &statexfer.State{}, 8
			o.source.Annotations[doryv1alpha1.AnnotationRole] = doryv1alpha1.RoleStandby
		}
	}
	for name, test := range map[string]struct {
		o    *observation
		want string
	}{
		"warming a standby":        {given(with("m", 0, in("Warming", 0, "")), sameRevision, targetPod(), is(roleStandby)), "warm"},
		"warming a PRIMARY":        {given(with("m", 0, in("Warming", 0, "")), sameRevision, targetPod(), is(rolePrimary)), "enter-rolling-back TargetUnavailable"},
		"handing over to one":      {given(with("m", 0, in("HandingOff", 0, "")), targetPod(), is(rolePrimary)), "enter-rolling-back TargetUnavailable"},
		"after it has taken over":  {given(with("m", 0, in("HandingOff", 0, "")), targetPod(), handedOver, is(rolePrimary)), "enter-retiring Moving"},
		"before it has taken over": {given(with("m", 0, in("HandingOff", 0, "")), targetPod(), handedOver, is(roleStandby)), "restore"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.o).String(); got != test.want {
				t.Errorf("decided %q, want %q", got, test.want)
			}
		})
	}
}

// The source does not stand still for the database, nor is it marked while it still acts.
func TestDecideDrawsBeforeAnythingElse(t *testing.T) {
	ready := given(with("m", 0, in("HandingOff", 0, "")), targetPod())
	for drawn, want := range map[int64]step{0: stepDraw, 8: stepAside} {
		ready.know.drawn = drawn
		if got := decide(ready); got.step != want {
			t.Errorf("with %d drawn: decided %q, want %q", drawn, got, want)
		}
	}
	slow := given(with("m", 0, in("HandingOff", 0, "")), targetPod())
	slow.processor.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{HandoffTimeoutSeconds: 2}
	if got := decide(slow); got.timeout != 500*time.Millisecond {
		t.Errorf("of 2 s for the handoff, the database may take %s", got.timeout)
	}
}

func barred(o *observation) {
	o.epoch.Annotations = map[string]string{"dory.io/barred-by": string(o.active().UID)}
}

// handedOver lets the target hold the epoch.
func handedOver(o *observation) {
	o.epoch.Spec.Holder, o.epoch.Spec.Epoch = "dory-cam-new", 8
	o.target.Labels[doryv1alpha1.LabelEpoch] = "8"
	o.target.Annotations[doryv1alpha1.AnnotationRole] = doryv1alpha1.RolePrimary
}

func TestCollectKeepsWhatLifecycleGoesBy(t *testing.T) {
	blames := func(m *doryv1alpha1.ProcessorMigration) { m.Status.Reason = ReasonTargetNotReady }
	limit := int32(1)
	o := given(
		processor(func(p *doryv1alpha1.Processor) {
			p.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{HistoryLimit: &limit}
		}),
		with("blame", 4*time.Hour, in("RolledBack", 4*time.Hour, "")),
		with("m", 3*time.Hour, in("Succeeded", 3*time.Hour, "")),
		with("b", 2*time.Hour, in("Failed", 2*time.Hour, "")),
	)
	update(o.revision)(o.migrations[0])
	blames(o.migrations[0])
	d := decide(o)
	if d.String() != "collect" {
		t.Fatalf("decided %q, want the oldest but one to be collected", d)
	}
	o.drop(d.migration)
	if d := decide(o); d.step != "" {
		t.Errorf("decided %q, want the record that speaks against the current spec to stay", d)
	}
	o.migrations[0].Status.Reason = ReasonStateUnauthorized
	if d := decide(o); d.step != "" {
		t.Errorf("decided %q, want the last record of an update to the current spec to stay, whatever it was given up for", d)
	}
	with("later", time.Hour, update(o.revision), in("RolledBack", time.Hour, ReasonSourceUnavailable))(o)
	if d := decide(o); d.String() != "collect of blame" {
		t.Errorf("decided %q, want a later update's record to take the place of the earlier one", d)
	}
	o.migrations = o.migrations[:2]
	update("another")(o.migrations[0])
	if d := decide(o); d.String() != "collect of blame" {
		t.Errorf("decided %q, want the record about another spec to go", d)
	}
}

func TestJudge(t *testing.T) {
	refusal := &statexfer.Refusal{Status: 400, Message: "no"}
	for _, test := range []struct {
		at     step
		err    error
		reason string
		final  bool
	}{
		{stepCapture, statexfer.ErrUnavailable, ReasonSourceUnavailable, false},
		{stepCapture, statexfer.ErrNotState, ReasonStateInvalid, true},
		{stepCapture, statexfer.ErrUnauthorized, ReasonStateUnauthorized, true},
		{stepCapture, statexfer.ErrTooLarge, ReasonStateTooLarge, true},
		{stepCapture, statexfer.ErrMismatch, ReasonSourceUnavailable, false},
		{stepQuiesce, statexfer.ErrUnavailable, ReasonNotQuiesced, false},
		{stepQuiesce, refusal, ReasonQuiesceRefused, true},
		{stepQuiesce, statexfer.ErrNotState, ReasonStateInvalid, true},
		{stepCheckSource, statexfer.ErrUnavailable, ReasonSourceUnavailable, false},
		{stepCheckTarget, statexfer.ErrUnavailable, ReasonTargetUnavailable, false},
		{stepWarm, refusal, ReasonStateRefused, true},
		{stepWarm, outrun(&statexfer.Refusal{Status: 409, Role: "standby", Position: statexfer.Position{Epoch: 1, Sequence: 9}},
			&statexfer.State{HasPosition: true, Position: statexfer.Position{Epoch: 1, Sequence: 8}}), ReasonSourceRestarted, true},
		{stepRestore, statexfer.ErrUnavailable, ReasonTargetUnavailable, false},
		{stepRestore, &statexfer.Refusal{Status: 413}, ReasonStateTooLarge, true},
		{stepRestore, statexfer.ErrUnauthorized, ReasonStateUnauthorized, true},
		{stepVerify, statexfer.ErrMismatch, ReasonStateMismatch, true},
		{stepVerify, statexfer.ErrUnavailable, ReasonTargetUnavailable, false},
		{stepReserve, fmt.Errorf("%w: 3 MiB", statexfer.ErrTooLarge), ReasonStateNotKept, true},
		{stepReserve, statestore.ErrForeign, ReasonStateNotKept, true},
		{stepReserve, errors.New("exceeded quota"), ReasonStateNotKept, false},
		{stepForesee, fmt.Errorf("%w: damaged", errStateMissing), doryv1alpha1.ReasonStateMissing, true},
		{stepForesee, errors.New("the database does not answer"), doryv1alpha1.ReasonStateMissing, false},
		{stepPromote, refusal, ReasonPromotionRefused, true},
		{stepPromote, statexfer.ErrUnavailable, ReasonTargetUnavailable, false},
		{stepRecall, errForgotten, ReasonTargetInvalid, true},
		{stepCreateTarget, errors.New("away"), ReasonTargetRejected, false},
		{stepCreateTarget, fmt.Errorf("%w: no container", errUnbuildable), ReasonTargetInvalid, true},
		{stepCreateTarget, fmt.Errorf("%w: damaged", errStateMissing), doryv1alpha1.ReasonStateMissing, true},
	} {
		v := judge(&trouble{test.at, test.err})
		if v.reason != test.reason || v.final != test.final {
			t.Errorf("%s: %v: %s (final: %t), want %s (%t)", test.at, test.err, v.reason, v.final, test.reason, test.final)
		}
	}
	if judge(nil) != nil {
		t.Error("no trouble is no verdict")
	}
}

// Every step is listed once and can be taken, so that the fault tests miss none.
func TestStepsAreComplete(t *testing.T) {
	acts := (&Reconciler{}).actions()
	listed := map[step]bool{}
	for _, s := range steps {
		if listed[s] {
			t.Errorf("step %s is listed twice", s)
		}
		listed[s] = true
		if acts[s] == nil {
			t.Errorf("step %s cannot be taken", s)
		}
	}
	for s := range acts {
		if !listed[s] {
			t.Errorf("step %s is not listed", s)
		}
	}
}

// What it waited for stays known when its time is up.
func TestOverdueSaysWhatTheTargetWaitedFor(t *testing.T) {
	const quota = `pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1`
	o := given(with("m", time.Minute, in("Placing", 50*time.Second, ReasonTargetOverQuota), saying(quota), within(60)), sameRevision)
	if d := decide(o); d.status == nil || !strings.Contains(d.status.Message, quota) {
		t.Errorf("decided %q: %+v", d, d.status)
	}
	o = given(with("m", 0, in("Warming", 100*time.Second, ReasonSourceUnavailable), saying("source pod does not answer")), sameRevision, targetPod())
	if d := decide(o); d.status == nil || !strings.Contains(d.status.Message, "source pod does not answer") {
		t.Errorf("decided %q: %+v", d, d.status)
	}
	o = given(with("m", 0, in("Placing", 0, ReasonTargetUnschedulable), saying("finds no node: 0/3"), calledOffAlready, supersededBy), sameRevision, targetPod(unbound))
	if d := decide(o); d.status == nil || !strings.Contains(d.status.Message, "it gave way to the drain of node n1: finds no node: 0/3") {
		t.Errorf("decided %q: %+v", d, d.status)
	}
}
