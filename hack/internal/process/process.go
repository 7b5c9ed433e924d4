// Package process starts programs that outlive the one that started them, and finds, judges and stops them again.
package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Spec is a program to run.
type Spec struct {
	Name string
	Path string
	Args []string
	// Env is added to a minimal environment: what a developer has exported must not change the cluster.
	Env []string
	// Files are the configuration files that the program reads only at its start: it is restarted when they change.
	Files []string
	// Credential is the user to run as; nil is the caller.
	Credential *syscall.Credential
	// Capabilities are kept although the user is not root.
	Capabilities []uintptr
}

// Manager remembers processes by name, in files under Dir, and keeps their output under Logs.
type Manager struct {
	Dir  string
	Logs string
}

// record is what is on disk about a process. Start and Boot tell it from another process that got the same id later.
type record struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
	Boot  string `json:"boot"`
	Hash  string `json:"hash"`
}

// Started is a process that this call has started; Exited is closed when it ends. It is nil for one that ran already.
type Started struct {
	Name   string
	Exited <-chan struct{}
	State  func() string
}

// Ensure starts the program unless it runs with the same arguments, binary and files; one that differs is stopped first.
func (m Manager) Ensure(ctx context.Context, s Spec) (*Started, error) {
	hash, err := s.hash()
	if err != nil {
		return nil, err
	}
	if old, alive := m.find(s.Name); alive {
		if old.Hash == hash {
			return nil, nil
		}
		if err := m.Stop(ctx, s.Name, syscall.SIGTERM, 15*time.Second); err != nil {
			return nil, err
		}
	}
	return m.start(s, hash)
}

// Alive says whether the named process runs, and its id.
func (m Manager) Alive(name string) (int, bool) {
	r, alive := m.find(name)
	return r.PID, alive
}

// Known lists the names of all processes that were started and not stopped, alive or not.
func (m Manager) Known() []string {
	files, _ := filepath.Glob(filepath.Join(m.Dir, "*.json")) //nolint:errcheck // the pattern is well-formed
	names := make([]string, 0, len(files))
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".json"))
	}
	return names
}

// Signal sends a signal to the named process, and does nothing when it does not run.
func (m Manager) Signal(name string, signal syscall.Signal) error {
	r, alive := m.find(name)
	if !alive {
		return nil
	}
	if err := syscall.Kill(r.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %s to %s (pid %d): %w", signal, name, r.PID, err)
	}
	return nil
}

// Stop signals the named process, kills it if it has not gone after the grace period, and forgets it.
func (m Manager) Stop(ctx context.Context, name string, signal syscall.Signal, grace time.Duration) error {
	for _, s := range []syscall.Signal{signal, syscall.SIGKILL} {
		if err := m.Signal(name, s); err != nil {
			return err
		}
		// A stopped process would never see the signal.
		if err := m.Signal(name, syscall.SIGCONT); err != nil {
			return err
		}
		if m.gone(ctx, name, grace) {
			return m.forget(name)
		}
	}
	pid, _ := m.Alive(name)
	return fmt.Errorf("%s (pid %d) has not ended %s after SIGKILL: it waits in the kernel, see /proc/%d/stack", name, pid, grace, pid)
}

// LogFile is where the named process writes.
func (m Manager) LogFile(name string) string { return filepath.Join(m.Logs, name+".log") }

func (m Manager) file(name string) string { return filepath.Join(m.Dir, name+".json") }

func (m Manager) forget(name string) error {
	if err := os.Remove(m.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget %s: %w", name, err)
	}
	return nil
}

func (m Manager) gone(ctx context.Context, name string, within time.Duration) bool {
	deadline := time.Now().Add(within)
	for {
		if _, alive := m.find(name); !alive {
			return true
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (m Manager) find(name string) (record, bool) {
	var r record
	data, err := os.ReadFile(m.file(name))
	if err != nil || json.Unmarshal(data, &r) != nil || r.PID <= 1 || r.Boot != bootID() {
		return r, false
	}
	start, running := startTime(r.PID)
	return r, running && start == r.Start
}

func (m Manager) start(s Spec, hash string) (*Started, error) {
	for _, dir := range []string{m.Dir, m.Logs} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // logs are for everybody to read
			return nil, fmt.Errorf("make %s: %w", dir, err)
		}
	}
	log, err := os.OpenFile(m.LogFile(s.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644) //nolint:gosec // as above
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", s.Name, err)
	}
	defer func() { _ = log.Close() }()
	// Not CommandContext: the process is to outlive this program.
	cmd := exec.Command(s.Path, s.Args...) //nolint:gosec,noctx // which program is the caller's choice
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, s.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: s.Credential, AmbientCaps: s.Capabilities}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	started := watch(cmd, s.Name)
	return started, m.remember(s.Name, cmd.Process.Pid, hash)
}

func watch(cmd *exec.Cmd, name string) *Started {
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the state says what there is to know
		close(exited)
	}()
	return &Started{Name: name, Exited: exited, State: func() string { return cmd.ProcessState.String() }}
}

func (m Manager) remember(name string, pid int, hash string) error {
	start, _ := startTime(pid)
	data, err := json.Marshal(record{PID: pid, Start: start, Boot: bootID(), Hash: hash})
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.file(name), data, 0o644); err != nil { //nolint:gosec // for everybody to read
		return fmt.Errorf("remember %s (pid %d): %w", name, pid, err)
	}
	return nil
}

// hash covers arguments, contents of the configuration and identity of the binary.
func (s Spec) hash() (string, error) {
	h := sha256.New()
	info, err := os.Stat(s.Path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", s.Name, err)
	}
	fmt.Fprintf(h, "%s %d %d %q %q %v", s.Path, info.Size(), info.ModTime().UnixNano(), s.Args, s.Env, s.Capabilities) //nolint:errcheck // a hash takes everything
	for _, file := range s.Files {
		if err := hashFile(h, file); err != nil {
			return "", fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hashFile(h io.Writer, file string) error {
	f, err := os.Open(file) //nolint:gosec // the cluster's own configuration
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(h, f)
	return err
}
