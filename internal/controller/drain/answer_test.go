package drain

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// The words in which the tests describe what is known about a pod.

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const (
	instance = "dory-cam-aaaabbbb"
	other    = "dory-cam-ccccdddd"
)

type change func(*view)

// given is a processor whose instance works on node n1.
func given(changes ...change) *view {
	v := &view{
		processor: &doryv1alpha1.Processor{
			ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: "cam", UID: "processor-uid"},
			Spec:       specOf(doryv1alpha1.LocationManaged),
		},
		epoch:    &doryv1alpha1.ProcessorEpoch{Spec: doryv1alpha1.ProcessorEpochSpec{Epoch: 7, Holder: instance}},
		nodes:    []*corev1.Node{aNode(cordoned), aNode(named("n2"))},
		patience: 2 * time.Minute, now: now,
	}
	v.pod = podOf(v.processor, instance, 7)
	for _, change := range changes {
		change(v)
	}
	return v
}

func specOf(location doryv1alpha1.Location) doryv1alpha1.ProcessorSpec {
	return doryv1alpha1.ProcessorSpec{
		Image: "counter:1", Port: 8080, Location: location,
		Probes: doryv1alpha1.ProcessorProbes{LivenessPath: "Auto", PeriodSeconds: 10, TimeoutSeconds: 3, FailureThreshold: 3},
	}
}

func podOf(p *doryv1alpha1.Processor, name string, epoch int64) *corev1.Pod {
	built, err := pod.Build(pod.Input{Processor: p, Name: name, Epoch: epoch})
	if err != nil {
		panic(err)
	}
	built.UID, built.Spec.NodeName = types.UID("uid-"+name), "n1"
	built.Status = corev1.PodStatus{
		Phase:             corev1.PodRunning,
		Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		ContainerStatuses: []corev1.ContainerStatus{{Name: pod.ContainerName, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
	}
	return built
}

func aPod(change func(*corev1.Pod)) change { return func(v *view) { change(v.pod) } }

func aProcessor(change func(*doryv1alpha1.Processor)) change {
	return func(v *view) { change(v.processor) }
}

func fallback(f doryv1alpha1.DrainFallback) change {
	return aProcessor(func(p *doryv1alpha1.Processor) {
		p.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{DrainFallback: f}
	})
}

func checkpointed(v *view) {
	v.processor.Status.Checkpoint = &doryv1alpha1.ProcessorCheckpoint{Time: metav1.NewTime(now.Add(-time.Minute))}
}

// foretold is what the condition Migratable says.
func foretold(status metav1.ConditionStatus, reason string) change {
	return aProcessor(func(p *doryv1alpha1.Processor) {
		p.Status.Conditions = append(p.Status.Conditions, metav1.Condition{Type: doryv1alpha1.ConditionMigratable, Status: status, Reason: reason, Message: "because"})
	})
}

// pinnedTo names the node of every pod.
func pinnedTo(node string) change {
	return aProcessor(func(p *doryv1alpha1.Processor) {
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(`{"nodeName":"` + node + `"}`)}}
	})
}

// runsAs is a pod of another version than the present spec: as the spec is now, and changed.
func runsAs(changes ...change) change {
	return func(v *view) {
		was := &view{processor: v.processor.DeepCopy()}
		for _, change := range changes {
			change(was)
		}
		v.runs = was.processor
	}
}

func unready(v *view) { v.pod.Status.Conditions[0].Status = corev1.ConditionFalse }

func notReady(message string) change {
	return aProcessor(func(p *doryv1alpha1.Processor) {
		meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: doryv1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: doryv1alpha1.ReasonNotReady, Message: message})
	})
}

func deleted(o metav1.Object) { t := metav1.NewTime(now); o.SetDeletionTimestamp(&t) }

type detail func(*doryv1alpha1.ProcessorMigration)

// attempt is a drain of the instance that was made some time ago.
func attempt(number int, age time.Duration, details ...detail) change {
	return func(v *view) {
		v.migrations = append(v.migrations, migration(attemptName("cam", instance, number), age, append([]detail{func(m *doryv1alpha1.ProcessorMigration) {
			m.Spec.Reason, m.Spec.SourcePod = doryv1alpha1.MigrationDrain, instance
			m.Spec.ActiveDeadlineSeconds = new(int64(75))
		}}, details...)...))
	}
}

// move is any other migration.
func move(name string, details ...detail) change {
	return func(v *view) { v.migrations = append(v.migrations, migration(name, time.Minute, details...)) }
}

func migration(name string, age time.Duration, details ...detail) *doryv1alpha1.ProcessorMigration {
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "vision", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-age))},
		Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: "cam", Reason: doryv1alpha1.MigrationUpdate},
	}
	for _, detail := range details {
		detail(m)
	}
	return m
}

// in puts an active move into a phase.
func in(phase doryv1alpha1.MigrationPhase) detail {
	return func(m *doryv1alpha1.ProcessorMigration) {
		m.Status = doryv1alpha1.ProcessorMigrationStatus{
			Phase: phase, SourcePod: instance, TargetPod: other, Reason: "Moving", Message: "moving", StartTime: &metav1.Time{Time: m.CreationTimestamp.Time},
		}
	}
}

// failed ends a move some time ago that had a target on a node.
func failed(ago time.Duration, reason string) detail {
	return func(m *doryv1alpha1.ProcessorMigration) {
		in(doryv1alpha1.MigrationRolledBack)(m)
		m.Status.Reason, m.Status.TargetNode = reason, "n2"
		m.Status.CompletionTime = &metav1.Time{Time: now.Add(-ago)}
	}
}

func says(reason, message string) detail {
	return func(m *doryv1alpha1.ProcessorMigration) { m.Status.Reason, m.Status.Message = reason, message }
}

func noNode(m *doryv1alpha1.ProcessorMigration) { m.Status.TargetNode = "" }

func neverBegan(m *doryv1alpha1.ProcessorMigration) {
	m.Status.StartTime, m.Status.TargetNode = nil, ""
}

func stopAndCopy(m *doryv1alpha1.ProcessorMigration) {
	m.Spec.Strategy, m.Status.Strategy = doryv1alpha1.MigrationStopAndCopy, doryv1alpha1.MigrationStopAndCopy
}

// stopAndCopyWanted is a restart that has not begun.
func stopAndCopyWanted(m *doryv1alpha1.ProcessorMigration) {
	m.Spec.Strategy = doryv1alpha1.MigrationStopAndCopy
}

// restarts is a processor that moves by a restart.
func restarts(v *view) {
	v.processor.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{Strategy: doryv1alpha1.MigrationStopAndCopy}
}

func cancelled(m *doryv1alpha1.ProcessorMigration) { m.Spec.Cancel = new(true) }

func misled(m *doryv1alpha1.ProcessorMigration) {
	metav1.SetMetaDataAnnotation(&m.ObjectMeta, doryv1alpha1.AnnotationMisledTo, "n2")
}

func since(ago time.Duration) detail {
	return func(m *doryv1alpha1.ProcessorMigration) {
		metav1.SetMetaDataAnnotation(&m.ObjectMeta, doryv1alpha1.AnnotationDrainSince, now.Add(-ago).Format(time.RFC3339))
	}
}

func withTarget(change func(*corev1.Pod)) change {
	return func(v *view) {
		v.target = podOf(v.processor, other, 0)
		change(v.target)
	}
}

// String says in one line what was concluded.
func (c conclusion) String() string {
	words := []string{"wait"}
	if c.Allowed {
		words[0] = "go"
	}
	words = append(words, c.Reason)
	if c.attempt != nil {
		words = append(words, "make", c.attempt.Name[strings.LastIndex(c.attempt.Name, "-")+1:])
		if c.attempt.Spec.Strategy != "" {
			words = append(words, string(c.attempt.Spec.Strategy))
		}
	}
	if c.displaces != nil {
		words = append(words, "instead of", c.displaces.migration.Name)
	}
	if c.after > 0 {
		words = append(words, "after", c.after.String())
	}
	return strings.Join(words, " ")
}

func TestAnswerToWhomADrainDoesNotConcern(t *testing.T) {
	waiting := func(reason string) change {
		return aPod(func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
		})
	}
	for name, test := range map[string]struct {
		v    *view
		uid  types.UID
		want string
	}{
		"unknown":                         {v: &view{now: now}, want: "go NotOurs"},
		"nobody's":                        {v: given(aPod(func(p *corev1.Pod) { p.OwnerReferences = nil })), want: "go NotOurs"},
		"somebody else's":                 {v: given(aPod(func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "StatefulSet" })), want: "go NotOurs"},
		"another of the name":             {v: given(), uid: "uid-before", want: "go AnotherPod"},
		"the very one":                    {v: given(), uid: "uid-" + instance, want: "wait Queued make 1"},
		"of no Processor":                 {v: given(func(v *view) { v.processor = nil }), want: "go ProcessorGone"},
		"of an earlier Processor":         {v: given(aProcessor(func(p *doryv1alpha1.Processor) { p.UID = "another" })), want: "go ProcessorGone"},
		"of a Processor that goes":        {v: given(aProcessor(func(p *doryv1alpha1.Processor) { deleted(p) })), want: "go ProcessorGone"},
		"of a suspended Processor":        {v: given(aProcessor(func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(true) })), want: "go Suspended"},
		"ended":                           {v: given(aPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })), want: "go Finished"},
		"ending":                          {v: given(aPod(func(p *corev1.Pod) { deleted(p) })), want: "go Terminating"},
		"without a node":                  {v: given(aPod(func(p *corev1.Pod) { p.Spec.NodeName, p.Status = "", corev1.PodStatus{} })), want: "go NotStarted"},
		"its kubelet has not said a word": {v: given(aPod(func(p *corev1.Pod) { p.Status.ContainerStatuses = nil })), want: "go NotStarted"},
		"without an image":                {v: given(waiting("ImagePullBackOff")), want: "go NotStarted"},
		"crashing again and again":        {v: given(waiting("CrashLoopBackOff")), want: "go NotStarted"},
		"of an older epoch":               {v: given(func(v *view) { v.epoch.Spec.Holder, v.epoch.Spec.Epoch = other, 8 }), want: "go Surplus"},
		"of a newer epoch than is cached": {v: given(func(v *view) { v.epoch.Spec.Holder, v.epoch.Spec.Epoch = other, 6 }), want: "wait Starting after 1s"},
		"no epoch is cached":              {v: given(func(v *view) { v.epoch = nil }), want: "wait Starting after 1s"},
		"that cannot be decoded":          {v: given(func(v *view) { v.processor, v.epoch, v.aside = nil, nil, "why" }), want: "wait Undecodable"},
		"whose epoch cannot":              {v: given(func(v *view) { v.epoch, v.aside = nil, "why" }), want: "wait Undecodable"},
		"that cannot, and does not run": {
			v:    given(func(v *view) { v.processor, v.epoch, v.aside = nil, nil, "why" }, aPod(func(p *corev1.Pod) { p.Status.ContainerStatuses = nil })),
			want: "go NotStarted",
		},
		"that cannot, and is ending": {v: given(func(v *view) { v.processor, v.epoch, v.aside = nil, nil, "why" }, aPod(func(p *corev1.Pod) { deleted(p) })), want: "go Terminating"},
		"left over by a move": {v: given(aPod(func(p *corev1.Pod) {
			delete(p.Labels, doryv1alpha1.LabelEpoch)
			p.Labels[doryv1alpha1.LabelMigration] = "u"
		}), func(v *view) { v.epoch.Spec.Holder = other }, move("u", failed(0, "Superseded"))), want: "go Surplus"},
		"brought by a move, as far as is cached": {v: given(aPod(func(p *corev1.Pod) {
			delete(p.Labels, doryv1alpha1.LabelEpoch)
			p.Labels[doryv1alpha1.LabelMigration] = "u"
		}), func(v *view) { v.epoch.Spec.Holder = other }, move("u", failed(0, "Moved"), func(m *doryv1alpha1.ProcessorMigration) {
			m.Status.Phase = doryv1alpha1.MigrationSucceeded
		})), want: "wait Starting after 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			c := answer(Request{UID: test.uid}, test.v)
			if c.String() != test.want {
				t.Errorf("concluded %q, want %q", c, test.want)
			}
			if c.Message == "" {
				t.Error("it says nothing")
			}
			if tried := answer(Request{UID: test.uid, DryRun: true}, test.v); test.v.aside != "" && tried.String() != test.want {
				t.Errorf("on trial concluded %q, want %q", tried, test.want)
			}
		})
	}
}

// What an instance was given to save its state is not taken from it by an eviction with less.
func TestAnswerToWhoHurriesAnEnd(t *testing.T) {
	ending := aPod(func(p *corev1.Pod) {
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = new(metav1.NewTime(now.Add(20*time.Second))), new(int64(35))
	})
	for name, test := range map[string]struct {
		v    *view
		r    Request
		want string
	}{
		"as long as it says":          {given(ending), Request{}, "go Terminating"},
		"as long as it has":           {given(ending), Request{GracePeriodSeconds: new(int64(35))}, "go Terminating"},
		"longer":                      {given(ending), Request{GracePeriodSeconds: new(int64(60))}, "go Terminating"},
		"less":                        {given(ending), Request{GracePeriodSeconds: new(int64(34))}, "wait Retiring"},
		"none":                        {given(ending), Request{GracePeriodSeconds: new(int64(0))}, "wait Retiring"},
		"none, without its Processor": {given(ending, func(v *view) { v.processor = nil }), Request{GracePeriodSeconds: new(int64(0))}, "wait Retiring"},
		"none, on trial":              {given(ending), Request{GracePeriodSeconds: new(int64(0)), DryRun: true}, "go Terminating"},
		"none, and it ended":          {given(ending, aPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })), Request{GracePeriodSeconds: new(int64(0))}, "go Finished"},
		"none, after its time":        {given(ending, func(v *view) { v.now = now.Add(21 * time.Second) }), Request{GracePeriodSeconds: new(int64(0))}, "go Terminating"},
		"another pod":                 {given(ending), Request{GracePeriodSeconds: new(int64(0)), UID: "another"}, "go AnotherPod"},
		"none, while it works":        {given(), Request{GracePeriodSeconds: new(int64(0))}, "wait Queued make 1"},
	} {
		t.Run(name, func(t *testing.T) {
			if c := answer(test.r, test.v); c.String() != test.want {
				t.Errorf("concluded %q, want %q: %s", c, test.want, c.Message)
			}
		})
	}
}

func TestAnswerWhileAMoveIsUnderWay(t *testing.T) {
	nowhere := func(p *corev1.Pod) {
		p.Spec.NodeName = ""
		p.Status = corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes are available"}}}
	}
	starting := func(p *corev1.Pod) {
		p.Spec.NodeName = "n2"
		p.Status.Conditions[0].Status = corev1.ConditionFalse
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
	}
	handedOver := func(v *view) { v.epoch.Spec.Holder, v.epoch.Spec.Epoch = other, 8 }
	asTarget := func(v *view) {
		v.pod = podOf(v.processor, other, 0)
	}
	for name, test := range map[string]struct {
		v    *view
		want string
		says string
	}{
		"seeking a node":     {given(attempt(1, 0, in("Placing")), withTarget(nowhere)), "wait Moving", "finds no node: 0/3 nodes are available"},
		"refused by a quota": {given(attempt(1, 0, in("Placing"), says("TargetOverQuota", "exceeded quota: q"))), "wait Moving", "exceeded quota: q"},
		"starting":           {given(attempt(1, 0, in("Starting")), withTarget(starting)), "wait Moving", "on node n2 is not ready yet: container processor: ContainerCreating"},
		"handing over":       {given(attempt(1, 0, in("HandingOff"))), "wait Moving", "is HandingOff: moving"},
		"handed over":        {given(attempt(1, 0, in("HandingOff")), handedOver), "wait Retiring", "pod " + instance + " ends"},
		"retiring":           {given(attempt(1, 0, in("Retiring"))), "wait Retiring", "has taken over"},
		"going back":         {given(attempt(1, 0, in("RollingBack"))), "wait RollingBack", "another attempt follows"},
		"an Update":          {given(move("u", in("Starting")), withTarget(starting)), "wait Moving", "ProcessorMigration u (Update) is Starting"},
		"queued":             {given(attempt(1, 0, func(m *doryv1alpha1.ProcessorMigration) { m.Status.Phase, m.Status.Message = "Pending", "10 go first" })), "wait Queued", "is Pending: 10 go first"},
		"just made":          {given(attempt(1, 0)), "wait Queued", "is Pending: the move begins"},
		"never ready": {given(attempt(1, 0, func(m *doryv1alpha1.ProcessorMigration) {
			m.Status.Phase, m.Status.Message = "Pending", "pod cam is not ready"
		}),
			unready, notReady("/ready says: bind the ClusterRole")), "wait Queued", "is Pending: pod cam is not ready: /ready says: bind the ClusterRole" + noCheckpoint},
		"not ready, with a checkpoint": {given(attempt(1, 0, func(m *doryv1alpha1.ProcessorMigration) {
			m.Status.Phase, m.Status.Message = "Pending", "pod cam is not ready"
		}),
			unready, checkpointed, notReady("crashing")), "wait Queued", "pod cam is not ready: crashing"},
		"a companion without an image": {given(attempt(1, 0, in("Starting")), withTarget(func(p *corev1.Pod) {
			starting(p)
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "proxy", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such image"}}}}
		})), "wait Moving", "on node n2 is not ready yet: container proxy: ErrImagePull: no such image"},
		"being called off":     {given(attempt(1, 0, cancelled)), "wait RollingBack", "is being called off"},
		"it has just ended":    {given(attempt(1, 0, in("Succeeded"))), "wait Retiring", "brought the processor elsewhere"},
		"its target":           {given(attempt(1, 0, in("Starting")), asTarget), "wait Target", "acts only after it"},
		"its target, at last":  {given(attempt(1, 0, in("HandingOff")), asTarget, handedOver), "wait Target", "has just brought the processor"},
		"a source that failed": {given(attempt(1, 0, in("HandingOff")), aPod(func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = corev1.ContainerState{} })), "wait Moving", "moving"},
	} {
		t.Run(name, func(t *testing.T) {
			c := answer(Request{}, test.v)
			if c.String() != test.want {
				t.Errorf("concluded %q, want %q", c, test.want)
			}
			if !strings.Contains(c.Message, test.says) || !strings.HasPrefix(c.Message, "Eviction triggered evacuation of Processor vision/cam: ") {
				t.Errorf("says %q, want it to say %q", c.Message, test.says)
			}
			if c.Migration == "" || len(c.Causes) == 0 || c.Causes[0].Type != CausePhase || c.Causes[0].Field != c.Migration {
				t.Errorf("migration %q, causes %+v", c.Migration, c.Causes)
			}
		})
	}
}

func TestAnswerToOneAttemptAfterTheOther(t *testing.T) {
	const second = time.Second
	settled := func(v *view) { v.settled = true }
	discards := aProcessor(func(p *doryv1alpha1.Processor) {
		p.Spec.State = &doryv1alpha1.ProcessorState{OnMissing: doryv1alpha1.OnMissingDiscard}
	})
	never := fallback(doryv1alpha1.DrainFallbackNever)
	stops := aProcessor(func(p *doryv1alpha1.Processor) {
		p.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{Strategy: doryv1alpha1.MigrationStopAndCopy}
	})
	nowhere := func(v *view) { v.nodes = []*corev1.Node{aNode(cordoned), aNode(named("n2"), cordoned)} }
	pinned := aProcessor(func(p *doryv1alpha1.Processor) {
		p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{EdgeNode: "e1"}
	})
	for name, test := range map[string]struct {
		v    *view
		want string
	}{
		"the first":                                {given(), "wait Queued make 1"},
		"no room, just now":                        {given(attempt(1, 80*second, failed(0, "TargetUnschedulable"))), "wait Waiting after 5s"},
		"no room":                                  {given(attempt(1, 80*second, failed(5*second, "TargetUnschedulable"))), "wait Queued make 2"},
		"no room for the third time":               {given(attempt(3, 80*second, failed(5*second, "TargetUnschedulable"))), "wait Waiting after 15s"},
		"no room for the tenth time":               {given(attempt(10, 80*second, failed(0, "TargetUnschedulable"))), "wait Waiting after 1m0s"},
		"no room for hours":                        {given(attempt(99, 80*second, since(5*time.Hour), failed(time.Minute, "TargetUnschedulable"))), "wait Queued make 100"},
		"no room within the time":                  {given(attempt(1, 80*second, failed(5*second, "DeadlineExceeded"), noNode)), "wait Queued make 2"},
		"no quota":                                 {given(attempt(1, 80*second, failed(5*second, "TargetRejected"), noNode)), "wait Queued make 2"},
		"not ready within the time":                {given(attempt(1, 80*second, failed(0, "DeadlineExceeded"))), "wait FallingBack make 2 StopAndCopy"},
		"queued for most of the time":              {given(attempt(1, 80*second, failed(second, "DeadlineExceeded"), func(m *doryv1alpha1.ProcessorMigration) { m.Status.StartTime.Time = now.Add(-20 * second) })), "wait Queued make 2"},
		"the state is refused":                     {given(attempt(1, 5*second, failed(0, "StateRefused"))), "wait Waiting after 5s"},
		"the state is refused again":               {given(attempt(1, 10*second, failed(5*second, "StateRefused"))), "wait Queued make 2"},
		"the state is refused to the end":          {given(attempt(2, 10*second, since(75*second), failed(0, "StateRefused"))), "wait FallingBack make 3 StopAndCopy"},
		"no target gets ready":                     {given(attempt(1, 40*second, failed(0, "TargetNotReady"))), "wait Waiting after 5s"},
		"no image":                                 {given(attempt(1, 40*second, failed(0, "TargetImageUnavailable"))), "wait Waiting after 5s"},
		"no image for hours":                       {given(attempt(9, 40*second, since(5*time.Hour), failed(time.Minute, "TargetImageUnavailable"))), "wait Queued make 10"},
		"and must not restart":                     {given(never, attempt(1, 5*second, failed(0, "StateRefused"))), "wait Waiting after 5s"},
		"and must not restart, later":              {given(never, attempt(1, 5*second, failed(5*second, "StateRefused"))), "wait Queued make 2"},
		"and nobody waits":                         {given(settled, attempt(1, 5*second, failed(5*second, "StateRefused"))), "wait Queued make 2"},
		"live, and it has no handoff":              {given(attempt(1, second, failed(0, "SourceHasNoHandoff"), neverBegan)), "wait FallingBack make 2 StopAndCopy"},
		"no handoff, and must not restart":         {given(never, attempt(1, second, failed(0, "SourceHasNoHandoff"), neverBegan)), "wait Waiting after 5s"},
		"the target was taken away":                {given(attempt(1, 5*second, failed(second, "TargetLost"))), "wait Queued make 2"},
		"the target was taken away for too long":   {given(attempt(2, 5*second, since(75*second), failed(2*second, "TargetLost"))), "wait FallingBack make 3 StopAndCopy"},
		"the spec changed":                         {given(attempt(1, 5*second, failed(second, "Superseded"))), "wait Queued make 2"},
		"it was called off":                        {given(attempt(1, 200*second, cancelled, failed(second, "Cancelled"))), "wait Queued make 2"},
		"it led to a node that is left":            {given(attempt(1, 200*second, misled, cancelled, failed(second, "Cancelled"))), "wait Waiting after 4s"},
		"it led there again and again":             {given(attempt(9, 20*second, since(5*time.Hour), misled, cancelled, failed(time.Minute, "Cancelled"))), "wait Queued make 10"},
		"a restart was called off":                 {given(attempt(2, 200*second, stopAndCopy, cancelled, failed(2*second, "Cancelled"))), "wait Queued make 3"},
		"it never began":                           {given(attempt(1, 80*second, failed(second, "DeadlineExceeded"), neverBegan)), "wait Queued make 2"},
		"not ready, so it never began":             {given(unready, attempt(1, 80*second, failed(second, "WaitingForInstance"), neverBegan)), "wait Waiting after 4s"},
		"the same with a checkpoint":               {given(unready, checkpointed, attempt(1, 80*second, failed(second, "WaitingForInstance"), neverBegan)), "go RestartsFromCheckpoint"},
		"the same, and must not restart":           {given(unready, checkpointed, never, attempt(1, 80*second, failed(second, "WaitingForInstance"), neverBegan)), "wait Queued make 2"},
		"not ready, and it waited for its turn":    {given(unready, checkpointed, attempt(1, 80*second, failed(second, "DeadlineExceeded"), neverBegan)), "wait Queued make 2"},
		"not ready for as long as it may be":       {given(unready, checkpointed, attempt(1, 310*second, failed(second, "NothingToMove"), neverBegan)), "go RestartsFromCheckpoint"},
		"the same, but there is time":              {given(unready, checkpointed, attempt(1, 10*second, failed(second, "NothingToMove"), neverBegan)), "wait Queued make 2"},
		"the state cannot be had":                  {given(attempt(1, 5*second, failed(0, "StateUnauthorized"))), "wait FallingBack make 2 StopAndCopy"},
		"nor for the restart":                      {given(attempt(2, 5*second, stopAndCopy, failed(0, "StateUnauthorized"))), "wait Waiting after 10s"},
		"nor for the restart, with a checkpoint":   {given(checkpointed, attempt(2, 5*second, stopAndCopy, failed(0, "StateUnauthorized"))), "go RestartsFromCheckpoint"},
		"nor for the restart, and it is worthless": {given(discards, attempt(2, 5*second, stopAndCopy, failed(0, "SourceUnavailable"))), "go RestartsFromCheckpoint"},
		"it cannot be reached":                     {given(checkpointed, attempt(1, 80*second, failed(0, "SourceUnavailable"), neverBegan)), "wait FallingBack make 2 StopAndCopy"},
		"nor for the restart either":               {given(checkpointed, attempt(2, 65*second, stopAndCopy, failed(0, "SourceUnavailable"))), "go RestartsFromCheckpoint"},
		"the restart failed":                       {given(checkpointed, attempt(2, 5*second, stopAndCopy, failed(10*second, "TargetInvalid"))), "wait Queued make 3 StopAndCopy"},
		"the restart had no time":                  {given(attempt(2, 80*second, stopAndCopy, failed(10*second, "DeadlineExceeded"), noNode)), "wait Queued make 3 StopAndCopy"},
		"the newest counts":                        {given(attempt(10, 5*second), attempt(9, 80*second, failed(0, "StateRefused"))), "wait Queued"},
		"a restart":                                {given(stops), "wait Queued make 1"},
		"a restart, and no other node":             {given(stops, nowhere), "wait Waiting after 5s"},
		"a restart, and only the edge node":        {given(stops, pinned), "wait Waiting after 1m0s"},
		"a restart again, and no other node":       {given(nowhere, attempt(2, 80*second, stopAndCopy, failed(10*second, "DeadlineExceeded"), noNode)), "wait Waiting after 5s"},
		"a fallback, and no other node":            {given(nowhere, attempt(1, 80*second, failed(5*second, "StateRefused"))), "wait Waiting after 5s"},
		"a move, and no other node":                {given(nowhere), "wait Queued make 1"},
		"the template names its node":              {given(pinnedTo("n1")), "wait Waiting after 1m0s"},
		"the template names another":               {given(pinnedTo("n2")), "wait Waiting after 1m0s"},
		"and it failed before":                     {given(pinnedTo("n1"), attempt(1, 80*second, failed(0, "TargetLost"))), "wait Waiting after 1m0s"},
		"it can only be restarted":                 {given(foretold("True", doryv1alpha1.ReasonRestartOnly)), "wait FallingBack make 1 StopAndCopy"},
		"so it was, of an older spec":              {given(foretold("True", doryv1alpha1.ReasonRestartOnly), aProcessor(func(p *doryv1alpha1.Processor) { p.Generation++ })), "wait Queued make 1"},
		"it can only be, and no one waits":         {given(settled, foretold("True", doryv1alpha1.ReasonRestartOnly)), "wait Waiting after 1m0s"},
		"it can only be, and must not":             {given(never, foretold("False", doryv1alpha1.ReasonFallbackForbidden)), "wait Waiting after 1m0s"},
		"it can only be, and no other node":        {given(nowhere, foretold("True", doryv1alpha1.ReasonRestartOnly)), "wait Waiting after 5s"},
		"its state is too large":                   {given(checkpointed, foretold("True", doryv1alpha1.ReasonStateTooLarge)), "go RestartsFromCheckpoint"},
		"its state is too large, by a restart":     {given(checkpointed, stops, foretold("True", doryv1alpha1.ReasonStateTooLarge)), "go RestartsFromCheckpoint"},
		"its state is too large, and no place":     {given(checkpointed, nowhere, foretold("True", doryv1alpha1.ReasonStateTooLarge)), "wait Waiting after 5s"},
		"its state is too large, and none is kept": {given(foretold("False", doryv1alpha1.ReasonStateTooLarge)), "wait Waiting after 1m0s"},
		"too large, and it may be lost":            {given(discards, foretold("True", doryv1alpha1.ReasonStateTooLarge)), "go RestartsFromCheckpoint"},
		"cannot be read, and there is no place":    {given(checkpointed, nowhere, attempt(2, 80*second, stopAndCopy, failed(5*second, "StateInvalid"))), "wait Waiting after 5s"},
		"its state is too large, and must not":     {given(never, foretold("False", doryv1alpha1.ReasonStateTooLarge)), "wait Waiting after 1m0s"},
		"a quota was full at rest":                 {given(foretold("True", doryv1alpha1.ReasonQuotaExceeded)), "wait Queued make 1"},
		"no room in a quota":                       {given(attempt(1, 11*second, failed(0, "TargetOverQuota"), noNode)), "wait Waiting after 1s"},
		"no room in a quota, again":                {given(attempt(1, 12*second, failed(second, "TargetOverQuota"), noNode)), "wait Queued make 2"},
		"no room in a quota for too long":          {given(attempt(4, 11*second, since(75*second), failed(0, "TargetOverQuota"), noNode)), "wait FallingBack make 5 StopAndCopy"},
		"never was, as is known":                   {given(foretold("True", doryv1alpha1.ReasonQuotaExceeded), attempt(1, 11*second, failed(0, "TargetOverQuota"), noNode)), "wait FallingBack make 2 StopAndCopy"},
		"never was, and must not restart":          {given(never, foretold("False", doryv1alpha1.ReasonQuotaExceeded), attempt(1, 11*second, failed(0, "TargetOverQuota"), noNode)), "wait Waiting after 5s"},
		"never was, and no one waits":              {given(settled, foretold("True", doryv1alpha1.ReasonQuotaExceeded), attempt(1, 11*second, failed(0, "TargetOverQuota"), noNode)), "wait Waiting after 5s"},
		"nor for the restart, as the quota shrank": {given(attempt(2, 11*second, stopAndCopy, failed(0, "TargetOverQuota"), noNode)), "wait Waiting after 10s"},
		"the claim is held, as is known":           {given(foretold("True", doryv1alpha1.ReasonRestartOnly), attempt(1, 80*second, failed(0, "DeadlineExceeded"), noNode)), "wait FallingBack make 2 StopAndCopy"},
		"the claim is held, and must not restart":  {given(never, foretold("False", doryv1alpha1.ReasonFallbackForbidden), attempt(1, 80*second, failed(0, "DeadlineExceeded"), noNode)), "wait Waiting after 5s"},
		"those of another pod do not":              {given(attempt(4, 5*second, failed(0, "StateRefused"), func(m *doryv1alpha1.ProcessorMigration) { m.Spec.SourcePod = other })), "wait Queued make 1"},
	} {
		t.Run(name, func(t *testing.T) {
			if c := answer(Request{}, test.v); c.String() != test.want {
				t.Errorf("concluded %q, want %q: %s", c, test.want, c.Message)
			}
		})
	}
}

func TestAttempt(t *testing.T) {
	v := given(func(v *view) { v.leave = leave{why: "it is cordoned"} }, attempt(1, 80*time.Second, since(90*time.Second), failed(0, "StateRefused")))
	m := answer(Request{}, v).attempt
	if m.Name != "cam-drain-aaaabbbb-2" || m.Labels[doryv1alpha1.LabelDrainedNode] != "n1" || m.Annotations[doryv1alpha1.AnnotationDrainSince] != "2026-11-21T11:58:30Z" {
		t.Errorf("made %+v", m.ObjectMeta)
	}
	if m.Spec.SourcePod != instance || *m.Spec.ActiveDeadlineSeconds != 75 || m.Spec.Reason != doryv1alpha1.MigrationDrain || m.OwnerReferences[0].UID != "processor-uid" {
		t.Errorf("made %+v", m.Spec)
	}
	if stays := answer(Request{}, given()).attempt; stays.Labels[doryv1alpha1.LabelDrainedNode] != "" {
		t.Errorf("a move off a node that stays has the label of a drain: %v", stays.Labels)
	}
}

// How long it takes already is not forgotten, nor why.
func TestAttemptAfterOneThatWasMisled(t *testing.T) {
	c := answer(Request{}, given(attempt(2, 20*time.Second, since(90*time.Second), misled, cancelled, failed(15*time.Second, "Cancelled"))))
	if c.attempt == nil || c.attempt.Annotations[doryv1alpha1.AnnotationDrainSince] != "2026-11-21T11:58:30Z" {
		t.Errorf("made %+v", c.attempt)
	}
	if !strings.Contains(c.Message, "MoveLedToDrainedNode: target pod "+other+" came to node n2, which is being left, too") {
		t.Errorf("says %q", c.Message)
	}
}

func TestAttemptNamesFitIntoLabels(t *testing.T) {
	long := strings.Repeat("p", 45)
	for source, tail := range map[string]string{
		"dory-" + long + "-aaaabbbb": "aaaabbbb", "dory-cam-aaaabbbb": doryv1alpha1.Hash("dory-cam-aaaabbbb"),
		"short": doryv1alpha1.Hash("short"), "legacy.pod-0.a-": doryv1alpha1.Hash("legacy.pod-0.a-"),
		"dory-" + long + "-a.aabbbb": doryv1alpha1.Hash("dory-" + long + "-a.aabbbb"),
	} {
		name := attemptName(long, source, 1234567)
		if !strings.HasSuffix(name, "-drain-"+tail+"-1234567") || len(validation.IsValidLabelValue(name)) > 0 {
			t.Errorf("the name is %q, want it to end in the tail %q", name, tail)
		}
	}
	// Pods that were adopted may end in the same characters.
	if one, two := attemptName("cam", "web-east-11111111", 1), attemptName("cam", "web-west-11111111", 1); one == two {
		t.Errorf("moves off two pods are both called %q", one)
	}
	if label := nodeLabel(strings.Repeat("n", 200)); len(validation.IsValidLabelValue(label)) > 0 || label == nodeLabel(strings.Repeat("n", 201)) {
		t.Errorf("label %q", label)
	}
}

func TestAnswerToADryRun(t *testing.T) {
	hindered := aProcessor(func(p *doryv1alpha1.Processor) {
		p.Status.Conditions = []metav1.Condition{{Type: doryv1alpha1.ConditionMigratable, Status: metav1.ConditionFalse, Reason: doryv1alpha1.ReasonNoOtherNode, Message: "no other node"}}
	})
	for name, test := range map[string]struct {
		v    *view
		want string
	}{
		"would move":           {given(), "go WouldMove"},
		"moves already":        {given(attempt(1, 0, in("Placing"))), "go WouldMove"},
		"no other node":        {given(hindered), "wait Queued"},
		"fails again and over": {given(attempt(1, 80*time.Second, failed(time.Minute, "TargetUnschedulable"))), "wait Queued"},
		"goes back":            {given(attempt(1, 0, in("RollingBack"))), "wait RollingBack"},
		"of no concern":        {given(aPod(func(p *corev1.Pod) { deleted(p) })), "go Terminating"},
		"unknown":              {&view{now: now}, "go NotOurs"},
	} {
		t.Run(name, func(t *testing.T) {
			if c := answer(Request{DryRun: true}, test.v); c.String() != test.want {
				t.Errorf("concluded %q, want %q", c, test.want)
			}
		})
	}
}
