package sdk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// childVariable makes the test's binary a processor: its value is the mode.
const childVariable = "DORY_SDK_TEST_CHILD"

// What a child prints besides numbers.
const (
	begun     = -1
	waitedFor = -2
)

// childPatience ends a child that does not do what its test waits for, so that no test waits for ever.
const childPatience = 3 * time.Minute

// childMain counts as fast as it can and prints each committed number once it is committed.
func childMain() int {
	options := map[string][]Option{
		"fast":      nil,
		"saving":    {WithSaveInterval(50 * time.Millisecond)},
		"impatient": {WithShutdownTimeout(time.Second)},
		"waiting":   nil, // Each iteration prints begun, waits for somebody else to wait for it, prints waited for, and waits for a byte.
		"paced":     {WithInterval(200 * time.Microsecond), WithSaveInterval(20 * time.Millisecond)},
	}
	p, err := New(options[os.Getenv(childVariable)]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	n := Var(p, "n", int64(0))
	gate := func(context.Context) {}
	if os.Getenv(childVariable) == "waiting" {
		gate = func(ctx context.Context) {
			fmt.Println(begun)
			<-Yield(ctx)
			fmt.Println(waitedFor)
			_, _ = os.Stdin.Read(make([]byte, 1))
		}
	}
	err = p.Run(context.Background(), func(ctx context.Context) error {
		gate(ctx)
		fmt.Println(n.Get())
		n.Set(n.Get() + 1)
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is a processor in a process of its own, with its state in a file.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
	gate  io.Writer
	n     int64  // The number read last.
	host  string // Its address and port.
}

// children numbers the addresses: each child has one of its own, so that no other program takes its port meanwhile.
var children atomic.Int32

func childAddress() string {
	n := children.Add(1)
	pid := os.Getpid()
	return net.IPv4(127, byte(2+n%250), byte(pid>>8), byte(pid)).String()
}

// startChild starts one as the PRIMARY of epoch 1, unless the environment says otherwise.
func startChild(t *testing.T, mode, path string, env ...string) *child {
	t.Helper()
	address := childAddress()
	port := strconv.Itoa(freePort(t, address))
	c := &child{t: t, host: net.JoinHostPort(address, port)}
	ctx, cancel := context.WithTimeout(t.Context(), childPatience)
	t.Cleanup(cancel)
	c.cmd = exec.CommandContext(ctx, os.Args[0]) //nolint:gosec // The test itself.
	c.cmd.Env = []string{
		childVariable + "=" + mode, "PROCESSOR_ID=p-1", "DORY_EPOCH=1", "DORY_STATE_BACKEND=local", "DORY_STATE_PATH=" + path,
		"DORY_BIND_ADDRESS=" + address, "DORY_HEALTH_PORT=" + port,
		"GORACE=atexit_sleep_ms=0",
	}
	c.cmd.Env = append(c.cmd.Env, env...)
	c.cmd.Stderr = t.Output()
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.gate, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	c.lines = bufio.NewScanner(out)
	return c
}

func listenOn(t *testing.T, address string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func freePort(t *testing.T, address string) int {
	t.Helper()
	l := listenOn(t, net.JoinHostPort(address, "0"))
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// read returns the next number.
func (c *child) read() int64 {
	c.t.Helper()
	if !c.scan() {
		c.t.Fatalf("no output: %v", c.lines.Err())
	}
	return c.n
}

func (c *child) scan() bool {
	c.t.Helper()
	if !c.lines.Scan() {
		return false
	}
	var err error
	if c.n, err = strconv.ParseInt(c.lines.Text(), 10, 64); err != nil {
		c.t.Fatal(err)
	}
	return true
}

func (c *child) readUntil(n int64) {
	c.t.Helper()
	for c.read() < n {
	}
}

// readUntilSaved waits for the first save.
func (c *child) readUntilSaved(path string) {
	c.t.Helper()
	for saved := false; !saved; c.read() {
		_, err := os.Stat(path)
		saved = err == nil
	}
}

// last reads to the end and returns the last number and the exit code.
func (c *child) last() (n int64, code int) {
	c.t.Helper()
	for c.scan() {
	}
	var exit *exec.ExitError
	if err := c.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return c.n, c.cmd.ProcessState.ExitCode()
}

func (c *child) signal(s os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

func savedN(t *testing.T, path string) int64 {
	t.Helper()
	doc, err := LocalBackend(path).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return doc.Metadata.Sequence
}

// Trap 4: SIGTERM with a fast loop exits 0 and saves nothing. Here the successor goes on where it stopped.
func TestTrap4SIGTERMSaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	next := int64(0)
	for range 3 {
		c := startChild(t, "fast", path)
		if first := c.read(); first != next {
			t.Fatalf("started at %d, want %d: iterations were lost or repeated", first, next)
		}
		c.readUntil(next + 100)
		c.signal(syscall.SIGTERM)
		last, code := c.last()
		if code != 0 {
			t.Fatalf("exit code %d", code)
		}
		next = last + 1
	}
	if got := savedN(t, path); got != next {
		t.Errorf("sequence %d is saved, want %d", got, next)
	}
}

func TestPreStopSavesThenTheProcessExitsZeroByItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	c := startChild(t, "fast", path)
	c.readUntil(100)
	answered := make(chan string, 1)
	savedAt := make(chan int64, 1)
	go func() {
		code, body := c.prestop()
		savedAt <- savedN(t, path) // It answered, so it is saved.
		answered <- fmt.Sprint(code, " ", body)
	}()
	last, exit := c.last()
	if got := <-answered; got != `200 {"status":"ok","message":"State saved"}` {
		t.Errorf("/prestop: %s", got)
	}
	if saved := <-savedAt; exit != 0 || saved != last+1 {
		t.Errorf("exit code %d; sequence %d is saved, want %d", exit, saved, last+1)
	}
}

func TestPreStopThatCannotSaveAnswers500AndExitsNotZero(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	c := startChild(t, "impatient", filepath.Join(dir, "state.json"))
	c.readUntil(1)
	// Nobody can make a directory where a file is, root included.
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	answered := make(chan string, 1)
	go func() {
		code, body := c.prestop()
		answered <- fmt.Sprint(code, " ", body)
	}()
	_, exit := c.last()
	if got := <-answered; exit != 1 || !strings.HasPrefix(got, "500 ") || !strings.Contains(got, "NOT saved") {
		t.Errorf("exit code %d, answer %s", exit, got)
	}
}

// prestop needs somebody to read the child's output meanwhile, or the iteration in hand may wait for a full pipe.
func (c *child) prestop() (code int, body string) {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, "http://"+c.host+"/prestop", nil)
	if err != nil {
		c.t.Error(err)
		return 0, ""
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Error(err)
	}
	return response.StatusCode, string(text)
}

// Trap 8: a crash loses what was done since the last save, and nothing else.
func TestTrap8KillLosesNoMoreThanTheSaveInterval(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	c := startChild(t, "saving", path)
	c.readUntilSaved(path)
	c.readUntil(c.n + 100)
	c.signal(syscall.SIGKILL)
	last, code := c.last()
	saved := savedN(t, path)
	if code != -1 || saved == 0 || saved > last+1 {
		t.Fatalf("exit code %d; sequence %d is saved, the last line is %d", code, saved, last)
	}
	successor := startChild(t, "fast", path)
	if first := successor.read(); first != saved {
		t.Errorf("the successor started at %d, the state says %d", first, saved)
	}
	successor.signal(syscall.SIGTERM)
	successor.last()
}

func TestKillLeavesTheLastStateIntact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	for range 5 {
		c := startChild(t, "saving", path)
		c.readUntilSaved(path)
		c.readUntil(c.n + 5_000)
		c.signal(syscall.SIGKILL)
		c.last()
		savedN(t, path) // Fails if it is damaged.
	}
}

func TestPortTaken(t *testing.T) {
	l := listenOn(t, ":0")
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	p, err := New(environ("DORY_HEALTH_PORT", port))
	if err != nil {
		t.Fatal(err)
	}
	err = p.Run(t.Context(), nothing)
	if err == nil || !strings.Contains(err.Error(), "port "+port+" (DORY_HEALTH_PORT)") || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Run: %v", err)
	}
}
