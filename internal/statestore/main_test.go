package statestore

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/store/pgtest"
)

var (
	postgres  *pgtest.Server
	apiServer client.WithWatch
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	root := filepath.Join("..", "..")
	environment := &envtest.Environment{
		CRDDirectoryPaths: []string{filepath.Join(root, "config", "crd", "bases")}, ErrorIfCRDPathMissing: true,
	}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		environment.BinaryAssetsDirectory = filepath.Join(root, "bin", "k8s")
	}
	config, err := environment.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "envtest needs kube-apiserver and etcd (make envtest-binaries):", err)
		return 1
	}
	defer func() { _ = environment.Stop() }()
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), doryv1alpha1.AddToScheme(scheme)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if apiServer, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return pgtest.Main(m, &postgres)
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// The ConfigMaps of the processor Cam_1 that the object cam stands for: today's, and that of operators of before.
var stateName, formerName = statexfer.ConfigMapName("Cam_1"), "dory-state-cam"

// world is a namespace, and a Store that counts what it does there.
type world struct {
	*Store

	t   *testing.T
	key Key
	// reads and writes are calls to the API server.
	reads, writes int
	// diesAt is the write at which the operator dies: it does not arrive, and nothing works any more. 0 is never.
	diesAt int
	// onWrite runs before each write.
	onWrite func(n int)
}

var errDead = errors.New("the operator is dead")

func newWorld(t *testing.T, database Database) *world {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "statestore-"}}
	if err := apiServer.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	return newWorldIn(t, Key{Namespace: namespace.Name, Processor: "cam", ProcessorID: "Cam_1", ConfigMap: stateName, Former: formerName}, database)
}

// newWorldIn is another operator for the same processor.
func newWorldIn(t *testing.T, key Key, database Database) *world {
	t.Helper()
	w := &world{t: t, key: key}
	c := interceptor.NewClient(apiServer, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			w.reads++
			if w.dead() {
				return errDead
			}
			return c.Get(ctx, key, obj, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			return w.write(func() error { return c.Create(ctx, obj, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			return w.write(func() error { return c.Update(ctx, obj, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			return w.write(func() error { return c.Delete(ctx, obj, opts...) })
		},
	})
	w.Store = New(Config{Client: c, Reader: c, Database: database})
	return w
}

func (w *world) dead() bool { return w.diesAt > 0 && w.writes >= w.diesAt }

func (w *world) write(do func() error) error {
	w.writes++
	if w.dead() {
		return errDead
	}
	if w.onWrite != nil {
		w.onWrite(w.writes)
	}
	return do()
}

// openDatabase is a store on a migrated database of its own.
func openDatabase(t *testing.T) (*store.Store, string) {
	t.Helper()
	url := postgres.NewDatabase(t)
	s, err := store.New(store.Config{URL: url, QueryTimeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, url
}

// tripping is a database that is away while its switch is on.
type tripping struct {
	Database

	away atomic.Bool
	// silent: it goes away between the question what it has and the question for that.
	silent bool
}

func (d *tripping) err() error {
	if d.away.Load() {
		return fmt.Errorf("%w: switched off", store.ErrUnavailable)
	}
	return nil
}

func (d *tripping) SaveCheckpoint(ctx context.Context, c store.Checkpoint) (bool, error) {
	if err := d.err(); err != nil {
		return false, err
	}
	return d.Database.SaveCheckpoint(ctx, c)
}

func (d *tripping) CheckpointInfo(ctx context.Context, id string) (*store.CheckpointInfo, error) {
	if err := d.err(); err != nil {
		return nil, err
	}
	return d.Database.CheckpointInfo(ctx, id)
}

func (d *tripping) Checkpoint(ctx context.Context, id string) (*store.Checkpoint, error) {
	if d.silent {
		d.away.Store(true)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return d.Database.Checkpoint(ctx, id)
}

func (d *tripping) DeleteCheckpoint(ctx context.Context, kept store.CheckpointInfo) error {
	if err := d.err(); err != nil {
		return err
	}
	return d.Database.DeleteCheckpoint(ctx, kept)
}

// state is a document; its payload tells what it is.
func (w *world) state(epoch, sequence int64, changes ...func(*statexfer.Document)) statexfer.Document {
	d := statexfer.Document{
		Payload: json.RawMessage(fmt.Sprintf(`{"at": "%d/%d"}`, epoch, sequence)),
		Metadata: statexfer.Metadata{
			Position: statexfer.Position{Epoch: epoch, Sequence: sequence}, ProcessorID: w.key.ProcessorID,
			Time: noon.Add(time.Duration(100*epoch+sequence) * time.Second), PodName: fmt.Sprintf("pod-%d", epoch),
		},
	}
	for _, change := range changes {
		change(&d)
	}
	return d
}

// large makes a state that no compression makes small.
func large(megabytes int) func(*statexfer.Document) {
	return func(d *statexfer.Document) {
		noise := make([]byte, megabytes<<20)
		seed := sha256.Sum256(d.Payload)
		_, _ = rand.NewChaCha8(seed).Read(noise[:base64.RawURLEncoding.DecodedLen(len(noise))])
		noise = []byte(base64.RawURLEncoding.EncodeToString(noise[:base64.RawURLEncoding.DecodedLen(len(noise))]))
		d.Payload = json.RawMessage(fmt.Sprintf(`{"at": "%d/%d", "noise": "%s"}`, d.Metadata.Epoch, d.Metadata.Sequence, noise))
	}
}

// blind is how an SDK saves that knows no positions.
func blind(pod string, at time.Time) func(*statexfer.Document) {
	return func(d *statexfer.Document) {
		d.Metadata.Position, d.Metadata.PodName, d.Metadata.Time = statexfer.Position{}, pod, at
	}
}

func (w *world) save(d statexfer.Document, changes ...func(*SaveRequest)) Saved {
	w.t.Helper()
	saved, err := w.trySave(d, changes...)
	if err != nil {
		w.t.Fatalf("saving %s: %v", d.Metadata.Position, err)
	}
	return saved
}

func (w *world) trySave(d statexfer.Document, changes ...func(*SaveRequest)) (Saved, error) {
	req := SaveRequest{Key: w.key, Document: d, Lineage: Lineage{Epoch: d.Metadata.Epoch, Holder: d.Metadata.PodName}}
	for _, change := range changes {
		change(&req)
	}
	return w.Save(w.t.Context(), req)
}

func with(slot *Slot) func(*SaveRequest) { return func(r *SaveRequest) { r.Slot = slot } }

func after(previous doryv1alpha1.CheckpointStorage) func(*SaveRequest) {
	return func(r *SaveRequest) { r.Previous = previous }
}

// newest is what the newest readable copy says it is; empty if there is none.
func (w *world) newest(lineage Lineage) (string, *Inventory) {
	w.t.Helper()
	found, document, err := w.Newest(w.t.Context(), w.key, lineage)
	if err != nil {
		w.t.Fatalf("Newest: %v", err)
	}
	if document == nil {
		return "", found
	}
	var payload struct {
		At string `json:"at"`
	}
	if err := json.Unmarshal(document.Payload, &payload); err != nil {
		w.t.Fatal(err)
	}
	return payload.At, found
}

func (w *world) wantNewest(want string) *Inventory {
	w.t.Helper()
	got, found := w.newest(Lineage{Epoch: 9, Holder: "pod-9"})
	if got != want {
		w.t.Errorf("the newest is %q, want %q; problems %v", got, want, found.Problems)
	}
	return found
}

// blindSave is what an SDK does that looks at nothing.
func (w *world) blindSave(d statexfer.Document) {
	w.t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.key.Namespace, Name: w.key.ConfigMap}}
	if err := statexfer.IntoConfigMap(cm, d, 0); err != nil {
		w.t.Fatal(err)
	}
	if err := apiServer.Update(w.t.Context(), cm); err != nil {
		if err := apiServer.Create(w.t.Context(), cm); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) configMap(name string) *corev1.ConfigMap {
	w.t.Helper()
	cm := &corev1.ConfigMap{}
	if err := apiServer.Get(w.t.Context(), client.ObjectKey{Namespace: w.key.Namespace, Name: name}, cm); err != nil {
		w.t.Fatal(err)
	}
	return cm
}

func (w *world) change(name string, change func(*corev1.ConfigMap)) {
	w.t.Helper()
	cm := w.configMap(name)
	change(cm)
	if err := apiServer.Update(w.t.Context(), cm); err != nil {
		w.t.Fatal(err)
	}
}

// chunks are the names of what belongs to a large checkpoint.
func (w *world) chunks() []string {
	w.t.Helper()
	var list corev1.ConfigMapList
	if err := apiServer.List(w.t.Context(), &list, client.InNamespace(w.key.Namespace), client.MatchingLabels{LabelCheckpoint: w.key.Processor}); err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return names
}

func wantSays(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}
