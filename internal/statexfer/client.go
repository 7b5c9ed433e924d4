package statexfer

import (
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"k8s.io/utils/clock"
)

const (
	// requestTimeout is the contract's, for a request with its answer.
	requestTimeout = 30 * time.Second
	// dialTimeout is what a connection may take. The address of a pod whose node died answers nothing at all.
	dialTimeout = 5 * time.Second
	// idleTimeout of a connection is for the next step of a move, which follows soon. Checkpoints are further apart, and
	// a connection to each of thousands of processors would take 20 KiB all the time to save 0.1 ms at each.
	idleTimeout = 10 * time.Second
	// maxHeaderBytes of an answer.
	maxHeaderBytes = 64 << 10
)

// Endpoint is where a processor is reached.
type Endpoint struct {
	// URL is scheme, host and port, such as http://10.0.0.7:8080.
	URL string
	// Token is the processor's DORY_STATE_TOKEN, or empty where it has none.
	Token string
}

// ClientConfig is what a Client gets from outside. The zero value stands for the real things.
type ClientConfig struct {
	// Transport carries the requests. The default is made for many processors on one network: no proxy, no compression.
	Transport http.RoundTripper
	Clock     clock.WithTicker
	// Random is at least 0 and less than 1, and spreads retries.
	Random func() float64
}

// Client talks to processors as the contract says, about state and its handoff. It follows no redirects, and tries
// again what is safe to repeat: after 1 s, twice as long each time up to 30 s, for as long as the caller's context
// lasts, but not more than maxTries times. All of its methods may be called at the same time.
type Client struct {
	http   http.Client
	clock  clock.WithTicker
	random func() float64
}

// NewClient is ready for use. One Client is for all processors, because it keeps their connections.
func NewClient(config ClientConfig) *Client {
	if config.Transport == nil {
		config.Transport = newTransport()
	}
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	if config.Random == nil {
		config.Random = rand.Float64
	}
	return &Client{
		http: http.Client{
			Transport:     config.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		clock:  config.Clock,
		random: config.Random,
	}
}

// newTransport leaves Proxy and MaxIdleConns at none: a pod is reached directly, and idleTimeout bounds what is kept. So
// it does with the sizes of buffers, which large bodies do not go through.
func newTransport() *http.Transport {
	dialer := net.Dialer{Timeout: dialTimeout}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}
