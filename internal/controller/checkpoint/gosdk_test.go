package checkpoint

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/sdk"
)

// counter is a processor on the real Go SDK: its state is how often it has counted.
type counter struct {
	*sdk.Processor

	t             *testing.T
	address, port string
	count         *sdk.Variable[int64]
	ballast       *sdk.Variable[string]
	go1           chan string // One iteration for each, with the ballast to set.
	stopped       chan error
	stop          func()
}

// newCounter starts one on the port; changes are of its environment.
func (w *world) newCounter(pod string, port int32, changes map[string]string) *counter {
	w.t.Helper()
	address := nextAddress()
	env := map[string]string{
		"PROCESSOR_ID": "Cam_1", "POD_NAME": pod, "POD_NAMESPACE": w.processor.Namespace, "DORY_STATE_TOKEN": token,
		"DORY_BIND_ADDRESS": address, "DORY_HEALTH_PORT": strconv.Itoa(int(port)), "DORY_STATE_CONFIGMAP": w.key().ConfigMap,
		"DORY_STATE_BACKEND": "configmap",
	}
	maps.Copy(env, changes)
	backend, err := sdk.ConfigMapBackend(api.config, w.processor.Namespace, w.key().ConfigMap)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := sdk.New(sdk.WithEnv(func(name string) (string, bool) { v, ok := env[name]; return v, ok }),
		sdk.WithBackend(backend), sdk.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		w.t.Fatal(err)
	}
	c := &counter{
		Processor: p, t: w.t, address: address, port: env["DORY_HEALTH_PORT"], count: sdk.Var(p, "count", int64(0)), ballast: sdk.Var(p, "ballast", ""),
		go1: make(chan string), stopped: make(chan error, 1),
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { c.stopped <- p.Run(ctx, c.iterate) }()
	c.stop = func() { cancel(); <-c.stopped; c.stopped <- nil }
	w.t.Cleanup(c.stop)
	return c
}

// failure is before the text of an error that an iteration is to fail with.
const failure = "fail: "

func (c *counter) iterate(ctx context.Context) error {
	select {
	case ballast := <-c.go1:
		if why, fails := strings.CutPrefix(ballast, failure); fails {
			return errors.New(why)
		}
		c.count.Set(c.count.Get() + 1)
		c.ballast.Set(ballast)
		return nil
	case <-sdk.Yield(ctx):
		return sdk.ErrIdle
	}
}

// works lets it count n times.
func (c *counter) works(n int, ballast string) {
	c.t.Helper()
	want := c.count.Get() + int64(n)
	for range n {
		select {
		case c.go1 <- ballast:
		case <-time.After(20 * time.Second):
			c.t.Fatal("it does not work")
		}
	}
	c.eventually("it has counted", func() bool { return c.count.Get() >= want })
}

func (c *counter) eventually(what string, condition func() bool) {
	c.t.Helper()
	timeout := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-timeout:
			c.t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

// startCounter makes its pod, too.
func (w *world) startCounter(epoch int64, port int32, changes map[string]string, podChanges ...func(*corev1.Pod)) *counter {
	w.t.Helper()
	env := map[string]string{"DORY_EPOCH": strconv.FormatInt(epoch, 10)}
	maps.Copy(env, changes)
	c := w.newCounter(podName(epoch), port, env)
	c.ready()
	w.launch(epoch, c.address, port, podChanges...)
	return c
}

// freePort is free on one loopback address, and so on the others, but for bad luck.
func freePort(t *testing.T) int32 {
	t.Helper()
	l, port := listen(t, nextAddress(), 0)
	_ = l.Close()
	return port
}

func (w *world) wantPosition(epoch, sequence int64) {
	w.t.Helper()
	_, c := w.stored()
	status := w.fresh().Status.Checkpoint
	if c == nil || c.Version.Epoch != epoch || c.Version.Sequence != sequence {
		w.t.Errorf("stored %+v, want %d/%d", c, epoch, sequence)
	}
	if status == nil || status.Epoch != epoch || status.Sequence == nil || *status.Sequence != sequence {
		w.t.Errorf("status.checkpoint %+v, want %d/%d", status, epoch, sequence)
	}
}

func TestGoSDKCheckpointsCarryThePosition(t *testing.T) {
	w := newWorld(t)
	c := w.startCounter(1, freePort(t), nil)
	c.works(3, "")
	w.pass()
	w.wantPosition(1, 3)
	c.works(2, "")
	w.turn()
	w.wantPosition(1, 5)
	w.spent()
	w.turn()
	w.wantSpent(map[string]int{})
	c.works(1, "")
	w.turn()
	w.wantSpent(map[string]int{"update ConfigMap": 1, "patch status Processor": 1})
	w.wantEvents()
}

// TestGoSDKAfterACrash goes on from the checkpoint, by itself.
func TestGoSDKAfterACrash(t *testing.T) {
	w := newWorld(t)
	port := freePort(t)
	c := w.startCounter(1, port, nil)
	c.works(5, "")
	w.pass()
	w.end()
	next := w.startCounter(2, port, nil)
	next.works(1, "")
	w.pass()
	if got := next.count.Get(); got != 6 {
		t.Errorf("it has counted to %d, want 6", got)
	}
	w.wantPosition(2, 6)
	w.wantEvents()
}

// TestGoSDKThatStartedWithoutItsState: its ConfigMap was empty at that moment, as with any state too large for it.
func TestGoSDKThatStartedWithoutItsState(t *testing.T) {
	w := newWorld(t)
	port := freePort(t)
	large := strings.Repeat("x", 2<<20)
	c := w.startCounter(1, port, nil)
	c.works(1, "")
	w.pass()
	c.works(4, large)
	w.turn()
	w.wantPosition(1, 5)
	w.end()
	next := w.startCounter(2, port, nil)
	next.works(2, "") // On what it found: 1.
	w.pass()
	w.wantEvents("Warning StateRestored…epoch 2 sequence 3…epoch 1 sequence 5")
	if got := next.count.Get(); got != 5 {
		t.Errorf("it has counted to %d, want 5", got)
	}
	next.works(1, large)
	w.turn()
	if _, stored := w.stored(); stored.Version.Epoch != 2 || stored.Version.Sequence < 6 {
		t.Errorf("stored %+v", stored)
	}
	w.wantEvents()
}

func asStandby(p *corev1.Pod) { p.Annotations[doryv1alpha1.AnnotationRole] = doryv1alpha1.RoleStandby }

// TestAHolderThatCameBackAsAStandby gets its state and is promoted.
func TestAHolderThatCameBackAsAStandby(t *testing.T) {
	for name, test := range map[string]struct {
		env   map[string]string
		epoch int64
	}{
		"that has seen no epoch":       {map[string]string{"DORY_ROLE": "standby", "DORY_EPOCH": ""}, 2},
		"that has seen an older epoch": {map[string]string{"DORY_ROLE": "standby", "DORY_EPOCH": "1"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			port := freePort(t)
			c := w.startCounter(1, port, nil)
			c.works(5, "")
			w.pass()
			w.end()
			next := w.startCounter(2, port, test.env, asStandby)
			w.pass()
			w.wantEvents("Normal InstanceRevived…dory-cam-2…epoch 1 sequence 5")
			if next.Epoch() != test.epoch || next.count.Get() != 5 {
				t.Errorf("it is at epoch %d and has counted to %d, want %d and 5", next.Epoch(), next.count.Get(), test.epoch)
			}
			next.works(1, "")
			w.turn()
			w.wantPosition(test.epoch, 6)
			marked := &corev1.Pod{}
			if err := api.client.Get(t.Context(), client.ObjectKeyFromObject(w.holder), marked); err != nil {
				t.Fatal(err)
			}
			if marked.Annotations[doryv1alpha1.AnnotationRole] != doryv1alpha1.RolePrimary || marked.Labels[doryv1alpha1.LabelEpoch] != "2" {
				t.Errorf("labels %v, annotations %v: its next process would wait again", marked.Labels, marked.Annotations)
			}
		})
	}
}

// ready waits until it answers.
func (c *counter) ready() {
	c.t.Helper()
	c.eventually("it answers", func() bool {
		response, err := http.Get("http://" + net.JoinHostPort(c.address, c.port) + "/ready") //nolint:noctx // A test's own.
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// TestAHolderThatHasSeenItsOwnEpoch cannot be promoted under it, and gets a new one.
func TestAHolderThatHasSeenItsOwnEpoch(t *testing.T) {
	w := newWorld(t)
	port := freePort(t)
	c := w.startCounter(1, port, nil)
	c.works(5, "")
	w.pass()
	w.end()
	next := w.startCounter(2, port, map[string]string{"DORY_ROLE": "standby", "DORY_EPOCH": "2"}, asStandby)
	w.pass()
	epoch := &doryv1alpha1.ProcessorEpoch{ObjectMeta: metav1.ObjectMeta{Namespace: w.processor.Namespace, Name: doryv1alpha1.ObjectName("Cam_1")}}
	if err := api.client.Get(t.Context(), client.ObjectKeyFromObject(epoch), epoch); err != nil {
		t.Fatal(err)
	}
	if next.Epoch() != epoch.Spec.Epoch || epoch.Spec.Holder != "dory-cam-2" || next.count.Get() != 5 {
		t.Errorf("it is at epoch %d and has counted to %d; the epoch is %+v", next.Epoch(), next.count.Get(), epoch.Spec)
	}
	next.works(1, "")
	w.turn()
	w.wantPosition(epoch.Spec.Epoch, 6)
}

func TestAStandbyOfAMigrationIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	port := freePort(t)
	c := w.startCounter(1, port, nil)
	c.works(5, "")
	w.pass()
	w.end()
	w.migrate(doryv1alpha1.MigrationRetiring)
	next := w.startCounter(2, port, map[string]string{"DORY_ROLE": "standby", "DORY_EPOCH": ""}, asStandby)
	w.pass()
	if next.Epoch() != 0 || w.wait != migrationDelay {
		t.Errorf("it is at epoch %d, again in %s", next.Epoch(), w.wait)
	}
	w.migrate(doryv1alpha1.MigrationSucceeded)
	w.turn()
	if next.Epoch() != 2 {
		t.Errorf("it is at epoch %d", next.Epoch())
	}
}

// TestAStandbyOnTheWordOfACache: what the API server itself says decides, because two instances could act.
func TestAStandbyOnTheWordOfACache(t *testing.T) {
	for name, change := range map[string]func(*world){
		"another holds the epoch":  func(w *world) { w.hold(3, "dory-cam-3") },
		"a migration is under way": func(w *world) { w.migrate(doryv1alpha1.MigrationPlacing) },
		"the pod is gone":          func(w *world) { w.end() },
		"the container restarted":  func(w *world) { w.kubelet(w.restarted) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			port := freePort(t)
			c := w.startCounter(1, port, nil)
			c.works(5, "")
			w.pass()
			w.end()
			next := w.startCounter(2, port, map[string]string{"DORY_ROLE": "standby", "DORY_EPOCH": ""}, asStandby)
			o, err := w.observe(t.Context(), client.ObjectKeyFromObject(w.processor)) // What the cache has.
			if err != nil {
				t.Fatal(err)
			}
			change(w)
			out := w.look(t.Context(), o, w.book.entry(o))
			if out.err == nil || next.Epoch() != 0 {
				t.Errorf("outcome %+v, it is at epoch %d", out, next.Epoch())
			}
		})
	}
}

func TestAStandbyForWhichNothingIsStored(t *testing.T) {
	w := newWorld(t)
	next := w.startCounter(1, freePort(t), map[string]string{"DORY_ROLE": "standby", "DORY_EPOCH": ""}, asStandby)
	w.pass()
	if next.Epoch() == 1 {
		return // It acts: on nothing, which is all there is.
	}
	w.wantEvents("Warning InstanceEnded")
	left := &corev1.Pod{}
	err := api.client.Get(t.Context(), client.ObjectKeyFromObject(w.holder), left)
	if err == nil && left.DeletionTimestamp == nil {
		t.Error("it waits forever")
	}
}

func TestAStandbyWhoseStateIsRequiredAndGone(t *testing.T) {
	w := newWorld(t, onMissing(doryv1alpha1.OnMissingRequire))
	port := freePort(t)
	c := w.startCounter(1, port, nil)
	c.works(5, "")
	w.pass()
	w.end()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.processor.Namespace, Name: w.key().ConfigMap}}
	if err := api.client.Delete(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	next := w.startCounter(2, port, map[string]string{"DORY_ROLE": "standby", "DORY_EPOCH": ""}, asStandby)
	w.pass()
	if next.Epoch() != 0 {
		t.Error("it acts without its state")
	}
	w.wantCondition(metav1.ConditionFalse, doryv1alpha1.ReasonStateNotRestored, "Require")
}

// TestAnInstanceThatWasLeftQuiesced: somebody deleted the migration in the middle of its handoff.
func TestAnInstanceThatWasLeftQuiesced(t *testing.T) {
	w := newWorld(t)
	c := w.startCounter(1, freePort(t), nil)
	c.works(5, "")
	w.pass()
	w.migrate(doryv1alpha1.MigrationHandingOff)
	o, err := w.observe(t.Context(), client.ObjectKeyFromObject(w.processor))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := statexfer.NewClient(statexfer.ClientConfig{}).Quiesce(t.Context(), o.endpoint(w.token), 1); err != nil {
		t.Fatal(err)
	}
	w.book.doubt(client.ObjectKeyFromObject(w.processor))
	w.clock.Step(time.Minute)
	w.pass() // While it is under way.
	m := &doryv1alpha1.ProcessorMigration{ObjectMeta: metav1.ObjectMeta{Namespace: w.processor.Namespace, Name: "move"}}
	if err := api.client.Delete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	w.events()
	w.pass()
	w.wantEvents("Warning InstanceResumed…dory-cam-1")
	c.works(1, "")
	w.turn()
	w.wantPosition(1, 6)
}
