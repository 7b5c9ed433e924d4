package process

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newManager(t *testing.T) Manager {
	t.Helper()
	dir := t.TempDir()
	m := Manager{Dir: filepath.Join(dir, "pids"), Logs: filepath.Join(dir, "logs")}
	t.Cleanup(func() {
		for _, name := range m.Known() {
			if err := m.Stop(context.Background(), name, syscall.SIGKILL, time.Second); err != nil {
				t.Error(err)
			}
		}
	})
	return m
}

func ensure(t *testing.T, m Manager, s Spec) *Started {
	t.Helper()
	started, err := m.Ensure(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return started
}

func TestEnsureRestartsOnlyWhatChanged(t *testing.T) {
	m := newManager(t)
	config := filepath.Join(t.TempDir(), "config")
	write := func(s string) {
		if err := os.WriteFile(config, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	spec := Spec{Name: "sleeper", Path: "/bin/sleep", Args: []string{"60"}, Files: []string{config}}
	if ensure(t, m, spec) == nil {
		t.Fatal("not started")
	}
	first, alive := m.Alive("sleeper")
	if !alive {
		t.Fatal("not alive")
	}
	if ensure(t, m, spec) != nil {
		t.Error("started a second time")
	}
	write("b")
	ensure(t, m, spec)
	second, alive := m.Alive("sleeper")
	if !alive || second == first {
		t.Errorf("pid %d after %d: a changed configuration needs a restart", second, first)
	}
}

func TestStopKillsWhatIgnoresTheSignal(t *testing.T) {
	m := newManager(t)
	ensure(t, m, Spec{Name: "stubborn", Path: "/bin/sh", Args: []string{"-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"}})
	waitFor(t, func() bool { return strings.Contains(Tail(m.LogFile("stubborn"), 1), "ready") })
	if err := m.Stop(t.Context(), "stubborn", syscall.SIGTERM, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, alive := m.Alive("stubborn"); alive || len(m.Known()) != 0 {
		t.Error("still known or alive")
	}
}

func TestExitIsSeen(t *testing.T) {
	m := newManager(t)
	started := ensure(t, m, Spec{Name: "failing", Path: "/bin/sh", Args: []string{"-c", "echo no such thing; exit 3"}})
	<-started.Exited
	if got := started.State(); got != "exit status 3" {
		t.Errorf("state %q", got)
	}
	if got := Tail(m.LogFile("failing"), 5); got != "no such thing" {
		t.Errorf("log %q", got)
	}
	if _, alive := m.Alive("failing"); alive {
		t.Error("dead is alive")
	}
}

func TestAnotherProcessWithTheSameIDIsNotOurs(t *testing.T) {
	m := newManager(t)
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.remember("old", os.Getpid(), ""); err != nil {
		t.Fatal(err)
	}
	if _, alive := m.Alive("old"); !alive {
		t.Fatal("this process is alive")
	}
	data, err := os.ReadFile(m.file("old"))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{`"start":`, `"boot":"`} {
		forged := strings.Replace(string(data), field, field+"1", 1)
		if err := os.WriteFile(m.file("old"), []byte(forged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, alive := m.Alive("old"); alive {
			t.Errorf("another %s is another process", field)
		}
	}
	_ = m.forget("old")
}

func TestParseStat(t *testing.T) {
	line := "42 (a b) c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 9001 0 0"
	start, state, err := parseStat(line)
	if err != nil || start != 9001 || state != "S" {
		t.Errorf("%d %q %v", start, state, err)
	}
	if _, _, err := parseStat("42 (x"); err == nil {
		t.Error("accepted nonsense")
	}
}

func TestMatches(t *testing.T) {
	cmdline := "/usr/bin/containerd-shim-runc-v2\x00-namespace\x00k8s.io\x00-address\x00/run/x.sock\x00"
	if !matches(cmdline, "containerd-shim-runc-v2", []string{"-address", "/run/x.sock"}) {
		t.Error("own shim not found")
	}
	for _, other := range []string{
		"/usr/bin/tail\x00-f\x00/run/x.sock\x00", "", "/usr/bin/containerd-shim-runc-v2\x00-address\x00/run/y.sock\x00",
	} {
		if matches(other, "containerd-shim-runc-v2", []string{"/run/x.sock"}) {
			t.Errorf("%q is not ours", other)
		}
	}
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited 5 s in vain")
		}
	}
}

func TestRunningProcessesAreFoundByDirectory(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/bin/sleep", "60")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if got := WorkingIn(dir); !Running(pid) || len(got) != 1 || got[0] != pid {
		t.Errorf("processes in %s: %v, want %d", dir, got, pid)
	}
	_ = cmd.Process.Kill()
	// Nobody has waited for it: it is a zombie now.
	waitFor(t, func() bool { return !Running(pid) })
	if got := WorkingIn(dir); len(got) != 0 {
		t.Errorf("ended, yet found: %v", got)
	}
	_ = cmd.Wait()
}
