package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	t.Setenv("DORY_CLUSTER_STATE", "/from/environment")
	o, rest, err := parseOptions("up", []string{"--api-port", "7443", "--bin", "/x/bin", "--node-monitor-grace-period=5s"})
	if err != nil || len(rest) != 0 {
		t.Fatal(err, rest)
	}
	if o.APIPort != 7443 || o.DatabasePort != 5432 || o.NodeGrace != 5*time.Second || o.State != "/from/environment" {
		t.Errorf("%+v", o)
	}
	t.Setenv("DORY_CLUSTER_STATE", "")
	if o, _, _ := parseOptions("status", []string{"--bin", "/x/bin"}); o.State != "/x/.run/cluster" {
		t.Errorf("default state directory %q", o.State)
	}
	for _, bad := range []string{"0", "65535", "-1", "http"} {
		if _, _, err := parseOptions("up", []string{"--api-port", bad}); err == nil {
			t.Errorf("--api-port %s was taken", bad)
		}
	}
}

func TestStateDirectoryOfSomethingElseIsRefused(t *testing.T) {
	c := testCluster(t)
	if err := c.checkStateDir(); err != nil {
		t.Errorf("absent: %v", err)
	}
	if err := os.MkdirAll(c.options.State, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := c.checkStateDir(); err != nil {
		t.Errorf("empty: %v", err)
	}
	if err := os.WriteFile(filepath.Join(c.options.State, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.checkStateDir(); err == nil || !strings.Contains(err.Error(), "not a cluster's") {
		t.Errorf("somebody's files: %v", err)
	}
	if err := c.options.save(); err != nil {
		t.Fatal(err)
	}
	if err := c.checkStateDir(); err != nil {
		t.Errorf("a cluster's: %v", err)
	}
	c.options.Subnet = "10.91.0.0/16"
	if err := c.checkStateDir(); err == nil || !strings.Contains(err.Error(), "10.90.0.0/16") {
		t.Errorf("another subnet: %v", err)
	}
}

func TestOptionsSurvive(t *testing.T) {
	c := testCluster(t)
	if err := c.options.save(); err != nil {
		t.Fatal(err)
	}
	again := options{State: c.options.State}
	if err := again.load(); err != nil || again.APIPort != 7443 || again.NodeGrace != 12*time.Second {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestUnchangedFilesAreNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "file")
	if err := writeFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1000, 0)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || !info.ModTime().Equal(old) {
		t.Errorf("written although unchanged (%v)", err)
	}
}

func TestParallelReturnsTheFirstFailure(t *testing.T) {
	cause := errors.New("cause")
	err := parallel(t.Context(),
		func(ctx context.Context) error { <-ctx.Done(); return errors.New("consequence") },
		func(context.Context) error { return cause },
	)
	if !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	if err := parallel(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Errorf("success: %v", err)
	}
}

func TestPollTellsWhatWasWrongLast(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("not healthy after 20ms"))
	defer cancel()
	err := poll(ctx, time.Millisecond, func(context.Context) error { return errors.New("connection refused") })
	if err == nil || !strings.Contains(err.Error(), "not healthy after 20ms") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestStrayFilesOfOthersStay(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"ours": `{"sandbox":"/run/dory-cluster/nodes/x/netns/1"}`, "theirs": `{"sandbox":"/run/netns/2"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := resultsFor(dir, "/run/dory-cluster"); len(got) != 1 || filepath.Base(got[0]) != "ours" {
		t.Errorf("results %q", got)
	}
	for name, target := range map[string]string{"a.log": "/run/dory-cluster/state/x.log", "b.log": "/var/log/pods/x.log"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := linksInto(dir, "/run/dory-cluster/state"); err != nil || len(got) != 1 || filepath.Base(got[0]) != "a.log" {
		t.Errorf("links %q, %v", got, err)
	}
	if got, err := linksInto(dir+"/absent", "/x"); err != nil || got != nil {
		t.Errorf("absent directory: %q, %v", got, err)
	}
}
