package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// startTimeout bounds one start, including the recovery after Kill.
const startTimeout = 60 * time.Second

// stopTimeout bounds an orderly stop, after which the server is killed.
const stopTimeout = 20 * time.Second

// startTries is how often a start is tried when another process took the port in between.
const startTries = 5

// Server is a private PostgreSQL server on 127.0.0.1. Its superuser is postgres, without a password.
type Server struct {
	binaries binaries
	dir      *dataDir
	port     int

	mu       sync.Mutex // guards the fields below, and orders Stop, Kill and Start
	process  *process
	database int

	template func() (string, error)
}

// Main runs a package's tests with a server, and stops it. It returns the exit code for os.Exit.
func Main(m *testing.M, server **Server) int {
	s, err := New()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return 1
	}
	defer s.Close()
	*server = s
	return m.Run()
}

// Start runs a server for one test, and stops it at the test's end.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s, err := New()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(s.Close)
	return s
}

// New makes and starts a server. Close ends it.
func New() (*Server, error) {
	dirs, err := binaryDirs()
	if err != nil {
		return nil, err
	}
	found, err := findBinaries(dirs)
	if err != nil {
		return nil, err
	}
	dir, err := newDataDir()
	if err != nil {
		return nil, err
	}
	s := &Server{binaries: found, dir: dir}
	s.template = sync.OnceValues(s.createTemplate)
	if err := errors.Join(s.initialize(), s.startOnFreePort()); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// URL is that of the server's maintenance database.
func (s *Server) URL() string { return s.DatabaseURL("postgres") }

// DatabaseURL is that of any database of the server.
func (s *Server) DatabaseURL(name string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", s.Addr(), name)
}

// Addr is the server's host and port, which it keeps over Stop, Kill and Start.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Start starts a stopped or killed server with its data, and waits until it answers.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return nil
	}
	return s.start()
}

// Stop shuts the server down as an administrator would: sessions are ended, data is written.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end(syscall.SIGINT)
}

// Kill ends the server as a crash would: nobody is told, and the next Start recovers.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end(syscall.SIGKILL)
}

// Close ends the server and removes its data.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	// SIGQUIT: the data goes anyway, so nothing needs to be written.
	if err := s.end(syscall.SIGQUIT); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
	}
	s.dir.remove()
}

func (s *Server) end(signal syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	err := s.process.end(signal, stopTimeout)
	s.process = nil
	return err
}

func (s *Server) initialize() error {
	args := []string{
		"--pgdata", s.dir.data(), "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8",
		"--no-sync", "--no-instructions",
	}
	// The program dies with the thread that starts it: keep ours until it has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	output, err := s.dir.command(s.binaries.initdb, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, output)
	}
	return nil
}

func (s *Server) startOnFreePort() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for range startTries {
		if s.port, err = freePort(); err != nil {
			return err
		}
		if err = s.start(); err == nil {
			return nil
		}
	}
	return err
}

func freePort() (int, error) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	address, err := netip.ParseAddrPort(listener.Addr().String())
	return int(address.Port()), errors.Join(err, listener.Close())
}

// start starts the process; after Kill it tries again while orphaned backends still hold the shared memory.
func (s *Server) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		p, err := startProcess(s.dir.command(s.binaries.postgres, s.arguments()...))
		if err != nil {
			return err
		}
		err = s.waitReady(ctx, p)
		if err == nil {
			s.process = p
			return nil
		}
		endErr := p.end(syscall.SIGQUIT, stopTimeout)
		if !p.logged("shared memory block", "lock file") || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("start PostgreSQL: %w\n%s", err, p.log()), endErr)
		}
		pause(ctx)
	}
}

func (s *Server) arguments() []string {
	settings := []string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(s.port), "unix_socket_directories=" + s.dir.sockets(),
		// The data need not survive the machine, but the process: a commit is written, only not to the disk.
		"fsync=off", "full_page_writes=off",
		"max_connections=200", "shared_buffers=32MB", "autovacuum_naptime=1h", "logging_collector=off",
		"log_line_prefix=%m [%p] %d ", "timezone=UTC",
	}
	args := []string{"-D", s.dir.data()}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	return args
}

// waitReady asks until the server answers, its process ends, or ctx does.
func (s *Server) waitReady(ctx context.Context, p *process) error {
	for {
		err := s.identify(ctx)
		if err == nil || errors.Is(err, errOtherServer) {
			return err
		}
		select {
		case <-p.ended:
			return errors.New("the server ended")
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", err)
		default:
			pause(ctx)
		}
	}
}

// errOtherServer says that somebody else's server got the port first.
var errOtherServer = errors.New("the port belongs to another server")

// identify connects and makes sure that the answer comes from our own server.
func (s *Server) identify(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // The answer is what counts.
	var dir string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir); err != nil {
		return err
	}
	if dir != s.dir.data() {
		return fmt.Errorf("%w: it serves %s", errOtherServer, dir)
	}
	return nil
}

// pause waits a moment between two questions to another process.
func pause(ctx context.Context) {
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// maxSocketPath is what fits sockaddr_un, minus the name of PostgreSQL's socket and its lock file.
const maxSocketPath = 107 - len("/.s.PGSQL.65535.lock")

// SocketDir holds the server's unix socket; empty if the temporary directory's path is too long for one.
func (s *Server) SocketDir() string { return s.dir.sockets() }

func (d *dataDir) sockets() string {
	if path := filepath.Join(d.path, "s"); len(path) <= maxSocketPath {
		return path
	}
	return ""
}
