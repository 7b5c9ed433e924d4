package checkpoint

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/dory-io/dory/internal/statexfer"
)

// addresses gives every instance a loopback address of its own.
var addresses atomic.Uint32

func nextAddress() string {
	n := addresses.Add(1)
	return fmt.Sprintf("127.37.%d.%d", n/250, n%250+1)
}

// listen takes the port that an instance of the same processor has on another address, or any if it is 0.
func listen(tb testing.TB, address string, port int32) (net.Listener, int32) {
	tb.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(int(port)))) //nolint:noctx // A test's own.
	if err != nil {
		tb.Fatal(err)
	}
	return l, int32(l.Addr().(*net.TCPAddr).Port)
}

// double is a processor on an SDK that knows neither positions nor handoffs, like the public one.
type double struct {
	clock   clock.PassiveClock
	address string
	port    int32

	mu      sync.Mutex
	pod     string
	started time.Time
	state   string
	// fault answers in place of the processor, where it is not nil and answers true.
	fault func(w http.ResponseWriter, r *http.Request) bool
	// gets and posts count requests for the state.
	gets, posts int
	requests    int
}

const token = "token-of-the-namespace"

func newDouble(tb testing.TB, clk clock.PassiveClock, port int32) *double {
	tb.Helper()
	d := &double{clock: clk, address: nextAddress(), started: clk.Now(), state: `{}`}
	var l net.Listener
	l, d.port = listen(tb, d.address, port)
	server := httptest.NewUnstartedServer(d)
	_ = server.Listener.Close()
	server.Listener = l
	server.Start()
	tb.Cleanup(server.Close)
	return d
}

// ServeHTTP answers as the contract says.
func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests++
	if d.fault != nil && d.fault(w, r) {
		return
	}
	switch {
	case r.URL.Path != "/state":
		http.Error(w, `{"error":"Not Found"}`, http.StatusNotFound)
	case r.Header.Get("Authorization") != "Bearer "+token:
		http.Error(w, `{"error":"no"}`, http.StatusUnauthorized)
	case r.Method == http.MethodGet:
		d.gets++
		fmt.Fprint(w, d.answer(d.state))
	default:
		d.posts++
		var body struct {
			Data json.RawMessage `json:"data"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, `{"error":"malformed"}`, http.StatusBadRequest)
			return
		}
		d.state = string(body.Data)
		fmt.Fprint(w, `{"status":"ok","message":"State restored"}`)
	}
}

func (d *double) answer(state string) string {
	now := d.clock.Now()
	return fmt.Sprintf(`{"pod_name":%q,"app_name":"cam","captured_at":%q,"state_version":"1.0","data":%s,"metrics":{},"connections":[],`+
		`"active_sessions":0,"session_data":{},"uptime_seconds":%f,"request_count":1,"last_health_time":null}`,
		d.pod, statexfer.FormatTime(now), state, now.Sub(d.started).Seconds())
}

// set is what its iterations do.
func (d *double) set(state string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = state
}

// restart is a new process at the same address.
func (d *double) restart(state string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state, d.started = state, d.clock.Now()
}

func (d *double) breaks(fault func(w http.ResponseWriter, r *http.Request) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
}

func (d *double) has() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(strings.Fields(d.state), "")
}

func (d *double) counted() (gets, posts, requests int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gets, d.posts, d.requests
}

// onState answers requests for the state only.
func onState(answer http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/state" {
			return false
		}
		answer(w, r)
		return true
	}
}

// hurried is a clock whose waits are over soon, so that tests of repetitions do not wait. What bounds a request, and is
// nothing to wait for, is left some time: machines are busy.
type hurried struct{ clock.RealClock }

const (
	haste          = 200
	requestTimeout = 30 * time.Second
)

func (hurried) NewTimer(d time.Duration) clock.Timer {
	if d == requestTimeout {
		return clock.RealClock{}.NewTimer(d / 3)
	}
	return clock.RealClock{}.NewTimer(d / haste)
}
