package fence_test

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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/store/pgtest"
)

var (
	k8s      client.Client
	postgres *pgtest.Server
)

func TestMain(m *testing.M) {
	code, err := withServers(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "internal/fence:", err)
		code = 1
	}
	os.Exit(code)
}

// withServers runs the tests on a real API server and a real PostgreSQL.
func withServers(m *testing.M) (code int, err error) {
	root := filepath.Join("..", "..")
	environment := &envtest.Environment{CRDDirectoryPaths: []string{filepath.Join(root, "config", "crd", "bases")}, ErrorIfCRDPathMissing: true}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		environment.BinaryAssetsDirectory = filepath.Join(root, "bin", "k8s")
	}
	config, err := environment.Start()
	if err != nil {
		return 0, fmt.Errorf("starting the API server (make envtest-binaries): %w", err)
	}
	defer func() { err = errors.Join(err, environment.Stop()) }()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), doryv1alpha1.AddToScheme(scheme)); err != nil {
		return 0, err
	}
	if k8s, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return 0, err
	}
	if postgres, err = pgtest.New(); err != nil {
		return 0, err
	}
	defer postgres.Close()
	return m.Run(), nil
}

func namespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "fence-"}}
	if err := k8s.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

func database(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.New(store.Config{URL: postgres.NewDatabase(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func issuer(ledger fence.Ledger) *fence.Issuer {
	return fence.NewIssuer(k8s, ledger, clocktesting.NewFakePassiveClock(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)))
}

func request(namespace, holder string, current *doryv1alpha1.ProcessorEpoch) fence.Request {
	return fence.Request{Namespace: namespace, ProcessorID: "cam", Holder: holder, Reason: doryv1alpha1.EpochStart, Current: current}
}

func issue(t *testing.T, i *fence.Issuer, req fence.Request) *doryv1alpha1.ProcessorEpoch {
	t.Helper()
	epoch, err := i.Issue(t.Context(), req)
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	return epoch
}

type broken struct{}

func (broken) IssueEpoch(context.Context, string, int64, string) (int64, error) {
	return 0, fmt.Errorf("no connection: %w", store.ErrUnavailable)
}

// A database that answers a number which is not above the floor, as a wrong restore or a bug would make it.
type falling struct{}

func (falling) IssueEpoch(context.Context, string, int64, string) (int64, error) { return 3, nil }

func TestEpochsRiseWithoutADatabase(t *testing.T) {
	ns, i := namespace(t), issuer(nil)
	first := issue(t, i, request(ns, "a", nil))
	second := issue(t, i, request(ns, "b", first))
	if first.Spec.Epoch != 1 || second.Spec.Epoch != 2 || second.Spec.Holder != "b" {
		t.Errorf("epochs %+v, %+v", first.Spec, second.Spec)
	}
}

func TestEpochsRiseAboveWhateverIsHighest(t *testing.T) {
	for name, test := range map[string]struct{ inDatabase, inCR, floor, want int64 }{
		"nothing yet":                      {0, 0, 0, 1},
		"both agree":                       {4, 4, 0, 5},
		"the ProcessorEpoch was deleted":   {4, 0, 0, 5},
		"the database was restored":        {2, 9, 0, 10},
		"the cluster was restored":         {9, 2, 0, 10},
		"both lost, a pod carries a label": {0, 0, 6, 7},
	} {
		t.Run(name, func(t *testing.T) {
			ns, db := namespace(t), database(t)
			if test.inDatabase > 0 {
				if _, err := db.IssueEpoch(t.Context(), "cam", test.inDatabase-1, "x"); err != nil {
					t.Fatal(err)
				}
			}
			req := request(ns, "new", nil)
			req.Floor = test.floor
			if test.inCR > 0 {
				early := request(ns, "x", nil)
				early.Floor = test.inCR - 1
				req.Current = issue(t, issuer(nil), early)
			}
			if got := issue(t, issuer(db), req).Spec.Epoch; got != test.want {
				t.Errorf("issued %d, want %d", got, test.want)
			}
			if got, err := db.Epoch(t.Context(), "cam"); err != nil || got != test.want {
				t.Errorf("the database records %d (%v), want %d before anybody acts under it", got, err, test.want)
			}
		})
	}
}

func TestNoEpochWhereNoneCanBeRead(t *testing.T) {
	ns := namespace(t)
	if epoch, err := issuer(broken{}).Issue(t.Context(), request(ns, "a", nil)); !errors.Is(err, fence.ErrUnavailable) {
		t.Errorf("issued %+v (%v) although the last epoch may be any", epoch, err)
	}
	err := k8s.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "cam"}, &doryv1alpha1.ProcessorEpoch{})
	if client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("a ProcessorEpoch was written all the same (%v)", err)
	}
}

func TestProcessorEpochStandsInForTheDatabase(t *testing.T) {
	ns := namespace(t)
	first := issue(t, issuer(nil), request(ns, "a", nil))
	if got := issue(t, issuer(broken{}), request(ns, "b", first)).Spec.Epoch; got != 2 {
		t.Errorf("issued %d, want 2", got)
	}
}

func TestAnAnswerThatWouldFallIsRefused(t *testing.T) {
	req := request(namespace(t), "a", nil)
	req.Floor = 7
	if _, err := issuer(falling{}).Issue(t.Context(), req); !errors.Is(err, fence.ErrUnavailable) {
		t.Errorf("error = %v, want ErrUnavailable", err)
	}
}

// Many operators that all saw the same ProcessorEpoch: one of them may win.
func TestOneWinnerPerEpoch(t *testing.T) {
	for name, ledger := range map[string]fence.Ledger{"without a database": nil, "with one": database(t)} {
		t.Run(name, func(t *testing.T) {
			ns := namespace(t)
			var current *doryv1alpha1.ProcessorEpoch
			for round := range 5 {
				winners := race(t, issuer(ledger), ns, current)
				if len(winners) != 1 {
					t.Fatalf("round %d: %d holders of an epoch at once", round, len(winners))
				}
				if current != nil && winners[0].Spec.Epoch <= current.Spec.Epoch {
					t.Fatalf("epoch %d after %d", winners[0].Spec.Epoch, current.Spec.Epoch)
				}
				current = winners[0]
			}
		})
	}
}

func race(t *testing.T, i *fence.Issuer, ns string, current *doryv1alpha1.ProcessorEpoch) []*doryv1alpha1.ProcessorEpoch {
	t.Helper()
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		winners []*doryv1alpha1.ProcessorEpoch
	)
	for n := range 20 {
		wg.Go(func() {
			epoch, err := i.Issue(t.Context(), request(ns, fmt.Sprintf("pod-%d", n), current))
			if err != nil && !errors.Is(err, fence.ErrConflict) {
				t.Errorf("Issue: %v", err)
			}
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				winners = append(winners, epoch)
			}
		})
	}
	wg.Wait()
	return winners
}

func TestInstanceIsOfItsEpochAlone(t *testing.T) {
	ns, i := namespace(t), issuer(nil)
	req := request(ns, "a", nil)
	req.Instance = "process-1"
	first := issue(t, i, req)
	if got := fence.InstanceOf(first); got != "process-1" {
		t.Errorf("issued for instance %q", got)
	}
	if got := fence.InstanceOf(issue(t, i, request(ns, "b", first))); got != "" {
		t.Errorf("the next epoch is of instance %q, which nobody said", got)
	}
}

// counted counts how often the ledger is asked.
type counted struct {
	fence.Ledger
	asked int
}

func (c *counted) IssueEpoch(ctx context.Context, processorID string, floor int64, holder string) (int64, error) {
	c.asked++
	return c.Ledger.IssueEpoch(ctx, processorID, floor, holder)
}

func TestDrawnNumberIsIssuedWithoutTheLedger(t *testing.T) {
	ns, ledger := namespace(t), &counted{Ledger: database(t)}
	i := issuer(ledger)
	first := issue(t, i, request(ns, "a", nil))
	req := request(ns, "b", first)
	for want := int64(2); want <= 3; want++ {
		var err error
		if req.Drawn, err = i.Draw(t.Context(), req); err != nil || req.Drawn != want {
			t.Fatalf("drew %d (%v), want %d: none is drawn twice", req.Drawn, err, want)
		}
	}
	asked := ledger.asked
	second := issue(t, i, req)
	if second.Spec.Epoch != 3 || second.Spec.Holder != "b" || ledger.asked != asked {
		t.Errorf("issued %+v, and the ledger was asked %d times for it", second.Spec, ledger.asked-asked)
	}
	req.Current = second
	if got := issue(t, i, req).Spec.Epoch; got != 4 {
		t.Errorf("issued %d by a number that is used up, want 4", got)
	}
	req.Current, req.Drawn = first, 9
	if got, err := i.Issue(t.Context(), req); !errors.Is(err, fence.ErrConflict) {
		t.Errorf("issued %+v (%v) by an older look, whatever was drawn", got, err)
	}
}

func TestDrawingWithoutTheDatabase(t *testing.T) {
	ns := namespace(t)
	first := issue(t, issuer(nil), request(ns, "a", nil))
	if got, err := issuer(broken{}).Draw(t.Context(), request(ns, "b", first)); err != nil || got != 2 {
		t.Errorf("drew %d (%v), want 2: the ProcessorEpoch stands in", got, err)
	}
	if got, err := issuer(broken{}).Draw(t.Context(), request(ns, "b", nil)); !errors.Is(err, fence.ErrUnavailable) {
		t.Errorf("drew %d (%v) although the last epoch may be any", got, err)
	}
}

// Whoever looked before the bar, and wakes after it, issues nothing.
func TestBarOutdatesEarlierLooks(t *testing.T) {
	ns, i := namespace(t), issuer(nil)
	seen := issue(t, i, request(ns, "a", nil))
	barred, err := i.Bar(t.Context(), seen, "rollback")
	if err != nil || barred.Spec != seen.Spec || !fence.Barred(barred, "rollback") || fence.Barred(seen, "rollback") {
		t.Fatalf("after the bar: %+v (%v)", barred, err)
	}
	if got, err := i.Issue(t.Context(), request(ns, "b", seen)); !errors.Is(err, fence.ErrConflict) {
		t.Errorf("issued %+v (%v) by a look from before the bar", got, err)
	}
	if _, err := i.Bar(t.Context(), seen, "another"); !errors.Is(err, fence.ErrConflict) {
		t.Errorf("barred by an older look: %v, want ErrConflict", err)
	}
	again, err := i.Bar(t.Context(), barred, "rollback")
	if err != nil || again.ResourceVersion != barred.ResourceVersion {
		t.Errorf("barred twice for one reason: version %s after %s (%v)", again.ResourceVersion, barred.ResourceVersion, err)
	}
	if got := issue(t, i, request(ns, "c", barred)).Spec.Epoch; got != 2 {
		t.Errorf("issued %d after the bar, want 2", got)
	}
}

func TestReleaseKeepsTheNumber(t *testing.T) {
	ns, i := namespace(t), issuer(nil)
	first := issue(t, i, request(ns, "a", nil))
	if err := i.Release(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := i.Release(t.Context(), first); !errors.Is(err, fence.ErrConflict) {
		t.Errorf("releasing what was released: %v, want ErrConflict", err)
	}
	var released doryv1alpha1.ProcessorEpoch
	if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(first), &released); err != nil {
		t.Fatal(err)
	}
	if released.Spec.Holder != "" || released.Spec.Epoch != 1 {
		t.Errorf("after release: %+v", released.Spec)
	}
	if got := issue(t, i, request(ns, "b", &released)).Spec.Epoch; got != 2 {
		t.Errorf("issued %d after a release, want 2", got)
	}
}

func TestEnded(t *testing.T) {
	deleted := metav1.Now()
	for name, test := range map[string]struct {
		pod  corev1.Pod
		want bool
	}{
		"running":                  {corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning}}, false},
		"pending":                  {corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}, false},
		"unknown":                  {corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodUnknown}, Spec: corev1.PodSpec{NodeName: "n"}}, false},
		"deleted, on a node":       {corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted}, Spec: corev1.PodSpec{NodeName: "n"}}, false},
		"deleted before any node":  {corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted}}, true},
		"succeeded":                {corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodSucceeded}, Spec: corev1.PodSpec{NodeName: "n"}}, true},
		"failed":                   {corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed}, Spec: corev1.PodSpec{NodeName: "n"}}, true},
		"failed and being deleted": {corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted}, Status: corev1.PodStatus{Phase: corev1.PodFailed}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fence.Ended(&test.pod); got != test.want {
				t.Errorf("Ended = %t, want %t", got, test.want)
			}
		})
	}
}
