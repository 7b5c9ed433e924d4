package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// victimVariable makes the test binary a process that starts a server and waits to be killed.
const victimVariable = "DORY_PGTEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victimVariable) != "" {
		os.Exit(victim())
	}
	os.Exit(m.Run())
}

func victim() int {
	s, err := New()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(s.process.cmd.Process.Pid, s.dir.path)
	_, _ = os.Stdin.Read(make([]byte, 1)) // until killed
	return 0
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !condition() {
		if ctx.Err() != nil {
			t.Fatalf("not in time: %s", what)
		}
		pause(ctx)
	}
}

func TestKilledTestLeavesNothing(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	if _, err := fmt.Sscan(line, &pid, &dir); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the server does not run: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the test binary was not killed")
	}
	eventually(t, "the server has ended", func() bool { return !running(pid) })
	// Another package's tests may be tidying up at the same moment, so it may take more than one call.
	eventually(t, dir+" is gone", func() bool {
		removeStale()
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist)
	})
}

// running says whether a process is there and not a zombie that its new parent has yet to bury.
func running(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && !strings.Contains(string(status), "State:\tZ")
}

func TestDataOutlivesStopAndKill(t *testing.T) {
	s := Start(t)
	url := s.NewDatabase(t)
	query(t, url, "CREATE TABLE kept (n int)")
	for name, down := range map[string]func() error{"Stop": s.Stop, "Kill": s.Kill} {
		query(t, url, "INSERT INTO kept VALUES (1)")
		if err := down(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := pgx.Connect(t.Context(), url); err == nil {
			t.Fatalf("%s: it still answers", name)
		}
		if err := errors.Join(down(), s.Start(), s.Start()); err != nil {
			t.Fatalf("%s, and start again: %v", name, err)
		}
	}
	if got := query(t, url, "SELECT count(*)::text FROM kept"); got != "2" {
		t.Errorf("%s rows, want 2", got)
	}
}

func TestDatabasesAreApart(t *testing.T) {
	s := Start(t)
	first, second, empty := s.NewDatabase(t), s.NewDatabase(t), s.NewEmptyDatabase(t)
	query(t, first, "INSERT INTO sensors (id) VALUES ('s')")
	if got := query(t, second, "SELECT count(*)::text FROM sensors"); got != "0" {
		t.Errorf("%s rows in another database", got)
	}
	if got := query(t, empty, "SELECT count(*)::text FROM pg_class WHERE relname = 'sensors'"); got != "0" {
		t.Error("the empty database is migrated")
	}
	viaSocket := strings.Replace(first, s.Addr(), "", 1) + "&host=" + s.SocketDir() + fmt.Sprintf("&port=%d", s.port)
	if got := query(t, viaSocket, "SELECT count(*)::text FROM sensors"); got != "1" {
		t.Errorf("%s rows through the socket", got)
	}
}

// query runs statements and returns the last one's value, if it has one.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var text string
	if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

func TestNoPostgreSQL(t *testing.T) {
	if _, err := findBinaries([]string{t.TempDir()}); err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") {
		t.Errorf("error %v", err)
	}
}

func TestOtherServerOnThePort(t *testing.T) {
	other, mine := Start(t), Start(t)
	mine.port = other.port
	if err := mine.identify(t.Context()); !errors.Is(err, errOtherServer) {
		t.Errorf("error %v", err)
	}
}
