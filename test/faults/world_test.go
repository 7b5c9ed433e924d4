package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store/pgtest"
)

// patience bounds every wait. The machine may be busy; nothing here measures.
const patience = 90 * time.Second

// world is what a test has of its own: a namespace, a database, and nobody else's objects.
type world struct {
	*testing.T
	namespace string
	postgres  *pgtest.Server
	url       string
	operators int
	clock     string
	// confined operators see this namespace alone.
	confined bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, shared.postgres)
}

func newWorldOn(t *testing.T, postgres *pgtest.Server) *world {
	t.Helper()
	w := &world{T: t, postgres: postgres, url: postgres.NewDatabase(t)}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "faults-"}}
	w.must(shared.k8s.Create(t.Context(), ns))
	w.namespace = ns.Name
	t.Cleanup(w.wipe)
	w.sql(`INSERT INTO processor_templates (id, slug) VALUES ('t', 't')`)
	w.sql(`INSERT INTO processor_template_versions (processor_template_id, image_uri, version, is_active) VALUES ('t', $1, '1', true)`, image)
	return w
}

// wipe removes what the operators of later tests would care for: there is no garbage collector here.
func (w *world) wipe() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all := client.InNamespace(w.namespace)
	err := errors.Join(
		shared.k8s.DeleteAllOf(ctx, &doryv1alpha1.Processor{}, all),
		shared.k8s.DeleteAllOf(ctx, &doryv1alpha1.ProcessorEpoch{}, all),
		w.wipeMigrations(ctx),
		client.IgnoreNotFound(shared.k8s.Delete(ctx, w.lease())))
	var pods corev1.PodList
	err = errors.Join(err, shared.k8s.List(ctx, &pods, all))
	for i := range pods.Items {
		err = errors.Join(err, abandon(ctx, &pods.Items[i]))
	}
	if err != nil {
		w.Errorf("tidying up: %v", err)
	}
}

func (w *world) wipeMigrations(ctx context.Context) error {
	var migrations doryv1alpha1.ProcessorMigrationList
	err := shared.k8s.List(ctx, &migrations, client.InNamespace(w.namespace))
	for i := range migrations.Items {
		m := &migrations.Items[i]
		strip := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
		err = errors.Join(err, client.IgnoreNotFound(shared.k8s.Patch(ctx, m, strip)), client.IgnoreNotFound(shared.k8s.Delete(ctx, m)))
	}
	return err
}

// abandon removes a pod, as somebody does who is sure that it runs nowhere.
func abandon(ctx context.Context, pod *corev1.Pod) error {
	strip := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
	return errors.Join(
		client.IgnoreNotFound(shared.k8s.Patch(ctx, pod, strip)),
		client.IgnoreNotFound(shared.k8s.Delete(ctx, pod, client.GracePeriodSeconds(0))))
}

func (w *world) lease() *coordinationv1.Lease {
	name := "dory-operator.dory.io"
	if w.confined {
		name += w.namespace
	}
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: name}}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// random is the dice of a test. FAULTS_SEED repeats a throw.
func (w *world) random() *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("FAULTS_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		w.must(err)
	}
	w.Logf("FAULTS_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, seed))
}

// until waits for what is to come, and says what it was if it does not.
func (w *world) until(what string, is func() error) {
	w.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("waited %s for this: %s: %v", patience, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// for a while sees that something stays as it is.
func (w *world) stays(what string, d time.Duration, is func() error) {
	w.Helper()
	for deadline := time.Now().Add(d); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err := is(); err != nil {
			w.Fatalf("did not stay so: %s: %v", what, err)
		}
	}
}

// sql executes one statement on the test's database.
func (w *world) sql(statement string, args ...any) {
	w.Helper()
	w.must(w.try(statement, args...))
}

func (w *world) try(statement string, args ...any) error {
	conn, err := pgx.Connect(w.Context(), w.url)
	if err != nil {
		return err
	}
	defer conn.Close(w.Context())
	_, err = conn.Exec(w.Context(), statement, args...)
	return err
}

// ask answers one value of the test's database.
func ask[T any](w *world, query string, args ...any) (T, error) {
	var value T
	conn, err := pgx.Connect(w.Context(), w.url)
	if err != nil {
		return value, err
	}
	defer conn.Close(w.Context())
	return value, conn.QueryRow(w.Context(), query, args...).Scan(&value)
}

func (w *world) row(id string) {
	w.Helper()
	w.sql(`INSERT INTO processors (id, processor_template_id, k8s_namespace) VALUES ($1, 't', $2)`, id, w.namespace)
}

// apply makes a Processor as a person does.
func (w *world) apply(name string, change ...func(*doryv1alpha1.Processor)) *doryv1alpha1.Processor {
	w.Helper()
	p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Spec: doryv1alpha1.ProcessorSpec{Image: image}}
	for _, c := range change {
		c(p)
	}
	w.must(shared.k8s.Create(w.Context(), p))
	return p
}

func (w *world) get(name string) (*doryv1alpha1.Processor, error) {
	p := &doryv1alpha1.Processor{}
	return p, shared.k8s.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, p)
}

func (w *world) modify(name string, change func(*doryv1alpha1.Processor)) {
	w.Helper()
	w.until("changing "+name, func() error {
		p, err := w.get(name)
		if err != nil {
			return err
		}
		change(p)
		return shared.k8s.Update(w.Context(), p)
	})
}

func (w *world) epoch(id string) (*doryv1alpha1.ProcessorEpoch, error) {
	e := &doryv1alpha1.ProcessorEpoch{}
	return e, shared.k8s.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: doryv1alpha1.ObjectName(id)}, e)
}

// livePods are those of a Processor that have not ended.
func (w *world) livePods(name string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := shared.k8s.List(w.Context(), &pods, client.InNamespace(w.namespace), client.MatchingLabels{doryv1alpha1.LabelProcessor: name})
	var live []corev1.Pod
	for i := range pods.Items {
		if isLive(&pods.Items[i]) {
			live = append(live, pods.Items[i])
		}
	}
	return live, err
}

// runs waits until a Processor runs, in one pod that is ready, holds the epoch, and is known by status and database.
func (w *world) runs(name string) *corev1.Pod {
	w.Helper()
	var pod *corev1.Pod
	w.until(name+" runs", func() error {
		var err error
		pod, err = w.running(name)
		return err
	})
	return pod
}

func (w *world) running(name string) (*corev1.Pod, error) {
	p, err := w.get(name)
	if err != nil {
		return nil, err
	}
	pods, err := w.livePods(name)
	if err != nil {
		return nil, err
	}
	if len(pods) != 1 || p.Status.Phase != doryv1alpha1.ProcessorRunning || p.Status.Instance == nil {
		return nil, fmt.Errorf("%d pods, phase %s, conditions %+v", len(pods), p.Status.Phase, p.Status.Conditions)
	}
	epoch, err := w.epoch(p.ID())
	if err != nil {
		return nil, err
	}
	pod, number := &pods[0], strconv.FormatInt(epoch.Spec.Epoch, 10)
	if p.Status.Instance.Pod != pod.Name || epoch.Spec.Holder != pod.Name || pod.Labels[doryv1alpha1.LabelEpoch] != number || p.Status.Instance.Epoch != epoch.Spec.Epoch {
		return nil, fmt.Errorf("pod %s with epoch %q, status %+v, ProcessorEpoch %+v", pod.Name, pod.Labels[doryv1alpha1.LabelEpoch], p.Status.Instance, epoch.Spec)
	}
	return pod, nil
}

// allRun waits until that many Processors of the namespace run.
func (w *world) allRun(n int) {
	w.Helper()
	w.until(fmt.Sprintf("%d run", n), func() error {
		var all doryv1alpha1.ProcessorList
		if err := shared.k8s.List(w.Context(), &all, client.InNamespace(w.namespace)); err != nil {
			return err
		}
		running := 0
		for i := range all.Items {
			if all.Items[i].Status.Phase == doryv1alpha1.ProcessorRunning {
				running++
			}
		}
		if running != n || len(all.Items) != n {
			time.Sleep(100 * time.Millisecond)
			return fmt.Errorf("%d of %d Processors run", running, len(all.Items))
		}
		return nil
	})
}

func (w *world) deletePod(pod *corev1.Pod) {
	w.Helper()
	if err := shared.k8s.Delete(w.Context(), pod); err != nil && !apierrors.IsNotFound(err) {
		w.Fatal(err)
	}
}
