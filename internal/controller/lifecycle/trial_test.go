package lifecycle

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lastgood"
	"github.com/dory-io/dory/internal/pod"
)

// recorded keeps the revision "another", which worked, while the present one is tried since some time.
func recorded(ago time.Duration) func(*observation) {
	return func(o *observation) {
		o.record = &lastgood.Record{Origin: &pod.Origin{Revision: "another"}, Epoch: 7, Trial: o.present(), Since: now.Add(-ago)}
	}
}

// givenUp says that the present revision was given up.
func givenUp(o *observation) { o.record.Reverted, o.record.Because = o.present(), "it crashed" }

func waits(reason string) corev1.ContainerStatus {
	return corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
}

func crashed(restarts int32) corev1.ContainerStatus {
	status := waits("CrashLoopBackOff")
	status.RestartCount = restarts
	return status
}

// ranSince is of a process that has ended.
func ranSince(ago time.Duration) corev1.ContainerStatus {
	return corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, StartedAt: metav1.NewTime(now.Add(-ago))}}}
}

func readyFor(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { setReady(p, corev1.ConditionTrue, now.Add(-d)) }
}

func createdAgoPod(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.CreationTimestamp.Time = now.Add(-d) }
}

func sidecar(status corev1.ContainerStatus) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		status.Name = "sidecar"
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, status)
	}
}

func initFails(status corev1.ContainerStatus) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		status.Name = "init"
		p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, status)
	}
}

func restartAsked(o *observation) { o.processor.Spec.RestartedAt = "2026-11-30T12:00:00Z" }

// Where a restart waits, the condition says so, and how to have it.
func TestAPendingRestartIsNamed(t *testing.T) {
	for strategy, says := range map[doryv1alpha1.UpdateStrategy]string{
		doryv1alpha1.UpdateLive: "reason Manual", doryv1alpha1.UpdateOnDelete: "so delete pod a",
	} {
		o := given(epoch(9, "a"), instancePod("a", 9, otherSpec), recorded(time.Hour), givenUp, withProcessor(updates(strategy)))
		if p := decide(o); strings.Contains(p.hindrance.message, "restart") {
			t.Errorf("%s: %s, though no restart was asked for", strategy, p.hindrance.message)
		}
		restartAsked(o)
		if p := decide(o); !strings.Contains(p.hindrance.message, says) {
			t.Errorf("%s: %s, want it to say %q", strategy, p.hindrance.message, says)
		}
	}
}

// An instance of an older operator learns what it was made from while that is still known.
func TestDecideToStamp(t *testing.T) {
	for name, test := range map[string]struct {
		changes []func(*corev1.Pod)
		want    bool
	}{
		"made by an older operator":       {nil, true},
		"it says so":                      {[]func(*corev1.Pod){func(p *corev1.Pod) { p.Annotations[doryv1alpha1.AnnotationSeal] = "s" }}, false},
		"made from another spec":          {[]func(*corev1.Pod){otherSpec}, false},
		"it is ending":                    {[]func(*corev1.Pod){terminating}, false},
		"it is to be adopted before that": {[]func(*corev1.Pod){unfenced}, false},
	} {
		if p := decide(given(epoch(7, "a"), instancePod("a", 7, test.changes...))); (p.stamp != nil) != test.want {
			t.Errorf("%s: stamps %v", name, p.stamp != nil)
		}
	}
}

// What worked is kept until the next version works, comes back if that does not, and is not left again for the same one.
func TestDecideOnTrial(t *testing.T) {
	b := func(changes ...func(*corev1.Pod)) func(*observation) { return instancePod("b", 8, changes...) }
	unready := notReady(time.Hour)
	bad := func(p *doryv1alpha1.Processor) {
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(`{"nonsense":1}`)}}
	}
	recreate := withProcessor(updates("Recreate"))
	refused := updateOf("u-1", "StateRefused", time.Hour)
	roomless := updateOf("u-1", doryv1alpha1.MigrationReasonTargetUnschedulable, time.Second)
	exit0 := corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
	for name, test := range map[string]struct {
		given *observation
		want  string
	}{
		// On trial.
		"works":                           {given(epoch(8, "b"), b(readyFor(10*time.Second)), recorded(time.Minute)), "forget; "},
		"ready, not for long":             {given(epoch(8, "b"), b(readyFor(9*time.Second)), recorded(time.Minute)), ""},
		"ready at last, after its time":   {given(epoch(8, "b"), b(readyFor(9*time.Second)), recorded(time.Hour)), ""},
		"starts":                          {given(epoch(8, "b"), b(unready), recorded(299*time.Second)), ""},
		"not ready in time":               {given(epoch(8, "b"), b(unready), recorded(300*time.Second)), "revert; remove b (RevertedToLastGood); "},
		"finds no node in time":           {given(epoch(8, "b"), b(unscheduled), recorded(300*time.Second)), "revert; remove b (RevertedToLastGood); "},
		"failed twice":                    {given(epoch(8, "b"), b(unready, container(crashed(1))), recorded(time.Minute)), "doubt b; "},
		"failed three times":              {given(epoch(8, "b"), b(unready, container(crashed(2))), recorded(time.Minute)), "revert; remove b (RevertedToLastGood); doubt b; "},
		"failed three times, runs":        {given(epoch(8, "b"), b(readyFor(0), container(corev1.ContainerStatus{RestartCount: 3})), recorded(time.Minute)), "revert; remove b (RevertedToLastGood); "},
		"a sidecar fails":                 {given(epoch(8, "b"), b(unready, container(corev1.ContainerStatus{}), sidecar(crashed(2))), recorded(time.Minute)), "revert; remove b (RevertedToLastGood); "},
		"an init container fails":         {given(epoch(8, "b"), b(unready, initFails(crashed(2))), recorded(time.Minute)), "revert; remove b (RevertedToLastGood); "},
		"an init container has ended":     {given(epoch(8, "b"), b(unready, initFails(exit0)), recorded(time.Minute)), ""},
		"image missing":                   {given(epoch(8, "b"), b(unready, createdAgoPod(29*time.Second), container(waits("ImagePullBackOff"))), recorded(time.Minute)), ""},
		"image missing for long":          {given(epoch(8, "b"), b(unready, createdAgoPod(30*time.Second), container(waits("ImagePullBackOff"))), recorded(time.Minute)), "revert; remove b (RevertedToLastGood); "},
		"its node is silent":              {given(epoch(8, "b"), b(unready, container(crashed(9))), recorded(time.Hour), node("n1", nodeNotReady)), ""},
		"it is ending already":            {given(epoch(8, "b"), b(unready, terminating, container(crashed(9))), recorded(time.Hour)), ""},
		"a move is under way":             {given(epoch(8, "b"), b(unready, container(crashed(9))), recorded(time.Hour), moveOf("m", "b", "c", "Warming")), ""},
		"its node is gone":                {given(epoch(8, "b"), b(unready, container(crashed(9))), recorded(time.Hour), node("n1", nodeGone)), ""},
		"its node was silent":             {given(epoch(8, "b"), b(unready), recorded(time.Hour), readyNode("n1", 299*time.Second)), ""},
		"its node was silent for a time":  {given(epoch(8, "b"), b(unready), recorded(time.Hour), readyNode("n1", 300*time.Second)), "revert; remove b (RevertedToLastGood); "},
		"image missing, node just back":   {given(epoch(8, "b"), b(unready, container(waits("ErrImagePull"))), recorded(time.Hour), readyNode("n1", 29*time.Second)), ""},
		"image missing on a node":         {given(epoch(8, "b"), b(unready, container(waits("ErrImagePull"))), recorded(time.Hour), readyNode("n1", 30*time.Second)), "revert; remove b (RevertedToLastGood); "},
		"was suspended, or held":          {given(epoch(8, ""), recorded(time.Hour)), "issue (Start); "},
		"was held with its epoch issued":  {given(epoch(8, "b"), recorded(time.Hour)), "create b; "},
		"its pod was lost with a node":    {given(epoch(8, "b"), b(failed), recorded(time.Hour)), "issue (Replace); "},
		"no pod yet":                      {given(epoch(8, "b"), recorded(time.Minute)), "create b; "},
		"three pods failed":               {given(epoch(8, "b"), b(failed), recorded(time.Hour), withProcessor(failedBefore(3, time.Minute, "b"))), "revert; as before: issue (Replace); "},
		"three failed before":             {given(epoch(8, "b"), b(failed), recorded(time.Second), withProcessor(failedBefore(3, time.Minute, "b"))), "issue (Replace); "},
		"the spec is back at what worked": {given(epoch(8, "b"), b(unready, container(crashed(9))), recorded(time.Hour), func(o *observation) { o.record.Origin.Revision = o.present() }), "doubt b; "},
		"the spec changed on trial":       {given(epoch(8, "b"), b(unready, otherSpec), recorded(time.Hour)), "remove b (Outdated); "},

		// Given up.
		"what worked is back":                                {given(epoch(9, "a"), instancePod("a", 9, otherSpec), recorded(time.Hour), givenUp), "RevertedToLastGood; "},
		"what worked is back, Recreate":                      {given(epoch(9, "a"), instancePod("a", 9, otherSpec), recorded(time.Hour), givenUp, recreate), "RevertedToLastGood; "},
		"it is not ready":                                    {given(epoch(9, "a"), instancePod("a", 9, otherSpec, unready), recorded(time.Hour), givenUp), "RevertedToLastGood; "},
		"what failed has ended":                              {given(epoch(8, "b"), b(failed, terminating), recorded(time.Hour), givenUp), "as before: issue (Replace); "},
		"what worked ended, too":                             {given(epoch(9, "a"), instancePod("a", 9, otherSpec, failed), recorded(time.Hour), givenUp), "keep a; as before: issue (Replace); "},
		"what failed is still there":                         {given(epoch(8, "b"), b(unready), recorded(time.Hour), givenUp), "remove b (RevertedToLastGood); RevertedToLastGood; "},
		"what failed is ending":                              {given(epoch(8, "b"), b(unready, terminating), recorded(time.Hour), givenUp), "RevertedToLastGood; "},
		"what failed works all at once":                      {given(epoch(8, "b"), b(readyFor(time.Minute)), recorded(time.Hour), givenUp), "forget; "},
		"its epoch was issued":                               {given(epoch(9, "a"), recorded(time.Hour), givenUp), "as before: create a; "},
		"what worked is back, a restart asked for":           {given(epoch(9, "a"), instancePod("a", 9, otherSpec), recorded(time.Hour), givenUp, restartAsked), "RevertedToLastGood; "},
		"what worked is back, a restart asked for, Recreate": {given(epoch(9, "a"), instancePod("a", 9, otherSpec), recorded(time.Hour), givenUp, recreate, restartAsked), "remove a (RestartOfLastGood); RevertedToLastGood; "},
		"what worked is not ready, a restart asked for":      {given(epoch(9, "a"), instancePod("a", 9, otherSpec, unready), recorded(time.Hour), givenUp, restartAsked), "remove a (RestartOfLastGood); RevertedToLastGood; "},
		"what worked is back, a restart asked for, OnDelete": {given(epoch(9, "a"), instancePod("a", 9, otherSpec), recorded(time.Hour), givenUp, withProcessor(updates("OnDelete")), restartAsked), "RevertedToLastGood; "},
		"what worked ended for a restart":                    {given(epoch(9, "a"), instancePod("a", 9, otherSpec, failed, terminating), recorded(time.Hour), givenUp, recreate, restartAsked), "keep a; as before: issue (Replace); "},
		"another spec since": {
			given(epoch(9, "a"), instancePod("a", 9, otherSpec), recorded(time.Hour), func(o *observation) { o.record.Reverted = "the wrong one" }), "update by cam-update-98b368bc-1; ",
		},

		// The present spec is known not to work.
		"Recreate to a spec that was rolled back":           {given(epoch(7, "a"), instancePod("a", 7, otherSpec), refused, recreate), "UpdateRolledBack; "},
		"an unready instance, and a spec rolled back":       {given(epoch(7, "a"), instancePod("a", 7, otherSpec, unready), refused), "UpdateRolledBack; "},
		"ended after its update was rolled back":            {given(epoch(7, "a"), instancePod("a", 7, otherSpec, failed), refused), "keep a; as before: issue (Replace); "},
		"deleted after its update was rolled back":          {given(epoch(7, "a"), instancePod("a", 7, otherSpec, failed, terminating), refused), "keep a; as before: issue (Replace); "},
		"ended while there was no room for an update":       {given(epoch(7, "a"), instancePod("a", 7, otherSpec, failed), roomless), "keep a; as before: issue (Replace); "},
		"ended, with a template that makes no pod":          {given(epoch(7, "a"), instancePod("a", 7, otherSpec, failed), withProcessor(bad)), "keep a; as before: issue (Replace); "},
		"gone, with a template that makes no pod, recorded": {given(epoch(7, "a"), withProcessor(bad), recorded(time.Second)), "as before: create a; "},
		"gone, with a template that makes no pod":           {given(epoch(7, "a"), withProcessor(bad)), "InvalidPodTemplate; "},

		// It is not known yet.
		"ended before its update, and had worked": {
			given(epoch(7, "a"), instancePod("a", 7, otherSpec, failed), func(o *observation) {
				o.processor.Status.Checkpoint = &doryv1alpha1.ProcessorCheckpoint{Epoch: 7}
			}), "keep a; issue (Replace); ",
		},
		"ended before its update, and was ready until then": {
			given(epoch(7, "a"), instancePod("a", 7, otherSpec, failed, container(ranSince(time.Minute)))), "keep a; issue (Replace); ",
		},
		"ended before its update, and was never ready":  {given(epoch(7, "a"), instancePod("a", 7, otherSpec, failed, container(ranSince(0)))), "issue (Replace); "},
		"ended before its update, and had never worked": {given(epoch(7, "a"), instancePod("a", 7, otherSpec, failed)), "issue (Replace); "},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.given).String(); got != test.want {
				t.Errorf("decide: %q, want %q", got, test.want)
			}
		})
	}
}
