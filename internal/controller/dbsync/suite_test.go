package dbsync

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/store/pgtest"
	"github.com/dory-io/dory/internal/undecodable"
)

var (
	environment *envtest.Environment
	restConfig  *rest.Config
	scheme      *runtime.Scheme
	postgres    *pgtest.Server
	// direct reads and writes the API server, past all caches.
	direct client.Client
)

func TestFlows(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(10 * time.Millisecond)
	RunSpecs(t, "db-sync")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(zap.New(zap.WriteTo(GinkgoWriter), zap.UseDevMode(true)))
	scheme = runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(doryv1alpha1.AddToScheme(scheme)).To(Succeed())
	environment = &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join("..", "..", "..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		environment.BinaryAssetsDirectory = filepath.Join("..", "..", "..", "bin", "k8s")
	}
	var err error
	restConfig, err = environment.Start()
	Expect(err).NotTo(HaveOccurred(), "starting the API server: run make envtest-binaries, or set KUBEBUILDER_ASSETS")
	restConfig.QPS = -1
	direct, err = client.New(restConfig, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	postgres, err = pgtest.New()
	Expect(err).NotTo(HaveOccurred())
})

var _ = AfterSuite(func() {
	if postgres != nil {
		postgres.Close()
	}
	if environment != nil {
		Expect(environment.Stop()).To(Succeed())
	}
})

// world is one database, one namespace, and one operator's sync between them.
type world struct {
	server    *pgtest.Server
	url       string
	db        *pgx.Conn
	namespace string
	store     *store.Store
	registry  *prometheus.Registry
	client    *countingClient
	prepare   func(context.Context) error
	stop      func()
}

// setting changes how a world's operator is set up.
type setting func(*Options, *store.Config)

// preparing lets the sync prepare the database.
func (w *world) preparing(prepare func(context.Context) error) setting {
	return func(*Options, *store.Config) { w.prepare = prepare }
}

// patient is a resync that never comes within a test, so that what happens is not its doing.
func patient(o *Options, _ *store.Config) { o.Resync = time.Hour }

// brisk is a resync that comes often.
func brisk(o *Options, _ *store.Config) { o.Resync = 500 * time.Millisecond }

// deaf is a database that cannot be listened to.
func deaf(_ *Options, c *store.Config) {
	c.DirectURL = "postgres://postgres@127.0.0.1:1/none?sslmode=disable&connect_timeout=1"
}

// trusting lets deletions of tests follow each other at once.
func trusting(o *Options, _ *store.Config) { o.DeletionWindow = time.Millisecond }

// newWorld makes a world whose sync does not run yet.
func newWorld(server *pgtest.Server) *world {
	w := newEmptyWorld(server, server.NewDatabase(GinkgoTB()))
	w.template()
	return w
}

// newEmptyWorld makes a world whose database has nothing of ours.
func newEmptyWorld(server *pgtest.Server, url string) *world {
	w := &world{server: server, url: url, namespace: newNamespaceObject()}
	w.connect()
	DeferCleanup(removeAll)
	return w
}

// template makes the template that rows have.
func (w *world) template() {
	GinkgoHelper()
	w.exec(`INSERT INTO processor_templates (id, slug) VALUES ('t', 'camera')`)
	w.exec(`INSERT INTO processor_template_versions (id, processor_template_id, image_uri, version, is_active, runtime_config_template)
		VALUES ('v1', 't', 'registry.example/camera:1', '1', true, $1), ('v2', 't', 'registry.example/camera:2', '2', false, $1)`, typicalConfig)
}

func (w *world) connect() {
	conn, err := pgx.Connect(context.Background(), w.url)
	Expect(err).NotTo(HaveOccurred())
	w.db = conn
	DeferCleanup(func() { _ = conn.Close(context.Background()) })
}

var namespaces atomic.Int64

func newNamespaceObject() string {
	name := fmt.Sprintf("dbsync-%d", namespaces.Add(1))
	createNamespace(name)
	return name
}

func createNamespace(name string) {
	Expect(direct.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
}

// removeAll empties the API server of our objects, for the next test.
func removeAll() {
	ctx := context.Background()
	var all corev1.NamespaceList
	Expect(direct.List(ctx, &all)).To(Succeed())
	for i := range all.Items {
		Expect(direct.DeleteAllOf(ctx, &doryv1alpha1.Processor{}, client.InNamespace(all.Items[i].Name))).To(Succeed())
	}
	Expect(direct.DeleteAllOf(ctx, &doryv1alpha1.EdgeNode{})).To(Succeed())
}

// run starts the operator's sync; it ends with the test, or by stop.
func (w *world) run(settings ...setting) {
	options := Options{StatusInterval: 50 * time.Millisecond}
	config := store.Config{URL: w.url, BreakerOpen: 300 * time.Millisecond, ListenBackoff: 300 * time.Millisecond}
	for _, set := range settings {
		set(&options, &config)
	}
	w.registry = prometheus.NewRegistry()
	config.Registerer = w.registry
	var err error
	w.store, err = store.New(config)
	Expect(err).NotTo(HaveOccurred())
	managed := ctrl.Options{Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, NewClient: undecodable.NewClient}
	managed.Cache.NewInformer, err = undecodable.Informers(restConfig, scheme, managed.Cache)
	Expect(err).NotTo(HaveOccurred())
	mgr, err := ctrl.NewManager(restConfig, managed)
	Expect(err).NotTo(HaveOccurred())
	w.client = &countingClient{Client: mgr.GetClient()}
	syncer, err := New(Config{Client: w.client, Store: w.store, Recorder: mgr.GetEventRecorder("db-sync"), Registerer: w.registry, Prepare: w.prepare, Options: options})
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.Background())
	Expect(syncer.SetupWithManager(ctx, mgr)).To(Succeed())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		Eventually(ended, 30*time.Second).Should(Receive(Succeed()))
		w.store.Close()
	}
	DeferCleanup(func() { w.stop() })
}

func (w *world) exec(sql string, args ...any) int64 {
	GinkgoHelper()
	tag, err := w.db.Exec(context.Background(), sql, args...)
	Expect(err).NotTo(HaveOccurred(), sql)
	return tag.RowsAffected()
}

// value reads one value as text; NULL is "".
func (w *world) value(sql string, args ...any) string {
	GinkgoHelper()
	var v *string
	Expect(w.db.QueryRow(context.Background(), "SELECT ("+sql+")::text", args...).Scan(&v)).To(Succeed(), sql)
	if v == nil {
		return ""
	}
	return *v
}

// rows inserts processors of the template.
func (w *world) rows(ids ...string) {
	GinkgoHelper()
	w.exec(`INSERT INTO processors (id, processor_template_id, k8s_namespace) SELECT unnest($1::text[]), 't', $2`, ids, w.namespace)
}

func (w *world) syncError(id string) string {
	GinkgoHelper()
	return w.value(`SELECT sync_error FROM processors WHERE id = $1`, id)
}

func (w *world) key(id string) types.NamespacedName {
	return types.NamespacedName{Namespace: w.namespace, Name: doryv1alpha1.ObjectName(id)}
}

// processor reads a Processor past all caches.
func (w *world) processor(id string) (*doryv1alpha1.Processor, error) {
	p := &doryv1alpha1.Processor{}
	return p, direct.Get(context.Background(), w.key(id), p)
}

func (w *world) mustProcessor(id string) *doryv1alpha1.Processor {
	GinkgoHelper()
	p, err := w.processor(id)
	Expect(err).NotTo(HaveOccurred())
	return p
}

// processors counts the Processors of the namespace.
func (w *world) processors() (int, error) {
	var list doryv1alpha1.ProcessorList
	err := direct.List(context.Background(), &list, client.InNamespace(w.namespace))
	return len(list.Items), err
}

func (w *world) settled(n int) {
	GinkgoHelper()
	Eventually(w.processors).Should(Equal(n))
}

// condition is DatabaseSynced of a Processor, as "status/reason"; "" without one.
func (w *world) condition(id string) string {
	p, err := w.processor(id)
	if err != nil {
		return err.Error()
	}
	for _, c := range p.Status.Conditions {
		if c.Type == doryv1alpha1.ConditionDatabaseSynced {
			return string(c.Status) + "/" + c.Reason
		}
	}
	return ""
}

// events are the notes of the events about an object, by reason.
func (w *world) events(name string) (map[string][]string, error) {
	var list eventsv1.EventList
	if err := direct.List(context.Background(), &list, client.InNamespace(w.namespace)); err != nil {
		return nil, err
	}
	notes := map[string][]string{}
	for _, e := range list.Items {
		if e.Regarding.Name == name {
			notes[e.Reason] = append(notes[e.Reason], e.Note)
		}
	}
	return notes, nil
}

// metric is the sum of a metric's values over its labels.
func (w *world) metric(name string) float64 {
	families, err := w.registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}

// countingClient counts the writes that go through it.
type countingClient struct {
	client.Client
	writes atomic.Int64
}

func (c *countingClient) Apply(ctx context.Context, obj runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	c.writes.Add(1)
	return c.Client.Apply(ctx, obj, opts...)
}

func (c *countingClient) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	c.writes.Add(1)
	return c.Client.Create(ctx, obj, opts...)
}

func (c *countingClient) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	c.writes.Add(1)
	return c.Client.Update(ctx, obj, opts...)
}

func (c *countingClient) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	c.writes.Add(1)
	return c.Client.Patch(ctx, obj, patch, opts...)
}

func (c *countingClient) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	c.writes.Add(1)
	return c.Client.Delete(ctx, obj, opts...)
}

func (c *countingClient) Status() client.SubResourceWriter {
	return countingStatus{c.Client.Status(), &c.writes}
}

type countingStatus struct {
	client.SubResourceWriter
	writes *atomic.Int64
}

func (c countingStatus) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
	c.writes.Add(1)
	return c.SubResourceWriter.Patch(ctx, obj, patch, opts...)
}
