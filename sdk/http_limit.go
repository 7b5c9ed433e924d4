package sdk

import (
	"sync"
	"time"
)

const (
	// requestsPerSecond of one client is the contract's limit. Probes count too.
	requestsPerSecond = 100
	// maxClients bounds the memory of the limiter; all others share one count.
	maxClients = 4096
)

// limiter counts the requests of each client in windows of a second, as long as what Retry-After tells them to wait.
type limiter struct {
	mu     sync.Mutex
	since  time.Time
	counts map[string]int
}

func newLimiter() *limiter {
	return &limiter{counts: make(map[string]int)}
}

func (l *limiter) allow(client string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= time.Second {
		l.since = now
		clear(l.counts)
	}
	if _, known := l.counts[client]; !known && len(l.counts) >= maxClients {
		client = ""
	}
	l.counts[client]++
	return l.counts[client] <= requestsPerSecond
}
