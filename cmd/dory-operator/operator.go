package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/drain"
	"github.com/dory-io/dory/internal/controller/leftaside"
	"github.com/dory-io/dory/internal/controller/lifecycle"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/undecodable"
)

// leaseName is the Lease that the leader holds.
const leaseName = "dory-operator.dory.io"

type operator struct {
	options   options
	manager   ctrl.Manager
	store     *store.Store // nil without a database
	clock     clock.WithTicker
	startedAt time.Time

	tokens     pod.Tokens
	issuer     *fence.Issuer
	processors *statexfer.Client
	states     *statestore.Store
	lifecycle  *lifecycle.Reconciler
	desk       *drain.Desk
	turns      *drain.Turns
}

func newOperator(ctx context.Context, opts options) (*operator, error) {
	o := &operator{options: opts, clock: clock.RealClock{}}
	o.startedAt = o.clock.Now()
	var err error
	if o.manager, err = newManager(opts); err != nil {
		return nil, err
	}
	if err := o.openStore(); err != nil { //nolint:contextcheck // the store lives as long as the process, and is closed
		return nil, err
	}
	if o.tokens, err = stateTokens(ctx, o.manager.GetConfig(), ownNamespace(opts.leaderElectNS)); err != nil {
		return nil, err
	}
	o.issuer = fence.NewIssuer(o.manager.GetClient(), o.ledger(), o.clock)
	o.processors = statexfer.NewClient(statexfer.ClientConfig{Clock: o.clock})
	o.states = statestore.New(statestore.Config{Client: o.manager.GetClient(), Reader: o.apiReader(), Database: o.largeStates()})
	for _, add := range []func(context.Context) error{o.addHealth, o.addLeftAside, o.addLifecycle, o.addConfigChange, o.addCheckpoints, o.addDrain, o.addMigrations, o.addPlacement, o.addDatabase, o.addFollower, o.addWebhook, o.addResponder} {
		if err := add(ctx); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func newManager(opts options) (ctrl.Manager, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the API server (in a cluster, by --kubeconfig or by KUBECONFIG): %w", err)
	}
	config.QPS = -1 // The API server's own priority and fairness is the limit; a client-side one would only add latency.
	config.Wrap(undecodable.WrapTransport)
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	managed := ctrl.Options{
		Scheme:                        scheme,
		NewClient:                     undecodable.NewClient,
		Cache:                         cacheOptions(),
		Client:                        client.Options{FieldOwner: "dory-operator"},
		Metrics:                       metricsserver.Options{BindAddress: opts.metricsAddress},
		HealthProbeBindAddress:        opts.probeAddress,
		PprofBindAddress:              opts.pprofAddress,
		LeaderElection:                opts.leaderElect,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       opts.leaderElectNS,
		LeaderElectionReleaseOnCancel: true,
	}
	if managed.Cache.NewInformer, err = undecodable.Informers(config, scheme, managed.Cache); err != nil {
		return nil, fmt.Errorf("preparing the caches: %w", err)
	}
	manager, err := ctrl.NewManager(config, managed)
	if err != nil {
		return nil, fmt.Errorf("starting the operator: %w", err)
	}
	_, err = manager.GetRESTMapper().RESTMapping(doryv1alpha1.GroupVersion.WithKind("Processor").GroupKind())
	if meta.IsNoMatchError(err) {
		return nil, fmt.Errorf("the CRDs are not there, `make install`, or the commands of docs/install.md, make them: %w", err)
	}
	return manager, nil // Whatever else is wrong with the API server, it is tried again.
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, doryv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	return scheme, nil
}

func (o *operator) openStore() error {
	if o.options.databaseURL == "" {
		ctrl.Log.Info("no --database-url: running on custom resources alone", "followsSecret", o.options.followSecret)
		return nil
	}
	var err error
	o.store, err = store.New(store.Config{
		URL: o.options.databaseURL, DirectURL: o.options.databaseDirectURL,
		Clock: o.clock, Logger: ctrl.Log.WithName("store"), Registerer: metrics.Registry,
	})
	if err != nil {
		return fmt.Errorf("--database-url: %w", err)
	}
	return nil
}

func (o *operator) addHealth(context.Context) error {
	if err := o.manager.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding /healthz: %w", err)
	}
	if err := o.manager.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding /readyz: %w", err)
	}
	return nil
}

// apiReader reads past the caches.
func (o *operator) apiReader() client.Reader { return undecodable.Reader(o.manager.GetAPIReader()) }

func (o *operator) addLeftAside(context.Context) error {
	metric, err := leftaside.NewMetric(metrics.Registry)
	if err != nil {
		return err
	}
	return leftaside.Add(o.manager, o.manager.GetEventRecorder("dory-operator"), metric)
}

func (o *operator) addLifecycle(ctx context.Context) error {
	lifecycleMetrics, err := lifecycle.NewMetrics(metrics.Registry, o.manager.GetCache())
	if err != nil {
		return err
	}
	recorder := o.manager.GetEventRecorder("dory-lifecycle")
	o.lifecycle = lifecycle.New(lifecycle.Config{
		Client: o.manager.GetClient(), APIReader: o.apiReader(), Issuer: o.issuer, Clock: o.clock,
		Recorder: recorder, Metrics: lifecycleMetrics, NewSuffix: newSuffix, Tokens: o.tokens,
		States: statestore.NewPreparer(o.states, o.manager.GetClient(), recorder),
		Options: lifecycle.Options{
			ImagePullSecret: o.options.imagePullSecret, EvictionResponders: o.options.features.podResponders(),
			ClusterWideIDs: o.store != nil, Concurrency: o.options.concurrency,
		},
	})
	if err := o.lifecycle.SetupWithManager(ctx, o.manager); err != nil {
		return fmt.Errorf("adding the lifecycle controller: %w", err)
	}
	if !o.options.discoverSDK {
		return nil
	}
	if err := lifecycle.NewDiscovery(o.manager.GetClient(), nil).SetupWithManager(o.manager); err != nil {
		return fmt.Errorf("adding the discovery controller: %w", err)
	}
	if err := lifecycle.NewReadiness(o.lifecycle, nil).SetupWithManager(o.manager); err != nil {
		return fmt.Errorf("adding the readiness controller: %w", err)
	}
	return nil
}

// ledger avoids an interface that holds a nil *store.Store.
func (o *operator) ledger() fence.Ledger {
	if o.store == nil {
		return nil
	}
	return o.store
}

func (o *operator) run(ctx context.Context) error {
	durations, err := newDurations(metrics.Registry)
	if err != nil {
		return err
	}
	go func() {
		if o.manager.GetCache().WaitForCacheSync(ctx) {
			durations.startup.Set(o.clock.Since(o.startedAt).Seconds())
		}
	}()
	if err := o.manager.Start(ctx); err != nil {
		return fmt.Errorf("running the operator: %w", err)
	}
	if o.store != nil {
		o.store.Close()
	}
	ctrl.Log.Info("stopped")
	return nil
}

type durations struct{ startup prometheus.Gauge }

func newDurations(registerer prometheus.Registerer) (*durations, error) {
	d := &durations{startup: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "dory_startup_duration_seconds", Help: "Time from the start of the process until every cache was filled.",
	})}
	if err := registerer.Register(d.startup); err != nil {
		return nil, fmt.Errorf("registering dory_startup_duration_seconds: %w", err)
	}
	return d, nil
}

// newSuffix makes 8 of 27 characters that form no words: 2.8e11 names, so that none comes twice.
func newSuffix() string { return utilrand.String(8) }
