package migration

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
)

// What happens in the world without the operator's doing.

// happen lets something happen in the middle of a pass.
func (w *world) happen() {
	likely := 3
	if m := w.active(); m != nil && m.Status.Phase != doryv1alpha1.MigrationPlacing && m.Status.Phase != doryv1alpha1.MigrationStarting {
		likely = 25
	}
	if w.busy || !w.chance(likely) {
		return
	}
	w.busy = true
	defer func() { w.busy = false }()
	w.work()
	w.kubelets()
	w.lifecycle()
	w.mishap(30)
}

// tick lets time pass between two passes.
func (w *world) tick() {
	w.now = w.now.Add(time.Duration(200+w.rand.IntN(2500)) * time.Millisecond)
	w.work()
	w.kubelets()
	w.lifecycle()
	w.checkpoint()
	w.mishap(4)
	w.work()
	if w.chance(70) {
		w.syncSome()
	}
}

// work lets whoever acts commit iterations.
func (w *world) work() {
	w.judgeActing()
	for _, p := range w.acting() {
		if p.pondering {
			continue
		}
		for range w.rand.IntN(3) {
			w.iterate(p)
		}
	}
}

func (w *world) iterate(p *process) {
	if !w.overlap() {
		w.judgeIteration(p)
	}
	p.state.position.Sequence++
	p.state.position.Epoch = p.seen
	sum := fnv.New64a()
	fmt.Fprint(sum, p.state.history, p.state.position.Sequence, w.rand.Uint64())
	p.state.history = sum.Sum64()
	w.head, w.bereft = p.state, false
}

func (w *world) overlap() bool {
	return w.processor == nil || w.processor.MigrationStrategy() == doryv1alpha1.MigrationOverlap || (w.legacy && w.processor.MigrationStrategy() == doryv1alpha1.MigrationAuto)
}

// judgeIteration: what comes next must come after the last that was done, unless that died with its process.
func (w *world) judgeIteration(p *process) {
	if p.state.history != w.head.history && w.outOfReach() {
		w.bereft, w.floor = true, w.stored
	}
	switch {
	case w.gone, p.state.history == w.head.history:
	case !w.bereft:
		w.violate("%s goes on from sequence %d (epoch %d), but the last iteration was %d (epoch %d), and it was not lost", p.pod,
			p.state.position.Sequence, p.state.position.Epoch, w.head.position.Sequence, w.head.position.Epoch)
	case p.state.position.Sequence < w.floor.position.Sequence:
		w.violate("%s goes on from sequence %d, but %d was durable", p.pod, p.state.position.Sequence, w.floor.position.Sequence)
	}
}

// outOfReach says that nothing has what was done last but standbys that nobody can talk to: a processor does not wait for
// them for ever.
func (w *world) outOfReach() bool {
	found := false
	for _, p := range w.processes {
		if p.holds && p.state.history == w.head.history {
			if p.role != roleStandby || w.reachable(w.pods[p.pod].Spec.NodeName) {
				return false
			}
			found = true
		}
	}
	return found && w.stored.history != w.head.history
}

func (w *world) judgeActing() {
	if acting := w.acting(); len(acting) > 1 && !w.overlap() {
		w.violate("two PRIMARYs: %s and %s", acting[0].pod, acting[1].pod)
	}
}

// judgeIssue: whoever gets the epoch must be the only one who acts from then on.
func (w *world) judgeIssue(req fence.Request) {
	for _, p := range w.acting() {
		if p.pod != req.Holder && !w.overlap() {
			w.violate("the epoch goes to %s while %s acts", req.Holder, p.pod)
		}
	}
	for _, m := range w.migrations {
		if m.Active() && m.Status.Strategy == doryv1alpha1.MigrationLive && m.Status.TargetPod == req.Holder && req.Drawn == 0 {
			w.violate("source %s stands still for the number of %s", m.Status.SourcePod, req.Holder)
		}
	}
}

// judgeDeletionOfSource: where the target works on its own, the source stays until the target has taken over, and where the
// source is to save its state by itself, there is a copy of it in case that it does not.
// judgeVersion: who only wants another place does not get another version.
func (w *world) judgeVersion(made *corev1.Pod) {
	m := w.active()
	if m == nil || made.Name != m.Status.TargetPod || m.Brings() {
		return
	}
	source := w.versions[m.Status.SourcePod]
	if got := pod.RevisionOf(made); source != "" && got != source {
		w.violate("migration %s (%s) makes a pod of revision %s from one of %s", m.Name, m.Spec.Reason, got, source)
	}
}

func (w *world) judgeDeletionOfSource(m *doryv1alpha1.ProcessorMigration) {
	if m.Status.Strategy == doryv1alpha1.MigrationOverlap && w.epoch.Spec.Holder == m.Status.SourcePod {
		w.violate("source %s is deleted before the commit", m.Status.SourcePod)
	}
	if m.Status.Strategy == doryv1alpha1.MigrationStopAndCopy && m.Status.Sequence != nil && w.stored.position.Sequence < *m.Status.Sequence {
		w.violate("source %s is deleted at sequence %d, and only %d is durable", m.Status.SourcePod, *m.Status.Sequence, w.stored.position.Sequence)
	}
}

// judgeDeletion: the operator must not delete the only copy of what was done last. A process that works saves it itself.
func (w *world) judgeDeletion(name string) {
	p, deleted := w.processes[name], w.pods[name]
	if p == nil || !p.holds || p.role == rolePrimary || p.state.history != w.head.history || w.gone || w.bereft || deleted.DeletionTimestamp != nil || !w.reachable(deleted.Spec.NodeName) {
		return
	}
	if w.survives(p) {
		return
	}
	w.violate("%s is deleted, which alone knows sequence %d", name, w.head.position.Sequence)
}

// survives says that what was done last is known elsewhere.
func (w *world) survives(without *process) bool {
	if w.stored.history == w.head.history {
		return true
	}
	for _, other := range w.processes {
		if other != without && other.holds && !other.down && other.state.history == w.head.history {
			return true
		}
	}
	return false
}

// judgeBeginning: what was called off does not begin, nor does a move off a pod that does not act.
func (w *world) judgeBeginning(before, m *doryv1alpha1.ProcessorMigration) {
	at, limited := m.Deadline()
	switch {
	case before.Active() || !m.Active():
	case m.Cancelled():
		w.violate("migration %s begins, which was called off", m.Name)
	case limited && w.now.Sub(at) > time.Minute:
		w.violate("migration %s begins after its deadline", m.Name)
	case m.Spec.SourcePod != "" && m.Status.SourcePod != m.Spec.SourcePod:
		w.violate("migration %s moves pod %s, and was to move pod %s", m.Name, m.Status.SourcePod, m.Spec.SourcePod)
	}
}

// judgeEnd: a migration that says that somebody acts must not be mistaken.
func (w *world) judgeEnd(m *doryv1alpha1.ProcessorMigration) {
	if c := m.Cancelled(); !c && m.DeletionTimestamp == nil && m.Ended() && m.Status.Reason == ReasonCancelled {
		w.violate("migration %s was never called off", m.Name)
	}
	var who string
	switch m.Status.Phase {
	case doryv1alpha1.MigrationSucceeded:
		who = m.Status.TargetPod
	case doryv1alpha1.MigrationRolledBack:
		who = m.Status.SourcePod
	default:
		return
	}
	if p := w.processes[who]; p != nil && p.role != rolePrimary && !p.stopping && w.processor != nil {
		w.violate("migration %s ends as %s, and %s is %s", m.Name, m.Status.Phase, who, p.role)
	}
}

// lose is the end of a process's memory.
func (w *world) lose(p *process) {
	acted := p.role == rolePrimary
	delete(w.processes, p.pod)
	if p.state.history != w.head.history || !p.holds {
		return
	}
	if acted || !w.survives(p) {
		w.bereft, w.floor = true, w.stored
		w.note("    what %s did last is lost; sequence %d is durable", p.pod, w.floor.position.Sequence)
	}
}

// kubelets start, probe, restart and end.
func (w *world) kubelets() {
	for _, name := range w.podNames() {
		p := w.pods[name]
		if p.Spec.NodeName == "" {
			if p.DeletionTimestamp == nil && !w.unschedulable[name] && w.chance(50) {
				p.Spec.NodeName, p.ResourceVersion = fmt.Sprintf("n%d", w.rand.IntN(4)), w.nextVersion()
			}
			continue
		}
		if p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded && w.reachable(p.Spec.NodeName) {
			w.kubelet(p)
		}
	}
}

func (w *world) kubelet(p *corev1.Pod) {
	process := w.processes[p.Name]
	switch {
	case p.DeletionTimestamp != nil:
		w.end(p, process)
	case process == nil:
		if w.chance(60) {
			w.run(p)
		}
	default:
		setReady(p, !process.down && !w.now.Before(process.readyAt))
		p.ResourceVersion = w.nextVersion()
	}
}

// run starts a process, which is what the pod's metadata say at this moment.
func (w *world) run(p *corev1.Pod) {
	epoch := pod.EpochOf(p)
	w.names++
	started := &process{
		pod: p.Name, instance: "i" + strconv.Itoa(w.names), role: rolePrimary, seen: epoch,
		readyAt: w.now.Add(time.Duration(w.rand.IntN(4000)) * time.Millisecond),
	}
	if !w.legacy && p.Annotations[doryv1alpha1.AnnotationRole] == doryv1alpha1.RoleStandby {
		started.role = roleStandby
	} else {
		started.holds, started.state = true, w.stored
		if w.stored.history == 0 {
			started.state = state{history: 1}
		}
	}
	w.processes[p.Name] = started
	p.Status.Phase, p.Status.PodIP, p.ResourceVersion = corev1.PodRunning, p.Name, w.nextVersion()
	restarts := int32(-1)
	if container := pod.ContainerStatus(p); container != nil {
		restarts = container.RestartCount
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "processor", ContainerID: started.instance, RestartCount: restarts + 1}}
	setReady(p, false)
	w.note("    %s (%s) starts as %s at epoch %d sequence %d", p.Name, started.instance, started.role, epoch, started.state.position.Sequence)
}

func setReady(p *corev1.Pod, ready bool) {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
}

// end is /prestop, the grace period, and the kubelet's word.
func (w *world) end(p *corev1.Pod, process *process) {
	if process != nil {
		if !process.stopping {
			process.stopping = true
			return
		}
		if !w.chance(60) {
			return
		}
		if process.role == rolePrimary && process.holds && !w.now.Before(process.readyAt) && !w.fault(5) {
			saved := process.state
			saved.position.Epoch = process.seen
			w.store(saved)
		}
		w.lose(process)
	}
	w.ended(p, corev1.PodSucceeded)
}

func (w *world) ended(p *corev1.Pod, phase corev1.PodPhase) {
	p.Status.Phase, p.ResourceVersion = phase, w.nextVersion()
	setReady(p, false)
	w.note("    %s has ended", p.Name)
}

// lifecycle is the other controller, as far as it matters here.
func (w *world) lifecycle() {
	m := w.active()
	var blocking bool
	for _, name := range w.podNames() {
		p := w.pods[name]
		holder := w.epoch != nil && w.epoch.Spec.Holder == name
		switch {
		case over(p) && !holder:
			delete(w.pods, name)
		case over(p):
		case m != nil && (w.wanted() || !w.hasty) && (name == m.Status.SourcePod || name == m.Status.TargetPod):
			blocking = true
		case !holder || !w.wanted():
			blocking = true
			w.markDeleted(name)
		default:
			w.keep(p, m)
		}
	}
	if m != nil {
		return
	}
	holder := w.holder()
	switch {
	case !over(holder):
	case !w.wanted():
		if w.epoch != nil && w.epoch.Spec.Holder != "" {
			w.forget(holder)
			w.epoch.Spec.Holder, w.epoch.ResourceVersion = "", w.nextVersion()
		}
	case !blocking && (w.epoch == nil || w.chance(50)):
		w.forget(holder)
		w.names++
		name := "dory-cam-l" + strconv.Itoa(w.names)
		w.judgeIssue(fence.Request{Holder: name, Drawn: 1})
		w.issue(name, 0)
		w.addPod(w.buildPod(name, w.epoch.Spec.Epoch))
	}
}

func (w *world) forget(p *corev1.Pod) {
	if p != nil {
		delete(w.pods, p.Name)
	}
}

func (w *world) holder() *corev1.Pod {
	if w.epoch == nil {
		return nil
	}
	return w.pods[w.epoch.Spec.Holder]
}

// keep marks the holder's epoch.
func (w *world) keep(holder *corev1.Pod, m *doryv1alpha1.ProcessorMigration) {
	if m == nil && pod.EpochOf(holder) != w.epoch.Spec.Epoch {
		holder.Labels[doryv1alpha1.LabelEpoch], holder.ResourceVersion = strconv.FormatInt(w.epoch.Spec.Epoch, 10), w.nextVersion()
	}
}

// checkpoint is the other controller that talks to processes: it saves what the holder has, and revives one that lost its
// role after every migration was over.
func (w *world) checkpoint() {
	holder := w.holder()
	if holder == nil || w.processes[holder.Name] == nil || !w.chance(20) {
		return
	}
	p := w.processes[holder.Name]
	switch {
	case p.down || p.stopping || w.now.Before(p.readyAt):
	case p.holds && p.role != roleStandby:
		saved := p.state
		saved.position.Epoch = p.seen
		w.store(saved)
	case w.active() == nil && p.role == roleStandby:
		w.judgeIssue(fence.Request{Holder: holder.Name, Drawn: 1})
		if p.seen >= w.epoch.Spec.Epoch {
			w.issue(holder.Name, p.seen)
		}
		if !p.holds || p.state.position.Compare(w.stored.position) < 0 {
			p.state = w.stored
		}
		p.holds, p.seen = true, w.epoch.Spec.Epoch
		if p.state.history == 0 {
			p.state.history = 1
		}
		w.turn(p, rolePrimary)
		holder.Annotations[doryv1alpha1.AnnotationRole] = doryv1alpha1.RolePrimary
		holder.Labels[doryv1alpha1.LabelEpoch] = strconv.FormatInt(p.seen, 10)
		holder.ResourceVersion = w.nextVersion()
	}
}

// mishap is a fault, or somebody's wish.
func (w *world) mishap(percent int) {
	if !w.fault(percent) {
		return
	}
	mishaps := []func(){
		w.crash, w.crash, w.partition, w.nodeDies, w.deletesPod, w.deletesMigration, w.stripsFinalizer, w.cancels, w.cancels,
		w.migrates, w.migrates,
		w.changesSpec, w.suspends, w.resumes, w.stubbornness, w.refusal, w.forgetfulness, w.noRoom, w.reissues, w.deletesProcessor,
	}
	mishaps[w.rand.IntN(len(mishaps))]()
}

func (w *world) anyPod() *corev1.Pod {
	names := w.podNames()
	if len(names) == 0 {
		return nil
	}
	return w.pods[names[w.rand.IntN(len(names))]]
}

func (w *world) anyProcess() *process {
	if p := w.anyPod(); p != nil {
		return w.processes[p.Name]
	}
	return nil
}

func (w *world) crash() {
	if p := w.anyProcess(); p != nil {
		w.note("MISHAP: the container of %s crashes", p.pod)
		w.lose(p)
	}
}

func (w *world) partition() {
	if p := w.anyPod(); p != nil && p.Spec.NodeName != "" {
		w.unreachable[p.Spec.NodeName] = w.now.Add(time.Duration(5+w.rand.IntN(100)) * time.Second)
		w.note("MISHAP: node %s of %s is out of reach", p.Spec.NodeName, p.Name)
	}
}

func (w *world) nodeDies() {
	p := w.anyPod()
	if p == nil || p.Spec.NodeName == "" {
		return
	}
	w.note("MISHAP: node %s dies", p.Spec.NodeName)
	node := p.Spec.NodeName
	for _, name := range w.podNames() {
		if other := w.pods[name]; other.Spec.NodeName == node {
			if process := w.processes[name]; process != nil {
				w.lose(process)
			}
			w.ended(other, corev1.PodFailed)
		}
	}
}

func (w *world) deletesPod() {
	if p := w.anyPod(); p != nil {
		w.note("MISHAP: somebody deletes pod %s", p.Name)
		w.markDeleted(p.Name)
	}
}

func (w *world) anyMigration() *doryv1alpha1.ProcessorMigration {
	if m := w.active(); m != nil {
		return m
	}
	for _, name := range w.migrationNames() {
		return w.migrations[name]
	}
	return nil
}

func (w *world) deletesMigration() {
	if m := w.anyMigration(); m != nil {
		w.note("MISHAP: somebody deletes migration %s", m.Name)
		w.removeMigration(m.Name)
	}
}

func (w *world) stripsFinalizer() {
	if m := w.anyMigration(); m != nil {
		w.note("MISHAP: somebody removes migration %s with its finalizer", m.Name)
		delete(w.migrations, m.Name)
	}
}

func (w *world) cancels() {
	if m := w.anyMigration(); m != nil {
		w.note("EVENT: somebody calls migration %s off", m.Name)
		w.cancel(m)
	}
}

func (w *world) cancel(m *doryv1alpha1.ProcessorMigration) {
	m.Spec.Cancel, m.ResourceVersion = new(true), w.nextVersion()
	m.Generation++
}

func (w *world) migrates() {
	w.names++
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "m" + strconv.Itoa(w.names), UID: types.UID("uid-m" + strconv.Itoa(w.names)),
			ResourceVersion: w.nextVersion(), CreationTimestamp: metav1.NewTime(w.now),
		},
		Spec: doryv1alpha1.ProcessorMigrationSpec{Processor: "cam", Reason: doryv1alpha1.MigrationManual},
	}
	if w.chance(30) {
		m.Spec.Reason = doryv1alpha1.MigrationDrain
		if holder := w.holder(); holder != nil {
			m.Spec.SourcePod = holder.Name
		}
	}
	if w.faults > 0 && w.chance(30) {
		m.Spec.ActiveDeadlineSeconds = new(int64(1 + w.rand.IntN(60)))
	}
	if w.chance(5) {
		m.Spec.TargetNode = "missing"
	}
	w.note("EVENT: migration %s is created", m.Name)
	w.migrations[m.Name] = m
}

func (w *world) changesSpec() {
	if w.processor != nil {
		w.names++
		w.note("EVENT: the spec changes")
		w.processor.Spec.Image = "counter:" + strconv.Itoa(w.names)
		w.processor.Generation++
	}
}

func (w *world) suspends() { w.suspend(true) }

func (w *world) resumes() { w.suspend(false) }

func (w *world) suspend(yes bool) {
	if w.processor != nil {
		w.note("EVENT: suspend is %t", yes)
		w.processor.Spec.Suspend = &yes
	}
}

func (w *world) stubbornness() {
	if p := w.anyProcess(); p != nil {
		w.note("MISHAP: %s does not come to the end of its iteration", p.pod)
		p.stubborn = true
	}
}

func (w *world) refusal() {
	if p := w.anyProcess(); p != nil && p.role == roleStandby {
		w.note("MISHAP: %s takes no state", p.pod)
		p.refuses = true
	}
}

func (w *world) forgetfulness() {
	if p := w.anyProcess(); p != nil && p.role == roleStandby {
		w.note("MISHAP: %s says that it takes the state, and does not", p.pod)
		p.forgetful = true
	}
}

func (w *world) noRoom() {
	if p := w.anyPod(); p != nil && p.Spec.NodeName == "" {
		w.note("MISHAP: there is no room for %s", p.Name)
		w.unschedulable[p.Name] = true
	}
}

func (w *world) reissues() {
	if w.epoch != nil && w.epoch.Spec.Holder != "" {
		w.note("MISHAP: somebody issues an epoch to %s", w.epoch.Spec.Holder)
		w.issue(w.epoch.Spec.Holder, 0)
	}
}

func (w *world) deletesProcessor() {
	if w.processor != nil && w.chance(20) {
		w.deleteProcessor()
	}
}

func (w *world) deleteProcessor() {
	w.note("MISHAP: the Processor is deleted, and the garbage collector takes what it owns")
	w.processor, w.gone = nil, true
	for _, name := range w.podNames() {
		w.markDeleted(name)
	}
	for _, name := range w.migrationNames() {
		w.removeMigration(name)
	}
}
