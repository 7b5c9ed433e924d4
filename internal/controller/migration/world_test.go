package migration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/statexfer"
)

// world is a cluster in miniature: an API server with a lagging cache, kubelets, processes that work, a store, lifecycle,
// and people. The real Reconciler runs in it, and dies in it. Everything is a function of the seed.
type world struct {
	rand  *rand.Rand
	now   time.Time
	story []string
	// wrong is the first thing that must never be.
	wrong string

	processor *doryv1alpha1.Processor
	epoch     *doryv1alpha1.ProcessorEpoch
	// ledger is the last number that was drawn.
	ledger     int64
	migrations map[string]*doryv1alpha1.ProcessorMigration
	pods       map[string]*corev1.Pod
	processes  map[string]*process
	version    int
	names      int

	cache struct {
		processor  *doryv1alpha1.Processor
		epoch      *doryv1alpha1.ProcessorEpoch
		migrations map[string]*doryv1alpha1.ProcessorMigration
		pods       map[string]*corev1.Pod
	}

	// stored is the newest durable state.
	stored state
	// head is the last iteration that counts.
	head state
	// bereft says that head died with the process that worked: what comes next may start from an older state, but not from
	// one older than floor.
	bereft bool
	floor  state
	// gone ends the story of the state: the Processor was deleted.
	gone bool

	// legacy processes know no handoff, and act as soon as they run.
	legacy bool
	// mute processes know the handoff and do not tell their role; they act as well when they know nothing.
	mute bool
	// hasty is a lifecycle that ends the pods of a move when the processor is not wanted any more.
	hasty bool
	// faults is how many more things may go wrong; unreachable are nodes that nobody can talk to.
	faults      int
	unreachable map[string]time.Time
	// failures is how many of the next calls fail.
	failures int
	// kept are the origins that were made durable: of the version that worked, and of the one that moves beside it.
	kept, moving *pod.Origin
	// versions are the revisions of all pods that ever were.
	versions map[string]string
	// full is why the store takes nothing from the operator.
	full error
	// unschedulable pods find no node.
	unschedulable map[string]bool
	seen          map[step]bool
	endings       map[string]int
	reconciler    *Reconciler
	current       step
	busy          bool
	// planned is what happens at a step, once.
	planned map[string]func()
	// frozen is the commit of an operator that was overtaken.
	frozen *fence.Request
}

// state is the result of iterations: their number, and which ones they were.
type state struct {
	position statexfer.Position
	history  uint64
}

// process is a container of a pod.
type process struct {
	pod      string
	instance string
	role     string
	state    state
	seen     int64
	holds    bool
	readyAt  time.Time
	down     bool
	stopping bool
	// stubborn never comes to the end of an iteration.
	stubborn bool
	// pondering acts, and has not come to the end of an iteration yet.
	pondering bool
	// refuses takes no state; forgetful says that it does, and has another one.
	refuses, forgetful bool
}

// died is how the operator's death travels up to the test.
type died struct{}

const namespace = "vision"

var worldKey = pod.NewTokens([]byte("the operator's"))

func newWorld(seed uint64, legacy bool, strategy doryv1alpha1.MigrationStrategy, faults int) *world {
	w := &world{
		rand: rand.New(rand.NewPCG(seed, 42)), now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), legacy: legacy, faults: faults,
		migrations: map[string]*doryv1alpha1.ProcessorMigration{}, pods: map[string]*corev1.Pod{}, processes: map[string]*process{},
		unreachable: map[string]time.Time{}, unschedulable: map[string]bool{}, seen: map[step]bool{}, endings: map[string]int{},
		versions: map[string]string{},
	}
	delay := int32(60)
	history := int32(2)
	w.processor = &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cam", UID: "processor-uid", Generation: 1},
		Spec: doryv1alpha1.ProcessorSpec{
			Image: "counter:1", Port: 8080, Location: doryv1alpha1.LocationManaged, ServiceAccountName: "dory-processor", TerminationGracePeriodSeconds: 5,
			Probes:    doryv1alpha1.ProcessorProbes{LivenessPath: "Auto", InitialDelaySeconds: &delay, PeriodSeconds: 10, TimeoutSeconds: 3, FailureThreshold: 3},
			Migration: &doryv1alpha1.ProcessorMigrationPolicy{Strategy: strategy, StartTimeoutSeconds: 60, HandoffTimeoutSeconds: 20, HistoryLimit: &history},
		},
	}
	w.head = state{history: 1}
	w.lifecycle()
	w.startOperator()
	return w
}

func (w *world) startOperator() {
	w.syncCache()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		panic(err)
	}
	w.reconciler = &Reconciler{
		cluster: apiServer{w}, processors: w, issuer: w, checkpoints: w, clock: w, events: narrator{record.New(silence{})}, metrics: metrics,
		newSuffix: func() string { w.names++; return strconv.Itoa(w.names) }, token: func(string) string { return "" }, tokens: worldKey,
		prepare: func(context.Context, *doryv1alpha1.Processor) (string, error) { return "", nil }, turn: w.mayBegin, gate: newGate(),
	}
	w.reconciler.acts = w.watched(w.reconciler.actions())
}

// watched remembers the step that is taken.
func (w *world) watched(acts map[step]action) map[step]action {
	for s, act := range acts {
		acts[s] = func(ctx context.Context, o *observation, d decision) error {
			w.current = s
			w.seen[s] = true
			w.meet("before " + string(s))
			err := act(ctx, o, d)
			w.meet("after " + string(s))
			if t := o.know.trouble; t != nil && t.step == s {
				w.note("  step %s: %v", s, t.err)
			} else {
				w.note("  step %s: %v", s, err)
			}
			return err
		}
	}
	return acts
}

func (w *world) meet(moment string) {
	happens := w.planned[moment]
	delete(w.planned, moment)
	if happens != nil {
		happens()
	}
}

type silence struct{}

func (silence) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

func (w *world) note(format string, args ...any) {
	w.story = append(w.story, w.now.Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func (w *world) violate(format string, args ...any) {
	w.note("VIOLATION: "+format, args...)
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
	}
}

// chance is true with a probability of percent.
func (w *world) chance(percent int) bool { return w.rand.IntN(100) < percent }

// fault is chance while things may still go wrong.
func (w *world) fault(percent int) bool {
	if w.faults <= 0 || !w.chance(percent) {
		return false
	}
	w.faults--
	return true
}

// Now implements clock.PassiveClock.
func (w *world) Now() time.Time { return w.now }

// Since implements clock.PassiveClock.
func (w *world) Since(t time.Time) time.Duration { return w.now.Sub(t) }

// pass lets the operator look at the processor once; it may die in the middle.
func (w *world) pass() (result ctrl.Result, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(died); !ok {
				panic(r)
			}
			w.note("  the operator dies at %s", w.current)
			w.startOperator()
			result, err = ctrl.Result{}, errors.New("died")
		}
	}()
	w.current = "observe"
	result, err = w.reconciler.Reconcile(log.IntoContext(context.Background(), logr.Discard()), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: "cam"}})
	if err != nil {
		w.note("  %v", err)
	}
	return result, err
}

// call is what every call of the operator goes through: the world goes on before and after it, the operator may die on
// either side, and the call may fail on either side.
func (w *world) call(failure error, effect func() error) error {
	w.now = w.now.Add(time.Duration(1+w.rand.IntN(5)) * time.Millisecond)
	w.happen()
	if w.fault(2) {
		panic(died{})
	}
	if w.failures > 0 || w.fault(3) {
		w.failures--
		return fmt.Errorf("before its effect: %w", failure)
	}
	err := effect()
	w.happen()
	if w.fault(2) {
		panic(died{})
	}
	if w.fault(3) {
		return fmt.Errorf("after its effect: %w", failure)
	}
	return err
}

// The API server.

var errServer = apierrors.NewInternalError(errors.New("the API server is away"))

func resource(name string) schema.GroupResource {
	return schema.GroupResource{Group: "dory.io", Resource: name}
}

func (w *world) syncCache() {
	c := &w.cache
	c.processor, c.epoch = w.processor.DeepCopy(), w.epoch.DeepCopy()
	c.migrations, c.pods = map[string]*doryv1alpha1.ProcessorMigration{}, map[string]*corev1.Pod{}
	for name, m := range w.migrations {
		c.migrations[name] = m.DeepCopy()
	}
	for name, p := range w.pods {
		c.pods[name] = p.DeepCopy()
	}
}

// syncSome lets one kind arrive before another.
func (w *world) syncSome() {
	before := w.cache
	w.syncCache()
	if w.chance(30) {
		w.cache.epoch = before.epoch
	}
	if w.chance(30) {
		w.cache.migrations = before.migrations
	}
	if w.chance(30) {
		w.cache.pods = before.pods
	}
	if w.chance(30) {
		w.cache.processor = before.processor
	}
}

func (w *world) nextVersion() string {
	w.version++
	return strconv.Itoa(w.version)
}

func (w *world) read(from freshness, effect func()) error {
	if from == cached {
		effect()
		return nil
	}
	return w.call(errServer, func() error { effect(); return nil })
}

func (w *world) processorAt(from freshness) *doryv1alpha1.Processor {
	if from == cached {
		return w.cache.processor
	}
	return w.processor
}

func (w *world) readProcessor(from freshness) (found *doryv1alpha1.Processor, err error) {
	err = w.read(from, func() { found = w.processorAt(from).DeepCopy() })
	return found, err
}

// apiServer is the world in one of its roles, whose methods have the names of its fields.
type apiServer struct{ *world }

func (w apiServer) processor(_ context.Context, _ types.NamespacedName, from freshness) (*doryv1alpha1.Processor, error) {
	return w.readProcessor(from)
}

func (w apiServer) migrations(_ context.Context, _ types.NamespacedName, from freshness) (found []*doryv1alpha1.ProcessorMigration, err error) {
	err = w.read(from, func() {
		for _, m := range w.migrationsOf(from) {
			found = append(found, m.DeepCopy())
		}
	})
	return found, err
}

func (w apiServer) migration(_ context.Context, key types.NamespacedName) (found *doryv1alpha1.ProcessorMigration, err error) {
	err = w.read(live, func() { found = w.world.migrations[key.Name].DeepCopy() })
	return found, err
}

func (w apiServer) epoch(_ context.Context, _ types.NamespacedName, from freshness) (found *doryv1alpha1.ProcessorEpoch, err error) {
	err = w.read(from, func() {
		if from == cached {
			found = w.cache.epoch.DeepCopy()
		} else {
			found = w.world.epoch.DeepCopy()
		}
	})
	return found, err
}

func (w *world) migrationsOf(from freshness) map[string]*doryv1alpha1.ProcessorMigration {
	if from == cached {
		return w.cache.migrations
	}
	return w.migrations
}

func (w apiServer) pod(_ context.Context, key types.NamespacedName, from freshness) (found *corev1.Pod, err error) {
	err = w.read(from, func() {
		if from == cached {
			found = w.cache.pods[key.Name].DeepCopy()
		} else {
			found = w.pods[key.Name].DeepCopy()
		}
	})
	return found, err
}

func (w apiServer) origin(_ context.Context, of *doryv1alpha1.Processor, podName, revision string) (found *pod.Origin, err error) {
	err = w.read(live, func() {
		if found = pod.OriginOf(w.pods[podName], of, worldKey); found == nil || found.Revision != revision {
			found = nil
			for _, kept := range []*pod.Origin{w.kept, w.moving} {
				if kept != nil && kept.Revision == revision {
					found = kept
				}
			}
		}
	})
	return found, err
}

func (w apiServer) keep(_ context.Context, _ *doryv1alpha1.Processor, origin *pod.Origin, _ int64, trial string, _ time.Time) (bool, error) {
	return origin != nil || w.kept != nil, w.call(errServer, func() error {
		switch {
		case w.kept == nil:
			w.kept = origin
		case trial == "" && origin != nil && origin.Revision != w.kept.Revision:
			w.moving = origin
		}
		return nil
	})
}

func (w apiServer) edgeNode(context.Context, string) (*doryv1alpha1.EdgeNode, error) { return nil, nil }

func (w apiServer) node(_ context.Context, name string) (*corev1.Node, error) {
	if name == "missing" {
		return nil, nil
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"workload-type": "application"}}}, nil
}

func (w apiServer) updateMigration(_ context.Context, m *doryv1alpha1.ProcessorMigration) error {
	return w.writeMigration(m, func(now *doryv1alpha1.ProcessorMigration) { now.ObjectMeta = *m.ObjectMeta.DeepCopy() })
}

func (w apiServer) updateStatus(_ context.Context, m *doryv1alpha1.ProcessorMigration) error {
	return w.writeMigration(m, func(now *doryv1alpha1.ProcessorMigration) { now.Status = *m.Status.DeepCopy() })
}

func (w *world) writeMigration(m *doryv1alpha1.ProcessorMigration, change func(*doryv1alpha1.ProcessorMigration)) error {
	return w.call(errServer, func() error {
		now := w.migrations[m.Name]
		switch {
		case now == nil || now.UID != m.UID:
			return apierrors.NewNotFound(resource("processormigrations"), m.Name)
		case now.ResourceVersion != m.ResourceVersion:
			return apierrors.NewConflict(resource("processormigrations"), m.Name, errors.New("it has changed"))
		}
		before := now.DeepCopy()
		change(now)
		w.judgeBeginning(before, now)
		now.ResourceVersion = w.nextVersion()
		if now.Ended() && now.Status.CompletionTime.Time.Equal(w.now.Truncate(time.Second)) && len(now.Finalizers) > 0 {
			w.endings[fmt.Sprintf("%s %s", now.Status.Phase, now.Status.Reason)]++
		}
		w.judgeEnd(now)
		w.note("    %s: %s %s finalizers %v", now.Name, now.Status.Phase, now.Status.Reason, now.Finalizers)
		if now.DeletionTimestamp != nil && len(now.Finalizers) == 0 {
			delete(w.migrations, now.Name)
		}
		now.DeepCopyInto(m)
		return nil
	})
}

func (w apiServer) deleteMigration(_ context.Context, m *doryv1alpha1.ProcessorMigration) error {
	return w.call(errServer, func() error { w.removeMigration(m.Name); return nil })
}

func (w *world) removeMigration(name string) {
	m := w.migrations[name]
	switch {
	case m == nil:
	case len(m.Finalizers) == 0:
		delete(w.migrations, name)
	case m.DeletionTimestamp == nil:
		t := metav1.NewTime(w.now)
		m.DeletionTimestamp, m.ResourceVersion = &t, w.nextVersion()
	}
}

func (w apiServer) rehearse(context.Context, *corev1.Pod, *corev1.Pod) error {
	return w.call(errServer, func() error { return nil })
}

func (w apiServer) createPod(_ context.Context, p *corev1.Pod) error {
	return w.call(errServer, func() error {
		if w.pods[p.Name] != nil {
			return apierrors.NewAlreadyExists(resource("pods"), p.Name)
		}
		w.addPod(p)
		return nil
	})
}

func (w *world) addPod(p *corev1.Pod) {
	p.UID, p.ResourceVersion, p.CreationTimestamp = types.UID("uid-"+p.Name), w.nextVersion(), metav1.NewTime(w.now)
	p.Status.Phase = corev1.PodPending
	w.judgeVersion(p)
	w.pods[p.Name], w.versions[p.Name] = p.DeepCopy(), pod.RevisionOf(p)
	w.note("    pod %s is created", p.Name)
}

func (w apiServer) patchPod(_ context.Context, changed, base *corev1.Pod) error {
	return w.call(errServer, func() error {
		now := w.pods[changed.Name]
		if now == nil {
			return apierrors.NewNotFound(resource("pods"), changed.Name)
		}
		patch(now.Labels, changed.Labels, base.Labels)
		patch(now.Annotations, changed.Annotations, base.Annotations)
		now.ResourceVersion = w.nextVersion()
		w.note("    pod %s: epoch %q role %q", now.Name, now.Labels[doryv1alpha1.LabelEpoch], now.Annotations[doryv1alpha1.AnnotationRole])
		now.DeepCopyInto(changed)
		return nil
	})
}

// patch is a merge patch: what the base has already is not sent.
func patch(now, changed, base map[string]string) {
	for key, value := range changed {
		if base[key] != value {
			now[key] = value
		}
	}
}

func (w apiServer) deletePod(_ context.Context, p *corev1.Pod) error {
	if m := w.active(); m != nil && p.Name == m.Status.SourcePod {
		w.judgeDeletionOfSource(m)
	}
	return w.call(errServer, func() error {
		w.judgeDeletion(p.Name)
		w.markDeleted(p.Name)
		return nil
	})
}

func (w *world) markDeleted(name string) {
	p := w.pods[name]
	if p == nil || p.DeletionTimestamp != nil {
		return
	}
	t := metav1.NewTime(w.now)
	p.DeletionTimestamp, p.ResourceVersion = &t, w.nextVersion()
	w.note("    pod %s is being deleted", name)
}

// mayBegin lets a move wait for its turn now and then.
func (w *world) mayBegin(context.Context, *doryv1alpha1.ProcessorMigration) (waitsFor string, err error) {
	switch {
	case w.fault(3):
		return "", errServer
	case w.faults > 0 && w.chance(20):
		return "others go first", nil
	}
	return "", nil
}

// Draw implements Issuer.
func (w *world) Draw(_ context.Context, req fence.Request) (number int64, err error) {
	err = w.call(errServer, func() error {
		number = w.draw(max(req.Floor, req.Current.Spec.Epoch))
		return nil
	})
	return number, err
}

// draw takes a number off the ledger, which gives none twice.
func (w *world) draw(floor int64) int64 {
	w.ledger = max(w.ledger, floor) + 1
	return w.ledger
}

// Issue implements Issuer.
func (w *world) Issue(_ context.Context, req fence.Request) (*doryv1alpha1.ProcessorEpoch, error) {
	var issued *doryv1alpha1.ProcessorEpoch
	err := w.call(errServer, func() error {
		if (req.Current == nil) != (w.epoch == nil) || (req.Current != nil && req.Current.ResourceVersion != w.epoch.ResourceVersion) {
			return fence.ErrConflict
		}
		w.judgeIssue(req)
		w.issueNumbered(req.Holder, req.Floor, req.Drawn)
		w.epoch.Annotations = map[string]string{"dory.io/instance": req.Instance}
		issued = w.epoch.DeepCopy()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return issued, nil
}

// Bar implements Issuer.
func (w *world) Bar(_ context.Context, current *doryv1alpha1.ProcessorEpoch, reason string) (*doryv1alpha1.ProcessorEpoch, error) {
	var barred *doryv1alpha1.ProcessorEpoch
	err := w.call(errServer, func() error {
		if w.epoch == nil || current.ResourceVersion != w.epoch.ResourceVersion {
			return fence.ErrConflict
		}
		w.epoch.Annotations, w.epoch.ResourceVersion = map[string]string{"dory.io/barred-by": reason}, w.nextVersion()
		barred = w.epoch.DeepCopy()
		return nil
	})
	return barred, err
}

// freeze lets an operator stop right before it issues the epoch.
func (w *world) freeze(holder string) {
	w.frozen = &fence.Request{Holder: holder, Current: w.epoch.DeepCopy(), Drawn: w.draw(w.epoch.Spec.Epoch)}
}

func (w *world) wakeUp() {
	request := *w.frozen
	w.frozen = nil
	_, err := w.Issue(context.Background(), request)
	w.note("    the operator that was overtaken issues its epoch: %v", err)
}

func (w *world) issue(holder string, floor int64) { w.issueNumbered(holder, floor, 0) }

// issueNumbered goes by the number that was drawn, unless another came before it.
func (w *world) issueNumbered(holder string, floor, number int64) {
	if w.epoch != nil {
		floor = max(floor, w.epoch.Spec.Epoch)
	}
	if number <= floor {
		number = w.draw(floor)
	}
	w.epoch = &doryv1alpha1.ProcessorEpoch{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cam", ResourceVersion: w.nextVersion()},
		Spec:       doryv1alpha1.ProcessorEpochSpec{ProcessorID: "cam", Epoch: number, Holder: holder},
	}
	w.note("    epoch %d: %s", number, holder)
}

// The store.

// Save implements Checkpoints.
func (w *world) Save(_ context.Context, _ *doryv1alpha1.Processor, _ *doryv1alpha1.ProcessorEpoch, s *statexfer.State) error {
	return w.call(errServer, func() error {
		if w.full == nil {
			w.store(decode(s))
		}
		return w.full
	})
}

func (w *world) store(s state) {
	if s.position.Compare(w.stored.position) > 0 {
		w.stored = s
	}
}

// Newest implements Checkpoints.
func (w *world) Newest(context.Context, *doryv1alpha1.Processor, *doryv1alpha1.ProcessorEpoch) (found *statexfer.State, err error) {
	err = w.call(errServer, func() error {
		if w.stored.position.Sequence > 0 {
			found = encode(w.stored)
		}
		return nil
	})
	return found, err
}

func encode(s state) *statexfer.State {
	return &statexfer.State{Data: []byte(strconv.FormatUint(s.history, 10)), Position: s.position, HasPosition: true}
}

func decode(s *statexfer.State) state {
	history, err := strconv.ParseUint(string(s.Data), 10, 64)
	if err != nil {
		panic(err)
	}
	return state{s.Position, history}
}

// The processes, as the operator sees them.

// reach finds the process at an address, which is its pod's name.
func (w *world) reach(at statexfer.Endpoint) (*process, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(at.URL, "http://"), ":8080")
	p, running := w.processes[name]
	if !running || p.down || w.pods[name] == nil || !w.reachable(w.pods[name].Spec.NodeName) {
		return nil, statexfer.ErrUnavailable
	}
	return p, nil
}

func (w *world) reachable(node string) bool { return !w.now.Before(w.unreachable[node]) }

// ask is a call of a process, by its address.
func (w *world) ask(at statexfer.Endpoint, answer func(*process) error) error {
	return w.call(statexfer.ErrUnavailable, func() error {
		p, err := w.reach(at)
		if err != nil {
			w.now = w.now.Add(5 * time.Second) // It was tried several times.
			return err
		}
		return answer(p)
	})
}

func (p *process) refuse(status int, message string) error {
	return &statexfer.Refusal{Status: status, Message: message, Role: p.word(), Position: statexfer.Position{Epoch: p.seen, Sequence: p.state.position.Sequence}}
}

func (p *process) word() string {
	if p.stopping {
		return "stopping"
	}
	return p.role
}

// Capabilities implements Processors.
func (w *world) Capabilities(_ context.Context, of statexfer.Endpoint) (can statexfer.Capabilities, err error) {
	err = w.ask(of, func(*process) error { can.Handoff, can.HandoffStatus = !w.legacy, !w.legacy && !w.mute; return nil })
	return can, err
}

// Status implements Processors.
func (w *world) Status(_ context.Context, of statexfer.Endpoint) (is statexfer.HandoffStatus, err error) {
	err = w.ask(of, func(p *process) error {
		if w.legacy || w.mute {
			return &statexfer.Refusal{Status: 404, Message: "no endpoint /handoff"}
		}
		is = statexfer.HandoffStatus{Role: p.word(), Epoch: p.seen, Sequence: p.state.position.Sequence, Instance: p.instance}
		return nil
	})
	return is, err
}

// Capture implements Processors.
func (w *world) Capture(_ context.Context, from statexfer.Endpoint) (s *statexfer.State, err error) {
	err = w.ask(from, func(p *process) error {
		if !p.holds {
			return statexfer.ErrUnavailable
		}
		s = encode(p.state)
		return nil
	})
	return s, err
}

// Restore implements Processors.
func (w *world) Restore(_ context.Context, to statexfer.Endpoint, s *statexfer.State) (*statexfer.Restored, error) {
	err := w.ask(to, func(p *process) error {
		given := decode(s)
		held := statexfer.Position{Epoch: p.seen, Sequence: p.state.position.Sequence}
		switch {
		case p.stopping:
			return statexfer.ErrUnavailable
		case p.refuses:
			return p.refuse(400, "another format")
		case p.role != rolePrimary && given.position.Compare(held) < 0:
			return p.refuse(409, "older")
		}
		p.state, p.holds = given, true
		if p.forgetful {
			p.state.history++
		}
		if p.role != rolePrimary {
			p.seen = given.position.Epoch
		}
		return nil
	})
	return &statexfer.Restored{}, err
}

// Verify implements Processors.
func (w *world) Verify(_ context.Context, of statexfer.Endpoint, s *statexfer.State, _ *statexfer.Restored) error {
	return w.ask(of, func(p *process) error {
		if !p.holds || p.state.history != decode(s).history {
			return statexfer.ErrMismatch
		}
		return nil
	})
}

// Quiesce implements Processors.
func (w *world) Quiesce(_ context.Context, of statexfer.Endpoint, epoch int64) (s *statexfer.State, err error) {
	err = w.ask(of, func(p *process) error {
		switch {
		case p.stopping:
			return statexfer.ErrUnavailable
		case p.role == roleStandby || epoch != p.seen || !p.holds:
			return p.refuse(409, "not mine")
		case p.stubborn && p.role == rolePrimary:
			w.now = w.now.Add(20 * time.Second)
			return statexfer.ErrUnavailable
		}
		w.turn(p, roleQuiesced)
		s = encode(p.state)
		s.Position.Epoch = p.seen
		return nil
	})
	return s, err
}

// Promote implements Processors.
func (w *world) Promote(_ context.Context, who statexfer.Endpoint, epoch int64) error {
	return w.ask(who, func(p *process) error {
		switch {
		case p.stopping:
			return statexfer.ErrUnavailable
		case p.role == rolePrimary && p.seen == epoch:
			return nil
		case epoch <= p.seen || (!p.holds && !w.mute):
			return p.refuse(409, "not higher, or nothing held")
		}
		p.seen, p.holds = epoch, true
		w.turn(p, rolePrimary)
		return nil
	})
}

// Resume implements Processors.
func (w *world) Resume(_ context.Context, who statexfer.Endpoint, epoch int64) error {
	return w.ask(who, func(p *process) error {
		switch {
		case p.stopping:
			return statexfer.ErrUnavailable
		case p.role == roleStandby || epoch != p.seen:
			return p.refuse(409, "not mine")
		}
		w.turn(p, rolePrimary)
		return nil
	})
}

func (w *world) turn(p *process, role string) {
	if p.role != role {
		w.note("    %s (%s): %s -> %s at epoch %d sequence %d", p.pod, p.instance, p.role, role, p.seen, p.state.position.Sequence)
	}
	p.role = role
	w.judgeActing()
}

// acting are the processes that may commit iterations now.
func (w *world) acting() []*process {
	var found []*process
	for _, name := range w.podNames() {
		if p := w.processes[name]; p != nil && !p.down && !p.stopping && p.role == rolePrimary && !w.now.Before(p.readyAt) {
			found = append(found, p)
		}
	}
	return found
}

func (w *world) podNames() []string {
	names := make([]string, 0, len(w.pods))
	for name := range w.pods {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (w *world) migrationNames() []string {
	names := make([]string, 0, len(w.migrations))
	for name := range w.migrations {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (w *world) active() *doryv1alpha1.ProcessorMigration {
	for _, name := range w.migrationNames() {
		if w.migrations[name].Active() {
			return w.migrations[name]
		}
	}
	return nil
}

func (w *world) wanted() bool {
	return w.processor != nil && w.processor.DeletionTimestamp == nil && !w.processor.Suspended()
}

func (w *world) buildPod(name string, epoch int64) *corev1.Pod {
	p, err := pod.Build(pod.Input{Processor: w.processor, Name: name, Epoch: epoch, Tokens: worldKey})
	if err != nil {
		panic(err)
	}
	return p
}
