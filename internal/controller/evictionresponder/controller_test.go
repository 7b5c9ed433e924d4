package evictionresponder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/drain"
)

// desk says what it is told to say.
type desk struct {
	mu        sync.Mutex
	answer    drain.Answer
	asked     []drain.Request
	withdrawn []drain.Request
}

func (d *desk) Ask(_ context.Context, r drain.Request) (drain.Answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, r)
	return d.answer, nil
}

func (d *desk) Withdraw(_ context.Context, r drain.Request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.withdrawn = append(d.withdrawn, r)
	return nil
}

func (d *desk) says(a drain.Answer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = a
}

func (d *desk) requests() (asked, withdrawn []drain.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]drain.Request(nil), d.asked...), append([]drain.Request(nil), d.withdrawn...)
}

// cluster is an API server with stand-ins for the coming API, and the responder.
type cluster struct {
	*testing.T
	client.Client
	desk *desk
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	environment := &envtest.Environment{
		CRDDirectoryPaths: []string{filepath.Join(root, "config", "crd", "bases"), "testdata"}, ErrorIfCRDPathMissing: true,
	}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		environment.BinaryAssetsDirectory = filepath.Join(root, "bin", "k8s")
	}
	config, err := environment.Start()
	if err != nil {
		t.Fatalf("starting the API server (make envtest-binaries): %v", err)
	}
	t.Cleanup(func() {
		if err := environment.Stop(); err != nil {
			t.Error(err)
		}
	})
	config.ContentType = runtime.ContentTypeJSON // A CRD that stands in takes no protocol buffers.
	c := &cluster{T: t, desk: &desk{answer: drain.Answer{Reason: drain.ReasonMoving, Message: "the target starts"}}}
	scheme := runtime.NewScheme()
	c.must(errors.Join(clientgoscheme.AddToScheme(scheme), doryv1alpha1.AddToScheme(scheme)))
	c.Client, err = client.New(config, client.Options{Scheme: scheme})
	c.must(err)
	manager, err := ctrl.NewManager(config, ctrl.Options{Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}})
	c.must(err)
	c.must(New(Config{Client: manager.GetClient(), Desk: c.desk, Clock: clock.RealClock{}}).SetupWithManager(t.Context(), manager))
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- manager.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		c.must(<-stopped)
	})
	return c
}

func (c *cluster) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) until(what string, is func() error) {
	c.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("%s: %v", what, err)
		}
	}
}

// request is an Eviction as Kubernetes' own controller makes it, with our turn begun.
func (c *cluster) request(name string) *lifecyclev1alpha1.Eviction {
	c.Helper()
	e := eviction()
	e.Namespace, e.Name, e.Spec.Target.Pod.Name = "default", name, name
	c.must(c.Create(c.Context(), e))
	c.state(e, lifecyclev1alpha1.ResponderStateActive)
	return e
}

func (c *cluster) state(e *lifecyclev1alpha1.Eviction, state lifecyclev1alpha1.ResponderStateType) {
	c.Helper()
	c.until("setting the state", func() error {
		if err := c.Get(c.Context(), client.ObjectKeyFromObject(e), e); err != nil {
			return err
		}
		e.Status.TargetResponders = []lifecyclev1alpha1.TargetResponder{{Name: Name, Priority: new(Priority), State: state}}
		if len(e.Status.Responders) == 0 {
			e.Status.Responders = []lifecyclev1alpha1.ResponderStatus{{Name: "imperative-eviction.k8s.io/evictor"}, {Name: Name, StartTime: new(metav1.NewTime(time.Now().Truncate(time.Second)))}}
		}
		return c.Status().Update(c.Context(), e)
	})
}

func (c *cluster) reports(e *lifecyclev1alpha1.Eviction, what string, is func(lifecyclev1alpha1.ResponderStatus) bool) {
	c.Helper()
	c.until(what, func() error {
		c.must(c.Get(c.Context(), client.ObjectKeyFromObject(e), e))
		if said := reported(e); !is(said) {
			return fmt.Errorf("%+v", said)
		}
		return nil
	})
}

func TestAnEvictionIsRespondedTo(t *testing.T) {
	c := newCluster(t)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p1"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	c.must(c.Create(t.Context(), pod))
	e := c.request("p1")
	c.reports(e, "it says how far the move is", func(s lifecyclev1alpha1.ResponderStatus) bool {
		return s.HeartbeatTime != nil && s.Message != nil && *s.Message == "Moving: the target starts" && s.ExpectedCompletionTime != nil && s.CompletionTime == nil
	})
	asked, _ := c.desk.requests()
	want := drain.Request{Pod: types.NamespacedName{Namespace: "default", Name: "p1"}, UID: "u", By: "eviction request"}
	if asked[0] != want {
		t.Errorf("asked %+v", asked[0])
	}
	c.desk.says(drain.Answer{Allowed: true, Reason: drain.ReasonNotOurs, Message: "there is no such pod"})
	c.must(c.Delete(t.Context(), pod, client.GracePeriodSeconds(0))) // Its event is what the responder hears.
	c.reports(e, "it has finished", func(s lifecyclev1alpha1.ResponderStatus) bool { return s.CompletionTime != nil })
	if len(e.Status.Responders) != 2 {
		t.Errorf("others' reports are lost: %+v", e.Status.Responders)
	}

	withdrawn := c.request("p2")
	c.state(withdrawn, lifecyclev1alpha1.ResponderStateCanceled)
	c.until("the request is withdrawn", func() error {
		if _, requests := c.desk.requests(); len(requests) == 0 || requests[0].Pod.Name != "p2" {
			return fmt.Errorf("%+v", requests)
		}
		return nil
	})
}
