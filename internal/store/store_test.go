package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestNewRefusesBadURLs(t *testing.T) {
	for name, cfg := range map[string]Config{
		"empty":      {},
		"no URL":     {URL: "postgres://user:secret@host:port/db"},
		"bad mode":   {URL: "postgres://user:secret@host/db?default_query_exec_mode=fast"},
		"bad direct": {URL: "postgres://host/db", DirectURL: "postgres://user:secret@host:port/db"},
	} {
		s, err := New(cfg)
		if err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: shows the password: %v", name, err)
		}
	}
}

func TestNewDoesNotConnect(t *testing.T) {
	s := openURL(t, "postgres://nobody@127.0.0.1:1/nothing")
	for name, call := range map[string]func(context.Context) error{
		"Ping":    s.Ping,
		"Migrate": s.Migrate,
		"List":    func(ctx context.Context) error { _, err := s.ListProcessors(ctx); return err },
		"Epoch":   func(ctx context.Context) error { _, err := s.Epoch(ctx, "p"); return err },
		"Issue":   func(ctx context.Context) error { _, err := s.IssueEpoch(ctx, "p", 0, "pod"); return err },
	} {
		if err := call(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigMeetsURL(t *testing.T) {
	cases := map[string]struct {
		cfg     Config
		conns   int32
		timeout time.Duration
		appName string
	}{
		"defaults":   {Config{URL: "postgres://h/d"}, DefaultMaxConns, DefaultConnectTimeout, applicationName},
		"of the URL": {Config{URL: "postgres://h/d?pool_max_conns=3&connect_timeout=7&application_name=x"}, 3, 7 * time.Second, "x"},
		"of Config":  {Config{URL: "postgres://h/d?pool_max_conns=3&connect_timeout=7", MaxConns: 2, ConnectTimeout: time.Second}, 2, time.Second, applicationName},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, err := New(c.cfg)
			must(t, err)
			defer s.Close()
			got := s.pool.Config()
			if got.MaxConns != c.conns || got.ConnConfig.ConnectTimeout != c.timeout || got.ConnConfig.RuntimeParams["application_name"] != c.appName {
				t.Errorf("%d connections, %s, %q", got.MaxConns, got.ConnConfig.ConnectTimeout, got.ConnConfig.RuntimeParams["application_name"])
			}
		})
	}
}

// TestQueryModes runs every statement in every mode of pgx: a pooler needs one that prepares nothing.
func TestQueryModes(t *testing.T) {
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			url := server.NewDatabase(t)
			s := openURL(t, url+"&default_query_exec_mode="+mode, func(c *Config) { c.MaxConns = 1 })
			conn := connect(t, url)
			exec(t, conn, feedFixture)
			for range 2 {
				must(t, callEverything(t.Context(), s))
			}
			prepared := value(t, s.poolConn(t), `SELECT count(*) FROM pg_prepared_statements`)
			if named := mode == "cache_statement"; (prepared != "0") != named {
				t.Errorf("%s statements stay prepared", prepared)
			}
		})
	}
}

// poolConn takes the connection of a pool of one.
func (s *Store) poolConn(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := s.pool.Acquire(t.Context())
	must(t, err)
	t.Cleanup(conn.Release)
	return conn.Conn()
}

func callEverything(ctx context.Context, s *Store) error {
	kubernetes := []KubernetesProcessor{{ID: "k1", Namespace: "default", Name: "k1", Image: "it's", NodeType: NodeTypeManaged}, {ID: "p1", Namespace: "n", Name: "x"}}
	rows, err1 := s.ListProcessors(ctx)
	got, err2 := s.GetProcessors(ctx, []string{"p1", "it's", `"{a,b}`})
	_, err3 := s.CountProcessors(ctx)
	_, err5 := s.ListEdgeNodes(ctx)
	nodes, err6 := s.GetEdgeNodes(ctx, []string{edgeA})
	_, err7 := s.SetSyncErrors(ctx, map[string]string{"p1": `it's {"bad", \n}`, "p2": ""})
	_, err8 := s.SetEdgeNodeSyncErrors(ctx, map[string]string{edgeA: "bad"})
	_, err9 := s.UpdateStatuses(ctx, []ProcessorStatus{{ID: "p1", HealthStatus: "NULL", CheckedAt: time.Now(), Epoch: time.Now().UnixNano()}, {ID: "p2", Phase: "x"}})
	conflicts, err10 := s.UpsertKubernetesProcessors(ctx, kubernetes)
	listed, err11 := s.ListKubernetesProcessors(ctx)
	err12 := s.TerminateKubernetesProcessors(ctx, kubernetes)
	epoch, err13 := s.IssueEpoch(ctx, "p1", 7, "pod")
	stored, err14 := s.Epoch(ctx, "p1")
	err := errors.Join(err1, err2, err3, err5, err6, err7, err8, err9, err10, err11, err12, err13, err14, s.Ping(ctx))
	if err == nil && (len(rows) < 3 || len(got) != 1 || len(nodes) != 1 || len(conflicts) != 1 || len(listed) != 1 || epoch < 8 || stored != epoch) {
		err = fmt.Errorf("%d rows, %d by id, %d nodes, %d conflicts, %d listed, epoch %d, stored %d",
			len(rows), len(got), len(nodes), len(conflicts), len(listed), epoch, stored)
	}
	return err
}

func TestClassify(t *testing.T) {
	code := func(c string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: c}) }
	cases := []struct {
		err  error
		want errorKind
	}{
		{nil, kindNone},
		{fmt.Errorf("wrapped: %w", pgx.ErrNoRows), kindNone},
		{context.Canceled, kindCancelled},
		{context.DeadlineExceeded, kindTimeout},
		{code("57014"), kindTimeout},    // query_canceled
		{code("57P01"), kindConnection}, // admin_shutdown
		{code("57P03"), kindConnection}, // cannot_connect_now
		{code("53300"), kindConnection}, // too_many_connections
		{code("28P01"), kindConnection}, // invalid_password
		{code("3D000"), kindConnection}, // invalid_catalog_name
		{code("25006"), kindConnection}, // read_only_sql_transaction
		{code("XX000"), kindConnection}, // internal_error
		{code("23505"), kindConstraint}, // unique_violation
		{code("23514"), kindConstraint}, // check_violation
		{code("22P02"), kindStatement},  // invalid_text_representation
		{code("40P01"), kindConflict},   // deadlock_detected
		{code("42P01"), kindStatement},  // undefined_table
		{code(""), kindStatement},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, kindConnection},
		{io.ErrUnexpectedEOF, kindConnection},
		{errors.New("cannot scan"), kindStatement},
	}
	for _, c := range cases {
		if got := classify(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

func TestPreparedStatementsBehindAPooler(t *testing.T) {
	s, _ := open(t)
	err := s.run(t.Context(), "test", deadline, func(context.Context) error { return &pgconn.PgError{Code: "42P05"} })
	wantContains(t, err, "default_query_exec_mode=exec", "42P05")
}

func TestEachOutcomeOfAStatementIsNamed(t *testing.T) {
	s, _ := open(t)
	_, err := s.IssueEpoch(t.Context(), "bad\x00id", 0, "pod")
	wantContains(t, err, "issue_epoch", `"bad\x00id"`)
	if errors.Is(err, ErrUnavailable) {
		t.Errorf("an odd id is no outage: %v", err)
	}
}

func TestAFailedMigrationIsSeenInTheMetrics(t *testing.T) {
	s := openURL(t, "postgres://nobody@127.0.0.1:1/nothing")
	s.metrics.componentHealthy.WithLabelValues(component).Set(1)
	if err := s.Migrate(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	if healthy := testutil.ToFloat64(s.metrics.componentHealthy.WithLabelValues(component)); healthy != 0 {
		t.Errorf("dory_component_healthy is %g, want 0", healthy)
	}
}
