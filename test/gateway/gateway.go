// Package gateway leads an envtest API server to a Service's pods, where there are no pods and no kube-proxy: the API
// server's own connections into the cluster, those to webhooks among them, go through it. So a webhook is asked as the
// shipped manifests say, by its Service's name, and replicas can come, go and be cut off.
package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Gateway accepts the API server's connections and hands each to one replica.
type Gateway struct {
	listener net.Listener
	config   string
	wg       sync.WaitGroup

	mu       sync.Mutex
	replicas []string
	turn     int
	open     map[*pair]struct{}
	accepted int
}

// pair is one connection, both ends of it.
type pair struct{ api, replica net.Conn }

func (p *pair) close() {
	_ = p.api.Close()
	_ = p.replica.Close()
}

// egress is the API server's configuration; see its flag --egress-selector-config-file.
const egress = `apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport: {uds: {udsName: %s}}
`

// New listens in a directory, whose path must be short: it holds a socket.
func New(dir string) (*Gateway, error) {
	socket := filepath.Join(dir, "gateway")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening for the API server: %w", err)
	}
	g := &Gateway{listener: listener, config: filepath.Join(dir, "egress.yaml"), open: map[*pair]struct{}{}}
	if err := os.WriteFile(g.config, fmt.Appendf(nil, egress, socket), 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	g.wg.Go(g.accept)
	return g, nil
}

// Configure has an API server use the gateway from its next start on.
func (g *Gateway) Configure(api *envtest.APIServer) {
	api.Configure().Set("egress-selector-config-file", g.config)
}

// Serve sets the replicas that new connections go to, as addresses. Those that do not accept are passed over, as after
// kube-proxy has heard of their end.
func (g *Gateway) Serve(replicas ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.replicas = slices.Clone(replicas)
}

// Cut closes every connection, as when a replica's machine loses its power and another's network is mended.
func (g *Gateway) Cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.open {
		p.close()
	}
}

// Accepted is how many connections there have been.
func (g *Gateway) Accepted() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.accepted
}

// Close ends everything.
func (g *Gateway) Close() error {
	err := g.listener.Close()
	g.Cut()
	g.wg.Wait()
	return err
}

func (g *Gateway) accept() {
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			return // It was closed.
		}
		g.wg.Go(func() {
			if err := g.connect(conn); err != nil {
				_, err = fmt.Fprintf(conn, "HTTP/1.1 503 %v\r\n\r\n", err)
				_ = errors.Join(err, conn.Close())
			}
		})
	}
}

// connect answers CONNECT, and carries bytes to and fro until one end closes.
func (g *Gateway) connect(api net.Conn) error {
	request, err := http.ReadRequest(bufio.NewReader(api))
	if err != nil || request.Method != http.MethodConnect {
		return fmt.Errorf("no CONNECT (%w)", err)
	}
	replica, err := g.dial()
	if err != nil {
		return err
	}
	p := &pair{api: api, replica: replica}
	g.keep(p)
	defer g.forget(p)
	if _, err := io.WriteString(api, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return nil // The API server has gone.
	}
	g.wg.Go(func() { carry(p, replica, api) })
	carry(p, api, replica)
	return nil
}

// carry ends both directions with the first.
func carry(p *pair, to, from net.Conn) {
	_, err := io.Copy(to, from)
	_ = err // Either end may close at any time.
	p.close()
}

func (g *Gateway) dial() (net.Conn, error) {
	g.mu.Lock()
	replicas := slices.Clone(g.replicas)
	g.turn++
	turn := g.turn
	g.mu.Unlock()
	for i := range replicas {
		conn, err := net.Dial("tcp", replicas[(turn+i)%len(replicas)]) //nolint:noctx // loopback answers at once
		if err == nil {
			return conn, nil
		}
	}
	return nil, errors.New("no endpoint")
}

func (g *Gateway) keep(p *pair) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open[p] = struct{}{}
	g.accepted++
}

func (g *Gateway) forget(p *pair) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, p)
}
