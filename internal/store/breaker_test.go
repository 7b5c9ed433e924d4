package store

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sony/gobreaker/v2"

	"github.com/dory-io/dory/internal/store/pgtest"
)

func TestBreakerTripsAndRecovers(t *testing.T) {
	faulty := pgtest.Start(t)
	s := openURL(t, faulty.NewDatabase(t), func(c *Config) {
		c.BreakerFailures, c.BreakerOpen, c.QueryTimeout = 3, 200*time.Millisecond, deadline
	})
	must(t, s.Ping(t.Context()))
	for _, down := range []func() error{faulty.Kill, faulty.Stop} {
		must(t, down())
		eventually(t, "the breaker opens", func() bool {
			err := s.Ping(t.Context())
			if !errors.Is(err, ErrUnavailable) {
				t.Fatalf("without a server: %v", err)
			}
			return errors.Is(err, gobreaker.ErrOpenState)
		})
		if healthy := testutil.ToFloat64(s.metrics.componentHealthy.WithLabelValues(component)); healthy != 0 {
			t.Errorf("down: healthy is %v", healthy)
		}
		must(t, faulty.Start())
		eventually(t, "the breaker closes", func() bool { return s.Ping(t.Context()) == nil })
		if healthy := testutil.ToFloat64(s.metrics.componentHealthy.WithLabelValues(component)); healthy != 1 {
			t.Errorf("up again: healthy is %v", healthy)
		}
	}
	for _, step := range [][2]string{{"closed", "open"}, {"open", "half_open"}, {"half_open", "closed"}} {
		if n := testutil.ToFloat64(s.metrics.breakerTransitions.WithLabelValues(component, step[0], step[1])); n < 2 {
			t.Errorf("%v: %v transitions, want at least 2", step, n)
		}
	}
	if state := testutil.ToFloat64(s.metrics.breakerState.WithLabelValues(component)); state != 0 {
		t.Errorf("state is %v, want 0 for closed", state)
	}
}

func TestOpenBreakerAnswersAtOnce(t *testing.T) {
	s := openURL(t, "postgres://nobody@127.0.0.1:1/nothing", func(c *Config) { c.BreakerFailures, c.BreakerOpen = 1, time.Hour })
	if err := s.Ping(t.Context()); !errors.Is(err, ErrUnavailable) || errors.Is(err, gobreaker.ErrOpenState) {
		t.Fatalf("the first: %v", err)
	}
	start := time.Now()
	for range 1000 {
		if _, err := s.ListProcessors(t.Context()); !errors.Is(err, gobreaker.ErrOpenState) || !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("1000 refusals took %s", took)
	}
	if n := testutil.ToFloat64(s.metrics.errors.WithLabelValues(string(kindOpen))); n != 1000 {
		t.Errorf("%v refusals counted", n)
	}
	if state := testutil.ToFloat64(s.metrics.breakerState.WithLabelValues(component)); state != 2 {
		t.Errorf("state is %v, want 2 for open", state)
	}
}

func TestBadDataDoesNotTrip(t *testing.T) {
	s, conn := open(t, func(c *Config) { c.BreakerFailures = 1 })
	for range 3 {
		_, err := s.UpsertKubernetesProcessors(t.Context(), []KubernetesProcessor{{ID: "a", Namespace: "Not A Namespace", Name: "a", NodeType: "managed"}})
		wantContains(t, err, "processors_k8s_namespace_is_a_dns_label")
		if errors.Is(err, ErrUnavailable) {
			t.Fatalf("a constraint is no outage: %v", err)
		}
	}
	exec(t, conn, `ALTER TABLE processors RENAME TO elsewhere`)
	if _, err := s.ListProcessors(t.Context()); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("a missing table is no outage: %v", err)
	}
	must(t, s.Ping(t.Context()))
	if n := testutil.ToFloat64(s.metrics.errors.WithLabelValues(string(kindConstraint))); n != 3 {
		t.Errorf("%v constraint errors counted, want 3", n)
	}
	if n := testutil.ToFloat64(s.metrics.errors.WithLabelValues(string(kindStatement))); n != 1 {
		t.Errorf("%v statement errors counted, want 1", n)
	}
}

func TestStatementTimeout(t *testing.T) {
	s, conn := open(t, func(c *Config) { c.QueryTimeout, c.BreakerFailures, c.BreakerOpen = 300*time.Millisecond, 2, time.Hour })
	must(t, s.Ping(t.Context()))
	exec(t, conn, `BEGIN; LOCK TABLE processors`)
	start := time.Now()
	_, err := s.UpdateStatuses(t.Context(), []ProcessorStatus{{ID: "a"}})
	if took := time.Since(start); took > deadline {
		t.Errorf("gave up after %s", took)
	}
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("behind a lock: %v", err)
	}
	wantContains(t, err, "update_statuses")
	eventually(t, "the server gives the statement up as well", func() bool {
		return value(t, conn, `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'processors'::regclass`) == "0"
	})
	if _, err := s.CountProcessors(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second: %v", err)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, gobreaker.ErrOpenState) {
		t.Errorf("two timeouts did not open the breaker: %v", err)
	}
}

func TestListTimeoutIsItsOwn(t *testing.T) {
	s, conn := open(t, func(c *Config) { c.QueryTimeout, c.ListTimeout = deadline, 100*time.Millisecond })
	exec(t, conn, `BEGIN; LOCK TABLE processors`)
	start := time.Now()
	if _, err := s.ListProcessors(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind a lock: %v", err)
	}
	if took := time.Since(start); took >= deadline {
		t.Errorf("gave up after %s, as other queries do", took)
	}
}

func TestCallerGivesUp(t *testing.T) {
	s, conn := open(t, func(c *Config) { c.BreakerFailures = 1 })
	exec(t, conn, `BEGIN; LOCK TABLE processors`)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.ListProcessors(ctx)
		ended <- err
	}()
	eventually(t, "the query waits for the lock", func() bool {
		return value(t, conn, `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'processors'::regclass`) == "1"
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Errorf("cancelled on its way: %v", err)
	}
	if _, err := s.ListProcessors(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Errorf("cancelled before: %v", err)
	}
	must(t, s.Ping(t.Context()))
}

func TestCancellationIsNoSuccessEither(t *testing.T) {
	s, _ := open(t, func(c *Config) { c.BreakerFailures = 2 })
	for _, err := range []error{io.ErrUnexpectedEOF, context.Canceled, io.ErrUnexpectedEOF} {
		if got := s.run(t.Context(), "test", deadline, func(context.Context) error { return err }); !errors.Is(got, err) {
			t.Fatalf("got %v, want %v", got, err)
		}
	}
	if err := s.Ping(t.Context()); !errors.Is(err, gobreaker.ErrOpenState) {
		t.Errorf("two failures with a cancellation between them: %v", err)
	}
}

func TestStandbyCountsAsUnavailable(t *testing.T) {
	s, conn := open(t)
	exec(t, conn, `ALTER DATABASE `+value(t, conn, `SELECT quote_ident(current_database())`)+` SET default_transaction_read_only = on`)
	if _, err := s.IssueEpoch(t.Context(), "p", 0, "pod"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("read-only: %v", err)
	}
}

func TestMetricsAreRegistered(t *testing.T) {
	registry := prometheus.NewRegistry()
	// The names of the contract are shared: another component brought this one already.
	shared := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "dory_component_healthy", Help: "Whether a component worked when it was last used: 1 or 0.",
	}, []string{"component"})
	registry.MustRegister(shared)
	url := server.NewDatabase(t)
	cfg := Config{URL: url, Registerer: registry}
	s, err := New(cfg)
	must(t, err)
	must(t, s.Ping(t.Context()))
	if healthy := testutil.ToFloat64(shared.WithLabelValues(component)); healthy != 1 {
		t.Errorf("the shared metric says %v", healthy)
	}
	if err := s.Ping(cancelled(t)); err == nil {
		t.Error("no error")
	}
	got, err := testutil.GatherAndCount(registry, "dory_database_connections_active", "dory_database_query_duration_seconds",
		"dory_circuit_breaker_state", "dory_component_healthy", "dory_config_watcher_healthy", "dory_config_watcher_errors_total")
	if err != nil || got != 6 {
		t.Errorf("%d series, %v, want 6", got, err)
	}
	if _, err := New(cfg); err == nil {
		t.Error("a second Store took over the registry of the first")
	}
	s.Close()
	again, err := New(cfg)
	must(t, err)
	again.Close()
}

func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
