package processkubelet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// addresses hands out loopback addresses that no other test of this machine uses: 127.a.b.1 to 127.a.b.250 for pods, and
// the same of 127.a.b+1 for the processes behind them.
type addresses struct {
	lock net.Listener
	a, b int

	mu     sync.Mutex
	next   int
	next16 int
	used   map[int]bool
}

const (
	// lockPort is listened on to say that a range is taken.
	lockPort = "20211"
	lastHost = 250
)

func reserveAddresses(ctx context.Context) (*addresses, error) {
	var errs []error
	for range 20 {
		a, b := 128+rand.IntN(100), 2*rand.IntN(127)
		var config net.ListenConfig
		lock, err := config.Listen(ctx, "tcp4", net.JoinHostPort(fmt.Sprintf("127.%d.%d.254", a, b), lockPort))
		if err == nil {
			return &addresses{lock: lock, a: a, b: b, used: map[int]bool{}}, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("finding loopback addresses: %w", errors.Join(errs...))
}

func (s *addresses) close() {
	_ = s.lock.Close() // nothing was ever sent through it
}

// address is a pod's, and that of the process behind it.
type address struct {
	host         int
	pod, process string
}

// take answers the address that has been free for the longest time.
func (s *addresses) take() (address, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range lastHost {
		s.next = s.next%lastHost + 1
		if !s.used[s.next] {
			s.used[s.next] = true
			return address{
				host: s.next,
				pod:  fmt.Sprintf("127.%d.%d.%d", s.a, s.b, s.next), process: fmt.Sprintf("127.%d.%d.%d", s.a, s.b+1, s.next),
			}, nil
		}
	}
	return address{}, fmt.Errorf("more than %d pods at once", lastHost)
}

func (s *addresses) give(a address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.used, a.host)
}

// pretended is an address of a pod without a process. Nobody listens there.
func (s *addresses) pretended() address {
	s.mu.Lock()
	defer s.mu.Unlock()
	const most = 60000
	s.next16 = s.next16%most + 1
	return address{pod: fmt.Sprintf("127.127.%d.%d", s.next16>>8, s.next16&0xff)}
}

// Port finds a port that is free on every address of this machine, for pods to listen on: one that something listens on at
// all addresses is taken at theirs, too.
func Port(tb TB) int32 {
	tb.Helper()
	const lowest, count = 21000, 9000 // Below where Linux takes the ports of outgoing connections from.
	for range 100 {
		port := lowest + rand.IntN(count)
		var config net.ListenConfig
		listener, err := config.Listen(context.Background(), "tcp", ":"+strconv.Itoa(port))
		if err == nil {
			_ = listener.Close()
			return int32(port)
		}
	}
	tb.Fatalf("processkubelet: no free port")
	return 0
}
