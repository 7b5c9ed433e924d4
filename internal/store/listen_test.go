package store

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dory-io/dory/internal/store/pgtest"
)

// listen runs Listen until the test ends, and checks that it then returns nil.
func listen(t *testing.T, s *Store) <-chan Change {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan Change, 1000)
	ended := make(chan error, 1)
	go func() { ended <- s.Listen(ctx, func(c Change) { changes <- c }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Listen: %v", err)
		}
		if healthy := testutil.ToFloat64(s.metrics.watcherHealthy); healthy != 0 {
			t.Errorf("healthy is %v after the end", healthy)
		}
	})
	return changes
}

func next(t *testing.T, changes <-chan Change) Change {
	t.Helper()
	select {
	case c := <-changes:
		return c
	case <-time.After(deadline):
		t.Fatal("no change was delivered")
		return Change{}
	}
}

func wantNext(t *testing.T, changes <-chan Change, want Change) {
	t.Helper()
	if diff := cmp.Diff(want, next(t, changes)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestListen(t *testing.T) {
	s, conn := open(t)
	changes := listen(t, s)
	wantNext(t, changes, Change{Resync: true})
	if healthy := testutil.ToFloat64(s.metrics.watcherHealthy); healthy != 1 {
		t.Errorf("healthy is %v", healthy)
	}
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "b", "a")
	wantNext(t, changes, Change{Processors: []string{"a", "b"}})
	exec(t, conn, `INSERT INTO edge_nodes (id, organization_id, name) VALUES ($1, $2, 'a')`, edgeA, organization)
	wantNext(t, changes, Change{EdgeNodes: []string{edgeA}})
	exec(t, conn, `TRUNCATE processors`)
	wantNext(t, changes, Change{Resync: true})
}

func TestListenIgnoresAndDistrusts(t *testing.T) {
	s, conn := open(t)
	changes := listen(t, s)
	wantNext(t, changes, Change{Resync: true})
	exec(t, conn, `SELECT pg_notify('dory_changes', '{"probe":"of another operator"}')`)
	exec(t, conn, `SELECT pg_notify('dory_changes', '{"from":"a newer schema"}')`)
	exec(t, conn, `SELECT pg_notify('dory_changes', 'no JSON')`)
	wantNext(t, changes, Change{Resync: true})
}

func TestListenConnectionCut(t *testing.T) {
	s, conn := open(t)
	changes := listen(t, s)
	wantNext(t, changes, Change{Resync: true})
	for range 3 {
		exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()`)
		wantNext(t, changes, Change{Resync: true})
	}
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "a")
	wantNext(t, changes, Change{Processors: []string{"a"}})
	if errors := testutil.ToFloat64(s.metrics.watcherErrors); errors != 3 {
		t.Errorf("%v errors counted, want 3", errors)
	}
}

func TestListenQuietConnectionStays(t *testing.T) {
	s, conn := open(t, func(c *Config) { c.ListenCheck = 2 * time.Second })
	changes := listen(t, s)
	wantNext(t, changes, Change{Resync: true})
	eventually(t, "the quiet connection is checked", func() bool {
		return value(t, conn, `SELECT count(*) FROM pg_stat_activity WHERE query = '-- ping' AND datname = current_database()`) == "1"
	})
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "a")
	wantNext(t, changes, Change{Processors: []string{"a"}})
	if errors := testutil.ToFloat64(s.metrics.watcherErrors); errors != 0 {
		t.Errorf("%v errors counted, want 0", errors)
	}
}

func TestListenSilentNetwork(t *testing.T) {
	url := server.NewDatabase(t)
	p := startProxy(t, server.Addr())
	s := openURL(t, url, func(c *Config) {
		c.DirectURL = strings.Replace(url, server.Addr(), p.addr(), 1)
		c.ListenCheck, c.QueryTimeout, c.ConnectTimeout = 2*time.Second, 2*time.Second, time.Second
	})
	changes := listen(t, s)
	wantNext(t, changes, Change{Resync: true})
	p.frozen.Store(true)
	eventually(t, "the silence is noticed", func() bool { return testutil.ToFloat64(s.metrics.watcherHealthy) == 0 })
	p.frozen.Store(false)
	wantNext(t, changes, Change{Resync: true})
}

func TestListenThroughAPooler(t *testing.T) {
	url := server.NewDatabase(t)
	p := startProxy(t, server.Addr())
	p.swallowNotifications.Store(true)
	s := openURL(t, url, func(c *Config) {
		c.DirectURL = strings.Replace(url, server.Addr(), p.addr(), 1)
		c.ListenCheck = time.Second
	})
	changes := listen(t, s)
	eventually(t, "two attempts fail", func() bool { return testutil.ToFloat64(s.metrics.watcherErrors) >= 2 })
	if healthy := testutil.ToFloat64(s.metrics.watcherHealthy); healthy != 0 || len(changes) != 0 {
		t.Errorf("healthy is %v, %d changes delivered", healthy, len(changes))
	}
	p.swallowNotifications.Store(false)
	wantNext(t, changes, Change{Resync: true})
}

func TestListenOutlivesTheServer(t *testing.T) {
	faulty := pgtest.Start(t)
	url := faulty.NewDatabase(t)
	s := openURL(t, url, func(c *Config) { c.BreakerOpen = 100 * time.Millisecond })
	must(t, faulty.Stop())
	changes := listen(t, s)
	eventually(t, "an attempt fails", func() bool { return testutil.ToFloat64(s.metrics.watcherErrors) >= 1 })
	for _, down := range []func() error{faulty.Stop, faulty.Kill} {
		must(t, faulty.Start())
		wantNext(t, changes, Change{Resync: true})
		must(t, down())
		eventually(t, "the loss is noticed", func() bool { return testutil.ToFloat64(s.metrics.watcherHealthy) == 0 })
	}
	must(t, faulty.Start())
	wantNext(t, changes, Change{Resync: true})
	conn := connect(t, url)
	insertTemplate(t, conn, "t")
	insertProcessors(t, conn, "t", "a")
	wantNext(t, changes, Change{Processors: []string{"a"}})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
