package lifecycle

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

func TestDecide(t *testing.T) {
	badTemplate := func(p *doryv1alpha1.Processor) {
		p.Spec.PodTemplate = &doryv1alpha1.PodTemplateOverlay{Spec: &runtime.RawExtension{Raw: []byte(`{"nonsense":1}`)}}
	}
	edge := func(p *doryv1alpha1.Processor) {
		p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{EdgeNode: "gate"}
	}
	moves := func(phase doryv1alpha1.MigrationPhase) func(*observation) { return moveOf("m", "a", "b", phase) }
	updated := func(source, target string) func(*observation) {
		return func(o *observation) {
			updateOf("cam-update-98b368bc-1", "Moved", time.Minute)(o)
			s := &o.migrations[0].Status
			s.Phase, s.SourcePod, s.TargetPod = doryv1alpha1.MigrationSucceeded, source, target
		}
	}
	image := func(image string) func(*doryv1alpha1.Processor) {
		return func(p *doryv1alpha1.Processor) { p.Spec.Image = image }
	}
	revisionOf := func(name string) string { return pod.Revision(given(withProcessor(image(name))).processor, "")[:8] }
	noEdgeNode := func(o *observation) { o.edgeNodeUnknown = true }
	looping := func(p *corev1.Pod) {
		notReady(time.Minute)(p)
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: pod.ContainerName, RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		}}
	}
	edgeNodeAside := func(o *observation) { o.edgeNodeUnknown, o.edgeNodeAside = true, "EdgeNode gate cannot be decoded" }
	aside := func(o *observation) { o.aside = "it cannot be decoded" }
	for name, test := range map[string]struct {
		given *observation
		want  string
	}{
		// Starting.
		"new":                                    {given(), "issue (Start); "},
		"resumed":                                {given(epoch(7, "")), "issue (Start); "},
		"epoch issued, pod never created":        {given(epoch(7, "a")), "create a; "},
		"epoch issued, pod was seen, is missing": {given(epoch(7, "a"), withProcessor(remembers("a"))), "issue (Replace) if a is gone; "},
		"holder ended by itself":                 {given(epoch(7, "a"), instancePod("a", 7, failed)), "issue (Replace); "},
		"holder deleted and ended":               {given(epoch(7, "a"), instancePod("a", 7, terminating, failed)), "issue (Replace); "},
		"holder deleted before it was bound":     {given(epoch(7, "a"), instancePod("a", 7, terminating, unscheduled)), "issue (Replace); "},
		"created just now, not seen yet":         {given(epoch(7, "a"), createdAgo(300*time.Millisecond)), "await; again in 700ms; "},
		"created a while ago, never seen":        {given(epoch(7, "a"), createdAgo(time.Minute)), "issue (Replace) if a is gone; "},
		"unknown edge node":                      {given(withProcessor(edge), noEdgeNode), "EdgeNodeUnknown; "},
		"bad pod template spends no epoch":       {given(withProcessor(badTemplate)), "InvalidPodTemplate; "},

		"deleted, but the new spec makes no pod": {
			given(epoch(7, "a"), instancePod("a", 7, terminating, failed), withProcessor(badTemplate)), "keep a; as before: issue (Replace); ",
		},
		"failed, and the new spec makes no pod": {
			given(epoch(7, "a"), instancePod("a", 7, failed), withProcessor(badTemplate)), "keep a; as before: issue (Replace); ",
		},

		// Keeping.
		"running":                          {given(epoch(7, "a"), instancePod("a", 7)), ""},
		"ends again and again":             {given(epoch(7, "a"), instancePod("a", 7, looping)), "doubt a; "},
		"the same, in a move":              {given(epoch(7, "a"), instancePod("a", 7, looping), moves(doryv1alpha1.MigrationPlacing)), ""},
		"unscheduled":                      {given(epoch(7, "a"), instancePod("a", 7, unscheduled)), ""},
		"terminating":                      {given(epoch(7, "a"), instancePod("a", 7, terminating)), ""},
		"terminating on a silent node":     {given(epoch(7, "a"), instancePod("a", 7, terminating), node("n1", nodeNotReady)), ""},
		"running on a silent node":         {given(epoch(7, "a"), instancePod("a", 7), node("n1", nodeNotReady)), ""},
		"spec changed":                     {given(epoch(7, "a"), instancePod("a", 7, otherSpec)), "update by cam-update-98b368bc-1; "},
		"spec changed, unready":            {given(epoch(7, "a"), instancePod("a", 7, otherSpec, notReady(time.Minute))), "remove a (Outdated); "},
		"spec changed, node silent":        {given(epoch(7, "a"), instancePod("a", 7, otherSpec), node("n1", nodeNotReady)), "remove a (Outdated); "},
		"spec changed, Recreate":           {given(epoch(7, "a"), instancePod("a", 7, otherSpec), withProcessor(updates("Recreate"))), "remove a (Outdated); "},
		"spec changed, OnDelete":           {given(epoch(7, "a"), instancePod("a", 7, otherSpec), withProcessor(updates("OnDelete"))), "OnDelete; "},
		"liveness path learned":            {given(epoch(7, "a"), instancePod("a", 7), withProcessor(learned("/healthz"))), "remove a (Outdated); "},
		"spec changed, already ending":     {given(epoch(7, "a"), instancePod("a", 7, otherSpec, terminating)), ""},
		"spec changed to a bad one":        {given(epoch(7, "a"), instancePod("a", 7, otherSpec), withProcessor(badTemplate)), "InvalidPodTemplate; "},
		"edge node vanished":               {given(epoch(7, "a"), instancePod("a", 7, otherSpec), withProcessor(edge), noEdgeNode), "EdgeNodeUnknown; "},
		"somebody took the finalizer":      {given(epoch(7, "a"), instancePod("a", 7, unfenced)), "adopt a; "},
		"pod of the previous Processor":    {given(epoch(7, "a"), instancePod("a", 7, otherOwner)), "remove a (PreviousProcessor); "},
		"previous Processor's, terminated": {given(epoch(7, "a"), instancePod("a", 7, otherOwner, terminating, failed)), "issue (Replace); "},

		// Moves.
		"move under way":                       {given(moves("Warming"), epoch(7, "a"), instancePod("a", 7), instancePod("b", 0, ofMove("m"))), ""},
		"move ended, target left over":         {given(moves("RolledBack"), epoch(7, "a"), instancePod("a", 7), instancePod("b", 0, ofMove("m"))), "remove b (Surplus); "},
		"move unknown":                         {given(epoch(7, "a"), instancePod("a", 7), instancePod("b", 0, ofMove("m"))), "remove b (Surplus); "},
		"move not yet seen to begin":           {given(moves(""), epoch(7, "a"), instancePod("a", 7), instancePod("b", 0, ofMove("m"))), ""},
		"handed over, not yet marked":          {given(moves("HandingOff"), epoch(8, "b"), instancePod("a", 7), instancePod("b", 0, ofMove("m"))), ""},
		"handed over, source is ending":        {given(moves("Retiring"), epoch(8, "b"), instancePod("a", 7, terminating), instancePod("b", 8, ofMove("m"))), ""},
		"handed over, source ended":            {given(moves("Retiring"), epoch(8, "b"), instancePod("a", 7, terminating, failed), instancePod("b", 8, ofMove("m"))), "lift a; "},
		"handed over, move ended, source left": {given(moves("Succeeded"), epoch(8, "b"), instancePod("a", 7), instancePod("b", 8, ofMove("m"))), "remove a (Surplus); "},
		"source ended in the middle":           {given(moves("Warming"), epoch(7, "a"), instancePod("a", 7, failed), instancePod("b", 0, ofMove("m"))), "Migrating; "},
		"source gone in the middle":            {given(moves("Warming"), epoch(7, "a"), instancePod("b", 0, ofMove("m"))), "Migrating; "},
		"source ended, move failed":            {given(moves("Failed"), epoch(7, "a"), instancePod("a", 7, failed)), "issue (Replace); "},
		"source ended, move waits its turn":    {given(moves("Pending"), epoch(7, "a"), instancePod("a", 7, failed)), "issue (Replace); "},
		"target of a failed move is no find":   {given(moves("Failed"), epoch(7, "a"), instancePod("a", 7, failed), instancePod("b", 0, ofMove("m"))), "remove b (Surplus); WaitingForOldInstance; "},
		"suspended in the middle": {
			given(moves("Warming"), withProcessor(suspended), epoch(7, "a"), instancePod("a", 7), instancePod("b", 0, ofMove("m"))), "remove b (Suspended); remove a (Suspended); ",
		},
		"spec changed in the middle":            {given(moves("Warming"), epoch(7, "a"), instancePod("a", 7, otherSpec)), "Migrating; "},
		"update asked for":                      {given(updateOf("u-1", "", 0), epoch(7, "a"), instancePod("a", 7, otherSpec)), "Replacing; "},
		"update refused by the new version":     {given(updateOf("u-1", "StateRefused", time.Hour), epoch(7, "a"), instancePod("a", 7, otherSpec)), "UpdateRolledBack; "},
		"update failed for another reason":      {given(updateOf("u-1", "SourceUnavailable", time.Second), epoch(7, "a"), instancePod("a", 7, otherSpec)), "UpdateRolledBack; "},
		"update failed, waited long enough":     {given(updateOf("u-1", "SourceUnavailable", 31*time.Second), epoch(7, "a"), instancePod("a", 7, otherSpec)), "update by cam-update-98b368bc-1; "},
		"third update failed, others collected": {given(updateOf("cam-update-98b368bc-3", "SourceUnavailable", 31*time.Second), epoch(7, "a"), instancePod("a", 7, otherSpec)), "UpdateRolledBack; "},
		"third update failed, waited as long":   {given(updateOf("cam-update-98b368bc-3", "SourceUnavailable", 121*time.Second), epoch(7, "a"), instancePod("a", 7, otherSpec)), "update by cam-update-98b368bc-4; "},
		"update failed for want of an image":    {given(updateOf("u-1", doryv1alpha1.MigrationReasonTargetImage, 31*time.Second), epoch(7, "a"), instancePod("a", 7, otherSpec)), "update by cam-update-98b368bc-1; "},
		"update superseded and wanted again":    {given(updateOf("u-1", "Superseded", time.Second), epoch(7, "a"), instancePod("a", 7, otherSpec)), "update by cam-update-98b368bc-1; "},
		"spec is back at what it was":           {given(updated("a0", "b0"), epoch(7, "a"), instancePod("a", 7, otherSpec)), "update by cam-update-98b368bc-2; "},
		"update succeeded, target not yet seen": {given(updated("a", "b"), epoch(7, "a"), instancePod("a", 7, otherSpec)), ""},
		"a second attempt has another name":     {given(updateOf("cam-update-98b368bc-1", "Superseded", 0), epoch(7, "a"), instancePod("a", 7, otherSpec)), "update by cam-update-98b368bc-2; "},
		"update of a spec that was left since":  {given(updateOf("u-1", "StateRefused", 0), withProcessor(image("counter:2")), epoch(7, "a"), instancePod("a", 7, otherSpec)), "update by cam-update-" + revisionOf("counter:2") + "-1; "},

		// One instance.
		"second pod":                              {given(epoch(8, "b"), instancePod("a", 7), instancePod("b", 8)), "remove a (Surplus); "},
		"second pod, ending":                      {given(epoch(8, "b"), instancePod("a", 7, terminating), instancePod("b", 8)), ""},
		"second pod, ended":                       {given(epoch(8, "b"), instancePod("a", 7, failed), instancePod("b", 8)), "lift a; "},
		"epoch issued, old one lives":             {given(epoch(8, "b"), instancePod("a", 7)), "remove a (Surplus); WaitingForOldInstance; "},
		"epoch issued, old one is ending":         {given(epoch(8, "b"), instancePod("a", 7, terminating)), "WaitingForOldInstance; "},
		"epoch issued, old one's node is silent":  {given(epoch(8, "b"), instancePod("a", 7, terminating), node("n1", nodeNotReady)), "WaitingForOldInstance; "},
		"epoch issued, old one ended":             {given(epoch(8, "b"), instancePod("a", 7, failed)), "lift a; create b; "},
		"the ProcessorEpoch was deleted":          {given(instancePod("a", 7)), "remove a (Surplus); WaitingForOldInstance; "},
		"the ProcessorEpoch was deleted and left": {given(instancePod("a", 7, failed)), "lift a; issue (Start); "},
		"older Processor with the same id":        {given(func(o *observation) { o.twin = "first" }), "ProcessorIDConflict; "},
		"older Processor with the same id, both": {
			given(func(o *observation) { o.twin = "first" }, epoch(7, "a"), instancePod("a", 7)), "remove a (ProcessorIDConflict); ProcessorIDConflict; ",
		},

		"another Processor's pod of the id":          {given(otherPod("x")), "WaitingForOldInstance; "},
		"another Processor's pod, ended, is its own": {given(otherPod("x", failed)), "WaitingForOldInstance; "},
		"another Processor's pod holds the epoch":    {given(epoch(7, "x"), otherPod("x")), "WaitingForOldInstance; "},
		"younger twin leaves the holder alone":       {given(func(o *observation) { o.twin = "first" }, epoch(7, "x"), otherPod("x")), "ProcessorIDConflict; "},
		"suspended while another holds the epoch":    {given(withProcessor(suspended), epoch(7, "x"), otherPod("x")), ""},
		"running beside another Processor's pod":     {given(epoch(7, "a"), instancePod("a", 7), otherPod("x")), ""},

		// What cannot be decoded.
		"the epoch cannot be decoded":            {given(aside, instancePod("a", 7)), "Undecodable; "},
		"the epoch cannot, and there is no pod":  {given(aside), "Undecodable; "},
		"the epoch cannot, and the pod ended":    {given(aside, instancePod("a", 7, failed)), "Undecodable; "},
		"the epoch cannot, and there are two":    {given(aside, instancePod("a", 7), instancePod("b", 8)), "Undecodable; "},
		"a move cannot be decoded":               {given(aside, epoch(7, "a"), instancePod("a", 7, otherSpec), instancePod("b", 0, ofMove("m"))), "Undecodable; "},
		"the epoch cannot, suspended":            {given(withProcessor(suspended), aside, instancePod("a", 7)), "remove a (Suspended); Undecodable; "},
		"the epoch cannot, suspended and ended":  {given(withProcessor(suspended), aside, instancePod("a", 7, terminating, failed)), "Undecodable; "},
		"the epoch cannot, the Processor gone":   {given(aside, instancePod("a", 7), noProcessor), "remove a (Deleted); Undecodable; "},
		"the edge node cannot, nothing runs":     {given(withProcessor(edge), edgeNodeAside), "EdgeNodeUnknown; "},
		"the edge node cannot, what runs may on": {given(epoch(7, "a"), instancePod("a", 7, otherSpec), withProcessor(edge), edgeNodeAside), "EdgeNodeUnknown; "},

		// Adopting.
		"legacy pod":                     {given(legacyPod("old")), "adopt old; "},
		"legacy pod after an ended one":  {given(epoch(7, "a"), instancePod("a", 7, failed), legacyPod("old")), "adopt old; "},
		"legacy pod beside ours":         {given(epoch(7, "a"), instancePod("a", 7), legacyPod("old")), "remove old (Surplus); "},
		"legacy pod that is ending":      {given(legacyPod("old", terminating)), "WaitingForOldInstance; "},
		"two legacy pods, the ready one": {given(legacyPod("o1", notReady(0)), legacyPod("o2")), "remove o1 (Surplus); WaitingForOldInstance; "},
		"adoption was cut short":         {given(epoch(7, "old"), legacyPod("old")), "adopt old; "},
		"legacy pod of a suspended one":  {given(withProcessor(suspended), legacyPod("old")), "remove old (Suspended); "},
		"legacy pod while another lives": {given(legacyPod("old"), instancePod("a", 7)), "remove a (Surplus); WaitingForOldInstance; "},
		"two legacy pods, one has ended": {given(legacyPod("o1", failed), legacyPod("o2")), "lift o1; adopt o2; "},

		// Stopping.
		"suspended":                     {given(withProcessor(suspended), epoch(7, "a"), instancePod("a", 7)), "remove a (Suspended); "},
		"suspended, ending":             {given(withProcessor(suspended), epoch(7, "a"), instancePod("a", 7, terminating)), ""},
		"suspended, ended":              {given(withProcessor(suspended), epoch(7, "a"), instancePod("a", 7, terminating, failed)), "release; "},
		"suspended before it was made":  {given(withProcessor(suspended), epoch(7, "a")), "release; "},
		"suspended and released":        {given(withProcessor(suspended), epoch(7, "")), ""},
		"suspended from the start":      {given(withProcessor(suspended)), ""},
		"being deleted":                 {given(withProcessor(deleting), epoch(7, "a"), instancePod("a", 7)), "remove a (Deleted); "},
		"deleted":                       {given(epoch(7, "a"), instancePod("a", 7), noProcessor), "remove a (Deleted); "},
		"deleted, on a silent node":     {given(epoch(7, "a"), instancePod("a", 7, terminating), node("n1", nodeNotReady), noProcessor), ""},
		"deleted, ended":                {given(epoch(7, "a"), instancePod("a", 7, terminating, failed), noProcessor), "release; "},
		"deleted, ended, no epoch":      {given(instancePod("a", 7, terminating, failed), noProcessor), "lift a; "},
		"deleted, nothing left":         {given(epoch(7, ""), noProcessor), ""},
		"deleted, and never had a pod":  {given(noProcessor), ""},
		"deleted, with two pods, ended": {given(epoch(8, "b"), instancePod("a", 7, failed), instancePod("b", 8, failed), noProcessor), "lift a; release; "},

		// Backing off.
		"first failure is answered at once": {given(epoch(7, "a"), instancePod("a", 7, failed, ranFor(time.Second))), "issue (Replace); "},
		"second failure waits": {
			given(withProcessor(failedBefore(1, time.Minute, "z")), epoch(7, "a"), instancePod("a", 7, failed, ranFor(time.Second))), "BackingOff; ",
		},
		"second failure has waited": {
			given(withProcessor(failedBefore(2, 11*time.Second, "a")), epoch(7, "a"), instancePod("a", 7, failed, ranFor(time.Second))), "issue (Replace); ",
		},
		"a deletion is no failure": {
			given(withProcessor(failedBefore(1, time.Minute, "z")), epoch(7, "a"), instancePod("a", 7, failed, terminating)), "issue (Replace); ",
		},
		"failure after a long run": {
			given(withProcessor(failedBefore(9, time.Hour, "z")), epoch(7, "a"), instancePod("a", 7, failed, ranFor(time.Hour))), "issue (Replace); ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.given).String(); got != test.want {
				t.Errorf("decide: %q, want %q", got, test.want)
			}
		})
	}
}

// Whatever is observed, no instance is started while another pod of the id lives, and none adopted beside one.
func TestDecideNeverMakesASecondInstance(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	anywhere := []func(*corev1.Pod){isReady, notReady(time.Minute), terminating, failed, unscheduled, ranFor(time.Minute)}
	ofOurs := append([]func(*corev1.Pod){otherSpec, unfenced, otherOwner}, anywhere...)
	started := 0
	for range 20000 {
		o := given()
		for _, name := range []string{"a", "b", "c"}[:random.IntN(4)] {
			if random.IntN(3) == 0 {
				legacyPod(name, anywhere[random.IntN(len(anywhere))])(o)
				continue
			}
			instancePod(name, 7, ofOurs[random.IntN(len(ofOurs))], ofOurs[random.IntN(len(ofOurs))])(o)
		}
		if random.IntN(6) == 0 {
			otherPod("x", anywhere[random.IntN(len(anywhere))])(o)
		}
		if random.IntN(3) > 0 {
			epoch(7, []string{"", "a", "b", "z"}[random.IntN(4)])(o)
		}
		if random.IntN(3) == 0 {
			phases := []doryv1alpha1.MigrationPhase{"", "Pending", "Placing", "HandingOff", "Retiring", "Succeeded", "Failed"}
			moveOf("m", "a", "b", phases[random.IntN(len(phases))])(o)
			instancePod("t", 0, ofMove("m"), anywhere[random.IntN(len(anywhere))])(o)
		}
		withProcessor(failedBefore(random.Int32N(3)+1, time.Duration(random.IntN(60))*time.Second, "a"))(o)
		node("n1", nodeState(random.IntN(3)))(o)
		checkOneInstance(t, o, &started)
	}
	if started == 0 {
		t.Error("no instance was started in any of the worlds: the test proves nothing")
	}
}

func checkOneInstance(t *testing.T, o *observation, started *int) {
	t.Helper()
	p := decide(o)
	if p.adopt != nil {
		for _, pod := range slices.Concat(o.pods, o.others) {
			if _, holder := o.holder(); pod != p.adopt && alive(pod) && holder != p.adopt {
				t.Fatalf("%s while pod %s lives (%+v)", p, pod.Name, pod.ObjectMeta)
			}
		}
	}
	if p.start == nil {
		return
	}
	*started++
	if m := o.move(); m != nil {
		t.Fatalf("%s while %s is under way", p, m.Name)
	}
	for _, pod := range slices.Concat(o.pods, o.others) {
		if alive(pod) {
			t.Fatalf("%s while pod %s lives (%+v)", p, pod.Name, pod.ObjectMeta)
		}
	}
}

func TestDelay(t *testing.T) {
	for failures, want := range map[int32]time.Duration{0: 0, 1: 0, 2: 10 * time.Second, 3: 20 * time.Second, 4: 40 * time.Second, 6: 160 * time.Second, 7: 5 * time.Minute, 2000: 5 * time.Minute} {
		if got := delay(failures); got != want {
			t.Errorf("delay after %d failures = %s, want %s", failures, got, want)
		}
	}
}

func TestBackoffIsForgottenAfterALongRun(t *testing.T) {
	for name, test := range map[string]struct {
		readyFor    time.Duration
		wantBackoff bool
		wantRequeue time.Duration
	}{
		"not yet": {4 * time.Minute, true, 6 * time.Minute},
		"long":    {10 * time.Minute, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := decide(given(withProcessor(failedBefore(3, time.Hour, "z")), epoch(7, "a"), instancePod("a", 7, func(pod *corev1.Pod) {
				setReady(pod, corev1.ConditionTrue, now.Add(-test.readyFor))
			})))
			if (p.backoff != nil) != test.wantBackoff || p.requeueAfter != test.wantRequeue {
				t.Errorf("backoff %+v, look again after %s; want kept=%t, %s", p.backoff, p.requeueAfter, test.wantBackoff, test.wantRequeue)
			}
		})
	}
}

func TestFailureIsCountedOnce(t *testing.T) {
	o := given(withProcessor(failedBefore(2, time.Second, "a")), epoch(7, "a"), instancePod("a", 7, failed))
	if got := decide(o).backoff.Failures; got != 2 {
		t.Errorf("failures = %d after seeing the same failed pod again, want 2", got)
	}
}

func TestReport(t *testing.T) {
	waiting := func(reason string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			notReady(time.Minute)(p)
			container(corev1.ContainerStatus{RestartCount: 4, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "see here"}}})(p)
		}
	}
	for name, test := range map[string]struct {
		given                 *observation
		phase                 doryv1alpha1.ProcessorPhase
		ready, reason, detail string
	}{
		"running":          {given(epoch(7, "a"), instancePod("a", 7)), "Running", "True", "Running", "a is ready"},
		"new":              {given(), "Pending", "False", "Starting", ""},
		"waits for a node": {given(epoch(7, "a"), instancePod("a", 7, unscheduled)), "Pending", "False", "Starting", "waits for a node"},
		"unschedulable": {given(epoch(7, "a"), instancePod("a", 7, unscheduled, func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes fit"}}
		})), "Pending", "False", "Unschedulable", "0/3 nodes fit"},
		"starting":      {given(epoch(7, "a"), instancePod("a", 7, notReady(time.Minute))), "Starting", "False", "Starting", "starts on node n1"},
		"creating":      {given(epoch(7, "a"), instancePod("a", 7, notReady(time.Minute), container(corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}}))), "Starting", "False", "Starting", ""},
		"image missing": {given(epoch(7, "a"), instancePod("a", 7, waiting("ImagePullBackOff"))), "Unhealthy", "False", "ContainerWaiting", "ImagePullBackOff: see here"},
		"image of a companion missing": {given(epoch(7, "a"), instancePod("a", 7, notReady(time.Minute), func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "setup", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such image"}}}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: pod.ContainerName, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}}}
		})), "Unhealthy", "False", "ContainerWaiting", "container setup: ErrImagePull: no such image"},
		"explained":                  {given(epoch(7, "a"), instancePod("a", 7, notReady(time.Minute)), explained("answers GET /ready with 503: not restored")), "Starting", "False", "NotReady", "pod a on node n1 answers GET /ready with 503: not restored"},
		"explained, and ready since": {given(epoch(7, "a"), instancePod("a", 7), explained("answers GET /ready with 503: not restored")), "Running", "True", "Running", "a is ready"},
		"crash loop":                 {given(epoch(7, "a"), instancePod("a", 7, waiting("CrashLoopBackOff"))), "Unhealthy", "False", "ContainerWaiting", "CrashLoopBackOff"},
		"unready after it ran": {given(epoch(7, "a"), instancePod("a", 7, notReady(time.Second), func(p *corev1.Pod) {
			container(corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: p.CreationTimestamp}}})(p)
		})), "Unhealthy", "False", "NotReady", "/ready"},
		"node silent":         {given(epoch(7, "a"), instancePod("a", 7), node("n1", nodeNotReady)), "Unhealthy", "Unknown", "NodeLost", "n1"},
		"ending":              {given(epoch(7, "a"), instancePod("a", 7, terminating)), "Stopping", "False", "WaitingForOldInstance", "its kubelet confirms"},
		"ending, node silent": {given(epoch(7, "a"), instancePod("a", 7, terminating), node("n1", nodeNotReady)), "Stopping", "False", "WaitingForOldInstance", "out-of-service"},
		"suspended":           {given(withProcessor(suspended)), "Suspended", "False", "Suspended", "spec.suspend"},
		"backing off": {
			given(withProcessor(failedBefore(2, time.Second, "a")), epoch(7, "a"), instancePod("a", 7, failed, func(p *corev1.Pod) { p.Status.Reason = "Evicted" })),
			"BackingOff", "False", "BackingOff", "2 instances failed in a row, the last one a: Evicted",
		},
		"id conflict": {given(func(o *observation) { o.twin = "first" }), "Pending", "False", "ProcessorIDConflict", "Processor first has the same"},
	} {
		t.Run(name, func(t *testing.T) {
			p := decide(test.given)
			status := report(test.given, &p)
			condition := status.Conditions[0]
			if status.Phase != test.phase || string(condition.Status) != test.ready || condition.Reason != test.reason || !strings.Contains(condition.Message, test.detail) {
				t.Errorf("phase %s, Ready=%s %s: %q; want %s, %s %s: … %q …",
					status.Phase, condition.Status, condition.Reason, condition.Message, test.phase, test.ready, test.reason, test.detail)
			}
			if status.ObservedGeneration != 3 || condition.ObservedGeneration != 3 {
				t.Errorf("observedGeneration = %d and %d, want 3", status.ObservedGeneration, condition.ObservedGeneration)
			}
		})
	}
}

func TestReportKeepsTheWordOfOthers(t *testing.T) {
	o := given(epoch(7, "a"), withProcessor(func(p *doryv1alpha1.Processor) {
		p.Status.Instance = &doryv1alpha1.ProcessorInstance{Pod: "a", UID: "uid-a", SDKVersion: "2.4.0"}
		p.Status.LivenessPath = "/healthz"
	}), instancePod("a", 7))
	p := decide(o)
	status := report(o, &p)
	if status.Instance.SDKVersion != "2.4.0" || status.LivenessPath != "/healthz" {
		t.Errorf("SDK %q, path %q were lost", status.Instance.SDKVersion, status.LivenessPath)
	}
	if status.Instance.Node != "n1" || status.Instance.Epoch != 7 || status.Instance.Since == nil {
		t.Errorf("instance = %+v", status.Instance)
	}
}

// While the pod that the epoch names is missing, the status must go on saying that it existed: that is how the
// next pass knows not to use its name again.
func TestReportRemembersAMissingHolder(t *testing.T) {
	o := given(epoch(7, "a"), withProcessor(remembers("a")))
	p := plan{hindrance: &hindrance{doryv1alpha1.ReasonEpochUnavailable, "the database does not answer"}}
	if status := report(o, &p); status.Instance == nil || status.Instance.Pod != "a" {
		t.Errorf("instance = %+v, want the memory of a", status.Instance)
	}
}

// Where the next pod cannot be created, the state that the last one saved must still be known to be its.
func TestReportRemembersTheInstanceBeforeAMissingHolder(t *testing.T) {
	for name, test := range map[string]struct {
		given *observation
		plan  plan
		want  bool
	}{
		"its successor cannot be created": {given(epoch(8, "b"), withProcessor(remembers("a"))), plan{hindrance: &hindrance{doryv1alpha1.ReasonPodRejected, "exceeded quota"}}, true},
		"its successor is there":          {given(epoch(8, "b"), withProcessor(remembers("a")), instancePod("b", 8)), plan{}, false},
		"no successor is wanted":          {given(epoch(8, "b"), withProcessor(remembers("a"))), plan{release: true}, false},
		"nobody holds the epoch":          {given(epoch(8, ""), withProcessor(remembers("a"))), plan{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			instance := report(test.given, &test.plan).Instance
			if got := instance != nil && instance.Pod == "a"; got != test.want {
				t.Errorf("instance = %+v", instance)
			}
		})
	}
}

func BenchmarkDecideAtRest(b *testing.B) {
	o := given(epoch(7, "a"), instancePod("a", 7))
	b.ReportAllocs()
	for b.Loop() {
		p := decide(o)
		report(o, &p)
	}
}

func TestRetriesAreNeverFarApart(t *testing.T) {
	limiter, request := retries(), ctrl.Request{}
	for range 50 {
		if wait := limiter.When(request); wait > lastRetry {
			t.Fatalf("after %d failures the next try is %s away", limiter.NumRequeues(request), wait)
		}
	}
}

func explained(text string) func(*observation) {
	return func(o *observation) { o.explanation = text }
}
